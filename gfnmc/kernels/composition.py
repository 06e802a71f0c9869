"""Compositions of kernels on one target: all in turn, or one drawn at random.

A cycle or a mixture of kernels that leave the target invariant leaves it invariant. A mixture of reversible kernels
is reversible, a cycle is not. The recommended sampler is Cycle([SuffixResampling(...), RandomWalk(...)]): large steps
between the modes, small ones within them; `recommended` makes it.
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature
from gfnmc.kernels.adaptation import Unadapted
from gfnmc.kernels.base import CALLS, Adaptation, Info, Kernel, Reach, State

CompositionType = TypeVar("CompositionType", bound="Composition")
Step = Callable[[Draws, State], tuple[State, Info]]


class Composition(Kernel):
    """What cycles and mixtures share.

    Chains start as the first kernel says; tempering tempers every part, and a warm-up that adapts tunes every part that
    can be tuned.

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
        return self._keeper.refresh(state)

    def cache_tensors(self, cache: Any) -> dict[str, Tensor]:
        return self._keeper.cache_tensors(cache)

    def cache_from(self, tensors: Mapping[str, Tensor]) -> Any:
        return self._keeper.cache_from(tensors)

    @property
    def _keeper(self) -> Kernel:
        """The kernel that keeps a cache, if there is one."""
        return max(self.kernels, key=lambda kernel: kernel.keeps_cache)

    def tempered(self: CompositionType, inverse_temperature: InverseTemperature) -> CompositionType:
        tempered = self.of([kernel.tempered(inverse_temperature) for kernel in self.kernels])
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        return tempered

    def of(self: CompositionType, kernels: Sequence[Kernel]) -> CompositionType:
        """Return the same composition of other versions of its kernels, such as tempered or tuned ones."""
        made = copy.copy(self)
        made.kernels = tuple(kernels)
        made.calls_per_step = self._calls_per_step(made.kernels)
        return made

    def adaptation(self) -> "PartsAdaptation | None":
        parts = [kernel.adaptation() for kernel in self.kernels]
        if all(part is None for part in parts):
            return None
        return PartsAdaptation(
            self, [part or Unadapted(kernel) for part, kernel in zip(parts, self.kernels, strict=True)]
        )

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        return self.step_by([kernel.step for kernel in self.kernels], draws, state)

    @abstractmethod
    def step_by(self, steps: Sequence[Step], draws: Draws, state: State) -> tuple[State, Info]:
        """Move every chain once, by one step function in the place of each kernel's own."""

    @staticmethod
    @abstractmethod
    def _calls_per_step(kernels: Sequence[Kernel]) -> int:
        """Return the target calls of a step and chain, at most."""


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
        self.calls_per_step = self._calls_per_step(kernels)
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

    def step_by(self, steps: Sequence[Step], draws: Draws, state: State) -> tuple[State, Info]:
        infos = []
        for place, step in enumerate(steps):
            state, info = step(draws.role(f"cycle{place}"), state)
            infos.append(info)
        parts = dict(zip(self._part_names, infos, strict=True))
        calls = {name: sum(getattr(info, name) for info in infos) for name in CALLS}
        extras = {name: value for info in infos for name, value in info.extras.items()}
        return state, infos[0]._replace(**calls, parts=parts, extras=extras)

    @staticmethod
    def _calls_per_step(kernels: Sequence[Kernel]) -> int:
        return sum(kernel.calls_per_step for kernel in kernels)


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
        self.calls_per_step = self._calls_per_step(kernels)
        table = torch.tensor(self.weights, dtype=torch.float64)
        self._log_weights = (table / table.sum()).log()

    @property
    def reach(self) -> Reach:
        return max(kernel.reach for kernel in self.kernels)

    @property
    def may_stay(self) -> bool:
        return any(kernel.may_stay for kernel in self.kernels)

    def step_by(self, steps: Sequence[Step], draws: Draws, state: State) -> tuple[State, Info]:
        chosen = draws.role("mixture").shared_categorical(self._log_weights)
        state, info = steps[chosen](draws.role(f"mixture{chosen}"), state)
        # Which parts report would change from step to step, and a record has a value at every draw.
        return state, info._replace(parts={}, extras={})

    @staticmethod
    def _calls_per_step(kernels: Sequence[Kernel]) -> int:
        return max(kernel.calls_per_step for kernel in kernels)


class PartsAdaptation(Adaptation):
    """The warm-up of a composition: that of each of its kernels, in the composition's order.

    Args:
        composition: What to tune.
        parts: The warm-up of each of its kernels.
    """

    def __init__(self, composition: Composition, parts: Sequence[Adaptation]) -> None:
        self.kernel = composition
        self._composition = composition
        self._parts = tuple(parts)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        stepped = self._composition.step_by([part.step for part in self._parts], draws, state)
        self.kernel = self._composition.of([part.kernel for part in self._parts])
        return stepped

    def frozen(self) -> Kernel:
        return self._composition.of([part.frozen() for part in self._parts])


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
