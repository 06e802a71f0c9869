"""Chains on a target that can only be estimated, proved on pairs (object, noise): the marginal is the target.

The noise takes two values of mean one, so the space of pairs is finite. With the estimate kept until the next
acceptance, the chain has the law pi(x) p(w) w on pairs.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import StateGraph
from gfnmc.kernels import Cycle, IndependenceMH, Kernel, Mixture, RandomWalk, State, SuffixResampling
from gfnmc.kernels.branch import Geometric, PrefixUniform
from gfnmc.targets import Target
from gfnmc.targets.noisy import NoisyCopy, NoisyTarget
from gfnmc.testing import enumerate_decisions, move_matrix
from tests.exact.cases import PAIRS, TableTarget, balance_error, graph_of, invariance_error, table_target

MULTIPLIERS, PROBABILITIES = torch.tensor([0.25, 2.0]).double(), torch.tensor([4.0, 3.0]).double() / 7.0
ENVIRONMENTS = ["lattice, learned order", "hypergrid", "jumps (not graded)"]
KERNELS: dict[str, Callable[[StateGraph, Target], Kernel]] = {
    "random walk": lambda graph, target: RandomWalk(graph.environment, target),
    "suffix, uniform": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target),
    # Rows without a way back, and lazy ones, are not estimated.
    "suffix, geometric": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, Geometric(0.4)),
    "suffix, prefix": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, PrefixUniform()),
    "independence": lambda graph, target: IndependenceMH(PAIRS["tabular"](graph), target),
    "cycle": lambda graph, target: Cycle(
        [IndependenceMH(PAIRS["tabular"](graph), target), RandomWalk(graph.environment, target)]
    ),
    "mixture": lambda graph, target: Mixture(
        [IndependenceMH(PAIRS["tabular"](graph), target), RandomWalk(graph.environment, target)]
    ),
}


def noisy(target: TableTarget) -> NoisyCopy:
    return NoisyCopy(target, MULTIPLIERS.tolist(), PROBABILITIES.tolist())


def extended_points(target: TableTarget) -> tuple[Tensor, Tensor]:
    """Every pair (object, noise) as two places, and pi(x) p(w) w."""
    points = torch.cartesian_prod(torch.arange(len(target.objects)), torch.arange(len(MULTIPLIERS)))
    return points, target.pmf[points[:, 0]] * (PROBABILITIES * MULTIPLIERS)[points[:, 1]]


def extended_matrix(kernel: Kernel, target: TableTarget, points: Tensor) -> Tensor:
    """The transition matrix on pairs, by production steps from states that hold the estimates."""
    index = RowIndex(target.objects)
    estimates = target.table[points[:, 0]] + MULTIPLIERS.log()[points[:, 1]]

    def move(draws: Draws, rows: Tensor) -> Tensor:
        state, _ = kernel.step(draws, State(target.objects[points[rows, 0]], estimates[rows]))
        place = index.find(state.position)
        noise = (state.log_prob - target.table[place])[:, None] - MULTIPLIERS.log()
        assert float(noise.abs().amin(1).max()) < 1e-12
        return torch.stack([place, noise.abs().argmin(1)], 1)

    return move_matrix(move, points)


def marginal(law: Tensor, points: Tensor, num_objects: int) -> Tensor:
    return torch.zeros(num_objects, dtype=torch.float64).index_add_(0, points[:, 0], law)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_marginal_is_the_target(environment: str, name: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    points, law = extended_points(target)
    torch.testing.assert_close(marginal(law, points, len(target.objects)), target.pmf, rtol=0.0, atol=1e-12)
    matrix = extended_matrix(KERNELS[name](graph, noisy(target)), target, points)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, law) < 1e-10
    if name != "cycle":
        assert balance_error(matrix, law) < 1e-12
    # Nothing else is invariant: the chain forgets where it began.
    forgotten = torch.linalg.matrix_power(matrix, 2_000)[0]
    torch.testing.assert_close(marginal(forgotten, points, len(target.objects)), target.pmf, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "cycle"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_estimate_that_is_drawn_anew_at_each_step_fails(environment: str, name: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = KERNELS[name](graph, noisy(target))

    def forgetful(draws: Draws, rows: Tensor) -> Tensor:
        state = kernel.init(target.objects[rows], draws)
        return kernel.step(draws, state)[0].position

    matrix = move_matrix(forgetful, target.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) > 1e-3


class Skewed(NoisyTarget):
    """Noise of mean one for odd places of the table and of mean two for even ones, which claims to be unbiased."""

    is_unbiased = True

    def __init__(self, target: TableTarget) -> None:
        self.inner, self.name, self.event_shape, self.dtype = target, "skewed", target.event_shape, target.dtype
        self.index = RowIndex(target.objects)

    def estimate_log_prob(self, x: Tensor, draws: Draws) -> Tensor:
        is_even = self.index.find(x) % 2 == 0
        law = torch.where(is_even[:, None], torch.tensor([0.0, 1.0]).double().log(), PROBABILITIES.log())
        return self.inner.log_prob(x) + MULTIPLIERS.log()[draws.role("noise").categorical(law)]


def test_a_biased_estimate_that_claims_to_be_unbiased_samples_another_law() -> None:
    """Its own mean: so the proof above sees the bias, and a target has to declare that it has none."""
    graph = graph_of("hypergrid")
    target = table_target(graph)
    points, law = extended_points(target)
    is_even = points[:, 0] % 2 == 0
    matrix = extended_matrix(RandomWalk(graph.environment, Skewed(target)), target, points)
    reachable = ~(is_even & (points[:, 1] == 0))
    matrix, law = matrix[reachable][:, reachable], law[reachable]
    assert invariance_error(matrix, law / law.sum()) > 1e-3
    its_own = target.pmf * torch.where(torch.arange(len(target.pmf)) % 2 == 0, 2.0, 1.0)
    forgotten = torch.linalg.matrix_power(matrix, 4_000)[0]
    found = marginal(forgotten, points[reachable], len(target.objects))
    torch.testing.assert_close(found, its_own / its_own.sum(), rtol=0.0, atol=1e-8)


def test_the_first_estimate_has_its_own_law() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    kernel = RandomWalk(graph.environment, noisy(target))

    def first(draws: Draws, rows: Tensor) -> Tensor:
        return kernel.init(target.objects[rows], draws).log_prob - target.table[rows]

    found = enumerate_decisions(first, len(target.objects))
    for noise, probability in zip(MULTIPLIERS.log(), PROBABILITIES, strict=True):
        here = (found.result - noise).abs() < 1e-12
        assert sorted(found.row[here].tolist()) == list(range(len(target.objects)))
        assert (found.weight[here] - probability).abs().max() < 1e-12
