"""The kernels with real random numbers: chains that start at exact draws must stay distributed as the target.

Many chains start at independent exact draws and take some steps; the end states are independent again, so a chi-square
test of them against the target is honest. It fails a correct kernel once in 10^6 seeds; the seed is fixed.
"""

import pytest
import torch
from scipy import stats

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import Cycle, Kernel, RandomWalk, SuffixResampling, suffix
from gfnmc.kernels.branch import PrefixUniform
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target
from gfnmc.testing import transition_matrix
from tests.exact.cases import mlp_pair, table_target

_NUM_CHAINS = 20_000
_NUM_STEPS = 4
_FALSE_ALARM = 1e-6


def _kernel(name: str) -> tuple[Kernel, Target]:
    if name == "ising":
        target: Target = Ising((2, 3), coupling=0.4)
        environment = Lattice.for_target(target)
        pair = mlp_pair(enumerate_states(environment), torch.float32)
        return Cycle([SuffixResampling(pair, target), RandomWalk(environment, target)]), target
    target = HyperGridTarget(2, 5, r0=0.3)
    grid = HyperGrid.for_target(target)
    pair = mlp_pair(enumerate_states(grid), torch.float32)
    return SuffixResampling(pair, target, PrefixUniform() if name == "hypergrid, prefix law" else None), target


def _p_value(kernel: Kernel, target: Target) -> float:
    exact = target.exact()
    assert exact is not None and exact.log_pmf is not None
    draws = PhiloxDraws(3, "black box", _NUM_CHAINS)
    state = kernel.init(exact.sample(draws.role("start")))
    for step in range(_NUM_STEPS):
        state, _ = kernel.step(draws.at(step + 1), state)
    counts = torch.bincount(exact.index(state.position), minlength=len(exact.log_pmf)).double()
    expected = _NUM_CHAINS * exact.log_pmf.exp()
    assert expected.min() > 5
    return float(stats.chisquare(counts.numpy(), expected.numpy()).pvalue)


@pytest.mark.parametrize("name", ["ising", "hypergrid", "hypergrid, prefix law"])
def test_chains_from_exact_draws_stay_exact(name: str) -> None:
    assert _p_value(*_kernel(name)) > _FALSE_ALARM


@pytest.mark.parametrize("name", ["ising", "hypergrid", "hypergrid, prefix law"])
def test_the_inverted_correction_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    right = suffix.log_hastings_ratio
    monkeypatch.setattr(suffix, "log_hastings_ratio", lambda **terms: -right(**terms))
    assert _p_value(*_kernel(name)) < _FALSE_ALARM


def test_random_numbers_follow_the_enumerated_matrix() -> None:
    graph = enumerate_states(HyperGrid(2, 3))
    target = table_target(graph)
    kernel = SuffixResampling(mlp_pair(graph, torch.float64), target)
    row = transition_matrix(kernel, graph.objects)[4]
    state, _ = kernel.step(PhiloxDraws(9, "row", 200_000), kernel.init(graph.objects[4].repeat(200_000, 1)))
    counts = torch.bincount(graph.index(state.position), minlength=len(row)).double()
    assert stats.chisquare(counts.numpy(), (200_000 * row).numpy()).pvalue > _FALSE_ALARM
    # Control: a neighbouring row of the same matrix does not fit.
    other = transition_matrix(kernel, graph.objects)[3]
    assert stats.chisquare(counts.numpy(), (200_000 * other).numpy()).pvalue < _FALSE_ALARM
