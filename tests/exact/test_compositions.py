"""The other kernels and the compositions, proved by the same enumeration."""

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core import draws as draws_module
from gfnmc.core.errors import IrreducibilityError
from gfnmc.kernels import Cycle, IndependenceMH, Kernel, Mixture, RandomWalk, Reach, SuffixResampling
from gfnmc.kernels.branch import Fixed, FullRestart
from gfnmc.kernels.metropolis import Proposal
from gfnmc.testing import transition_matrix
from tests.exact.cases import (
    ENVIRONMENTS,
    PAIRS,
    TREES,
    balance_error,
    graph_of,
    invariance_error,
    is_connected,
    mlp_pair,
    table_target,
)

WITH_CHANGES = [name for name in ENVIRONMENTS if name not in ("subsets", "words (tree)")]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_independence_mh_is_exact_and_is_the_full_restart(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["mlp"](graph)
    matrix = transition_matrix(IndependenceMH(pair, target), graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    restart = transition_matrix(SuffixResampling(pair, target, FullRestart()), graph.objects)
    torch.testing.assert_close(matrix, restart, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_independence_mh_without_correction_fails(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = IndependenceMH(PAIRS["mlp"](graph), target)
    _drop_correction(monkeypatch, kernel)
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


@pytest.mark.parametrize("environment", sorted(TREES))
def test_on_a_tree_the_relaxation_time_of_a_restart_is_the_largest_weight(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["mlp"](graph)
    matrix = transition_matrix(IndependenceMH(pair, target), graph.objects)
    gap = 1.0 - torch.linalg.eigvals(matrix).real.sort().values[-2]
    made = torch.zeros(len(graph.objects), dtype=torch.float64)
    back = pair.sample_backward(graph.environment.states(graph.objects), None, _no_choice(len(graph.objects)))
    made = pair.log_forward(back).exp()
    torch.testing.assert_close(1.0 / gap, (target.pmf / made).max(), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("environment", WITH_CHANGES)
def test_random_walk_is_exact_and_connected(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = RandomWalk(graph.environment, target)
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert balance_error(matrix, target.pmf) < 1e-12
    assert kernel.reach is Reach.CONNECTED and is_connected(matrix)
    _drop_correction(monkeypatch, kernel)
    wrong = transition_matrix(kernel, graph.objects)
    if graph.environment.is_fixed_length:
        # Every object of a lattice has as many changes as any other: there is nothing to correct.
        torch.testing.assert_close(wrong, matrix, rtol=0.0, atol=1e-12)
    else:
        assert invariance_error(wrong, target.pmf) > 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("environment", WITH_CHANGES)
def test_compositions_are_exact(environment: str, dtype: torch.dtype) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    large = SuffixResampling(mlp_pair(graph, dtype), target)
    small = RandomWalk(graph.environment, target)
    cycle = transition_matrix(Cycle([large, small]), graph.objects)
    assert invariance_error(cycle, target.pmf) < 1e-10
    # A cycle is not reversible; it is the product of its parts.
    assert balance_error(cycle, target.pmf) > 1e-6
    parts = transition_matrix(large, graph.objects), transition_matrix(small, graph.objects)
    torch.testing.assert_close(cycle, parts[0] @ parts[1], rtol=0.0, atol=1e-12)
    mixture = transition_matrix(Mixture([large, small], [1.0, 3.0]), graph.objects)
    torch.testing.assert_close(mixture, 0.25 * parts[0] + 0.75 * parts[1], rtol=0.0, atol=1e-12)
    assert invariance_error(mixture, target.pmf) < 1e-10
    assert balance_error(mixture, target.pmf) < 1e-12


@pytest.mark.parametrize("environment", WITH_CHANGES)
def test_a_composition_with_one_wrong_part_fails(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    wrong = IndependenceMH(PAIRS["mlp"](graph), target)
    _drop_correction(monkeypatch, wrong)
    small = RandomWalk(graph.environment, target)
    for kernel in (Cycle([wrong, small]), Cycle([small, wrong]), Mixture([wrong, small])):
        assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


@pytest.mark.parametrize("environment", ["hypergrid", "lattice, fixed order (tree)"])
def test_a_kernel_that_cannot_reach_the_space_is_refused_until_another_helps(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    stuck = SuffixResampling(PAIRS["tabular"](graph), target, Fixed(1))
    small = RandomWalk(graph.environment, target)
    assert not is_connected(transition_matrix(stuck, graph.objects))
    for refused in (stuck, Cycle([stuck, stuck]), Mixture([stuck])):
        with pytest.raises(IrreducibilityError, match="RandomWalk"):
            gfnmc.sample(refused, num_chains=2, num_samples=2, progress_bar=False)
    for helped in (Cycle([stuck, small]), Mixture([stuck, small])):
        assert is_connected(transition_matrix(helped, graph.objects))
        assert gfnmc.sample(helped, num_chains=2, num_samples=2, progress_bar=False).num_samples == 2


def test_two_random_walks_in_turn_are_refused_for_they_keep_parity_on_a_flat_target() -> None:
    graph = graph_of("lattice, any order")
    target = table_target(graph, scale=0.0)
    small = RandomWalk(graph.environment, target)
    twice = Cycle([small, small])
    assert twice.reach is Reach.PARTIAL
    assert not is_connected(transition_matrix(twice, graph.objects))


def _drop_correction(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    """Make a kernel accept by the target alone."""
    propose = kernel._propose  # type: ignore[attr-defined]

    def uncorrected(draws: draws_module.Draws, position: Tensor) -> Proposal:
        proposal = propose(draws, position)
        return proposal._replace(log_hastings=torch.zeros_like(proposal.log_hastings))

    monkeypatch.setattr(kernel, "_propose", uncorrected)


def _no_choice(num_rows: int) -> draws_module.PhiloxDraws:
    """Draws for walks that have a single way to go."""
    return draws_module.PhiloxDraws(0, "tree", num_rows)
