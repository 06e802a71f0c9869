"""Where the paths of a training step come from: P_F itself, seeds, remembered objects, chains of the pair.

Objects of the pair cost a target call each and are remembered; so are seeds, whose calls the tempered chains have paid.
Objects from elsewhere than P_F get a new path by P_B each time they are learned from.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.kernels.base import State
from gfnmc.kernels.suffix import SuffixResampling
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.path import Path, joined
from gfnmc.policies.rollout import walk_backward, walk_forward
from gfnmc.targets.base import Target, checked_estimate
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.config import TrainingConfig
from gfnmc.training.replay import ReplayBuffer
from gfnmc.training.seeds import Seeds

_NUM_MEASURED = 64


class Drawn(NamedTuple):
    """Paths of one training step.

    Attributes:
        path: Complete paths.
        log_prob: log R of their objects, nats, as the target gave it.
        condition: A condition a path; None for a single target.
        is_own: Which of them P_F drew.
        calls: What they cost; the scores of P_F and P_B along the paths aside.
    """

    path: Path
    log_prob: Float64[Tensor, " batch"]
    condition: Float64[Tensor, "batch conditions"] | None
    is_own: Bool[Tensor, " batch"]
    calls: Cost


class _Objects(NamedTuple):
    """Objects that wait for a backward path."""

    objects: Shaped[Tensor, "n *event"]
    log_prob: Float64[Tensor, " n"]
    condition: Float64[Tensor, "n conditions"]


@dataclass(eq=False)
class Sources:
    """All that a training step draws from.

    Attributes:
        pair: The pair in training.
        target: A target, or a family of targets.
        config: Options.
        seed: Names the run.
        buffer: Objects remembered.
        seeds: Tempered chains; None where there are none.
        chains: Where the back-and-forth chains of the pair stand; None before their first step.
    """

    pair: GFlowNet
    target: Target | ConditionalTarget
    config: TrainingConfig
    seed: int
    buffer: ReplayBuffer
    seeds: Seeds | None
    chains: State | None = None

    def mean_length(self) -> float:
        """Return the mean length of paths, in actions: to seeds where there are any, else of P_F as it begins."""
        draws = PhiloxDraws(self.seed, "lengths", _NUM_MEASURED)
        if self.seeds is not None:
            path = self._taken_apart([self._seeds(draws)], 0)
        else:
            _, _, pair = self._bound(draws)
            path = walk_forward(pair.forward, pair.environment, pair.environment.source(_NUM_MEASURED), draws)
        return float(path.lengths.to(torch.float64).mean())

    def draw_seeds(self, step: int) -> Drawn:
        """Return paths to seeds alone, as maximum likelihood wants them."""
        assert self.seeds is not None
        count = self.config.seed_batch_size + self.config.batch_size
        found = self._seeds(PhiloxDraws(self.seed, "seed choice", count).at(step))
        path = self._taken_apart([found], step)
        return self._drawn([path], [found], torch.zeros(count, dtype=torch.bool), Cost())

    def draw(self, step: int, power: float) -> Drawn:
        """Return paths from all sources, the pair's own first.

        Args:
            step: The training step.
            power: The scheduled power of the reward.
        """
        config = self.config
        own_path, own = self._own(step)
        given = []
        if self.seeds is not None and config.seed_batch_size:
            given.append(self._seeds(PhiloxDraws(self.seed, "seed choice", config.seed_batch_size).at(step)))
        calls = Cost(target_calls=len(own.log_prob))
        self._remember(own)
        if config.chain_batch_size:
            moved, moved_calls = self._chain_objects(step)
            calls += moved_calls
            given.append(moved)
            self._remember(moved)
        if config.replay_batch_size:
            draws = PhiloxDraws(self.seed, "replay", config.replay_batch_size).at(step)
            place = self.buffer.choose(
                draws.role("choice"),
                config.replay_power * power,
                priority=config.replay_priority,
                novelty_power=config.novelty_power,
            )
            held = self.buffer
            given.append(_Objects(held.objects[place], held.log_reward[place], held.conditions[place]))
        paths = [own_path] if not given else [own_path, self._taken_apart(given, step)]
        is_own = torch.arange(len(own.log_prob) + sum(len(part.log_prob) for part in given)) < len(own.log_prob)
        return self._drawn(paths, [own, *given], is_own, calls)

    def remember_seeds(self) -> None:
        """Put the newest seeds into the buffer, where they compete with what the pair makes."""
        if self.seeds is not None:
            self._remember(self._as_objects(*self.seeds.newest()))

    def restore(self, seeds: dict[str, Any] | None, tensors: dict[str, Tensor], num_added: int) -> None:
        """Take up seeds and chains as a checkpoint holds them; the buffer's tensors are written already."""
        self.buffer.restore(num_added)
        if seeds is None:
            self.seeds = None
        else:
            assert self.seeds is not None
            named = {name.removeprefix("seeds."): value for name, value in tensors.items() if name.startswith("seeds.")}
            self.seeds.restore(seeds, named)
        if "chains.position" in tensors:
            self.chains = State(tensors["chains.position"], tensors["chains.log_prob"])

    def _own(self, step: int) -> tuple[Path, _Objects]:
        config = self.config
        draws = PhiloxDraws(self.seed, "train", config.batch_size).at(step)
        target, condition, pair = self._bound(draws)
        explored = pair.forward.with_exploration(temperature=config.temperature, epsilon=config.epsilon)
        path = walk_forward(
            explored, pair.environment, pair.environment.source(config.batch_size), draws.role("forward")
        )
        objects = pair.environment.objects(path.end)
        return path, _Objects(objects, checked_estimate(target, objects, draws.role("estimate")), condition)

    def _bound(self, draws: PhiloxDraws) -> tuple[Target, Float64[Tensor, "rows conditions"], GFlowNet]:
        """Return target and pair under a condition for each row of `draws`."""
        if not isinstance(self.target, ConditionalTarget):
            return self.target, torch.zeros(draws.num_rows, 0, dtype=torch.float64), self.pair
        condition = self.target.sample_conditions(draws.role("condition"))
        return self.target.given(condition), condition, self.pair.given(condition)

    def _seeds(self, draws: PhiloxDraws) -> _Objects:
        assert self.seeds is not None
        return self._as_objects(*self.seeds.sample(draws))

    def _as_objects(self, objects: Tensor, log_prob: Tensor, condition: Tensor) -> _Objects:
        if not isinstance(self.target, ConditionalTarget):
            return _Objects(objects, log_prob, condition[:, :0])
        # The condition of a tempered family is the inverse temperature, and its log R is that of the power.
        power = condition[:, 0]
        return _Objects(objects, torch.where(power == 0.0, 0.0, power * log_prob), condition)

    def _chain_objects(self, step: int) -> tuple[_Objects, Cost]:
        """Move each chain once by the pair as it is now; they start from remembered objects, which are possible."""
        assert isinstance(self.target, Target)
        draws = PhiloxDraws(self.seed, "chains", self.config.chain_batch_size).at(step)
        if self.chains is None:
            place = self.buffer.choose(draws.role("start"), 0.0, priority="uniform")
            self.chains = State(self.buffer.objects[place], self.buffer.log_reward[place])
        self.chains, info = SuffixResampling(self.pair, self.target).step(draws, self.chains)
        condition = torch.zeros(len(self.chains.log_prob), 0, dtype=torch.float64)
        calls = info.cost()
        return _Objects(self.chains.position, self.chains.log_prob, condition), calls

    def _taken_apart(self, given: list[_Objects], step: int) -> Path:
        together = _joined_objects(given)
        draws = PhiloxDraws(self.seed, "taking apart", len(together.log_prob)).at(step)
        environment = self.pair.environment
        pair = self.pair.given(together.condition) if together.condition.shape[1] else self.pair
        return walk_backward(pair.backward, environment, environment.states(together.objects), None, draws)

    def _remember(self, found: _Objects) -> None:
        if self.config.replay_batch_size == 0 and self.config.chain_batch_size == 0:
            return
        self.buffer.add(found.objects, found.log_prob, found.condition)

    def _drawn(self, paths: list[Path], parts: list[_Objects], is_own: Tensor, calls: Cost) -> Drawn:
        path = paths[0] if len(paths) == 1 else joined(*paths)
        together = _joined_objects(parts)
        condition = together.condition if together.condition.shape[1] else None
        return Drawn(path, together.log_prob, condition, is_own, calls)


def _joined_objects(parts: list[_Objects]) -> _Objects:
    return _Objects(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))
