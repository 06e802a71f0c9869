"""Symmetries of assignments carry states, actions and neighbourhoods of a lattice with them."""

import pytest
import torch

from gfnmc.core.errors import CapabilityError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from tests.support import is_identical

FLIP = Symmetry("flip", (0, 1, 2), (1, 0))
LATTICES = {
    "uniform": (Lattice((3,), (-1, 1), dtype=torch.int8), (Symmetry("shift and flip", (1, 2, 0), (1, 0)), FLIP)),
    "learned": (
        Lattice((2, 2), (0, 1, 5), order="learned"),
        (Symmetry("turn and go round", (1, 3, 0, 2), (1, 2, 0)), Symmetry("swap", (0, 2, 1, 3), (0, 2, 1))),
    ),
    "fixed": (Lattice((3,), (-1, 1), order="fixed", site_order=(2, 0, 1)), (FLIP,)),
}


@pytest.fixture(params=LATTICES)
def lattice_and_symmetries(request: pytest.FixtureRequest) -> tuple[Lattice, tuple[Symmetry, ...]]:
    return LATTICES[request.param]


def test_moving_and_relabelling_commute(lattice_and_symmetries: tuple[Lattice, tuple[Symmetry, ...]]) -> None:
    lattice, symmetries = lattice_and_symmetries
    graph = enumerate_states(lattice)
    above, below = graph.states[graph.parents], graph.states[graph.children]
    for symmetry in symmetries:
        actions = lattice.transformed_actions(symmetry)
        assert actions.sort().values.tolist() == list(range(lattice.num_actions))
        become = lattice.transformed(symmetry, above)
        assert is_identical(lattice.step(become, actions[graph.actions]), lattice.transformed(symmetry, below))
        for mask in (lattice.forward_mask, lattice.backward_mask):
            assert torch.equal(mask(lattice.transformed(symmetry, graph.states))[:, actions], mask(graph.states))
        # States go one to one, and the inverse leads back.
        assert len(lattice.transformed(symmetry, graph.states).unique(dim=0)) == graph.num_states
        back = lattice.transformed(symmetry.inverse(), lattice.transformed(symmetry, graph.states))
        assert is_identical(back, graph.states)
        inverse = lattice.transformed_actions(symmetry.inverse())
        assert torch.equal(inverse[actions], torch.arange(lattice.num_actions))


def test_finished_states_are_relabelled_as_objects_are(
    lattice_and_symmetries: tuple[Lattice, tuple[Symmetry, ...]],
) -> None:
    lattice, symmetries = lattice_and_symmetries
    graph = enumerate_states(lattice)
    finished = graph.states[graph.is_terminal]
    for symmetry in symmetries:
        assert is_identical(lattice.transformed(symmetry, finished), symmetry.apply(finished))
        for other in symmetries:
            both = lattice.transformed(symmetry, lattice.transformed(other, graph.states))
            assert is_identical(both, lattice.transformed(symmetry.after(other), graph.states))


def test_symmetries_of_another_space_are_refused() -> None:
    lattice = LATTICES["uniform"][0]
    for stranger in (Symmetry("small", (0, 1), (1, 0)), Symmetry("colours", (0, 1, 2), (1, 2, 0))):
        for relabel in (lambda s: lattice.transformed(s, lattice.source(1)), lattice.transformed_actions):
            with pytest.raises(CapabilityError, match="but the lattice has 3 with 2"):
                relabel(stranger)


def test_a_fixed_order_keeps_its_sites() -> None:
    lattice = LATTICES["fixed"][0]
    shift = Symmetry("shift", (1, 2, 0), (0, 1))
    with pytest.raises(CapabilityError, match="'shift' moves sites, which does not keep a fixed order"):
        lattice.transformed(shift, lattice.source(1))


@pytest.mark.parametrize("environment", [HyperGrid(2, 3)])
def test_other_environments_say_that_they_do_not(environment: DiscreteEnvironment) -> None:
    symmetry = Symmetry("swap", (1, 0), (0, 1, 2))
    with pytest.raises(CapabilityError, match="HyperGrid does not relabel its states"):
        environment.transformed(symmetry, environment.source(1))
    with pytest.raises(CapabilityError, match="HyperGrid does not relabel its actions"):
        environment.transformed_actions(symmetry)
    with pytest.raises(CapabilityError, match="HyperGrid joins no nodes by edges"):
        environment.edges(environment.source(1))


@pytest.mark.parametrize(
    ("shape", "neighbours_of_first"),
    [((1,), []), ((2,), [1]), ((5,), [1, 4]), ((3, 4), [1, 3, 4, 8]), ((2, 3), [1, 2, 3]), ((2, 2, 2), [1, 2, 4])],
)
def test_nearest_neighbours_are_joined_around_the_lattice(
    shape: tuple[int, ...], neighbours_of_first: list[int]
) -> None:
    lattice = Lattice(shape, (0, 1))
    edges = lattice.edges(lattice.source(3))
    assert edges.shape == (3, lattice.num_sites, lattice.num_sites)
    assert torch.equal(edges[0], edges[2]) and torch.equal(edges, edges.transpose(1, 2))
    assert edges[0, 0].nonzero()[:, 0].tolist() == neighbours_of_first
    assert not edges[0].diagonal().any()
    # Every site has as many neighbours as the first.
    assert (edges.sum(-1) == len(neighbours_of_first)).all()


def test_an_action_of_a_lattice_is_about_its_site() -> None:
    lattice = Lattice((2,), (0, 1, 2), order="learned")
    assert lattice.action_tokens is not None and torch.equal(lattice.action_tokens, lattice.action_nodes)
    assert lattice.action_tokens.tolist() == [[0], [0], [0], [1], [1], [1]]
    assert (lattice.num_nodes, lattice.node_vocabulary) == (2, 8)
    states = lattice.step(lattice.source(1), torch.tensor([4]))
    assert torch.equal(lattice.nodes(states), lattice.tokens(states))
