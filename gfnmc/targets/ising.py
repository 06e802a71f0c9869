"""The Ising model on a lattice of any dimension, with any couplings and fields, periodic or free.

    log_prob(s) = sum over bonds (i, j) of J_ij s_i s_j  +  sum over sites of h_i s_i,    s_i = -1 or +1

Every bond counts once, so on the square lattice a uniform coupling is critical at ln(1 + sqrt(2)) / 2 = 0.4407.
(Code that writes s'As with a symmetric A counts each bond twice; its coupling is half of this one.)

Reference: Ising 1925, "Beitrag zur Theorie des Ferromagnetismus"; `targets/transfer.py` for the exact solution.
"""

import math
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.core.numerics import take_rows
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target, solve_product_space
from gfnmc.targets.checks import (
    check_assigned,
    check_many_sites,
    check_objects,
    check_sites,
    checked_event_shape,
)
from gfnmc.targets.lattice import bonds_by_axis, lattice_symmetries, neighbour_tables
from gfnmc.targets.relaxed import check_weights, mean_values
from gfnmc.targets.transfer import exact_sampler, lay_out, log_z_and_mean


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
        by_axis = bonds_by_axis(self.event_shape, periodic)
        self.bonds = torch.cat(list(by_axis.values()))
        self.coupling = _fill("coupling", coupling, (len(self.bonds),), "one number or one a bond")
        self.field = _fill("field", field, self.event_shape, "one number or one a site")
        # With one coupling for all, the weights are 0 and 1 and their sums are exact integers.
        is_uniform = len(self.bonds) > 0 and bool((self.coupling == self.coupling[0]).all())
        self._scale = float(self.coupling[0]) if is_uniform else 1.0
        self._bond_weights = torch.ones_like(self.coupling) if is_uniform else self.coupling
        weights = self._bond_weights.split([len(bonds) for bonds in by_axis.values()])
        self._weights_by_axis = {
            axis: torch.zeros(self.num_sites, dtype=torch.float64).scatter(0, bonds[:, 0], along)
            for (axis, bonds), along in zip(by_axis.items(), weights, strict=True)
            if len(bonds) > 0
        }
        self._has_field = bool(self.field.any())

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return self._sum_terms(x)

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        check_assigned(self, x, is_assigned)
        return self._sum_terms(x * is_assigned)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        values = check_sites(self, x, sites)
        neighbours, weights = (table.to(x.device) for table in self._neighbours)
        spins = x.flatten(1)
        around = spins.gather(1, neighbours[sites]).to(torch.float64)
        local_field = self._scale * (around * weights[sites]).sum(1) + self.field.flatten().to(x.device)[sites]
        change = torch.tensor(values, device=x.device) - spins.gather(1, sites[:, None])
        return change * local_field[:, None]

    def interactions(self) -> Int64[Tensor, "pairs 2"]:
        return self.bonds

    def log_prob_deltas(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " sites"]
    ) -> Float64[Tensor, "batch sites values"]:
        values = torch.tensor(check_many_sites(self, x, sites), device=x.device)
        neighbours, weights = (table.to(x.device)[sites].T for table in self._neighbours)
        spins = x.flatten(1).T
        around = take_rows(spins, neighbours).to(torch.float64)
        local_field = self._scale * (around * weights[:, :, None]).sum(0)
        local_field += self.field.flatten().to(x.device)[sites, None]
        change = values - take_rows(spins, sites)[:, :, None]
        return (change * local_field[:, :, None]).transpose(0, 1)

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        """Return the energy of the spins' means, linear in the weights of each site."""
        spins = mean_values(check_weights(self, weights), weights)
        # Without bonds and fields, too, it is a function of the weights and has a gradient.
        return self._sum_terms(spins) + 0.0 * spins.flatten(1).sum(1)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the shifts along the axes where every coupling and field repeats, and the flip without a field."""
        return self._symmetries

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
        side is at most 10 are solved row by row: log Z, the means of the energy and of the magnetisation, exact
        draws, and with an odd number of sites the masses of the modes.
        """
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution | None:
        return solve_product_space(self) or self._solve_by_rows()

    def _solve_by_rows(self) -> ExactSolution | None:
        spin = torch.tensor(self.values, dtype=torch.float64)
        on_bonds = self.coupling[:, None, None] * torch.outer(spin, spin)
        weights = lay_out(self.event_shape, self.bonds, on_bonds, self.field.flatten()[:, None] * spin)
        if weights is None:
            return None
        log_z, mean_log_prob = log_z_and_mean(weights, weights)
        mean_total_spin = 0.0
        if self._has_field:
            total_spin = lay_out(self.event_shape, self.bonds, 0.0 * on_bonds, spin.expand(self.num_sites, -1))
            assert total_spin is not None
            _, mean_total_spin = log_z_and_mean(weights, total_spin)
        expectations = {
            "energy_per_site": -mean_log_prob / self.num_sites,
            "magnetisation": mean_total_spin / self.num_sites,
        }
        masses = (0.5, 0.5) if self.modes() is not None and self.num_sites % 2 == 1 else None
        sampler = exact_sampler(weights, (-1, 1), self.dtype, self.event_shape)
        return ExactSolution(log_z, expectations, masses, sampler=sampler)

    @cached_property
    def _neighbours(self) -> tuple[Int64[Tensor, "sites degree"], Float64[Tensor, "sites degree"]]:
        """Return each site's neighbours, and the weights of the bonds to them in units of `_scale`."""
        neighbours, bonds = neighbour_tables(self.bonds, self.num_sites)
        return neighbours, torch.cat([self._bond_weights, self.coupling.new_zeros(1)])[bonds]

    @cached_property
    def _symmetries(self) -> tuple[Symmetry, ...]:
        axes = [axis for axis in range(len(self.event_shape)) if self._repeats_along(axis)]
        relabellings = {"identity": (0, 1)} | ({} if self._has_field else {"flip": (1, 0)})
        return lattice_symmetries(self.event_shape, axes, relabellings)

    def _repeats_along(self, axis: int) -> bool:
        if not self.periodic or not torch.equal(self.field.roll(1, axis), self.field):
            return False
        # Along a side of length 2 its own bonds stay where they are; only their ends change places.
        grids = {of: weights.reshape(self.event_shape) for of, weights in self._weights_by_axis.items()}
        return all(
            torch.equal(grid.roll(1, axis), grid)
            for of, grid in grids.items()
            if of != axis or self.event_shape[axis] > 2
        )

    def _sum_terms(self, spins: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        """Return the sum over bonds and sites, where a spin of 0 takes no part."""
        total = torch.zeros(spins.shape[0], dtype=torch.float64, device=spins.device)
        for axis, weights in self._weights_by_axis.items():
            aligned = spins * spins.roll(-1, axis + 1)
            total += aligned.flatten(1).to(torch.float64) @ weights.to(spins.device)
        total *= self._scale
        if self._has_field:
            total += spins.flatten(1).to(torch.float64) @ self.field.flatten().to(spins.device)
        return total


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
