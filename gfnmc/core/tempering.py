"""Powers of a density, R^beta: the change of its logarithm, and how large a step of beta a population bears.

R^0 is 1 everywhere, also where R is 0: at inverse temperature 0, and only there, impossible objects are allowed.

Reference: Del Moral, Doucet and Jasra 2006, "Sequential Monte Carlo samplers", for steps by effective sample size.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import EnergyError, OptionError

InverseTemperature = float | Float64[Tensor, " rows"]
"""One inverse temperature for all rows, or one a row."""

# Halvings of the interval that the next inverse temperature lies in; more than float64 can tell apart.
_NUM_HALVINGS = 60


def checked_inverse_temperature(inverse_temperature: InverseTemperature) -> InverseTemperature:
    """Return inverse temperatures that make sense.

    Raises:
        OptionError: If one is negative or not finite, or they are no number and no `(rows,)` float64 tensor.
    """
    if isinstance(inverse_temperature, Tensor):
        if inverse_temperature.dim() != 1 or inverse_temperature.dtype != torch.float64:
            raise OptionError(
                f"inverse temperatures of shape {tuple(inverse_temperature.shape)}, {inverse_temperature.dtype}; give "
                "one number, or a float64 tensor with one a row"
            )
        if not bool(((inverse_temperature >= 0.0) & inverse_temperature.isfinite()).all()):
            raise OptionError("an inverse temperature is negative or not finite; give numbers from 0 (flat) up")
        return inverse_temperature
    if not 0.0 <= inverse_temperature < math.inf:
        raise OptionError(f"an inverse temperature of {inverse_temperature}; give a finite number from 0 (flat) up")
    return float(inverse_temperature)


def tempered_change(
    inverse_temperature: InverseTemperature, log_new: Float64[Tensor, " rows"], log_old: Float64[Tensor, " rows"]
) -> Float64[Tensor, " rows"]:
    """Return log R(x')^beta - log R(x)^beta, nats; 0 where beta is 0, also for impossible objects."""
    change = inverse_temperature * (log_new - log_old)
    if isinstance(inverse_temperature, Tensor):
        return torch.where(inverse_temperature == 0.0, 0.0, change)
    return change if inverse_temperature > 0.0 else torch.zeros_like(change)


def next_inverse_temperature(log_reward: Float64[Tensor, " n"], current: float, threshold: float) -> float:
    """Return the largest inverse temperature up to 1 that a population can be reweighted to.

    Reweighted from `current` to b, objects have weights R^(b - current). Their effective number, (sum w)^2 / sum w^2,
    as a fraction of the objects that are possible, falls as b grows; b is where it reaches `threshold`, by bisection.

    Args:
        log_reward: log R of the population, nats; -inf for impossible objects, which have weight 0.
        current: Where the population is, in [0, 1).
        threshold: Least effective fraction, in (0, 1).

    Raises:
        OptionError: If `current` or `threshold` is out of range.
        EnergyError: If no object is possible.
    """
    if not 0.0 <= current < 1.0 or not 0.0 < threshold < 1.0:
        raise OptionError(f"current {current} must lie in [0, 1) and threshold {threshold} between 0 and 1")
    possible = log_reward[log_reward > -torch.inf]
    if len(possible) == 0:
        raise EnergyError(
            f"none of {len(log_reward)} objects is possible, so there is nothing to reweight; use more of them, or "
            "start where objects are possible"
        )
    if _effective_fraction(possible, 1.0 - current) >= threshold:
        return 1.0
    low, high = 0.0, 1.0 - current
    for _ in range(_NUM_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _effective_fraction(possible, middle) >= threshold else (low, middle)
    # At least the next number up, so that a ladder always ends.
    return max(current + low, math.nextafter(current, 1.0))


def _effective_fraction(log_reward: Float64[Tensor, " n"], power: float) -> float:
    log_weights = power * log_reward
    log_number = 2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0)
    return math.exp(float(log_number)) / len(log_reward)
