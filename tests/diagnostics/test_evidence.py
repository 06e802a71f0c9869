"""The evidence: right for a decent pair, with the standard error that repetition shows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import NonFiniteEnergyError, OptionError
from gfnmc.diagnostics import importance_log_z
from gfnmc.diagnostics.evidence import pareto_k_hat
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import GFlowNet, Path, TabularPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target
from tests.support import CountingTarget, Stairs, random_numbers, solved_pair, stairs_target

PROBLEMS: dict[str, tuple[DiscreteEnvironment, Target]] = {
    "grid": (HyperGrid(2, 4), HyperGridTarget(2, 4)),
    "lattice": (Lattice((3,), (-1, 1), dtype=torch.int8), Ising((3,), 0.5, field=0.2)),
    "stairs": (Stairs(5), stairs_target(Stairs(5))),
}


def nearly_solved(environment: DiscreteEnvironment, target: Target, noise: float = 0.3) -> GFlowNet:
    graph = enumerate_states(environment)
    solved = solved_pair(environment, target)
    logits = solved.forward.logits.detach() + noise * random_numbers(5, graph.num_states, environment.num_actions)
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits), TabularPolicy(graph, Direction.BACKWARD))


def exact_log_z(environment: DiscreteEnvironment, target: Target) -> float:
    return float(target.log_prob(enumerate_states(environment).objects).logsumexp(0))


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_solved_pair_knows_it_without_error(name: str) -> None:
    environment, target = PROBLEMS[name]
    found = importance_log_z(solved_pair(environment, target), target, num_draws=200)
    assert found.log_z == pytest.approx(exact_log_z(environment, target), abs=1e-12)
    assert found.standard_error < 1e-12
    assert found.num_draws == 200


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_decent_pair_covers_the_truth_with_an_honest_error(name: str) -> None:
    environment, target = PROBLEMS[name]
    pair = nearly_solved(environment, target)
    truth = exact_log_z(environment, target)
    num_runs = 60
    runs = [importance_log_z(pair, target, num_draws=400, seed=seed) for seed in range(num_runs)]
    estimates = np.array([run.log_z for run in runs])
    errors = np.array([run.standard_error for run in runs])
    # The bias of a logarithm, half the variance, is far below the error of the mean of so many.
    z = (estimates - truth) / errors
    assert abs(z.mean()) < 4.9 / math.sqrt(num_runs)
    assert np.abs(z).max() < 6.5
    # 60 standard normal numbers: (59 s^2) is chi-square with 59 degrees of freedom, in [17.3, 132] but for 1e-6.
    assert 17.3 < (num_runs - 1) * (z.std(ddof=1)) ** 2 < 132.0
    # Negative control: without P_B, which sums to one over paths and is all that tells them apart.
    naive = [importance_log_z(Forgets(pair), target, num_draws=400, seed=seed).log_z for seed in range(5)]
    assert abs(np.mean(naive) - truth) > 10 * errors.mean()


class Forgets(GFlowNet):
    """A pair that leaves P_B out."""

    def __init__(self, pair: GFlowNet) -> None:
        super().__init__(pair.forward, pair.backward)

    def log_backward(self, path: Path) -> Tensor:
        return torch.zeros(len(path.lengths), dtype=torch.float64)


def test_it_costs_a_call_a_draw_and_repeats() -> None:
    environment, target = PROBLEMS["grid"]
    counted = CountingTarget(target)
    one = importance_log_z(nearly_solved(environment, target), counted, num_draws=300, seed=1)
    assert counted.num_rows == one.num_draws == 300
    pair = nearly_solved(environment, target)
    assert importance_log_z(pair, target, num_draws=300, seed=1) == one
    assert importance_log_z(pair, target, num_draws=300, seed=1, num_threads=2) == one
    assert importance_log_z(pair, target, num_draws=300, seed=2) != one


@pytest.mark.parametrize("shape", [0.1, 0.3, 0.7, 1.2])
def test_k_hat_is_the_shape_of_the_tail(shape: float) -> None:
    weights = torch.from_numpy(np.random.default_rng(0).exponential(size=4_000))
    # The exponential of an exponential number is Pareto. A band: the shape is found to about 0.1.
    k_hat = pareto_k_hat(shape * weights)
    assert k_hat == pytest.approx(shape, abs=0.2)
    # It is the tail of large weights that counts, and what is impossible is not in it.
    assert pareto_k_hat(-shape * weights) < 0.1
    with_impossible = torch.cat([shape * weights, torch.tensor([-math.inf])])
    assert pareto_k_hat(with_impossible) == pytest.approx(k_hat, abs=0.05)


def test_k_hat_is_none_where_no_two_weights_differ() -> None:
    assert pareto_k_hat(torch.from_numpy(np.zeros(1_000))) is None
    assert pareto_k_hat(torch.from_numpy(np.repeat([0.0, 1.0], 500))) is None
    assert pareto_k_hat(torch.from_numpy(np.full(10, -np.inf))) is None


def test_impossible_objects_weigh_nothing() -> None:
    target = HyperGridTarget(2, 8, r0=0.0)
    environment = HyperGrid(2, 8)
    pair = nearly_solved(environment, HyperGridTarget(2, 8, r0=0.5), noise=0.0)
    found = importance_log_z(pair, target, num_draws=4_000)
    assert abs(found.log_z - target.exact().log_z) < 6 * found.standard_error
    assert 0.0 < found.standard_error < 0.2


def test_an_energy_that_is_not_finite_is_an_error() -> None:
    environment, target = PROBLEMS["grid"]
    spoiled = CountingTarget(target, trap_at=0, trap=lambda x, value: value * math.nan)
    with pytest.raises(NonFiniteEnergyError, match="row 0"):
        importance_log_z(nearly_solved(environment, target), spoiled, num_draws=10)


@pytest.mark.parametrize("num_draws", [-1, 0, 1])
def test_too_few_draws_are_refused(num_draws: int) -> None:
    environment, target = PROBLEMS["grid"]
    with pytest.raises(OptionError, match=f"num_draws is {num_draws}; it must be at least 2"):
        importance_log_z(nearly_solved(environment, target), target, num_draws=num_draws)


@pytest.mark.parametrize("num_draws", [2, 3, 4, 5, 9])
def test_few_draws_are_no_trouble(num_draws: int) -> None:
    environment, target = PROBLEMS["grid"]
    found = importance_log_z(nearly_solved(environment, target), target, num_draws=num_draws)
    assert math.isfinite(found.log_z)
    assert math.isfinite(found.standard_error)
