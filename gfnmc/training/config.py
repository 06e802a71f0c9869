"""The options of a training run: plain data, validated when made."""

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin

from gfnmc.core.errors import OptionError

Objective = Literal[
    "trajectory_balance",
    "log_partition_variance",
    "detailed_balance",
    "modified_detailed_balance",
    "subtrajectory_balance",
    "forward_looking_detailed_balance",
    "forward_looking_subtrajectory_balance",
    "flow_matching",
    "maximum_likelihood",
]
Backward = Literal["uniform", "learned", "max_entropy", "trajectory_likelihood", "flow"]
Network = Literal["mlp", "transformer", "message_passing"]
SymmetryUse = Literal["none", "average", "canonicalise"]
Seeding = Literal["auto", "tempering", "none"]
RewardSchedule = Literal["auto", "fixed", "annealed", "adaptive"]
ReplayPriority = Literal["reward", "novelty", "uniform"]


@dataclass(frozen=True)
class TrainingConfig:
    """What is learned from which objects, for how long, by which network.

    The default covers the modes: tempered chains on the target supply objects from everywhere (seeds), P_F first learns
    to make them by maximum likelihood on backward paths, and trajectory balance on seeds, its own objects and
    remembered ones then makes it exact. Where the target can not be tempered, the reward is annealed instead.

    Attributes:
        num_steps: Optimiser steps, at most. None takes as many as meet about `num_states` states, from 300 to 2,500:
            a step on long paths costs more, and teaches more.
        num_states: States met in a run whose `num_steps` is None.
        objective: The loss, one of the files of `gfnmc.objectives`.
        subtrajectory_decay: lambda of sub-trajectory balance, in (0, 1].
        backward: P_B of a new pair: "uniform"; "learned" by the same loss; "max_entropy", every path to an object
            equally likely; "trajectory_likelihood", learned to retrace the paths of P_F; "flow", what P_F and the state
            flow imply (flow matching needs it).
        batch_size: Paths that P_F draws in a step; each costs a target call.
        epsilon: Weight of uniform actions mixed into P_F when it draws; the paths are scored without it.
        temperature: Divides the logits of P_F when it draws; the paths are scored without it.
        seeding: Whether tempered chains of local moves supply objects: "tempering", "none", or "auto", which does
            where it can.
        seed_batch_size: Seeds in a step, each given a new backward path.
        seed_chains: Tempered chains; a quarter of them is held out for judging the pair.
        seed_warmup: Sweeps of every replica before the first seed is kept.
        seed_every: Steps from one sweep of the chains to the next.
        seed_ess: Least effective fraction of a population from one rung of the ladder to the next.
        likelihood_until: Fraction of the run in which P_F learns the seeds by maximum likelihood alone.
        replay_batch_size: Remembered objects in a step, each given a new backward path; they cost no target call.
        buffer_size: Distinct objects remembered, the newest.
        replay_priority: What is replayed more often: "reward", "novelty" (and reward), or nothing ("uniform").
        replay_power: An object is replayed in proportion to its scheduled reward to this power, unless uniform.
        novelty_power: With priority "novelty", also in proportion to its distance from what was remembered before it,
            to this power.
        chain_batch_size: Back-and-forth chains of the pair itself (one kernel step a training step) that supply
            objects; each step costs a target call a chain.
        reward_schedule: The power of the reward that is learned: "fixed" at 1, "annealed" linearly from 0, "adaptive"
            (each check raises it as far as the effective sample size allows), or "auto": fixed with seeds and for
            families of targets, else annealed.
        anneal_until: Fraction of the run after which an annealed reward is the full one.
        adaptive_ess: Least effective fraction of the pair's own objects when an adaptive reward is raised.
        log_reward_range: log R is raised to no less than this many nats below the best seen, for impossible
            objects would make the loss infinite.
        learning_rate: Adam's step size for the networks.
        log_z_learning_rate: Adam's step size for log Z.
        lr_warmup_steps: Steps over which the step sizes grow from zero.
        lr_decay_from: Fraction of the run after which the step sizes fall, along a cosine.
        max_grad_norm: Gradients are scaled down to this norm.
        network: The policy of a new pair.
        hidden_size: Its width.
        num_layers: Its hidden layers (blocks of a transformer, rounds of message passing).
        symmetry: Whether the policy is averaged over the symmetries that the target declares, or sees a canonical
            form of each state.
        check_every: Steps from one look at the quality of the pair to the next.
        check_size: Objects drawn at each look, for as many target calls, and held-out seeds compared with them.
        stop_at_acceptance: Training ends when two looks in a row predict at least this acceptance of a full restart;
            above 1 never.
        checkpoint_every: Steps from one checkpoint to the next, where a path is given.
    """

    num_steps: int | None = None
    num_states: int = 12_000_000
    objective: Objective = "trajectory_balance"
    subtrajectory_decay: float = 0.9
    backward: Backward = "uniform"
    batch_size: int = 64
    epsilon: float = 0.02
    temperature: float = 1.0
    seeding: Seeding = "auto"
    seed_batch_size: int = 64
    seed_chains: int = 48
    seed_warmup: int = 50
    seed_every: int = 5
    seed_ess: float = 0.5
    likelihood_until: float = 0.25
    replay_batch_size: int = 32
    buffer_size: int = 65_536
    replay_priority: ReplayPriority = "reward"
    replay_power: float = 0.5
    novelty_power: float = 1.0
    chain_batch_size: int = 0
    reward_schedule: RewardSchedule = "auto"
    anneal_until: float = 0.5
    adaptive_ess: float = 0.3
    log_reward_range: float = 100.0
    learning_rate: float = 4e-3
    log_z_learning_rate: float = 5e-2
    lr_warmup_steps: int = 50
    lr_decay_from: float = 0.4
    max_grad_norm: float = 5.0
    network: Network = "mlp"
    hidden_size: int = 128
    num_layers: int = 2
    symmetry: SymmetryUse = "none"
    check_every: int = 100
    check_size: int = 512
    stop_at_acceptance: float = 0.95
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            _check_kind(name, getattr(self, name), kind)
        for name, least in _LEAST.items():
            if getattr(self, name) is not None and not getattr(self, name) >= least:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in _FRACTIONS:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.epsilon == 1.0:
            raise OptionError("epsilon is 1; it must be below 1, or nothing is drawn by P_F itself")
        for name in ("seed_ess", "adaptive_ess"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must lie strictly between 0 and 1")
        for name in _POSITIVE:
            if not getattr(self, name) > 0.0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.subtrajectory_decay > 1.0:
            raise OptionError(f"subtrajectory_decay is {self.subtrajectory_decay}; it must be at most 1")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if (self.objective == "flow_matching") != (self.backward == "flow"):
            raise OptionError(
                f"objective {self.objective!r} does not go with backward {self.backward!r}; flow matching learns no "
                "P_B of its own, so it takes backward='flow', which no other objective does"
            )
        if self.objective == "maximum_likelihood" and (self.seeding == "none" or self.seed_batch_size == 0):
            raise OptionError("maximum likelihood learns given objects only; it needs seeds (seeding, seed_batch_size)")
        if self.objective == "maximum_likelihood" and self.backward in ("learned", "trajectory_likelihood"):
            raise OptionError(
                f"maximum likelihood has no paths of P_F to learn a backward policy from; choose backward='uniform' or "
                f"'max_entropy' instead of {self.backward!r}"
            )

    @property
    def total_steps(self) -> int:
        """`num_steps`, which the trainer fills in before the first step where it is None."""
        assert self.num_steps is not None
        return self.num_steps

    def with_num_steps(self, mean_length: float) -> "TrainingConfig":
        """Return the same options with `num_steps` filled in for paths of a mean length, in actions."""
        if self.num_steps is not None:
            return self
        batch = self.batch_size + self.seed_batch_size + self.replay_batch_size + self.chain_batch_size
        num_steps = self.num_states / (batch * max(mean_length, 1.0))
        return replace(self, num_steps=round(min(max(num_steps, _FEWEST_STEPS), _MOST_STEPS)))

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "TrainingConfig":
        """Return a config from plain data.

        Raises:
            OptionError: If an option is unknown or has a bad value.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise OptionError(f"unknown training option {unknown[0]!r}; the options are {', '.join(sorted(known))}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain data."""
        return asdict(self)


_FEWEST_STEPS, _MOST_STEPS = 300, 2_500
_LEAST = {
    "num_steps": 1,
    "num_states": 1,
    "batch_size": 1,
    "seed_batch_size": 0,
    "seed_chains": 4,
    "seed_warmup": 0,
    "seed_every": 1,
    "replay_batch_size": 0,
    "buffer_size": 1,
    "replay_power": 0.0,
    "novelty_power": 0.0,
    "chain_batch_size": 0,
    "lr_warmup_steps": 0,
    "hidden_size": 1,
    "num_layers": 0,
    "check_every": 1,
    "check_size": 8,
    "checkpoint_every": 1,
}
_FRACTIONS = ("lr_decay_from", "anneal_until", "epsilon", "likelihood_until")
_POSITIVE = (
    "learning_rate",
    "log_z_learning_rate",
    "max_grad_norm",
    "log_reward_range",
    "temperature",
    "subtrajectory_decay",
    "stop_at_acceptance",
)


def _check_kind(name: str, value: Any, kind: Any) -> None:
    """Hold an option to its type, as messages call it."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise OptionError(f"{name} is {value!r}; choose one of {', '.join(get_args(kind))}")
        return
    if value is None and type(None) in get_args(kind):
        return
    wanted: type | types.UnionType = int if kind in (int, int | None) else int | float
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise OptionError(f"{name} is {value!r}; it must be {'an integer' if wanted is int else 'a number'}")
