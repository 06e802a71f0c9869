"""DAGs drawn edge by edge: masks and single changes against all matrices, one by one."""

import collections
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments import StateGraph, check_environment, enumerate_paths, enumerate_states
from gfnmc.environments.dags import DAGs
from gfnmc.targets import from_function
from tests.support import random_actions

NUM_DAGS = {2: 3, 3: 25, 4: 543}  # Robinson 1973
BY_SIZE = pytest.mark.parametrize("num_nodes", NUM_DAGS)


def is_dag(matrix: np.ndarray) -> bool:
    """No closed walk of any length up to the number of nodes: the trace of every power is 0."""
    powers = itertools.accumulate(range(len(matrix)), lambda power, _: power @ matrix, initial=matrix.astype(np.int64))
    return all(np.trace(power) == 0 for power in powers)


def graph_of(num_nodes: int) -> StateGraph:
    return enumerate_states(DAGs(num_nodes))


def some_dags(num_nodes: int, num_rows: int, num_steps: int) -> Tensor:
    """States reached by random edges."""
    environment, rng = DAGs(num_nodes), np.random.default_rng(3)
    states = environment.source(num_rows)
    for _ in range(num_steps):
        mask = environment.forward_mask(states)[:, :-1]
        drawn = environment.step(states, random_actions(mask, rng))
        states = torch.where(mask.any(-1, keepdim=True), drawn, states)
    return states


@BY_SIZE
def test_every_dag_is_a_state_and_nothing_else(num_nodes: int) -> None:
    graph = graph_of(num_nodes)
    assert graph.num_states == len(graph.objects) == NUM_DAGS[num_nodes]
    assert all(is_dag(matrix) for matrix in graph.objects.numpy())
    check_environment(graph.environment, num_paths=64)


def test_large_graphs_pass_the_checks() -> None:
    check_environment(DAGs(11))
    assert DAGs(11).num_actions == 111 and DAGs(11).max_depth == 55
    assert DAGs(5).is_enumerable and not DAGs(6).is_enumerable


@pytest.mark.parametrize("num_nodes", [2, 3])
def test_every_dag_is_drawn_in_every_order(num_nodes: int) -> None:
    graph = graph_of(num_nodes)
    counted = torch.bincount(enumerate_paths(graph).states[:, -1], minlength=graph.num_states)
    log_num_paths = graph.environment.log_num_paths(graph.states)
    torch.testing.assert_close(log_num_paths.exp(), counted.double(), rtol=1e-12, atol=0.0)
    assert torch.equal(graph.environment.depth(graph.states), graph.objects.flatten(1).sum(1))
    assert float(log_num_paths.max()) == pytest.approx(math.log(math.factorial(graph.environment.max_depth)))


def wrong_draws(environment: DAGs, states: Tensor, mask: Tensor) -> int:
    """How often a forward mask differs from trying out every edge."""
    matrices = environment.objects(states).numpy()
    wrong = 0
    for matrix, allowed in zip(matrices, mask.tolist(), strict=True):
        for (parent, child), said in zip(environment.pairs.tolist(), allowed[:-1], strict=True):
            tried = matrix.copy()
            tried[parent, child] = 1
            wrong += said != (matrix[parent, child] == 0 and is_dag(tried))
        wrong += not allowed[-1]
    return wrong


@pytest.mark.parametrize(("num_nodes", "num_steps"), [(2, 0), (3, 2), (4, 3), (5, 6), (6, 8), (9, 12), (11, 14)])
def test_an_edge_may_be_drawn_where_it_closes_no_cycle(num_nodes: int, num_steps: int) -> None:
    environment = DAGs(num_nodes)
    states = some_dags(num_nodes, 12, num_steps) if num_nodes > 4 else graph_of(num_nodes).states
    assert wrong_draws(environment, states, environment.forward_mask(states)) == 0
    # Negative control: to look at the edge the other way round only is not enough.
    matrices = environment.objects(states)
    short_sighted = environment._entries((matrices == 0) & (matrices.mT == 0))
    short_sighted = torch.nn.functional.pad(short_sighted, (0, 1), value=True)
    assert (wrong_draws(environment, states, short_sighted) > 0) == (num_nodes > 2)


