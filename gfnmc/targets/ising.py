"""The Ising model on a lattice of any dimension, with any couplings and fields, periodic or free.

    log_prob(s) = sum over bonds (i, j) of J_ij s_i s_j  +  sum over sites of h_i s_i,    s_i = -1 or +1

Every bond counts once, so on the square lattice a uniform coupling is critical at ln(1 + sqrt(2)) / 2 = 0.4407.
(Code that writes s'As with a symmetric A counts each bond twice; its coupling is half of this one.)

Reference: Kramers and Wannier 1941, "Statistics of the two-dimensional ferromagnet", for the transfer matrix.
"""

import math
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.targets.base import (
    ExactSolution,
    ModeSet,
    Target,
    check_objects,
    checked_event_shape,
    product_space,
    solve_product_space,
)

MAX_TRANSFER_WIDTH = 10
"""Sites of a row up to which a lattice is solved by transfer matrices; the work grows as 4^width."""


class Ising(Target):
    """Spins on a lattice; objects have the lattice's shape, int8, -1 or +1.

    The statistics are "energy_per_site" (-log_prob / sites, nats), "magnetisation" (mean spin) and
    "abs_magnetisation".

    Attributes:
        bonds: The sites that each bond joins, `(num_bonds, 2)`, counted in row-major order: first the bonds
            along axis 0, then axis 1 and so on; along an axis by their first site, which is joined to its next
            one up (round to 0 from the last, where the lattice is periodic). A side of length 2 has no second
            bond round the back, and a side of length 1 none at all.
        coupling: J of each bond, `(num_bonds,)` float64.
        field: h of each site, `(*shape,)` float64.

    Args:
        shape: Sites along each axis.
        coupling: J in nats: one number, or one a bond in the order of `bonds`.
        field: h in nats: one number, or one a site in the lattice's shape.
        periodic: Whether every axis is closed to a ring.

    Raises:
        OptionError: If the shape is empty, or couplings or fields do not fit it or are not finite.
    """

    dtype = torch.int8
    values = (-1, 1)

    def __init__(
        self,
        shape: tuple[int, ...],
        coupling: float | Tensor,
        *,
        field: float | Tensor = 0.0,
        periodic: bool = True,
    ) -> None:
        self.event_shape = checked_event_shape(shape)
        self.name = f"ising-{'x'.join(str(side) for side in self.event_shape)}"
        self.periodic = periodic
        self.num_sites = math.prod(self.event_shape)
        bonds_by_axis = _bonds_by_axis(self.event_shape, periodic)
        self.bonds = torch.cat(list(bonds_by_axis.values()))
        self.coupling = _fill("coupling", coupling, (len(self.bonds),), "one number or one a bond")
        self.field = _fill("field", field, self.event_shape, "one number or one a site")
        # With one coupling for all, the weights are 0 and 1 and their sums are exact integers.
        is_uniform = len(self.bonds) > 0 and bool((self.coupling == self.coupling[0]).all())
        self._scale = float(self.coupling[0]) if is_uniform else 1.0
        weights = (torch.ones_like(self.coupling) if is_uniform else self.coupling).split(
            [len(bonds) for bonds in bonds_by_axis.values()]
        )
        self._weights_by_axis = {
            axis: torch.zeros(self.num_sites, dtype=torch.float64).scatter(0, bonds[:, 0], along)
            for (axis, bonds), along in zip(bonds_by_axis.items(), weights, strict=True)
            if len(bonds) > 0
        }
        self._has_field = bool(self.field.any())

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        total = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for axis, weights in self._weights_by_axis.items():
            aligned = x * x.roll(-1, axis + 1)
            total += aligned.flatten(1).to(torch.float64) @ weights.to(x.device)
        total *= self._scale
        if self._has_field:
            total += x.flatten(1).to(torch.float64) @ self.field.flatten().to(x.device)
        return total

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        magnetisation = _total_spin(x).to(torch.float64) / self.num_sites
        return {
            "energy_per_site": -self.log_prob(x) / self.num_sites,
            "magnetisation": magnetisation,
            "abs_magnetisation": magnetisation.abs(),
        }

    def modes(self) -> ModeSet | None:
        """Return "spins down" and "spins up" by the sign of the magnetisation, which is in no mode where it is 0.

        None with a field, or where the couplings do not favour alignment in total.
        """
        if self._has_field or self.coupling.sum() <= 0:
            return None
        return _Magnetised(self.event_shape)

    def exact(self) -> ExactSolution | None:
        """Return the exact solution, or None where it is out of reach.

        Up to `ENUMERATION_LIMIT` configurations are enumerated. Larger lattices of two dimensions whose shorter
        side is at most `MAX_TRANSFER_WIDTH` are solved by transfer matrices: log Z, the means of the energy and
        of the magnetisation, and with an odd number of sites the masses of the modes.
        """
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution | None:
        return solve_product_space(self) or self._solve_by_rows()

    def _solve_by_rows(self) -> ExactSolution | None:
        rows = _as_rows(self)
        if rows is None:
            return None
        log_z, mean_log_prob = _sum_over_rows(rows, rows.potential, rows.coupling)
        mean_total_spin = 0.0
        if self._has_field:
            row_spin = rows.spins.sum(1).expand_as(rows.potential)
            _, mean_total_spin = _sum_over_rows(rows, row_spin, torch.zeros_like(rows.coupling))
        expectations = {
            "energy_per_site": -mean_log_prob / self.num_sites,
            "magnetisation": mean_total_spin / self.num_sites,
        }
        is_split_evenly = self.modes() is not None and self.num_sites % 2 == 1
        return ExactSolution(log_z, expectations, (0.5, 0.5) if is_split_evenly else None)


