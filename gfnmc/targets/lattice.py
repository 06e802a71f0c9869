"""What targets on lattices share: the bonds between neighbours, and the shifts that a ring allows."""

import itertools
import math
from collections.abc import Collection, Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from gfnmc.core.symmetry import Symmetry

MAX_SYMMETRIES = 2**11
"""Most elements of a group that a target lists; of a larger one only the relabellings of values are declared."""


def bonds_by_axis(shape: tuple[int, ...], periodic: bool) -> dict[int, Int64[Tensor, "bonds 2"]]:
    """Return the sites that each bond joins, axis by axis, each bond once.

    Sites are counted in row-major order, bonds by their first site, which is joined to its next one up (round to 0
    from the last, where the lattice is periodic). A side of length 2 has no second bond round the back.
    """
    site = torch.arange(math.prod(shape)).reshape(shape)
    bonds = {}
    for axis, side in enumerate(shape):
        num_firsts = side if wraps(side, periodic) else side - 1
        first = site.narrow(axis, 0, num_firsts).flatten()
        second = site.roll(-1, axis).narrow(axis, 0, num_firsts).flatten()
        bonds[axis] = torch.stack([first, second], 1)
    return bonds


def wraps(side: int, periodic: bool) -> bool:
    """Say whether an axis has a bond from its last site to its first."""
    return periodic and side > 2


def neighbour_tables(
    bonds: Int64[Tensor, "bonds 2"], num_sites: int
) -> tuple[Int64[Tensor, "sites degree"], Int64[Tensor, "sites degree"]]:
    """Return each site's neighbours and the bonds to them.

    Where a site has fewer neighbours than another, its row is filled up with site 0 and bond `num_bonds`, so that
    weights that end in a 0 can be looked up by bond.
    """
    site, neighbour = torch.cat([bonds, bonds.flip(1)]).unbind(1)
    bond = torch.arange(len(bonds)).repeat(2)
    order = site.argsort(stable=True)
    count = torch.bincount(site, minlength=num_sites)
    slot = torch.arange(len(site)) - (count.cumsum(0) - count)[site[order]]
    neighbours = torch.zeros(num_sites, int(count.max()), dtype=torch.int64)
    bonds_to = torch.full_like(neighbours, len(bonds))
    neighbours[site[order], slot] = neighbour[order]
    bonds_to[site[order], slot] = bond[order]
    return neighbours, bonds_to


def lattice_symmetries(
    shape: tuple[int, ...], shift_axes: Collection[int], relabellings: Mapping[str, tuple[int, ...]]
) -> tuple[Symmetry, ...]:
    """Return every shift combined with every relabelling of values, the identity left out.

    Args:
        shape: Sites along each axis.
        shift_axes: Axes along which any number of steps may be shifted.
        relabellings: Permutations of the values by name, the identity among them.
    """
    sides = [side if axis in shift_axes else 1 for axis, side in enumerate(shape)]
    if math.prod(sides) * len(relabellings) > MAX_SYMMETRIES:
        sides = [1] * len(shape)
    site = torch.arange(math.prod(shape)).reshape(shape)
    axes = tuple(range(len(shape)))
    elements = []
    for shift in itertools.product(*(range(side) for side in sides)):
        sites = tuple(site.roll([-steps for steps in shift], axes).flatten().tolist())
        for name, values in relabellings.items():
            elements.append(Symmetry(f"shift {shift}, {name}" if any(shift) else name, sites, values))
    return tuple(element for element in elements if not element.is_identity)
