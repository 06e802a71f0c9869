"""The unfinished objects that states stand for, as targets judge them."""

import pytest
import torch

from gfnmc.core.errors import CapabilityError
from gfnmc.environments import HyperGrid, Lattice, enumerate_states
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Potts, Target
from gfnmc.targets.base import check_objects
from tests.support import Stairs

LATTICES = {
    "spins": (Lattice((2, 2), (-1, 1), dtype=torch.int8), Ising((2, 2), 0.7, field=0.2)),
    "colours, any order": (Lattice((3,), (0, 1, 2), dtype=torch.int8, order="learned"), Potts((3,), 3, 0.7)),
    "colours, in order": (Lattice((3,), (0, 1, 2), dtype=torch.int8, order="fixed"), Potts((3,), 3, 0.7)),
}


@pytest.mark.parametrize("name", LATTICES)
def test_a_lattice_has_assigned_what_is_not_blank(name: str) -> None:
    environment, target = LATTICES[name]
    graph = enumerate_states(environment)
    objects, is_assigned = environment.assigned(graph.states)
    check_objects(target, objects)
    assert is_assigned.shape == objects.shape
    assert torch.equal(is_assigned.flatten(1).sum(1), environment.depth(graph.states))
    finished = graph.is_terminal
    assert is_assigned[finished].all()
    assert torch.equal(objects[finished], environment.objects(graph.states[finished]))
    # Each action assigns its own site to its own value and leaves the others.
    child, child_assigned = environment.assigned(graph.states[graph.children])
    parent, parent_assigned = objects[graph.parents], is_assigned[graph.parents]
    site, value = graph.actions // environment.num_values, graph.actions % environment.num_values
    is_new = torch.arange(environment.num_sites) == site[:, None]
    assert torch.equal((child_assigned & ~parent_assigned).flatten(1), is_new)
    assert torch.equal(child[child_assigned & parent_assigned], parent[child_assigned & parent_assigned])
    assert torch.equal(child.flatten(1)[is_new], torch.tensor(environment.values, dtype=torch.int8)[value])


@pytest.mark.parametrize(
    ("environment", "target"),
    [*LATTICES.values(), (HyperGrid(2, 8), HyperGridTarget(2, 8))],
    ids=[*LATTICES, "grid"],
)
def test_finished_states_have_their_whole_energy(environment: Lattice | HyperGrid, target: Target) -> None:
    graph = enumerate_states(environment)
    partial = target.partial_log_prob(*environment.assigned(graph.states))
    finished = graph.is_terminal
    assert torch.equal(partial[finished], target.log_prob(environment.objects(graph.states[finished])))
    assert len(partial) == graph.num_states


def test_every_cell_of_a_grid_is_an_object() -> None:
    environment = HyperGrid(3, 2, dtype=torch.int32)
    states = enumerate_states(environment).states
    objects, is_assigned = environment.assigned(states)
    assert torch.equal(objects, states)
    assert is_assigned.all()


def test_the_source_of_a_lattice_has_nothing_assigned() -> None:
    environment, target = LATTICES["spins"]
    objects, is_assigned = environment.assigned(environment.source(3))
    assert not is_assigned.any()
    assert target.partial_log_prob(objects, is_assigned).tolist() == [0.0] * 3


def test_an_environment_without_unfinished_objects_says_so() -> None:
    with pytest.raises(CapabilityError, match="Stairs has no unfinished objects"):
        Stairs(3).assigned(torch.zeros(1, 1, dtype=torch.int64))