class _Magnetised(ModeSet):
    names = ("spins down", "spins up")

    def __init__(self, shape: tuple[int, ...]) -> None:
        up = torch.ones(shape, dtype=torch.int8)
        self.examples = torch.stack([-up, up])

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        total = _total_spin(x)
        return torch.where(total == 0, -1, (total > 0).to(torch.int64))


def _total_spin(x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
    return x.flatten(1).sum(1, dtype=torch.int64)


def _bonds_by_axis(shape: tuple[int, ...], periodic: bool) -> dict[int, Int64[Tensor, "bonds 2"]]:
    site = torch.arange(math.prod(shape)).reshape(shape)
    bonds = {}
    for axis, side in enumerate(shape):
        num_firsts = side if periodic and side > 2 else side - 1
        first = site.narrow(axis, 0, num_firsts).flatten()
        second = site.roll(-1, axis).narrow(axis, 0, num_firsts).flatten()
        bonds[axis] = torch.stack([first, second], 1)
    return bonds


class _Rows(NamedTuple):
    """A lattice of two dimensions, laid out in rows along its shorter side.

    Attributes:
        potential: Log-weight of each state of each row by itself, `(rows, states)`.
        coupling: Coupling of each site to the next row, `(rows, width)`.
        spins: The states of a row, `(states, width)`.
        is_ring: Whether the last row is joined to the first.
    """

    potential: Float64[Tensor, "rows states"]
    coupling: Float64[Tensor, "rows width"]
    spins: Float64[Tensor, "states width"]
    is_ring: bool


def _fill(what: str, value: float | Tensor, shape: tuple[int, ...], wanted: str) -> Float64[Tensor, "*shape"]:
    """Return one number for each entry of `shape`, the user's own untouched."""
    try:
        given = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"{what} is {value!r}; give {wanted}") from None
    if given.dim() > 0 and tuple(given.shape) != shape:
        raise OptionError(f"{what} has shape {tuple(given.shape)}; give {wanted}, shape {shape}")
    if not given.isfinite().all():
        raise OptionError(f"{what} has values that are not finite")
    return given.expand(shape).clone()