def test_long_paths_are_seen() -> None:
    for num_nodes in range(2, 14):
        environment = DAGs(num_nodes)
        chain = torch.diag(torch.ones(num_nodes - 1, dtype=torch.int8), 1)
        mask = environment.forward_mask(environment.states(chain[None]))[0, :-1]
        # Nothing may point back along a chain, and everything forward that is not there.
        assert environment.pairs[mask].tolist() == [[i, j] for i in range(num_nodes) for j in range(i + 2, num_nodes)]
        chain[-1, 0] = 1
        with pytest.raises(ObjectError, match="directed cycle"):
            environment.states(chain[None])


def test_the_edges_that_are_there_may_be_undone() -> None:
    graph = graph_of(3)
    mask = graph.environment.backward_mask(graph.states)
    assert torch.equal(mask[:, :-1], graph.states == 1) and not mask[:, -1].any()


def test_objects_are_adjacency_matrices() -> None:
    environment = DAGs(3)
    assert environment.pairs.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    states = torch.tensor([[1, 0, 0, 1, 0, 0]], dtype=torch.int8)
    chain = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert environment.objects(states).tolist() == [chain]
    assert environment.objects(states).dtype == torch.int8
    assert DAGs(3, dtype=torch.float32).objects(states).dtype == torch.float32
    assert torch.equal(environment.states(torch.tensor([chain], dtype=torch.int64)), states)
    objects, is_assigned = environment.assigned(states)
    assert objects.tolist() == [chain] and is_assigned.shape == (1, 3, 3) and is_assigned.all()
    graph = graph_of(4)
    assert torch.equal(graph.environment.states(graph.objects), graph.states)


@pytest.mark.parametrize(("row", "column", "value"), [(0, 1, 2), (2, 2, 1), (1, 0, 1), (2, 0, 1), (0, 2, -1)], ids=str)
def test_other_matrices_are_refused(row: int, column: int, value: int) -> None:
    matrices = DAGs(3).objects(torch.tensor([[1, 0, 0, 1, 0, 0]] * 2, dtype=torch.int8))
    matrices[1, row, column] = value
    with pytest.raises(ObjectError, match=r"object 1, .* is not the adjacency matrix of a directed acyclic graph"):
        DAGs(3).states(matrices)


@BY_SIZE
def test_single_changes_are_what_they_are_by_hand(num_nodes: int) -> None:
    environment = DAGs(num_nodes)
    objects = graph_of(num_nodes).objects
    changed, mask = environment.neighbours(objects)
    num_pairs = environment.num_tokens
    assert environment.num_changes == changed.shape[1] == 2 * num_pairs == 2 * num_nodes * (num_nodes - 1)
    for matrix, results, allowed in zip(objects.numpy(), changed.numpy(), mask.tolist(), strict=True):
        for place, (parent, child) in enumerate(environment.pairs.tolist()):
            toggled, turned = matrix.copy(), matrix.copy()
            toggled[parent, child] ^= 1
            turned[[parent, child], [child, parent]] = 0, 1
            assert allowed[place] == is_dag(toggled)
            assert allowed[num_pairs + place] == (matrix[parent, child] == 1 and is_dag(turned))
            assert not allowed[place] or np.array_equal(results[place], toggled)
            assert not allowed[num_pairs + place] or np.array_equal(results[num_pairs + place], turned)


