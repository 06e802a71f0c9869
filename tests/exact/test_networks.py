"""Every network is a law that samples and scores by the same numbers: kernels that propose by it are exact."""

import pytest
import torch
from torch import Tensor

from gfnmc.environments import StateGraph, enumerate_states
from gfnmc.kernels import SuffixResampling
from gfnmc.policies import GFlowNet, Path
from gfnmc.testing import transition_matrix
from tests.exact.cases import TableTarget, balance_error, invariance_error, table_target
from tests.exact.networks import ALL_PAIRS

CONDITION = torch.tensor([0.3, -1.0], dtype=torch.float64)


def problem(pair: GFlowNet) -> tuple[StateGraph, TableTarget]:
    graph = enumerate_states(pair.environment)
    return graph, table_target(graph)


def matrix_of(pair: GFlowNet, graph: StateGraph, target: TableTarget) -> Tensor:
    return transition_matrix(SuffixResampling(pair, target), graph.objects)


@pytest.mark.parametrize(("dtype", "num_conditions"), [(torch.float64, 0), (torch.float32, 2)])
@pytest.mark.parametrize("name", ALL_PAIRS)
def test_kernels_of_random_networks_are_exact(name: str, dtype: torch.dtype, num_conditions: int) -> None:
    # The kernel freezes the pair, so float32 costs nothing here.
    pair = ALL_PAIRS[name](dtype=dtype, num_conditions=num_conditions)
    if num_conditions:
        pair = pair.given(CONDITION)
    graph, target = problem(pair)
    matrix = matrix_of(pair, graph, target)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert pair.is_positive
    assert (matrix > 0).all()


@pytest.mark.parametrize("name", ["mlp, hypergrid", "transformer, any order", "message passing, graph"])
def test_scoring_under_another_condition_than_the_sampling_one_fails(name: str) -> None:
    conditional = ALL_PAIRS[name](num_conditions=2)
    other = conditional.given(CONDITION + 0.5)

    class TwoFaced(GFlowNet):
        def log_forward(self, path: Path) -> Tensor:
            return other.log_forward(path)

    one = conditional.given(CONDITION)
    graph, target = problem(one)
    assert invariance_error(matrix_of(one, graph, target), target.pmf) < 1e-10
    # The bound policies are laws of their own; this pair scores by another.
    pair = TwoFaced.__new__(TwoFaced)
    pair.__dict__.update(one.__dict__)
    assert invariance_error(matrix_of(pair, graph, target), target.pmf) > 1e-5