def _as_rows(target: Ising) -> _Rows | None:
    """Lay a lattice out in rows; None where it is no plane, or too wide."""
    sides = [side for side in target.event_shape if side > 1]
    if len(sides) > 2:
        return None
    sides = [1] * (2 - len(sides)) + sides
    num_rows, width = max(sides), min(sides)
    if width > MAX_TRANSFER_WIDTH:
        return None
    site = torch.arange(target.num_sites)
    row, column = (site // width, site % width) if sides[1] == width else (site % num_rows, site // num_rows)
    first, second = target.bonds.unbind(1)
    is_within = row[first] == row[second]
    within = torch.zeros(num_rows, width, width, dtype=torch.float64)
    a, b = first[is_within], second[is_within]
    within[row[a], column[a], column[b]] = target.coupling[is_within]
    between = torch.zeros(num_rows, width, dtype=torch.float64)
    a = first[~is_within]
    between[row[a], column[a]] = target.coupling[~is_within]
    field = torch.zeros(num_rows, width, dtype=torch.float64)
    field[row, column] = target.field.flatten()
    spins = product_space((-1, 1), (width,), torch.float64)
    potential = torch.einsum("si,rij,sj->rs", spins, within, spins) + field @ spins.T
    return _Rows(potential, between, spins, is_ring=bool((row[first] > row[second]).any()))


def _sum_over_rows(
    rows: _Rows, row_value: Float64[Tensor, "rows states"], bond_value: Float64[Tensor, "rows width"]
) -> tuple[float, float]:
    """Return log Z and the mean of a quantity that is a sum over rows and over the bonds between them.

    Rows are added one at a time, in log space so that no coupling is too strong. Beside the log-weight of the
    configurations summed so far goes the mean, under those weights, of the quantity so far.

    Args:
        rows: The lattice.
        row_value: What each state of each row adds to the quantity.
        bond_value: What each bond to the next row adds, times the product of its spins.
    """
    last = len(rows.potential) - 1
    spins = rows.spins
    # Entry (s, t): all configurations so far whose first row is s and whose current row is t.
    log_weight = rows.potential[0][:, None] + (spins * rows.coupling[0]) @ spins.T
    mean = row_value[0][:, None] + (spins * bond_value[0]) @ spins.T
    if not rows.is_ring:
        mean = (log_weight.softmax(0) * mean).sum(0, keepdim=True)
        log_weight = log_weight.logsumexp(0, keepdim=True)
    for row in range(1, last + 1):
        log_weight = log_weight + rows.potential[row]
        mean = mean + row_value[row]
        if row < last or rows.is_ring:
            log_weight, mean = _next_row(log_weight, mean, rows.coupling[row], bond_value[row])
    if rows.is_ring:
        log_weight, mean = log_weight.diagonal(), mean.diagonal()
    return float(log_weight.logsumexp(-1)), float((log_weight.softmax(-1) * mean).sum())


def _next_row(
    log_weight: Float64[Tensor, "starts states"],
    mean: Float64[Tensor, "starts states"],
    coupling: Float64[Tensor, " width"],
    bond_value: Float64[Tensor, " width"],
) -> tuple[Float64[Tensor, "starts states"], Float64[Tensor, "starts states"]]:
    """Exchange each site of the row for its neighbour in the next row, one site at a time."""
    for column in range(len(coupling)):
        split = (len(log_weight), 2**column, 2, -1)
        down, up = log_weight.reshape(split).unbind(2)
        mean_down, mean_up = mean.reshape(split).unbind(2)
        sums, means = [], []
        for spin in (-1, 1):
            strength, value = spin * coupling[column], spin * bond_value[column]
            from_down, from_up = down - strength, up + strength
            sums.append(torch.logaddexp(from_down, from_up))
            share_up = torch.sigmoid(from_up - from_down)
            means.append(torch.lerp(mean_down - value, mean_up + value, share_up))
        log_weight = torch.stack(sums, 2).reshape(len(log_weight), -1)
        mean = torch.stack(means, 2).reshape(len(mean), -1)
    return log_weight, mean
