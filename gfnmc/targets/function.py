"""A target out of a user's own function: any batched log-density, in torch or in NumPy.

`log_prob(x) = fn(x)`, unnormalised, in nats. Where the values of a site are given and the space is small, the
exact solution is found by enumeration, so that a user's own energy can be checked as the built-in ones are. A function
that can only estimate its log-density, by random decisions of its own, goes through `noisy_from_function`.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import EnergyError, OptionError
from gfnmc.targets.base import ExactSolution, Target, check_objects, checked_event_shape, solve_product_space
from gfnmc.targets.noisy import NoisyTarget

BatchFunction = Callable[[Any], Any]
"""Takes a batch of objects, returns one number an object: a tensor or an array of shape `(batch,)`."""

NoisyBatchFunction = Callable[[Tensor, Draws], Any]
"""Takes a batch of objects and draws with a row for each, returns one number an object."""


def from_function(
    fn: BatchFunction,
    event_shape: tuple[int, ...],
    *,
    values: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.int64,
    name: str = "user",
    statistics: Mapping[str, BatchFunction] | None = None,
) -> Target:
    """Wrap a torch function as a target.

    What `fn` returns is converted to float64, and is kept out of the autograd graph unless `x` asks for
    gradients. What it raises passes through unchanged.

    Args:
        fn: Takes objects `(batch, *event_shape)` of `dtype`, returns log-densities `(batch,)`, nats,
            unnormalised; -inf where an object is impossible.
        event_shape: Shape of one object; at least one dimension.
        values: The values a site can take, increasing, where objects assign values to sites. Environments are
            built from them, and up to `ENUMERATION_LIMIT` objects the target is solved exactly.
        dtype: Dtype of objects.
        name: Short name for tables and files.
        statistics: Named functions of a batch of objects, each `(batch,)`, worth watching.

    Raises:
        OptionError: If an option cannot work. Later, if a statistic does not return `(batch,)` numbers.
        EnergyError: Later, from `log_prob`, if `fn` does not return `(batch,)` numbers.
    """
    return _FunctionTarget(_call_with_tensor, fn, event_shape, values, dtype, name, statistics)


def from_numpy_function(
    fn: BatchFunction,
    event_shape: tuple[int, ...],
    *,
    values: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.int64,
    name: str = "user",
    statistics: Mapping[str, BatchFunction] | None = None,
) -> Target:
    """Wrap a NumPy function as a target: `from_function` for functions (statistics too) that take an array.

    The array is a read-only view of the objects; copy it to change it.

    Args:
        fn: Takes objects `(batch, *event_shape)`, returns log-densities `(batch,)`, nats, unnormalised.
        event_shape: As in `from_function`.
        values: As in `from_function`.
        dtype: Torch dtype of objects; the array has the NumPy dtype of the same name.
        name: Short name for tables and files.
        statistics: Named functions of an array of objects, each `(batch,)`.

    Raises:
        OptionError: As in `from_function`.
        EnergyError: As in `from_function`.
    """
    return _FunctionTarget(_call_with_array, fn, event_shape, values, dtype, name, statistics)


def noisy_from_function(
    fn: NoisyBatchFunction,
    event_shape: tuple[int, ...],
    *,
    is_unbiased: bool,
    values: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.int64,
    name: str = "user",
    statistics: Mapping[str, BatchFunction] | None = None,
) -> NoisyTarget:
    """Wrap a torch function that estimates a log-density as a noisy target.

    Args:
        fn: Takes objects `(batch, *event_shape)` and `Draws` with a row for each, returns one estimate of each
            log-density, `(batch,)`, nats. Decide by the draws only, or the seed will not repeat the run.
        event_shape: As in `from_function`.
        is_unbiased: Whether the mean of exp(estimate) is the density, up to one factor for all objects. Chains
            refuse a target that does not say so: they would sample another law.
        values: The values a site can take, as in `from_function`; a noisy target is never solved.
        dtype: Dtype of objects.
        name: Short name for tables and files.
        statistics: Named functions of a batch of objects, each `(batch,)`, worth watching.

    Raises:
        OptionError: As in `from_function`.
        EnergyError: Later, from `estimate_log_prob`, if `fn` does not return `(batch,)` numbers.
    """
    return _NoisyFunctionTarget(fn, event_shape, is_unbiased, values, dtype, name, statistics)


class _UserTarget(Target):
    """What targets out of functions share: the space of objects, and the statistics."""

    def __init__(
        self,
        call: Callable[[BatchFunction, Tensor], object],
        fn: Callable[..., Any],
        event_shape: tuple[int, ...],
        values: tuple[int, ...] | None,
        dtype: torch.dtype,
        name: str,
        statistics: Mapping[str, BatchFunction] | None,
    ) -> None:
        if not callable(fn):
            raise OptionError(f"fn is a {type(fn).__name__}; give a function of a batch of objects")
        if not isinstance(dtype, torch.dtype):
            raise OptionError(f"dtype is {dtype!r}; give a torch dtype, such as torch.int64")
        if statistics is not None and not (
            isinstance(statistics, Mapping) and all(callable(statistic) for statistic in statistics.values())
        ):
            raise OptionError("statistics must be a dict of functions by name")
        self.name = name
        self.event_shape = checked_event_shape(event_shape)
        self.dtype = dtype
        self.values = None if values is None else _checked_values(values, dtype)
        self._call = call
        self._fn = fn
        self._statistics = dict(statistics or {})

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        return {
            key: _as_batch(self._call(statistic, x), x, f"the statistic {key!r} of {self.name}", OptionError).detach()
            for key, statistic in self._statistics.items()
        }


class _FunctionTarget(_UserTarget):
    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        value = _as_batch(self._call(self._fn, x), x, f"the log-density of {self.name}", EnergyError)
        # An energy with parameters of its own would otherwise tie the whole history of a chain to its graph.
        return value if x.requires_grad else value.detach()

    def exact(self) -> ExactSolution | None:
        return self._exact

    @functools.cached_property
    def _exact(self) -> ExactSolution | None:
        return solve_product_space(self)


class _NoisyFunctionTarget(_UserTarget, NoisyTarget):
    def __init__(
        self,
        fn: NoisyBatchFunction,
        event_shape: tuple[int, ...],
        is_unbiased: bool,
        values: tuple[int, ...] | None,
        dtype: torch.dtype,
        name: str,
        statistics: Mapping[str, BatchFunction] | None,
    ) -> None:
        super().__init__(_call_with_tensor, fn, event_shape, values, dtype, name, statistics)
        self.is_unbiased = bool(is_unbiased)

    def estimate_log_prob(self, x: Shaped[Tensor, "batch *event"], draws: Draws) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return _as_batch(self._fn(x, draws), x, f"the estimate of {self.name}", EnergyError).detach()


# Module functions, not closures, so that the target of a module's function can be sent to a worker process.
def _call_with_tensor(fn: BatchFunction, x: Tensor) -> object:
    return fn(x)


def _call_with_array(fn: BatchFunction, x: Tensor) -> object:
    array = x.detach().cpu().numpy()
    array.setflags(write=False)
    return fn(array)


def _as_batch(value: object, x: Tensor, what: str, error: type[EnergyError | OptionError]) -> Float64[Tensor, " batch"]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.array(value, dtype=np.float64))
    if not isinstance(value, Tensor) or value.is_complex():
        kind = f"of {value.dtype}" if isinstance(value, np.ndarray | Tensor) else f"as a {type(value).__name__}"
        raise error(f"{what} came back {kind}; return a tensor or an array of real numbers")
    if value.shape != x.shape[:1]:
        raise error(
            f"{what} came back with shape {tuple(value.shape)} for {x.shape[0]} objects; "
            f"return one value an object, shape ({x.shape[0]},)"
        )
    return value.to(x.device, torch.float64)


def _checked_values(values: tuple[int, ...], dtype: torch.dtype) -> tuple[int, ...]:
    try:
        checked = tuple(operator.index(value) for value in values)
    except TypeError:
        raise OptionError(f"values is {values!r}; give a tuple of integers, such as (0, 1)") from None
    if not checked or list(checked) != sorted(set(checked)):
        raise OptionError(f"values {values} must be distinct integers in increasing order")
    if torch.tensor(checked).to(dtype).to(torch.int64).tolist() != list(checked):
        raise OptionError(f"values {values} cannot all be written as {dtype}")
    return checked
