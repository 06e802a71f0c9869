"""Delayed acceptance, proved: whatever the surrogate, both stages together keep the target and are reversible."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, normal
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import StateGraph
from gfnmc.kernels import Cycle, IndependenceMH, RandomWalk, Reach, State, SuffixResampling, delayed_acceptance
from gfnmc.kernels.branch import Geometric, PrefixUniform
from gfnmc.kernels.delayed_acceptance import DelayedAcceptance
from gfnmc.kernels.metropolis import MetropolisKernel
from gfnmc.targets import Target
from gfnmc.targets.noisy import NoisyCopy
from gfnmc.testing import enumerate_decisions, move_matrix, transition_matrix
from tests.exact.cases import (
    PAIRS,
    TableTarget,
    balance_error,
    graph_of,
    invariance_error,
    is_connected,
    rungs_in_a_batch,
    table_target,
)

ENVIRONMENTS = ["lattice, learned order", "hypergrid", "jumps (not graded)"]
RUNGS = (1.0, 0.35, 2.0, 0.0)
KERNELS: dict[str, Callable[[StateGraph, Target], MetropolisKernel]] = {
    "random walk": lambda graph, target: RandomWalk(graph.environment, target),
    "suffix, geometric": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, Geometric(0.4)),
    "suffix, prefix": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, PrefixUniform()),
    "independence": lambda graph, target: IndependenceMH(PAIRS["tabular"](graph), target),
}


def poor_surrogate(target: TableTarget) -> TableTarget:
    """A law that knows nothing of the target, and is as far from flat as it."""
    return TableTarget(target.objects, 1.5 * normal(12, "surrogate", target.table.shape, torch.float64))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_leaves_the_target_invariant_and_is_reversible(environment: str, name: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    inner = KERNELS[name](graph, target)
    kernel = DelayedAcceptance(inner, poor_surrogate(target))
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert (kernel.reach, kernel.may_stay) == (inner.reach, inner.may_stay)
    assert (matrix > 0).all() if kernel.reach is Reach.EVERYWHERE else is_connected(matrix)
    # Two stages never accept more than one.
    alone = transition_matrix(inner, graph.objects)
    assert ((matrix - alone).masked_fill(torch.eye(len(matrix), dtype=torch.bool), 0.0) < 1e-14).all()


@pytest.mark.parametrize("name", KERNELS)
def test_a_surrogate_that_is_the_target_changes_nothing(name: str) -> None:
    graph = graph_of("jumps (not graded)")
    target = table_target(graph)
    inner = KERNELS[name](graph, target)
    # Up to a constant, which cancels.
    twin = TableTarget(target.objects, target.table + 3.0)
    matrix = transition_matrix(DelayedAcceptance(inner, twin), graph.objects)
    torch.testing.assert_close(matrix, transition_matrix(inner, graph.objects), rtol=0.0, atol=1e-12)


second_hastings = delayed_acceptance.log_second_hastings
CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {
    "no correction": torch.zeros_like,
    "inverted": lambda change: -second_hastings(change),
    "half of it": lambda change: 0.5 * second_hastings(change),
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("name", ["random walk", "suffix, geometric", "suffix, prefix"])
@pytest.mark.parametrize("environment", ["lattice, learned order", "jumps (not graded)"])
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, environment: str, name: str, control: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = DelayedAcceptance(KERNELS[name](graph, target), poor_surrogate(target))
    monkeypatch.setattr(delayed_acceptance, "log_second_hastings", CONTROLS[control])
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-3


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("environment", ["lattice, learned order"])
def test_each_row_keeps_the_law_of_its_own_temperature(environment: str, name: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    # Both are impossible in one place, which is an object at inverse temperature 0 alone.
    surrogate = poor_surrogate(target)
    target.table[1] = surrogate.table[1] = -torch.inf
    kernel = DelayedAcceptance(KERNELS[name](graph, target), surrogate)
    for matrix, law in rungs_in_a_batch(kernel, target, RUNGS):
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, law) < 1e-10
        assert balance_error(matrix, law) < 1e-12
    made_of_a_tempered_one = DelayedAcceptance(KERNELS[name](graph, target).tempered(0.35), surrogate)
    possible = graph.objects[target.table > -torch.inf]
    alone = transition_matrix(kernel.tempered(0.35), possible)
    torch.testing.assert_close(transition_matrix(made_of_a_tempered_one, possible), alone, rtol=0.0, atol=1e-14)


def test_a_cycle_with_other_kernels_is_exact() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    delayed = DelayedAcceptance(KERNELS["suffix, geometric"](graph, target), poor_surrogate(target))
    matrix = transition_matrix(Cycle([delayed, RandomWalk(graph.environment, target)]), graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10


@pytest.mark.parametrize("name", KERNELS)
def test_the_rate_that_is_reported_is_that_of_acceptance(name: str) -> None:
    graph = graph_of("jumps (not graded)")
    target = table_target(graph)
    kernel = DelayedAcceptance(KERNELS[name](graph, target), poor_surrogate(target))

    def both(draws: Draws, rows: Tensor) -> Tensor:
        info = kernel.step(draws, kernel.init(target.objects[rows]))[1]
        return torch.stack([info.acceptance_rate, info.is_accepted.double()], 1)

    found = enumerate_decisions(both, len(target.objects))
    reported, accepted = torch.zeros(len(target.objects), 2, dtype=torch.float64).index_add_(
        0, found.row, found.weight[:, None] * found.result
    ).T  # fmt: skip
    torch.testing.assert_close(reported, accepted, rtol=0.0, atol=1e-12)
    assert ((accepted > 0.01) & (accepted < 0.99)).all()


@pytest.mark.parametrize("name", ["random walk", "suffix, geometric"])
def test_a_noisy_target_keeps_its_marginal(name: str) -> None:
    graph = graph_of("jumps (not graded)")
    target = table_target(graph)
    multipliers, probabilities = torch.tensor([0.25, 2.0]).double(), torch.tensor([4.0, 3.0]).double() / 7.0
    noisy = NoisyCopy(target, multipliers.tolist(), probabilities.tolist())
    kernel = DelayedAcceptance(KERNELS[name](graph, noisy), poor_surrogate(target))
    points = torch.cartesian_prod(torch.arange(len(target.objects)), torch.arange(2))
    law = target.pmf[points[:, 0]] * (probabilities * multipliers)[points[:, 1]]
    index = RowIndex(target.objects)

    def move(draws: Draws, rows: Tensor) -> Tensor:
        place, noise = points[rows].unbind(1)
        state, _ = kernel.step(draws, State(target.objects[place], target.table[place] + multipliers.log()[noise]))
        place = index.find(state.position)
        noise = (state.log_prob - target.table[place])[:, None] - multipliers.log()
        return torch.stack([place, noise.abs().argmin(1)], 1)

    matrix = move_matrix(move, points)
    assert invariance_error(matrix, law) < 1e-10
    assert balance_error(matrix, law) < 1e-12
