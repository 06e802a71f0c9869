"""What a pair makes, exactly: against all its paths; and the pace of full restarts on a tree."""

import math

import pytest
import torch

from gfnmc.diagnostics import log_terminal_law, max_weight
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_paths, enumerate_states
from gfnmc.kernels import IndependenceMH
from gfnmc.policies import GFlowNet, Path, TabularPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, NoisyCopy, Target
from gfnmc.testing import transition_matrix
from tests.support import Stairs, assert_close, random_pair, solved_pair, stairs_target

SPINS = Ising((3,), 0.5, field=0.2)
PROBLEMS: dict[str, tuple[DiscreteEnvironment, Target]] = {
    "grid": (HyperGrid(2, 3), HyperGridTarget(2, 3)),
    "lattice": (Lattice.for_target(SPINS), SPINS),
    "tree": (Lattice.for_target(SPINS, order="fixed"), SPINS),
    "stairs": (Stairs(5), stairs_target(Stairs(5))),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_law_of_objects_is_the_sum_over_paths(name: str) -> None:
    environment, _ = PROBLEMS[name]
    pair, graph = random_pair(environment), enumerate_states(environment)
    paths = enumerate_paths(graph)
    path = Path(graph.states[paths.states], paths.actions, paths.lengths, torch.ones(len(paths.lengths)) > 0)
    with torch.no_grad():
        mass = pair.log_forward(path).exp()
    place = graph.is_terminal.cumsum(0)[graph.index(path.end)] - 1
    wanted = torch.zeros(len(graph.objects), dtype=torch.float64).index_add(0, place, mass)
    assert_close(log_terminal_law(pair.forward, graph).exp(), wanted, 1e-13)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exact_pair_has_weight_one(name: str) -> None:
    assert max_weight(solved_pair(*PROBLEMS[name]), PROBLEMS[name][1]) == pytest.approx(1.0, abs=1e-12)


def second_eigenvalue(pair: GFlowNet, target: Target) -> float:
    matrix = transition_matrix(IndependenceMH(pair, target), enumerate_states(pair.environment).objects)
    return float(torch.linalg.eigvals(matrix).abs().sort().values[-2])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_a_tree_it_is_the_relaxation_time_of_full_restarts(seed: int) -> None:
    environment, target = PROBLEMS["tree"]
    pair = random_pair(environment, seed)
    found = max_weight(pair, target)
    assert found == pytest.approx(1.0 / (1.0 - second_eigenvalue(pair, target)), rel=1e-9)
    # Negative control: of another pair it is not.
    assert found != pytest.approx(1.0 / (1.0 - second_eigenvalue(random_pair(environment, seed + 9), target)), rel=0.01)


def test_elsewhere_the_worst_object_still_bounds_the_relaxation_time() -> None:
    for name in ("grid", "lattice", "stairs"):
        environment, target = PROBLEMS[name]
        pair, graph = random_pair(environment, 4), enumerate_states(environment)
        pmf = target.log_prob(graph.objects).softmax(0)
        weights = pmf / log_terminal_law(pair.forward, graph).exp()
        assert max_weight(pair, target) == pytest.approx(float(weights.max()), rel=1e-12)
        bound = float(((1.0 - pmf) * weights).max())
        assert bound <= 1.0 / (1.0 - second_eigenvalue(pair, target)) + 1e-9


def test_what_p_f_cannot_make_has_infinite_weight() -> None:
    environment, target = PROBLEMS["tree"]
    graph, exact = enumerate_states(environment), solved_pair(environment, target)
    logits = exact.forward.logits.detach().clone()
    logits[graph.index(environment.source(1)), 1] = -math.inf
    pair = GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits), exact.backward)
    assert max_weight(pair, target) == math.inf


def test_nothing_is_said_where_it_would_take_too_long_or_is_not_known() -> None:
    large = Ising((6, 6), 0.4)
    assert max_weight(random_pair(PROBLEMS["tree"][0]), NoisyCopy(SPINS, (0.25, 1.75), (0.5, 0.5))) is None
    from gfnmc.policies import UniformPolicy

    lattice = Lattice.for_target(large)
    assert max_weight(GFlowNet(UniformPolicy(lattice, Direction.FORWARD)), large) is None
