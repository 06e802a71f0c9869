"""The Potts model: colours on a lattice of any dimension, and neighbours that like to be equal.

    log_prob(x) = coupling * number of bonds whose two sites have one colour,    x_i = 0 ... num_states - 1

Every bond counts once, so on the square lattice the coupling is critical at ln(1 + sqrt(num_states)): 1.0050 for three
colours. With two colours it is the Ising model of half the coupling.

Reference: Potts 1952, "Some generalized order-disorder transformations".
"""

import itertools
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
from gfnmc.targets.lattice import bonds_by_axis, lattice_symmetries, neighbour_tables, wraps
from gfnmc.targets.relaxed import check_weights
from gfnmc.targets.transfer import exact_sampler, lay_out, log_z_and_mean

MAX_PERMUTED_COLOURS = 4
"""Colours up to which all their permutations are declared as symmetries; with more, only the cyclic ones."""


class Potts(Target):
    """Colours on a lattice; objects have the lattice's shape, int8, 0 ... num_states - 1.

    The statistics are "energy_per_site" (-log_prob / sites, nats), "order_parameter" (0 where all colours are equally
    frequent, 1 where there is one) and the fraction of each colour ("fraction_0", "fraction_1", ...).

    Attributes:
        bonds: The sites that each bond joins, `(num_bonds, 2)`, in the order of `Ising.bonds`; as there, a side of
            length 2 has no second bond round the back.

    Args:
        shape: Sites along each axis.
        num_states: Colours, 2 ... 127.
        coupling: What a bond between equal colours adds, nats.
        periodic: Whether every axis is closed to a ring.

    Raises:
        OptionError: If the shape is empty, or the number of colours or the coupling cannot work.
    """

    dtype = torch.int8

    def __init__(self, shape: tuple[int, ...], num_states: int, coupling: float, *, periodic: bool = True) -> None:
        self.event_shape = checked_event_shape(shape)
        if not 2 <= num_states <= 127:
            raise OptionError(f"num_states is {num_states}; give 2 ... 127 colours")
        if not math.isfinite(coupling):
            raise OptionError(f"coupling is {coupling}; it must be finite")
        self.name = f"potts{num_states}-{'x'.join(str(side) for side in self.event_shape)}"
        self.num_states = num_states
        self.coupling = float(coupling)
        self.periodic = periodic
        self.values = tuple(range(num_states))
        self.num_sites = math.prod(self.event_shape)
        self.bonds = torch.cat(list(bonds_by_axis(self.event_shape, periodic).values()))

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return self.coupling * self._num_equal(x, None).to(torch.float64)

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        check_assigned(self, x, is_assigned)
        return self.coupling * self._num_equal(x, is_assigned).to(torch.float64)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        check_sites(self, x, sites)
        neighbours, is_bond = (table.to(x.device) for table in self._neighbours)
        flat = x.flatten(1)
        around = flat.gather(1, neighbours[sites])[:, :, None] == torch.arange(self.num_states, device=x.device)
        num_equal = (around & is_bond[sites][:, :, None]).sum(1)
        present = flat.gather(1, sites[:, None]).to(torch.int64)
        return self.coupling * (num_equal - num_equal.gather(1, present)).to(torch.float64)

    def interactions(self) -> Int64[Tensor, "pairs 2"]:
        return self.bonds

    def log_prob_deltas(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " sites"]
    ) -> Float64[Tensor, "batch sites values"]:
        check_many_sites(self, x, sites)
        neighbours, is_bond = (table.to(x.device)[sites].T for table in self._neighbours)
        colours = x.flatten(1).T
        # Where there is no bond stands a colour that no site has.
        around = take_rows(colours, neighbours).masked_fill(~is_bond[:, :, None], -1)
        num_equal = torch.stack([(around == colour).sum(0) for colour in range(self.num_states)], 2)
        present = take_rows(colours, sites)[:, :, None].to(torch.int64)
        return (self.coupling * (num_equal - num_equal.gather(2, present)).to(torch.float64)).transpose(0, 1)

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        """Return the sum over bonds of what the weights of the two sites have in common, linear in each."""
        check_weights(self, weights)
        # Begins with the weights, so that a lattice without bonds has a gradient too.
        total = 0.0 * weights.flatten(1).sum(1)
        for axis, side in enumerate(self.event_shape, start=1):
            alike = (weights * weights.roll(-1, axis)).sum(-1)
            total = total + alike.narrow(axis, 0, self._num_firsts(side)).flatten(1).sum(1)
        return self.coupling * total

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the permutations of up to `MAX_PERMUTED_COLOURS` colours, else the cyclic ones, with shifts."""
        return self._symmetries

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        fractions = _colour_counts(x, self.num_states).to(torch.float64) / self.num_sites
        named = {f"fraction_{colour}": fractions[:, colour] for colour in range(self.num_states)}
        return {
            "energy_per_site": -self.log_prob(x) / self.num_sites,
            "order_parameter": (self.num_states * fractions.amax(1) - 1) / (self.num_states - 1),
        } | named

    def modes(self) -> ModeSet | None:
        """Return one mode a colour: the objects where it is the most frequent; ties are in no mode.

        None where the coupling does not favour equal colours.
        """
        return _Pluralities(self.event_shape, self.num_states) if self.coupling > 0 else None

    def exact(self) -> ExactSolution | None:
        """Return the exact solution, or None where it is out of reach.

        Up to `ENUMERATION_LIMIT` configurations are enumerated. Larger lattices of two dimensions are solved row by
        row where a row has at most 1024 states (6 sites of three colours): log Z, the means of the energy and of the
        fractions, exact draws, and the masses of the modes where ties are impossible.
        """
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution | None:
        return solve_product_space(self) or self._solve_by_rows()

    def _solve_by_rows(self) -> ExactSolution | None:
        on_bonds = (self.coupling * torch.eye(self.num_states, dtype=torch.float64)).expand(len(self.bonds), -1, -1)
        on_sites = torch.zeros(self.num_sites, self.num_states, dtype=torch.float64)
        weights = lay_out(self.event_shape, self.bonds, on_bonds, on_sites)
        if weights is None:
            return None
        log_z, mean_log_prob = log_z_and_mean(weights, weights)
        expectations = {f"fraction_{colour}": 1 / self.num_states for colour in range(self.num_states)}
        expectations["energy_per_site"] = -mean_log_prob / self.num_sites
        # With three colours any number of sites, but one, can tie.
        has_no_ties = self.num_states == 2 and self.num_sites % 2 == 1
        masses = (0.5, 0.5) if has_no_ties and self.modes() is not None else None
        sampler = exact_sampler(weights, tuple(range(self.num_states)), self.dtype, self.event_shape)
        return ExactSolution(log_z, expectations, masses, sampler=sampler)

    @cached_property
    def _neighbours(self) -> tuple[Int64[Tensor, "sites degree"], Bool[Tensor, "sites degree"]]:
        neighbours, bonds = neighbour_tables(self.bonds, self.num_sites)
        return neighbours, bonds < len(self.bonds)

    @cached_property
    def _symmetries(self) -> tuple[Symmetry, ...]:
        colours = tuple(range(self.num_states))
        permutations = [colours[turn:] + colours[:turn] for turn in colours]
        if self.num_states <= MAX_PERMUTED_COLOURS:
            permutations = list(itertools.permutations(colours))
        relabellings = {f"colours to {', '.join(map(str, values))}": values for values in permutations}
        axes = range(len(self.event_shape)) if self.periodic else ()
        return lattice_symmetries(self.event_shape, axes, relabellings)

    def _num_equal(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"] | None
    ) -> Int64[Tensor, " batch"]:
        """Count the bonds between equal colours, among the assigned sites where they are not all."""
        total = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        for axis, side in enumerate(self.event_shape, start=1):
            is_equal = x == x.roll(-1, axis)
            if is_assigned is not None:
                is_equal = is_equal & is_assigned & is_assigned.roll(-1, axis)
            total += is_equal.narrow(axis, 0, self._num_firsts(side)).flatten(1).sum(1)
        return total

    def _num_firsts(self, side: int) -> int:
        """Return how many sites along a side are the first of a bond."""
        return side if wraps(side, self.periodic) else side - 1


class _Pluralities(ModeSet):
    def __init__(self, shape: tuple[int, ...], num_states: int) -> None:
        colours = torch.arange(num_states, dtype=torch.int8)
        self.names = tuple(f"colour {colour}" for colour in range(num_states))
        self.examples = colours.reshape(-1, *[1] * len(shape)).repeat(1, *shape)

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        (first, second), (colour, _) = (top.unbind(1) for top in _colour_counts(x, len(self)).topk(2))
        return torch.where(first > second, colour, -1)


def _colour_counts(x: Shaped[Tensor, "batch *event"], num_states: int) -> Int64[Tensor, "batch states"]:
    return torch.stack([(x == colour).flatten(1).sum(1) for colour in range(num_states)], 1)
