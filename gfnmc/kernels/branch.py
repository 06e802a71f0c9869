"""Branch laws: how far a proposal takes an object apart before it is rebuilt.

A *suffix law* draws the number K of actions to undo, counted back from the object, and stops at the source all the
same. Given K the branch state s_m at k steps back has

    b = P(K = k)   where s_m is not the source,     b = P(K >= k)   where it is,

or, as a hazard, after k steps the walk stops with probability h(k) = P(K = k) / P(K >= k). Objects of different length
have different b, so it belongs in the acceptance ratio.

A *prefix law* draws the depth m of the branch state, counted from the source. It depends only on the part that
both paths share and cancels. Where m exceeds the path, the chain stays (a lazy step).

What to choose, and why: docs/explanation/branch-laws.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments.base import Environment


class SuffixLaw(ABC):
    """A law of the number K of actions to undo."""

    @abstractmethod
    def log_pmf(self, first: int, max_depth: int) -> Float64[Tensor, " depths"]:
        """Return log P(K = k) for k = 0 ... max_depth, all that lies above counted into the last entry.

        Args:
            first: Fewest actions that may be undone: 0 where an object itself can be extended (there is an exit
                action), else 1.
            max_depth: Longest path; undoing as many actions always reaches the source.

        Raises:
            OptionError: If the law undoes fewer actions than `first`.
        """


class PrefixLaw(ABC):
    """A law of the depth m of the branch state."""

    @abstractmethod
    def log_pmf(self, max_depth: int) -> Float64[Tensor, " depths"]:
        """Return log q(m) for m = 0 ... max_depth."""


BranchLaw = SuffixLaw | PrefixLaw


@dataclass(frozen=True)
class Fixed(SuffixLaw):
    """Always undo `num_steps` actions. Not irreducible by itself where paths are longer."""

    num_steps: int

    def log_pmf(self, first: int, max_depth: int) -> Tensor:
        return Table({self.num_steps: 1.0}).log_pmf(first, max_depth)


@dataclass(frozen=True)
class Uniform(SuffixLaw):
    """Undo a number of actions that is uniform over low ... high.

    Args:
        low: Fewest; as few as are legal by default.
        high: Most; the longest path by default.
    """

    low: int | None = None
    high: int | None = None

    def log_pmf(self, first: int, max_depth: int) -> Tensor:
        low = first if self.low is None else self.low
        high = max_depth if self.high is None else self.high
        if low > high:
            raise OptionError(f"a uniform law over {low} ... {high} steps back is empty")
        return Table(dict.fromkeys(range(low, high + 1), 1.0)).log_pmf(first, max_depth)


@dataclass(frozen=True)
class Geometric(SuffixLaw):
    """After the fewest legal number of undone actions, and after each further one, stop with probability `stop`."""

    stop: float

    def __post_init__(self) -> None:
        if not 0.0 < self.stop < 1.0:
            raise OptionError(f"stop is {self.stop}; it must lie between 0 and 1")

    def log_pmf(self, first: int, max_depth: int) -> Tensor:
        further = torch.arange(max_depth + 1, dtype=torch.float64) - first
        log_pmf = further * math.log1p(-self.stop)
        log_pmf[:max_depth] += math.log(self.stop)
        return log_pmf.masked_fill(further < 0, -math.inf)


@dataclass(frozen=True)
class Table(SuffixLaw):
    """Undo k actions with probability proportional to `weights[k]`."""

    weights: Mapping[int, float]

    def log_pmf(self, first: int, max_depth: int) -> Tensor:
        if any(steps < first and weight > 0 for steps, weight in self.weights.items()):
            raise OptionError(f"this environment needs at least {first} step(s) back, or nothing is left to rebuild")
        clipped: dict[int, float] = {}
        for steps, weight in self.weights.items():
            clipped[min(steps, max_depth)] = clipped.get(min(steps, max_depth), 0.0) + weight
        return _log_table(clipped, max_depth)


@dataclass(frozen=True)
class PrefixUniform(PrefixLaw):
    """Branch at a depth that is uniform over low ... high.

    Args:
        low: Shallowest; the source by default.
        high: Deepest; the longest path by default.
    """

    low: int = 0
    high: int | None = None

    def log_pmf(self, max_depth: int) -> Tensor:
        high = max_depth if self.high is None else min(self.high, max_depth)
        return _log_table(dict.fromkeys(range(self.low, high + 1), 1.0), max_depth)


@dataclass(frozen=True)
class PrefixTable(PrefixLaw):
    """Branch at depth m with probability proportional to `weights[m]`."""

    weights: Mapping[int, float]

    def log_pmf(self, max_depth: int) -> Tensor:
        if any(depth > max_depth for depth in self.weights):
            raise OptionError(f"a depth of {max(self.weights)} is beyond the longest path, {max_depth}")
        return _log_table(self.weights, max_depth)


@dataclass(frozen=True)
class FullRestart(PrefixLaw):
    """Always rebuild from the source: independence Metropolis-Hastings."""

    def log_pmf(self, max_depth: int) -> Tensor:
        return _log_table({0: 1.0}, max_depth)


def half_restarts(environment: Environment) -> BranchLaw:
    """Return the law that restarts from the source in half of the moves, and else undoes a part.

    Restarts cross between modes; how much the others undo is uniform over all that is less. Where all objects have the
    same length this is a suffix law, elsewhere a prefix law, under which a good pair is always accepted.

    Raises:
        CapabilityError: If the environment has no `max_depth`.
    """
    others = checked_max_depth(environment) - 1
    if others < 1:
        return FullRestart()
    if environment.is_fixed_length:
        return Table({**dict.fromkeys(range(1, others + 1), 1.0), others + 1: float(others)})
    return PrefixTable({0: float(others), **dict.fromkeys(range(1, others + 1), 1.0)})


def preferring(law: BranchLaw, log_pmf: Float64[Tensor, " depths"], place: int, floor: float) -> BranchLaw:
    """Return `floor` times a law plus 1 - `floor` times the law that always takes one place.

    Args:
        law: A suffix law or a prefix law; so is what is returned.
        log_pmf: Its log-probabilities.
        place: The number of steps back, or the depth.
        floor: What the law keeps, above 0, so that whatever it does is done now and then.
    """
    weights = {other: floor * chance for other, chance in enumerate(log_pmf.exp().tolist()) if chance > 0.0}
    weights[place] = weights.get(place, 0.0) + 1.0 - floor
    return Table(weights) if isinstance(law, SuffixLaw) else PrefixTable(weights)


def checked_max_depth(environment: Environment) -> int:
    """Return the length of the longest path.

    Raises:
        CapabilityError: If the environment does not declare it.
    """
    if environment.max_depth is None:
        raise CapabilityError(
            f"{type(environment).__name__} has no max_depth; declare the longest path, a bound will do"
        )
    return environment.max_depth


def log_branch_probability(
    log_pmf: Float64[Tensor, " depths"], num_steps: Int64[Tensor, " batch"], at_source: Tensor
) -> Float64[Tensor, " batch"]:
    """Return log b of a suffix law for branch states `num_steps` back, nats.

    Args:
        log_pmf: The law, from `SuffixLaw.log_pmf`.
        num_steps: Actions between the branch state and the object.
        at_source: Whether the branch state is the source.
    """
    log_survival = log_pmf.flip(0).logcumsumexp(0).flip(0)
    return torch.where(at_source, log_survival[num_steps], log_pmf[num_steps])


def _log_table(weights: Mapping[int, float], max_depth: int) -> Float64[Tensor, " depths"]:
    table = torch.zeros(max_depth + 1, dtype=torch.float64)
    for place, weight in weights.items():
        if place < 0 or not 0.0 <= weight < math.inf:
            raise OptionError(f"weight {weight} at {place}: places and weights must be non-negative and finite")
        table[place] = weight
    if not table.sum() > 0:
        raise OptionError("a branch law needs a positive weight somewhere")
    return (table / table.sum()).log()
