"""log Z of the square-lattice Ising model on a torus, in closed form, for any size.

    Z = (2 sinh 2K)^(mn/2) / 2 * [ prod_r 2 cosh(m g_(2r+1) / 2) + prod_r 2 sinh(m g_(2r+1) / 2)
                                 + prod_r 2 cosh(m g_(2r) / 2)   + prod_r 2 sinh(m g_(2r) / 2) ],    r = 0 ... n - 1

    sinh(g_0 / 2) = sinh(log(sinh 2K) / 2) sqrt(2),
    sinh(g_l / 2) = sqrt(2 sinh(log(sinh 2K) / 2)^2 + sin(pi l / (2 n))^2)

which is Kaufman's cosh g_l = cosh 2K coth 2K - cos(pi l / n), g_0 = 2K + log tanh K, in half arguments, so that nothing
cancels near the critical coupling, where sinh 2K = 1. Below it g_0 is negative, and so is the last product. The
products are sums of logarithms: no lattice is too large.

Reference: Kaufman 1949, "Crystal statistics. II. Partition function evaluated by spinor analysis".
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.targets.checks import checked_event_shape

MAX_COUPLING = 300.0
"""Strongest coupling, nats; the hyperbolic functions of a few times as much overflow."""


def kaufman_log_z(shape: tuple[int, int], coupling: float) -> float:
    """Return log Z, nats, of `Ising(shape, coupling)`: periodic, without a field.

    Args:
        shape: Sites along the two axes, at least 3 each: the formula counts two bonds between the sites of a side of
            length 2, and `Ising` one.
        coupling: K in nats, ferromagnetic: above 0 and at most `MAX_COUPLING`.

    Raises:
        OptionError: If the lattice is no torus of two dimensions, or too narrow, or the coupling is out of range.
    """
    sides = checked_event_shape(shape)
    if len(sides) != 2 or min(sides) < 3:
        raise OptionError(f"the shape is {sides}; Kaufman's formula holds for two sides of at least 3 sites each")
    if not 0 < coupling <= MAX_COUPLING:
        raise OptionError(f"coupling is {coupling}; it must be above 0 and at most {MAX_COUPLING:g}")
    rows, columns = sides
    log_2sinh = 2 * coupling + math.log(-math.expm1(-4 * coupling))
    distance = math.sqrt(2) * math.sinh((log_2sinh - math.log(2)) / 2)
    angle = math.pi * torch.arange(2 * columns, dtype=torch.float64) / (2 * columns)
    half_arguments = rows * torch.hypot(torch.full_like(angle, distance), angle.sin()).asinh()
    odd, even = half_arguments[1::2], half_arguments[::2]
    products = torch.stack([_log_2cosh(odd), _log_2sinh(odd), _log_2cosh(even), _log_2sinh(even)]).sum(1)
    sign = torch.tensor([1.0, 1.0, 1.0, math.copysign(1.0, distance)], dtype=torch.float64)
    greatest = products.max()
    log_sum = float(greatest + (sign * (products - greatest).exp()).sum().log())
    return rows * columns / 2 * log_2sinh + log_sum - math.log(2)


def _log_2cosh(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return x + torch.log1p(torch.exp(-2 * x))


def _log_2sinh(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Return log(2 sinh x) for x >= 0; -inf at 0."""
    return x + torch.log(-torch.expm1(-2 * x))
