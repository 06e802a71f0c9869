"""Colours of sites: no two that interact have one, few are needed on lattices, and the order decides."""

import jaxtyping
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnergyError
from gfnmc.kernels.colouring import colour_classes, colours_of
from gfnmc.targets import EdwardsAnderson, HyperGrid, Ising, Potts, Target
from tests.support import random_numbers


def pairs_within(classes: tuple[Tensor, ...], pairs: Tensor) -> int:
    """How many pairs have one colour."""
    colour = torch.cat([torch.full_like(sites, number) for number, sites in enumerate(classes)])
    colour = colour[torch.cat(classes).argsort()]
    return int((colour[pairs[:, 0]] == colour[pairs[:, 1]]).sum())


NUM_COLOURS: dict[str, tuple[Target, int]] = {
    "even": (Ising((4, 6), 0.3), 2),
    "large": (Ising((32, 32), 0.3), 2),
    "free": (Ising((3, 5), 0.3, periodic=False), 2),
    "sides of two": (Ising((2, 2, 2), 0.3), 2),
    "ring of three": (Ising((3,), 0.3), 3),
    "ring of five": (Ising((5,), 0.3), 3),
    "glass": (EdwardsAnderson((4, 4), 0.3, seed=0), 2),
    "Potts": (Potts((6, 4), 3, 0.3), 2),
    "no bonds": (Ising((1, 1), 0.3), 1),
}


@pytest.mark.parametrize("name", NUM_COLOURS)
def test_lattices_need_few_colours(name: str) -> None:
    target, wanted = NUM_COLOURS[name]
    classes = colours_of(target)
    assert len(classes) == wanted
    assert torch.cat(classes).sort().values.tolist() == list(range(torch.Size(target.event_shape).numel()))
    assert all((sites.diff() > 0).all() for sites in classes)
    assert pairs_within(classes, target.interactions()) == 0


def test_an_even_lattice_is_a_checkerboard() -> None:
    row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    black, white = colours_of(Ising((4, 6), 0.3))
    assert torch.equal(black, ((row + column) % 2 == 0).flatten().nonzero()[:, 0])
    assert torch.equal(white, ((row + column) % 2 == 1).flatten().nonzero()[:, 0])


def test_odd_lattices_are_coloured_with_no_more_than_one_and_the_most_neighbours() -> None:
    for shape in ((3, 3), (5, 7), (3, 3, 3), (2, 5)):
        target = Ising(shape, 0.3)
        classes = colours_of(target)
        assert pairs_within(classes, target.bonds) == 0
        assert len(classes) <= 1 + 2 * len(shape)


def test_each_site_gets_the_first_colour_that_is_free() -> None:
    # 0 - 1, 1 - 2, 0 - 2 and 3 - 2: site 3 may have the colour of site 0.
    classes = colour_classes(torch.tensor([[0, 1], [1, 2], [2, 0], [3, 2], [2, 3]]), 5)
    assert [sites.tolist() for sites in classes] == [[0, 3, 4], [1], [2]]
    assert [sites.tolist() for sites in colour_classes(torch.zeros(0, 2, dtype=torch.int64), 3)] == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_any_graph_is_coloured(seed: int) -> None:
    num_sites = 20
    is_pair = random_numbers(seed, num_sites, num_sites).triu(1) > 0.5
    pairs = is_pair.nonzero()
    classes = colour_classes(pairs, num_sites)
    assert torch.cat(classes).sort().values.tolist() == list(range(num_sites))
    assert pairs_within(classes, pairs) == 0
    degree = torch.bincount(pairs.flatten(), minlength=num_sites)
    assert len(classes) <= 1 + int(degree.max())
    # Negative control: one colour for all.
    assert pairs_within((torch.arange(num_sites),), pairs) == len(pairs) > 0


class Claims(Ising):
    """An Ising model that says what it is told of its interactions."""

    def __init__(self, pairs: Tensor) -> None:
        super().__init__((2, 2), 0.3)
        self.pairs = pairs

    def interactions(self) -> Tensor:
        return self.pairs


def test_what_makes_no_pairs_of_sites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(CapabilityError, match=r"does not say which .* implement `interactions`, or .*systematic"):
        colours_of(HyperGrid(2, 3))
    for pairs in (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 2)):
        with pytest.raises(EnergyError, match=r"interactions returned torch.* return int64, two sites a pair"):
            colours_of(Claims(pairs))
    for pair in ([0, 4], [-1, 0], [2, 2]):
        with pytest.raises(EnergyError, match=rf"returned the pair \[{pair[0]}, {pair[1]}\]; .* sites of 0 \.\.\. 3"):
            colours_of(Claims(torch.tensor([[0, 1], pair])))
