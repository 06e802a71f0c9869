"""The options of a training run: plain data, validated when made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gfnmc.core.errors import OptionError


@dataclass(frozen=True)
class TrainingConfig:
    """Trajectory balance with an annealed reward and a replay buffer.

    Attributes:
        num_steps: Optimiser steps.
        batch_size: Paths that P_F draws in a step; each costs a target call.
        replay_batch_size: Objects taken from the buffer in a step and given new backward paths; these cost none.
        buffer_size: Distinct objects that the buffer remembers, the newest.
        replay_power: An object is replayed in proportion to its annealed reward to this power; 0 is uniform.
        learning_rate: Adam's step size for the policies.
        log_z_learning_rate: Adam's step size for log Z.
        lr_warmup_steps: Steps over which the step sizes grow from zero.
        lr_decay_from: Fraction of the run after which the step sizes fall, along a cosine.
        anneal_until: Fraction of the run after which the reward is the full one; before, log R is multiplied by a
            factor that grows linearly from 0.
        epsilon: Weight of uniform actions mixed into P_F when it draws; the paths are scored without it.
        max_grad_norm: Gradients are scaled down to this norm.
        log_reward_range: log R is raised to no less than this many nats below the best seen, for impossible
            objects would make the loss infinite.
        hidden_size: Width of the default network.
        num_layers: Hidden layers of the default network.
        checkpoint_every: Steps from one checkpoint to the next, where a path is given.
    """

    num_steps: int = 2_000
    batch_size: int = 192
    replay_batch_size: int = 192
    buffer_size: int = 65_536
    replay_power: float = 0.5
    learning_rate: float = 2e-3
    log_z_learning_rate: float = 5e-2
    lr_warmup_steps: int = 100
    lr_decay_from: float = 0.5
    anneal_until: float = 0.5
    epsilon: float = 0.02
    max_grad_norm: float = 5.0
    log_reward_range: float = 100.0
    hidden_size: int = 256
    num_layers: int = 1
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = int if field.type is int else int | float
            if not isinstance(value, wanted) or isinstance(value, bool):
                kind = "an integer" if field.type is int else "a number"
                raise OptionError(f"{field.name} is {value!r}; it must be {kind}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not value >= least:
                raise OptionError(f"{name} is {value}; it must be at least {least}")
        for name in ("lr_decay_from", "anneal_until", "epsilon"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.epsilon == 1.0:
            raise OptionError("epsilon is 1; it must be below 1, or nothing is drawn by P_F itself")
        for name in ("learning_rate", "log_z_learning_rate", "max_grad_norm", "log_reward_range"):
            if not getattr(self, name) > 0.0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be positive")

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


_LEAST = {
    "num_steps": 1,
    "batch_size": 1,
    "replay_batch_size": 0,
    "buffer_size": 1,
    "replay_power": 0.0,
    "lr_warmup_steps": 0,
    "hidden_size": 1,
    "num_layers": 0,
    "checkpoint_every": 1,
}
