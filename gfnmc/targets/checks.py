"""The checks at the door: objects, sites and shapes that come in, log-densities that come out."""

import operator
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, ObjectError, OptionError


@runtime_checkable
class ObjectSpace(Protocol):
    """What the checks need to know of a target."""

    @property
    def name(self) -> str: ...

    @property
    def event_shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def values(self) -> tuple[int, ...] | None: ...


def checked_log_densities(
    value: object, source: str, x: Shaped[Tensor, "batch *event"], rows: Int64[Tensor, " batch"] | None
) -> Float64[Tensor, " batch"]:
    """Hold what a target returned to the contract of log-densities.

    Args:
        value: What was returned.
        source: What returned it, for errors: the target's name and the method.
        x: The objects it was returned for.
        rows: What to call the rows in an error; 0, 1, ... by default.

    Raises:
        EnergyError: If it is not a `(batch,)` float64 tensor.
        NonFiniteEnergyError: If a value is NaN or +inf.
    """
    if not isinstance(value, Tensor):
        raise EnergyError(f"{source} returned a {type(value).__name__}; return a torch tensor")
    if value.shape != x.shape[:1]:
        raise EnergyError(
            f"{source} returned shape {tuple(value.shape)} for {x.shape[0]} objects; "
            f"return one value an object, shape ({x.shape[0]},)"
        )
    if value.dtype != torch.float64:
        raise EnergyError(f"{source} returned {value.dtype}; return torch.float64, add .double()")
    bad = value.isnan() | (value == torch.inf)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        called = row if rows is None else int(rows[row])
        raise NonFiniteEnergyError(
            f"{source} returned {float(value[row])} in row {called} for the object {x[row].tolist()}; "
            "a log-density is finite, or -inf where an object is impossible",
            row=called,
            value=float(value[row]),
            state=x[row].tolist(),
        )
    return value


def check_objects(target: ObjectSpace, x: Tensor) -> None:
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


def check_sites(target: ObjectSpace, x: Tensor, sites: Int64[Tensor, " batch"]) -> tuple[int, ...]:
    """Hold objects, and a flat site of each, to a target; return the values of its sites.

    Raises:
        CapabilityError: If the target declares no `values`.
        ObjectError: If the objects are not the target's.
        OptionError: If there is not one site an object, or a site is out of range.
    """
    if sites.shape != x.shape[:1]:
        raise OptionError(f"{tuple(sites.shape)} sites for {x.shape[0]} objects; give one flat site an object")
    return check_many_sites(target, x, sites)


def check_many_sites(target: ObjectSpace, x: Tensor, sites: Int64[Tensor, " sites"]) -> tuple[int, ...]:
    """Hold objects, and flat sites that are asked about in all of them, to a target; return the values of its sites.

    Raises:
        CapabilityError: If the target declares no `values`.
        ObjectError: If the objects are not the target's.
        OptionError: If a site is out of range.
    """
    if target.values is None:
        raise CapabilityError(f"{target.name} declares no `values` of a site, so there is nothing to put at one")
    check_objects(target, x)
    num_sites = torch.Size(target.event_shape).numel()
    if sites.numel() > 0 and not (0 <= int(sites.min()) <= int(sites.max()) < num_sites):
        raise OptionError(f"sites of {target.name} are counted 0 ... {num_sites - 1}; others were given")
    return target.values


def check_assigned(target: ObjectSpace, x: Tensor, is_assigned: Tensor) -> None:
    """Hold objects, and the marks that say which of their sites count, to a target.

    Raises:
        ObjectError: If the objects are not the target's, or the marks do not fit them.
    """
    check_objects(target, x)
    if is_assigned.shape != x.shape or is_assigned.dtype != torch.bool:
        raise ObjectError(
            f"is_assigned is {is_assigned.dtype} of shape {tuple(is_assigned.shape)}; "
            f"give one bool a site, shape {tuple(x.shape)}"
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
