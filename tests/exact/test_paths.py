"""Every path of every tiny environment: policies are laws on them, and a solved pair makes the target."""

import pytest
import torch

from gfnmc.environments import CompletePaths, StateGraph, enumerate_paths
from gfnmc.policies import GFlowNet, Path
from tests.exact.cases import ENVIRONMENTS, PAIRS, graph_of, solved_pair, table_target

# Counted by hand: orders times values, lattice paths, compositions of 0 ... 4, ordered subsets, words.
NUM_PATHS = {
    "lattice, any order": 6 * 8,
    "lattice, fixed order (tree)": 8,
    "lattice, learned order": 2 * 9,
    "hypergrid": 1 + 2 * 1 + 2 * 1 + 2 + 2 * 3 + 6,
    "jumps (not graded)": 1 + 1 + 2 + 3 + 5,
    "subsets": 1 + 3 + 6 + 6,
    "words (tree)": 1 + 2 + 4,
}


def _as_path(graph: StateGraph, paths: CompletePaths) -> Path:
    started = torch.ones(len(paths.lengths), dtype=torch.bool)
    return Path(graph.states[paths.states], paths.actions, paths.lengths, started)


def _made_by(pair: GFlowNet, graph: StateGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probability of each object under P_F, and the sum of P_B over its paths."""
    paths = enumerate_paths(graph)
    path = _as_path(graph, paths)
    objects = torch.zeros(graph.num_states, dtype=torch.float64)
    ends = paths.states[:, -1]
    made = objects.index_add(0, ends, pair.log_forward(path).exp().detach())
    undone = objects.index_add(0, ends, pair.log_backward(path).exp().detach())
    return made[graph.is_terminal], undone[graph.is_terminal]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_enumerator_finds_every_path_once(environment: str) -> None:
    paths = enumerate_paths(graph_of(environment))
    assert len(paths.lengths) == NUM_PATHS[environment]
    assert len(torch.cat([paths.states, paths.actions], 1).unique(dim=0)) == NUM_PATHS[environment]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_policies_are_laws_on_paths(environment: str, pair: str) -> None:
    graph = graph_of(environment)
    made, undone = _made_by(PAIRS[pair](graph), graph)
    assert abs(float(made.sum()) - 1.0) < 1e-12
    assert (undone - 1.0).abs().max() < 1e-12


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_solved_pair_makes_objects_in_proportion_to_their_reward(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    for backward in (None, PAIRS["tabular"](graph).backward):
        pair = solved_pair(graph, target, backward)
        made, _ = _made_by(pair, graph)
        torch.testing.assert_close(made, target.pmf, rtol=0.0, atol=1e-12)
        assert abs(pair.log_z.item() - float(target.table.logsumexp(0))) < 1e-12
    # Control: another pair makes something else.
    made, _ = _made_by(PAIRS["tabular"](graph), graph)
    assert (made - target.pmf).abs().max() > 1e-3