@BY_SIZE
def test_single_changes_pair_objects_once_each_way_and_connect(num_nodes: int) -> None:
    graph = graph_of(num_nodes)
    before = graph.objects.clone()
    changed, mask = graph.environment.neighbours(graph.objects)
    assert torch.equal(graph.objects, before)
    ids = graph.index(graph.environment.states(changed[mask]))
    leads = collections.Counter(zip(mask.nonzero()[:, 0].tolist(), ids.tolist(), strict=True))
    assert set(leads.values()) == {1}
    assert all(one != other and (other, one) in leads for one, other in leads)
    # A reversal that led round a cycle would have no way back: without the mask the same count fails.
    every = changed[:, graph.environment.num_tokens :].flatten(0, 1).numpy()
    assert all(is_dag(matrix) for matrix in every) == (num_nodes == 2)
    reached, frontier = {0}, {0}
    while frontier:
        frontier = {other for one, other in leads if one in frontier} - reached
        reached |= frontier
    assert len(reached) == graph.num_states and graph.environment.changes_connect


def test_changes_of_large_graphs_are_allowed_exactly_where_they_leave_a_dag() -> None:
    environment = DAGs(11)
    objects = environment.objects(some_dags(11, 4, 18))
    changed, mask = environment.neighbours(objects)
    leaves_dag = torch.tensor([[is_dag(matrix) for matrix in row] for row in changed.numpy()])
    is_edge = environment._entries(objects == 1)
    applies = torch.cat([torch.ones_like(is_edge), is_edge], 1)
    assert torch.equal(mask, applies & leaves_dag)
    reversals = slice(environment.num_tokens, None)
    assert (mask[:, reversals] != applies[:, reversals]).any()


def test_nodes_and_edges_tell_all_dags_apart() -> None:
    environment, graph = DAGs(4), graph_of(4)
    nodes, edges = environment.nodes(graph.states), environment.edges(graph.states)
    assert edges.dtype == torch.bool and torch.equal(edges, (graph.objects + graph.objects.mT) == 1)
    assert torch.equal(nodes // 4, torch.arange(4).expand(len(nodes), -1))
    assert torch.equal(nodes % 4, graph.objects.sum(1, dtype=torch.int64))
    assert environment.num_nodes == 4 and environment.node_vocabulary == 16 and int(nodes.max()) < 16
    told = torch.cat([nodes, edges.flatten(1).long()], 1)
    assert len(told.unique(dim=0)) == graph.num_states
    # Neither does alone.
    assert len(nodes.unique(dim=0)) < graph.num_states
    assert len(edges.flatten(1).unique(dim=0)) == 2**6


def test_actions_know_their_nodes_and_tokens() -> None:
    environment = DAGs(3)
    assert environment.action_nodes.tolist() == [[0, 1], [0, 2], [0, 1], [1, 2], [0, 2], [1, 2]]
    assert environment.action_tokens is not None
    for action, (parent, child) in enumerate(environment.pairs.tolist()):
        stepped = environment.step(environment.source(1), torch.tensor([action]))
        assert environment.objects(stepped)[0].nonzero().tolist() == [[parent, child]]
        assert environment.unstep(stepped, torch.tensor([action])).tolist() == [[0] * 6]
        assert sorted((parent, child)) == environment.action_nodes[action].tolist()
        changed = (environment.tokens(stepped) != environment.tokens(environment.source(1)))[0].nonzero()[:, 0]
        assert changed.tolist() == environment.action_tokens[action].tolist()
    assert int(environment.tokens(graph_of(3).states).max()) == environment.vocabulary - 1


def test_dags_that_cannot_work_are_refused() -> None:
    with pytest.raises(OptionError, match="num_nodes is 1"):
        DAGs(1)
    with pytest.raises(OptionError, match="give an integer dtype"):
        DAGs(3, dtype=torch.bool)


def test_dags_are_built_for_targets_on_matrices() -> None:
    target = from_function(lambda x: x.flatten(1).sum(1).double(), (5, 5), dtype=torch.int16, name="edges")
    built = DAGs.for_target(target)
    assert (built.num_nodes, built.dtype) == (5, torch.int16)
    assert built.describe() == {"name": "DAGs", "num_actions": 21, "max_depth": 10, "num_nodes": 5}
    for shape in ((5,), (4, 5), (2, 2, 2)):
        with pytest.raises(CapabilityError, match="not defined on adjacency matrices"):
            DAGs.for_target(from_function(lambda x: x.flatten(1).sum(1).double(), shape, name="other"))
