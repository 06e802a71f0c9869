"""Graphs drawn edge by edge: what states, objects, nodes and edges say of one graph is the same."""

import math

import pytest
import torch

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments import GraphBuilding, check_environment, enumerate_paths, enumerate_states
from gfnmc.targets import from_function

FOUR = GraphBuilding(4)


def test_every_graph_is_drawn_in_every_order() -> None:
    graph = enumerate_states(FOUR)
    assert graph.num_states == len(graph.objects) == 2**6
    check_environment(GraphBuilding(9))
    paths = enumerate_paths(graph)
    counted = torch.bincount(paths.states[:, -1], minlength=64)
    torch.testing.assert_close(FOUR.log_num_paths(graph.states).exp(), counted.double(), rtol=1e-12, atol=0.0)
    assert FOUR.max_depth == 6 and FOUR.is_enumerable and not GraphBuilding(8).is_enumerable


def test_objects_are_adjacency_matrices() -> None:
    states = torch.tensor([[1, 0, 0, 1, 0, 1]], dtype=torch.int8)
    path = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert FOUR.objects(states).tolist() == [path]
    assert FOUR.objects(states).dtype == torch.int8
    assert GraphBuilding(4, dtype=torch.float32).objects(states).dtype == torch.float32
    assert torch.equal(FOUR.states(torch.tensor([path], dtype=torch.int64)), states)
    objects, is_assigned = FOUR.assigned(states)
    assert objects.tolist() == [path] and is_assigned.shape == (1, 4, 4) and is_assigned.all()


@pytest.mark.parametrize(("row", "column", "value"), [(0, 1, 0), (2, 2, 1), (0, 3, 1), (1, 2, 2), (3, 2, -1)])
def test_other_matrices_are_refused(row: int, column: int, value: int) -> None:
    matrices = FOUR.objects(torch.tensor([[1, 0, 0, 1, 0, 1]] * 2, dtype=torch.int8))
    matrices[1, row, column] = value
    with pytest.raises(ObjectError, match=r"object 1, .* is not the adjacency matrix of a simple undirected graph"):
        FOUR.states(matrices)


def test_nodes_and_edges_say_what_the_graph_is() -> None:
    states = enumerate_states(FOUR).states
    matrices = FOUR.objects(states)
    edges, nodes = FOUR.edges(states), FOUR.nodes(states)
    assert edges.dtype == torch.bool and torch.equal(edges, matrices == 1)
    assert torch.equal(nodes // 4, torch.arange(4).expand(64, -1))
    assert torch.equal(nodes % 4, matrices.sum(-1, dtype=torch.int64))
    assert FOUR.num_nodes == 4 and FOUR.node_vocabulary == 16 and int(nodes.max()) < 16
    # Action e joins the nodes that it is about, and sets the token that it is about.
    assert FOUR.action_nodes.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert FOUR.action_tokens is not None
    for action, (one, other) in enumerate(FOUR.action_nodes.tolist()):
        stepped = FOUR.step(FOUR.source(1), torch.tensor([action]))
        assert FOUR.edges(stepped)[0].nonzero().tolist() == [[one, other], [other, one]]
        changed = (FOUR.tokens(stepped) != FOUR.tokens(FOUR.source(1)))[0].nonzero()[:, 0]
        assert changed.tolist() == FOUR.action_tokens[action].tolist()


def test_graphs_that_cannot_work_are_refused() -> None:
    with pytest.raises(OptionError, match="num_nodes is 1"):
        GraphBuilding(1)
    with pytest.raises(OptionError, match="give an integer dtype"):
        GraphBuilding(3, dtype=torch.bool)


def test_graphs_are_built_for_targets_on_matrices() -> None:
    target = from_function(lambda x: x.flatten(1).sum(1).double(), (5, 5), dtype=torch.int16, name="edges")
    built = GraphBuilding.for_target(target)
    assert (built.num_nodes, built.dtype) == (5, torch.int16)
    assert built.describe()["num_nodes"] == 5
    for shape in ((5,), (4, 5), (2, 2, 2)):
        with pytest.raises(CapabilityError, match="not defined on adjacency matrices"):
            GraphBuilding.for_target(from_function(lambda x: x.flatten(1).sum(1).double(), shape, name="other"))


def test_a_walk_of_uniform_steps_reaches_a_graph_by_its_orders() -> None:
    # log k! by hand: the complete graph on four nodes has six edges.
    full = torch.ones(1, 6, dtype=torch.int8)
    assert float(FOUR.log_num_paths(full)[0]) == pytest.approx(math.log(720))
