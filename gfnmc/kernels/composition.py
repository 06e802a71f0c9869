"""Compositions of kernels on one target: all in turn, or one drawn at random.

A cycle or a mixture of kernels that leave the target invariant leaves it invariant. A mixture of reversible kernels
is reversible, a cycle is not. The recommended sampler is Cycle([SuffixResampling(...), RandomWalk(...)]): large steps
between the modes, small ones within them.
"""

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature
from gfnmc.kernels.base import CALLS, Info, Kernel, Reach, State

CompositionType = TypeVar("CompositionType", bound="Composition")


class Composition(Kernel):
    """What cycles and mixtures share: chains start as the first kernel says, and tempering tempers every part.

    Args:
        kernels: Kernels on the same target.

    Raises:
        OptionError: If there are none, they have different targets, or more than one keeps a cache.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = _checked(kernels)
        self.target = kernels[0].target
        self.environment = kernels[0].environment
        self.training_cost = _training_cost(kernels)
        self.keeps_cache = any(kernel.keeps_cache for kernel in kernels)

    def start(self, draws: Draws) -> Tensor:
        return self.kernels[0].start(draws)

    def init(self, position: Shaped[Tensor, "chains *event"], draws: Draws | None = None) -> State:
        return self.kernels[0].init(position, draws)

    def refresh(self, state: State) -> State:
        # A kernel that keeps a cache refreshes that as well.
        return max(self.kernels, key=lambda kernel: kernel.keeps_cache).refresh(state)

    def tempered(self: CompositionType, inverse_temperature: InverseTemperature) -> CompositionType:
        tempered = copy.copy(self)
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        tempered.kernels = tuple(kernel.tempered(inverse_temperature) for kernel in self.kernels)
        return tempered


class Cycle(Composition):
    """Apply every kernel once, in order; one step is the whole round.

    Args:
        kernels: Kernels on the same target.

    Raises:
        OptionError: If there are none, they have different targets, or more than one keeps a cache.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        super().__init__(kernels)
        self.name = " + ".join(kernel.name for kernel in kernels)
        self.calls_per_step = sum(kernel.calls_per_step for kernel in kernels)
        names = [kernel.name for kernel in kernels]
        self._part_names = [
            name if names.count(name) == 1 else f"{name} {1 + names[:place].count(name)}"
            for place, name in enumerate(names)
        ]

    @property
    def reach(self) -> Reach:
        """From everywhere to everywhere if one kernel does; connected if one does while the others may stay put."""
        if any(kernel.reach is Reach.EVERYWHERE for kernel in self.kernels):
            return Reach.EVERYWHERE
        for place, kernel in enumerate(self.kernels):
            others = self.kernels[:place] + self.kernels[place + 1 :]
            if kernel.reach is Reach.CONNECTED and all(other.may_stay for other in others):
                return Reach.CONNECTED
        return Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        return all(kernel.may_stay for kernel in self.kernels)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        infos = []
        for place, kernel in enumerate(self.kernels):
            state, info = kernel.step(draws.role(f"cycle{place}"), state)
            infos.append(info)
        parts = dict(zip(self._part_names, infos, strict=True))
        calls = {name: sum(getattr(info, name) for info in infos) for name in CALLS}
        extras = {name: value for info in infos for name, value in info.extras.items()}
        return state, infos[0]._replace(**calls, parts=parts, extras=extras)


class Mixture(Composition):
    """Apply one kernel, drawn by fixed weights, to all chains together.

    One draw may serve all chains because each kernel alone leaves the target invariant.

    Args:
        kernels: Kernels on the same target.
        weights: Positive weights, equal by default; they need not sum to one.

    Raises:
        OptionError: If there are no kernels, they have different targets, more than one keeps a cache, or weights do
            not fit.
    """

    def __init__(self, kernels: Sequence[Kernel], weights: Sequence[float] | None = None) -> None:
        super().__init__(kernels)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(kernels)
        if len(self.weights) != len(kernels) or not all(0.0 < weight < math.inf for weight in self.weights):
            raise OptionError(f"weights {self.weights} must be positive, one for each of {len(kernels)} kernels")
        self.name = " | ".join(kernel.name for kernel in kernels)
        self.calls_per_step = max(kernel.calls_per_step for kernel in kernels)
        table = torch.tensor(self.weights, dtype=torch.float64)
        self._log_weights = (table / table.sum()).log()

    @property
    def reach(self) -> Reach:
        return max(kernel.reach for kernel in self.kernels)

    @property
    def may_stay(self) -> bool:
        return any(kernel.may_stay for kernel in self.kernels)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        chosen = draws.role("mixture").shared_categorical(self._log_weights)
        state, info = self.kernels[chosen].step(draws.role(f"mixture{chosen}"), state)
        # Which parts report would change from step to step, and a record has a value at every draw.
        return state, info._replace(parts={}, extras={})


def _checked(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    if not kernels:
        raise OptionError("a composition needs at least one kernel")
    if any(kernel.target is not kernels[0].target for kernel in kernels):
        raise OptionError("the kernels of a composition must share one target object")
    if sum(kernel.keeps_cache for kernel in kernels) > 1:
        names = ", ".join(kernel.name for kernel in kernels if kernel.keeps_cache)
        raise OptionError(f"{names} would overwrite each other's cache; put only one of them in a composition")
    return tuple(kernels)


def _training_cost(kernels: Sequence[Kernel]) -> Cost:
    """Return the cost of training, counted once where kernels share a pair."""
    return sum(dict.fromkeys(kernel.training_cost for kernel in kernels), Cost())
