"""Families of targets: one energy for each value of a condition, such as a temperature, a field or a preference.

A conditional pair is trained on the whole family at once, under conditions drawn from a law that the family names, and
then samples any member. `given` binds a condition and returns an ordinary target.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target, solve_product_space
from gfnmc.targets.function import from_function

# Conditions are drawn from the middles of this many equal parts of their range.
_NUM_PARTS = 2**30


class ConditionalTarget(ABC):
    """A target for each value of a condition.

    Attributes:
        name: Short name for tables and files.
        event_shape: Shape of one object.
        dtype: Dtype of objects.
        values: The values of a site, where objects assign values to sites; else None.
        condition_names: What the numbers of a condition are.
    """

    name: str
    event_shape: tuple[int, ...]
    dtype: torch.dtype
    values: tuple[int, ...] | None = None
    condition_names: tuple[str, ...]

    @abstractmethod
    def sample_conditions(self, draws: Draws) -> Float64[Tensor, "rows conditions"]:
        """Return a condition for each row of `draws`, by the law that a pair is trained on."""

    @abstractmethod
    def given(self, condition: Float[Tensor, "*batch conditions"]) -> Target:
        """Return the target under a condition.

        Args:
            condition: `(conditions,)` for all objects, or `(batch, conditions)`: then every batch of objects has these
                rows, in this order.

        Raises:
            OptionError: If the condition does not have as many numbers as there are names.
        """


class TemperedFamily(ConditionalTarget):
    """The powers R^beta of one density; the condition is the inverse temperature beta.

    A pair for it serves all rungs of a tempered kernel.

    Args:
        target: The density at beta = 1; not a noisy one, whose powers are biased.
        lowest: Smallest beta to train on, at least 0.
        highest: Largest beta to train on.
        law: How beta is spread between them: "uniform" or "log-uniform" (then `lowest` is above 0).

    Raises:
        OptionError: If there is no such range or law.
        CapabilityError: If the target is noisy.
    """

    condition_names = ("inverse_temperature",)

    def __init__(
        self,
        target: Target,
        lowest: float,
        highest: float = 1.0,
        *,
        law: Literal["uniform", "log-uniform"] = "uniform",
    ) -> None:
        if not 0.0 <= lowest < highest < math.inf:
            raise OptionError(
                f"inverse temperatures from {lowest} to {highest} are no range; give 0 <= lowest < highest"
            )
        if law not in ("uniform", "log-uniform") or (law == "log-uniform" and lowest == 0.0):
            raise OptionError(f"law is {law!r}; choose 'uniform', or with lowest > 0 'log-uniform'")
        if target.is_noisy:
            raise CapabilityError(
                f"{target.name} is noisy, and powers of its estimates are biased; it has no tempered family"
            )
        self.target = target
        self.lowest = float(lowest)
        self.highest = float(highest)
        self.law = law
        self.name = f"tempered {target.name}"
        self.event_shape = target.event_shape
        self.dtype = target.dtype
        self.values = target.values

    def sample_conditions(self, draws: Draws) -> Float64[Tensor, "rows 1"]:
        if self.law == "uniform":
            return _uniform(draws, self.lowest, self.highest)[:, None]
        return _uniform(draws, math.log(self.lowest), math.log(self.highest)).exp()[:, None]

    def given(self, condition: Float[Tensor, "*batch conditions"]) -> Target:
        return _TemperedTarget(self.target, _checked_condition(condition, self.condition_names, self.name)[..., 0])


def conditional_from_function(
    fn: Callable[[Any, Any], Any],
    event_shape: tuple[int, ...],
    *,
    condition_names: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    values: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.int64,
    name: str = "user",
) -> ConditionalTarget:
    """Wrap a torch function of objects and conditions as a family of targets.

    Args:
        fn: Takes objects `(batch, *event_shape)` and conditions `(batch, conditions)` float64, returns log-densities
            `(batch,)`, nats, unnormalised; -inf where an object is impossible.
        event_shape: As in `from_function`.
        condition_names: What the numbers of a condition are.
        low: Smallest value of each to train on.
        high: Largest value of each; between them the law is uniform.
        values: As in `from_function`.
        dtype: Dtype of objects.
        name: Short name for tables and files.

    Raises:
        OptionError: If an option cannot work.
        EnergyError: Later, from `log_prob`, if `fn` does not return `(batch,)` numbers.
    """
    return _FunctionFamily(fn, event_shape, tuple(condition_names), tuple(low), tuple(high), values, dtype, name)


class _FunctionFamily(ConditionalTarget):
    def __init__(
        self,
        fn: Callable[[Any, Any], Any],
        event_shape: tuple[int, ...],
        condition_names: tuple[str, ...],
        low: tuple[float, ...],
        high: tuple[float, ...],
        values: tuple[int, ...] | None,
        dtype: torch.dtype,
        name: str,
    ) -> None:
        if not callable(fn):
            raise OptionError(f"fn is a {type(fn).__name__}; give a function of objects and conditions")
        if not condition_names or len(set(condition_names)) != len(condition_names):
            raise OptionError(f"condition_names are {condition_names}; give one name or more, each once")
        if not len(low) == len(high) == len(condition_names):
            raise OptionError(f"low {low} and high {high} must hold a number for each of {condition_names}")
        if not all(-math.inf < lowest <= highest < math.inf for lowest, highest in zip(low, high, strict=True)):
            raise OptionError(f"conditions from {low} to {high} are no range; give finite numbers, low <= high")
        self._fn = fn
        self._low = low
        self._high = high
        self.condition_names = condition_names
        # Made once to have the options checked; the function is not called.
        space = from_function(lambda x: fn(x, None), event_shape, values=values, dtype=dtype, name=name)
        self.name = space.name
        self.event_shape = space.event_shape
        self.dtype = space.dtype
        self.values = space.values

    def sample_conditions(self, draws: Draws) -> Float64[Tensor, "rows conditions"]:
        ranges = zip(self.condition_names, self._low, self._high, strict=True)
        return torch.stack([_uniform(draws.role(name), low, high) for name, low, high in ranges], -1)

    def given(self, condition: Float[Tensor, "*batch conditions"]) -> Target:
        bound = _checked_condition(condition, self.condition_names, self.name)
        name = self.name
        if bound.dim() == 1:
            numbers = zip(self.condition_names, bound.tolist(), strict=True)
            name = f"{name} ({', '.join(f'{what} {number:g}' for what, number in numbers)})"

        def log_prob(x: Tensor) -> Any:
            _check_rows(bound[..., 0], x, name)
            return self._fn(x, bound.expand(x.shape[0], -1))

        return from_function(log_prob, self.event_shape, values=self.values, dtype=self.dtype, name=name)


class _TemperedTarget(Target):
    """A power of a density, the same for all objects or one a row."""

    def __init__(self, target: Target, inverse_temperature: Float64[Tensor, "*batch"]) -> None:
        self.target = target
        self.inverse_temperature = inverse_temperature
        self.event_shape = target.event_shape
        self.dtype = target.dtype
        self.values = target.values
        self.name = f"tempered {target.name}"
        if inverse_temperature.dim() == 0:
            self.name = f"{target.name} at inverse temperature {float(inverse_temperature):g}"

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        return self._power(self.target.log_prob(x), x)

    @property
    def offers_delta(self) -> bool:
        return self.target.offers_delta

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        return self._power(self.target.log_prob_delta(x, sites), x)

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        return self._power(self.target.partial_log_prob(x, is_assigned), x)

    def symmetries(self) -> tuple[Symmetry, ...]:
        return self.target.symmetries()

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        return self.target.statistics(x)

    def modes(self) -> ModeSet | None:
        return self.target.modes()

    def exact(self) -> ExactSolution | None:
        return solve_product_space(self) if self.inverse_temperature.dim() == 0 else None

    def _power(self, log_prob: Float64[Tensor, "batch *rest"], x: Tensor) -> Float64[Tensor, "batch *rest"]:
        beta = self.inverse_temperature
        _check_rows(beta, x, self.name)
        if beta.dim() == 1:
            beta = beta.reshape(-1, *[1] * (log_prob.dim() - 1))
        # R^0 is 1, also of what is impossible, where 0 times -inf would be no number.
        return torch.where(beta == 0.0, 0.0, beta * log_prob)


def _uniform(draws: Draws, low: float, high: float) -> Float64[Tensor, " rows"]:
    parts = draws.integers(torch.full((draws.num_rows,), _NUM_PARTS))
    return low + (high - low) * (parts.to(torch.float64) + 0.5) / _NUM_PARTS


def _checked_condition(condition: Tensor, names: tuple[str, ...], owner: str) -> Float64[Tensor, "*batch conditions"]:
    if not condition.is_floating_point() or condition.dim() not in (1, 2) or condition.shape[-1] != len(names):
        raise OptionError(
            f"a condition of {condition.dtype} and shape {tuple(condition.shape)} was given to {owner}; give floats of "
            f"shape ({len(names)},), or (batch, {len(names)}): {', '.join(names)}"
        )
    return condition.to(torch.float64)


def _check_rows(by_row: Tensor, x: Tensor, owner: str) -> None:
    if by_row.dim() == 1 and by_row.shape[0] != x.shape[0]:
        raise ObjectError(
            f"{owner} is bound to {by_row.shape[0]} conditions, one an object, but met {x.shape[0]} objects; bind one "
            "condition for all, or one for each of them"
        )
