"""What may be known about a target: its modes, and the truth where it can be computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, ObjectError
from gfnmc.core.lookup import RowIndex


class ModeSet(ABC):
    """The modes of a target: disjoint regions that a chain has to move between.

    Attributes:
        names: One a mode, in the order of their ids.
        examples: A typical object of each mode (its most probable where known), `(num_modes, *event_shape)`;
            adversarial starts begin here.
    """

    names: tuple[str, ...]
    examples: Shaped[Tensor, "modes *event"]

    @abstractmethod
    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        """Return the mode of each object, -1 outside every mode."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class ExactSolution:
    """The truth about a target, as far as it can be computed.

    Attributes:
        log_z: Logarithm of the normalising constant, nats.
        expectations: Exact means of the target's statistics, by name.
        mode_masses: Exact probability of each mode, in the order of `ModeSet.names`; None where unknown.
        support: Every object, `(n, *event_shape)`, where the space was enumerated; else None.
        log_pmf: Normalised log-probabilities of `support`, nats; None with it.
        sampler: Returns one independent exact draw for each row of its draws, where that takes no enumeration;
            None where `support` does.
    """

    log_z: float
    expectations: Mapping[str, float] = field(default_factory=dict)
    mode_masses: tuple[float, ...] | None = None
    support: Shaped[Tensor, "n *event"] | None = None
    log_pmf: Float64[Tensor, " n"] | None = None
    sampler: Callable[[Draws], Tensor] | None = None

    @property
    def can_sample(self) -> bool:
        """Whether `sample` returns exact draws."""
        return self.sampler is not None or self.support is not None

    def index(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        """Return where each object stands in `support`.

        Raises:
            CapabilityError: If the space was not enumerated.
            ObjectError: If an object is not in the support.
        """
        place = self._row_index.find(x)
        if (place < 0).any():
            row = int((place < 0).nonzero()[0, 0])
            raise ObjectError(f"object {row} of the batch, {x[row].tolist()}, is not in the enumerated support")
        return place

    def sample(self, draws: Draws) -> Shaped[Tensor, "rows *event"]:
        """Return independent exact draws, one for each row of `draws`.

        Raises:
            CapabilityError: If the space was not enumerated and there is no other way.
        """
        if self.sampler is not None:
            return self.sampler(draws.role("exact"))
        support, log_pmf = self._enumerated()
        return support[draws.role("exact").categorical(log_pmf)]

    def _enumerated(self) -> tuple[Tensor, Tensor]:
        if self.support is None or self.log_pmf is None:
            raise CapabilityError("this exact solution knows expectations only: its space was not enumerated")
        return self.support, self.log_pmf

    @cached_property
    def _row_index(self) -> RowIndex:
        return RowIndex(self._enumerated()[0])
