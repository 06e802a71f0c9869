"""Distances between two samples of objects, each with the floor that two independent samples of one law would have.

    energy          2 E|X - Y| - E|X - X'| - E|Y - Y'|
    sliced W1       mean over lines u of the integral of |F(t) - G(t)| dt, for the projections on u
    MMD^2           E k(X, X') + E k(Y, Y') - 2 E k(X, Y),  k a mean of Gaussian kernels

All means are over all pairs, an object beside itself included: then energy and MMD^2 are never negative, and their
means under one law are known, (1/n + 1/m) E|X - X'| and (1/n + 1/m) (1 - E k(X, X')), so the floor needs no second run.
That of the sliced distance falls as sqrt(1/n + 1/m); it is measured on two halves of the reference.

Objects are compared by their coordinates, as they are. No distance here judges by scores of the density alone, as Stein
discrepancies do: those do not see a missing mode.

References: Szekely and Rizzo 2013, "Energy statistics"; Gretton et al. 2012, "A kernel two-sample test"; Bonneel et al.
2015, "Sliced and Radon Wasserstein barycenters of measures".
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import normal
from gfnmc.core.errors import ObjectError, OptionError

NUM_LINES = 64
"""Lines that the sliced distance projects on."""

_BANDWIDTHS = (0.5, 1.0, 2.0)
_ROWS_AT_ONCE = 512


class Distance(NamedTuple):
    """A distance beside its floor.

    Attributes:
        value: The distance.
        iid_floor: Its mean, were both samples independent draws of the reference's law.
        num_draws: How many draws.
        num_reference: How many objects of the reference.
        power: The floor falls as this power of 1 / num_draws + 1 / num_reference.
    """

    value: float
    iid_floor: float
    num_draws: int
    num_reference: int
    power: float

    def floor_of(self, num_effective: int | float) -> float:
        """Return what the floor would be for another number of draws, such as an effective sample size."""
        rate = _rate(num_effective, self.num_reference) / _rate(self.num_draws, self.num_reference)
        return self.iid_floor * rate**self.power


def energy_distance(x: Shaped[Tensor, "n *event"], reference: Shaped[Tensor, "m ..."]) -> Distance:
    """Return the energy distance, in the units of coordinates.

    Args:
        x: Draws.
        reference: Independent draws of the law.

    Raises:
        ObjectError: If the objects have different shapes, or there are fewer than two of either.
    """
    x, y = _flat(x, reference)
    within = _mean_distance(y, y)
    value = 2.0 * _mean_distance(x, y) - _mean_distance(x, x) - within
    floor = _rate(len(x), len(y)) * within * len(y) / (len(y) - 1)
    return Distance(max(value, 0.0), floor, len(x), len(y), 1.0)


def maximum_mean_discrepancy(x: Shaped[Tensor, "n *event"], reference: Shaped[Tensor, "m ..."]) -> Distance:
    """Return the squared maximum mean discrepancy, by a mean of three Gaussian kernels: no units, 0 to 2.

    Their widths are half, once and twice the root of the mean squared distance of the reference.

    Args:
        x: Draws.
        reference: Independent draws of the law.

    Raises:
        ObjectError: If the objects have different shapes, or there are fewer than two of either.
    """
    x, y = _flat(x, reference)
    # Twice the total variance: the mean squared distance, without listing the pairs.
    width = math.sqrt(2.0 * float(y.var(0, correction=0).sum())) or 1.0
    within = _mean_kernel(y, y, width)
    value = _mean_kernel(x, x, width) + within - 2.0 * _mean_kernel(x, y, width)
    apart = (within - 1.0 / len(y)) * len(y) / (len(y) - 1)
    return Distance(max(value, 0.0), _rate(len(x), len(y)) * (1.0 - apart), len(x), len(y), 1.0)


def sliced_wasserstein(
    x: Shaped[Tensor, "n *event"],
    reference: Shaped[Tensor, "m ..."],
    *,
    num_lines: int = NUM_LINES,
    seed: int = 0,
) -> Distance:
    """Return the sliced Wasserstein distance of order 1, in the units of coordinates.

    Args:
        x: Draws.
        reference: Independent draws of the law.
        num_lines: Random directions that objects are projected on.
        seed: Names them.

    Raises:
        ObjectError: If the objects have different shapes, or there are fewer than two of either.
        OptionError: If there are no lines.
    """
    if num_lines < 1:
        raise OptionError(f"num_lines is {num_lines}; it must be at least 1")
    x, y = _flat(x, reference)
    lines = normal(seed, "sliced", (x.shape[1], num_lines), torch.float64)
    lines = lines / lines.norm(dim=0)
    on_x, on_y = x @ lines, y @ lines
    half = len(y) // 2
    # Every other one, should the reference be in some order.
    first, second = on_y[0 : 2 * half : 2], on_y[1 : 2 * half : 2]
    floor = _mean_wasserstein(first, second) * math.sqrt(_rate(len(x), len(y)) / _rate(half, half))
    return Distance(_mean_wasserstein(on_x, on_y), floor, len(x), len(y), 0.5)


def _flat(x: Tensor, reference: Tensor) -> tuple[Float64[Tensor, "n sites"], Float64[Tensor, "m sites"]]:
    if x.shape[1:] != reference.shape[1:]:
        raise ObjectError(
            f"objects of shapes {tuple(x.shape[1:])} and {tuple(reference.shape[1:])} have no distance; give a "
            "reference of the target's objects"
        )
    if min(len(x), len(reference)) < 2:
        raise ObjectError(f"a distance between {len(x)} and {len(reference)} objects; give at least 2 of each")
    return x.flatten(1).to(torch.float64), reference.flatten(1).to(torch.float64)


def _rate(num_draws: int | float, num_reference: int) -> float:
    return 1.0 / max(1.0, num_draws) + 1.0 / num_reference


def _mean_distance(x: Float64[Tensor, "n sites"], y: Float64[Tensor, "m sites"]) -> float:
    # By differences: products lose half the digits of a small distance, and draws repeat.
    blocks = (torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist") for rows in x.split(_ROWS_AT_ONCE))
    return sum(float(block.sum()) for block in blocks) / (len(x) * len(y))


def _mean_kernel(x: Float64[Tensor, "n sites"], y: Float64[Tensor, "m sites"], width: float) -> float:
    total = 0.0
    for rows in x.split(_ROWS_AT_ONCE):
        squared = torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        total += sum(float((-squared / (2.0 * (factor * width) ** 2)).exp().sum()) for factor in _BANDWIDTHS)
    return total / (len(_BANDWIDTHS) * len(x) * len(y))


def _mean_wasserstein(x: Float64[Tensor, "n lines"], y: Float64[Tensor, "m lines"]) -> float:
    """Return the mean over lines of the integral of the difference of two empirical distribution functions."""
    values, order = torch.cat([x, y]).sort(0)
    up, down = torch.ones(len(x), dtype=torch.float64), torch.ones(len(y), dtype=torch.float64)
    steps = torch.cat([up / len(x), -down / len(y)])
    difference = steps[order].cumsum(0)[:-1].abs()
    return float((difference * values.diff(dim=0)).sum(0).mean())
