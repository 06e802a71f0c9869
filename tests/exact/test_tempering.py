"""Kernels on powers of the target, a power a row: each row keeps R^beta of its own, the flat law at 0 included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import normal
from gfnmc.environments import Direction, StateGraph
from gfnmc.kernels import Cycle, IndependenceMH, Kernel, Mixture, RandomWalk, SuffixResampling, metropolis
from gfnmc.kernels.branch import Geometric, PrefixUniform
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.testing import transition_matrix
from tests.exact.cases import (
    ENVIRONMENTS,
    PAIRS,
    TableTarget,
    balance_error,
    graph_of,
    invariance_error,
    rungs_in_a_batch,
    table_target,
)

RUNGS = (1.0, 0.35, 2.0, 0.0)
WITH_CHANGES = [name for name in ENVIRONMENTS if name not in ("subsets", "words (tree)")]

KERNELS: dict[str, Callable[[StateGraph, TableTarget], Kernel]] = {
    "suffix, uniform": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target),
    "suffix, geometric": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, Geometric(0.4)),
    "suffix, prefix": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target, PrefixUniform()),
    "independence": lambda graph, target: IndependenceMH(PAIRS["tabular"](graph), target),
}
LOCAL: dict[str, Callable[[StateGraph, TableTarget], Kernel]] = {
    "random walk": lambda graph, target: RandomWalk(graph.environment, target),
    "cycle": lambda graph, target: Cycle(
        [IndependenceMH(PAIRS["tabular"](graph), target), RandomWalk(graph.environment, target)]
    ),
    "mixture": lambda graph, target: Mixture(
        [IndependenceMH(PAIRS["tabular"](graph), target), RandomWalk(graph.environment, target)], [1.0, 2.0]
    ),
}
CASES = [(environment, name) for environment in ENVIRONMENTS for name in KERNELS]
CASES += [(environment, name) for environment in WITH_CHANGES for name in LOCAL]


@pytest.mark.parametrize(("environment", "name"), CASES)
def test_each_row_keeps_the_law_of_its_own_temperature(environment: str, name: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    # At inverse temperature 0, and there alone, an impossible object is one of the objects.
    target.table[1] = -torch.inf
    for matrix, law in rungs_in_a_batch((KERNELS | LOCAL)[name](graph, target), target, RUNGS):
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, law) < 1e-10
        if name != "cycle":
            assert balance_error(matrix, law) < 1e-12


@pytest.mark.parametrize("name", KERNELS | LOCAL)
def test_one_temperature_for_all_rows_is_the_same_kernel(name: str) -> None:
    graph = graph_of("lattice, learned order")
    target = table_target(graph)
    kernel = (KERNELS | LOCAL)[name](graph, target)
    blocks = [matrix for matrix, _ in rungs_in_a_batch(kernel, target, RUNGS)]
    for beta, block in zip(RUNGS, blocks, strict=True):
        alone = transition_matrix(kernel.tempered(beta), graph.objects)
        torch.testing.assert_close(alone, block, rtol=0.0, atol=1e-14)
    # At 1 it is the kernel itself, and a temperature replaces the one before it.
    torch.testing.assert_close(transition_matrix(kernel, graph.objects), blocks[0], rtol=0.0, atol=1e-14)
    again = transition_matrix(kernel.tempered(0.0).tempered(0.35), graph.objects)
    torch.testing.assert_close(again, blocks[1], rtol=0.0, atol=1e-14)


def conditional_pair(graph: StateGraph) -> GFlowNet:
    """A random network pair that depends on the inverse temperature, and strongly."""

    def policy(direction: Direction) -> MLPPolicy:
        made = MLPPolicy(graph.environment, direction, hidden_size=8, dtype=torch.float64, seed=7, num_conditions=1)
        with torch.no_grad():
            made.head.mul_(20.0)
            made.head_bias.copy_(normal(8, direction.value, tuple(made.head_bias.shape), torch.float64))
        return made

    forward, backward = policy(Direction.FORWARD), policy(Direction.BACKWARD)
    return GFlowNet(forward, backward, condition_names=("inverse_temperature",))


@pytest.mark.parametrize("kind", [SuffixResampling, IndependenceMH])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_pair_of_many_temperatures_serves_every_row_at_its_own(environment: str, kind: type) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    target.table[1] = -torch.inf
    possible = target.table > -torch.inf
    pair = conditional_pair(graph)
    kernel = kind(pair, target)
    blocks = rungs_in_a_batch(kernel, target, RUNGS)
    for beta, (matrix, law) in zip(RUNGS, blocks, strict=True):
        assert invariance_error(matrix, law) < 1e-10
        assert balance_error(matrix, law) < 1e-12
        # Row by row it is the kernel of the pair that is bound to that temperature alone.
        bound = pair.given(torch.tensor([beta], dtype=torch.float64))
        bound.condition_names = ()
        objects = graph.objects if beta == 0.0 else graph.objects[possible]
        alone = transition_matrix(kind(bound, target).tempered(beta), objects)
        torch.testing.assert_close(matrix, alone, rtol=0.0, atol=1e-10)
    # Negative control: the pair of one temperature proposes otherwise than that of another.
    bound = pair.given(torch.tensor([0.35], dtype=torch.float64))
    bound.condition_names = ()
    assert float((transition_matrix(kind(bound, target), graph.objects[possible]) - blocks[0][0]).abs().max()) > 1e-3


def _untempered(inverse_temperature: Tensor, log_new: Tensor, log_old: Tensor) -> Tensor:
    return log_new - log_old


def _of_the_new_one_only(inverse_temperature: Tensor, log_new: Tensor, log_old: Tensor) -> Tensor:
    return inverse_temperature * log_new - log_old


def _inverted(inverse_temperature: Tensor, log_new: Tensor, log_old: Tensor) -> Tensor:
    return (log_new - log_old) / inverse_temperature


@pytest.mark.parametrize("wrong", [_untempered, _of_the_new_one_only, _inverted])
@pytest.mark.parametrize("environment", WITH_CHANGES)
def test_negative_controls_fail(
    monkeypatch: pytest.MonkeyPatch, environment: str, wrong: Callable[..., Tensor]
) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    monkeypatch.setattr(metropolis, "tempered_change", wrong)
    for kernel in (RandomWalk(graph.environment, target), SuffixResampling(PAIRS["tabular"](graph), target)):
        (at_one, law), (matrix, tempered_law) = rungs_in_a_batch(kernel, target, (1.0, 0.35))
        assert invariance_error(matrix, tempered_law) > 1e-3
        # At inverse temperature 1 all of them are right: only a tempered proof sees the difference.
        assert invariance_error(at_one, law) < 1e-10


@pytest.mark.parametrize("wrong", [_untempered, _inverted])
def test_flat_rows_need_their_own_rule(monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Tensor]) -> None:
    """0 times -inf is not a number, and chains of which nothing is known stay where they are."""
    graph = graph_of("hypergrid")
    target = table_target(graph)
    target.table[1] = -torch.inf
    kernel = RandomWalk(graph.environment, target)
    flat = torch.full((len(graph.objects),), 1.0 / len(graph.objects), dtype=torch.float64)
    assert invariance_error(transition_matrix(kernel.tempered(0.0), graph.objects), flat) < 1e-12
    monkeypatch.setattr(metropolis, "tempered_change", wrong)
    wrong_matrix = transition_matrix(kernel.tempered(0.0), graph.objects)
    assert not invariance_error(wrong_matrix, flat) < 1e-3
