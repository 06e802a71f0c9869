"""The energy on finished objects: what a target is, and what it may know about itself.

A target needs `event_shape`, `dtype` and `log_prob`. Everything else is optional and makes the diagnostics
better: named statistics, the modes, and the exact solution where the truth can be computed.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.core.lookup import RowIndex

ENUMERATION_LIMIT = 2**17
"""Most objects that `Target.exact()` lists: a second of work and some tens of MiB."""


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
    """

    log_z: float
    expectations: Mapping[str, float] = field(default_factory=dict)
    mode_masses: tuple[float, ...] | None = None
    support: Shaped[Tensor, "n *event"] | None = None
    log_pmf: Float64[Tensor, " n"] | None = None

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
            CapabilityError: If the space was not enumerated.
        """
        support, log_pmf = self._enumerated()
        return support[draws.role("exact").categorical(log_pmf)]

    def _enumerated(self) -> tuple[Tensor, Tensor]:
        if self.support is None or self.log_pmf is None:
            raise CapabilityError("this exact solution knows expectations only: its space was not enumerated")
        return self.support, self.log_pmf

    @cached_property
    def _row_index(self) -> RowIndex:
        return RowIndex(self._enumerated()[0])


class Target(ABC):
    """An unnormalised log-density on objects of one shape.

    Attributes:
        name: Short name for tables and files.
        event_shape: Shape of one object.
        dtype: Dtype of objects.
        values: The values a coordinate can take, in increasing order, where objects are assignments of
            values to sites; None where they are something else.
    """

    name: str
    event_shape: tuple[int, ...]
    dtype: torch.dtype
    values: tuple[int, ...] | None = None

    @abstractmethod
    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        """Return the unnormalised log-density of each object, in nats; -inf where it is impossible."""

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        """Return the named scalars worth watching; each becomes an ArviZ variable. None by default."""
        return {}

    def modes(self) -> ModeSet | None:
        """Return the modes, or None where they are not known."""
        return None

    def exact(self) -> ExactSolution | None:
        """Return the exact solution, or None where it cannot be computed."""
        return None


def checked_log_prob(
    target: Target, x: Shaped[Tensor, "batch *event"], *, rows: Int64[Tensor, " batch"] | None = None
) -> Float64[Tensor, " batch"]:
    """Evaluate a target and hold it to its contract.

    Every energy the package uses comes through here.

    Args:
        target: What to evaluate.
        x: Objects.
        rows: What to call the rows in an error, where they are a subset of a batch; 0, 1, ... by default.

    Raises:
        EnergyError: If the result is not a `(batch,)` float64 tensor.
        NonFiniteEnergyError: If a value is NaN or +inf.
    """
    value = target.log_prob(x)
    if not isinstance(value, Tensor):
        raise EnergyError(f"{target.name}.log_prob returned a {type(value).__name__}; return a torch tensor")
    if value.shape != x.shape[:1]:
        raise EnergyError(
            f"{target.name}.log_prob returned shape {tuple(value.shape)} for {x.shape[0]} objects; "
            f"return one value an object, shape ({x.shape[0]},)"
        )
    if value.dtype != torch.float64:
        raise EnergyError(f"{target.name}.log_prob returned {value.dtype}; return torch.float64, add .double()")
    bad = value.isnan() | (value == torch.inf)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        called = row if rows is None else int(rows[row])
        raise NonFiniteEnergyError(
            f"{target.name}.log_prob returned {float(value[row])} in row {called} for the object {x[row].tolist()}; "
            "a log-density is finite, or -inf where an object is impossible",
            row=called,
            value=float(value[row]),
        )
    return value


def check_objects(target: Target, x: Tensor) -> None:
    """Hold a batch of objects to a target's shape, dtype and, where it declares them, values.

    Raises:
        ObjectError: If shape or dtype differ, or a coordinate has a value that the target does not know.
    """
    if tuple(x.shape[1:]) != tuple(target.event_shape):
        raise ObjectError(
            f"objects have shape {tuple(x.shape[1:])}, but {target.name} is defined on {tuple(target.event_shape)}"
        )
    if x.dtype != target.dtype:
        raise ObjectError(f"objects are {x.dtype}, but {target.name} is defined on {target.dtype}")
    if target.values is not None and not _has_values(x, target.values):
        known = torch.isin(x, torch.tensor(target.values, dtype=x.dtype, device=x.device))
        row = int((~known).flatten(1).any(1).nonzero()[0, 0])
        raise ObjectError(
            f"object {row} of the batch, {x[row].tolist()}, has coordinates outside the values of {target.name}, "
            f"{target.values}"
        )


def checked_event_shape(shape: Iterable[int]) -> tuple[int, ...]:
    """Return a user's shape of an object as a tuple.

    Raises:
        OptionError: If it is no tuple of integers, is empty, or has a side below 1.
    """
    try:
        checked = tuple(operator.index(side) for side in shape)
    except TypeError:
        raise OptionError(f"the shape is {shape!r}; give a tuple of integers, such as (8,) or (8, 8)") from None
    if not checked or min(checked) < 1:
        raise OptionError(f"the shape is {checked}; give at least one side, and none below 1")
    return checked


def product_space(values: tuple[int, ...], event_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return every assignment of `values` to sites, `(n, *event_shape)`, the last site changing fastest."""
    num_sites = torch.Size(event_shape).numel()
    code = torch.arange(len(values) ** num_sites)[:, None]
    digits = code // len(values) ** torch.arange(num_sites - 1, -1, -1) % len(values)
    return torch.tensor(values, dtype=dtype)[digits].reshape(-1, *event_shape)


def solve_by_enumeration(target: Target, support: Shaped[Tensor, "n *event"]) -> ExactSolution:
    """Return the exact solution of a target whose every object is given.

    Raises:
        EnergyError: If no object is possible: there is no law to solve.
    """
    log_prob = checked_log_prob(target, support)
    log_z = log_prob.logsumexp(0)
    if log_z == -torch.inf:
        raise EnergyError(f"{target.name}.log_prob is -inf for all {support.shape[0]} objects; one must be possible")
    log_pmf = log_prob - log_z
    pmf = log_pmf.exp()
    expectations = {name: float(pmf @ value.to(torch.float64)) for name, value in target.statistics(support).items()}
    modes = target.modes()
    masses = None
    if modes is not None:
        label = modes.assign(support)
        masses = tuple(float(pmf[label == mode].sum()) for mode in range(len(modes)))
    return ExactSolution(float(log_z), expectations, masses, support, log_pmf)


def solve_product_space(target: Target) -> ExactSolution | None:
    """Return the exact solution of a target on assignments of `values` to sites.

    None where it declares no values, or where there are more than `ENUMERATION_LIMIT` assignments.
    """
    if target.values is None or len(target.values) ** math.prod(target.event_shape) > ENUMERATION_LIMIT:
        return None
    return solve_by_enumeration(target, product_space(target.values, target.event_shape, target.dtype))


def _has_values(x: Tensor, values: tuple[int, ...]) -> bool:
    """Say whether every coordinate is one of `values`, without `isin` (100 times slower) for the usual sets."""
    if x.numel() == 0:
        return True
    if values == (-1, 1):
        low, high = x.abs().aminmax()
        return bool(low == 1) and bool(high == 1)
    low, high = x.aminmax()
    if bool(low < values[0]) or bool(high > values[-1]):
        return False
    is_gapless = values[-1] - values[0] == len(values) - 1 and not x.dtype.is_floating_point
    return is_gapless or bool(torch.isin(x, torch.tensor(values, dtype=x.dtype, device=x.device)).all())
