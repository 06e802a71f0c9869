"""Neighbours on lattices."""

import pytest
import torch

from gfnmc.targets.lattice import bonds_by_axis, lattice_symmetries, neighbour_tables


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (2, 3), (3, 4), (2, 2, 3)])
def test_every_site_knows_both_ends_of_its_bonds(shape: tuple[int, ...], periodic: bool) -> None:
    bonds = torch.cat(list(bonds_by_axis(shape, periodic).values()))
    num_sites = torch.Size(shape).numel()
    neighbours, bonds_to = neighbour_tables(bonds, num_sites)
    assert neighbours.shape == bonds_to.shape
    found = [
        (site, int(neighbours[site, slot]), int(bonds_to[site, slot]))
        for site in range(num_sites)
        for slot in range(neighbours.shape[1])
        if bonds_to[site, slot] < len(bonds)
    ]
    wanted = [(a, b, place) for place, (a, b) in enumerate(bonds.tolist())]
    assert sorted(found) == sorted(wanted + [(b, a, place) for a, b, place in wanted])
    assert not neighbours[bonds_to == len(bonds)].any()


def test_shifts_move_every_site_as_far_as_they_say() -> None:
    symmetries = {s.name: s for s in lattice_symmetries((2, 3), (1,), {"identity": (0, 1), "flip": (1, 0)})}
    assert list(symmetries) == [
        "flip",
        "shift (0, 1), identity",
        "shift (0, 1), flip",
        "shift (0, 2), identity",
        "shift (0, 2), flip",
    ]
    assert symmetries["shift (0, 1), flip"].sites == (1, 2, 0, 4, 5, 3)
    assert symmetries["shift (0, 1), flip"].values == (1, 0)
