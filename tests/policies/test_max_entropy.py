"""The backward policy of greatest entropy: counts of paths, known and learned, and the entropy that they buy."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, PolicyError
from gfnmc.environments import (
    Direction,
    DiscreteEnvironment,
    HyperGrid,
    Lattice,
    StateGraph,
    enumerate_paths,
    enumerate_states,
)
from gfnmc.kernels import SuffixResampling
from gfnmc.objectives import path_count
from gfnmc.policies import (
    DiscretePolicy,
    GFlowNet,
    Path,
    UniformPolicy,
    score_backward,
    score_forward,
    solve_forward,
    walk_backward,
)
from gfnmc.policies.flow import MLPFlow, StateFlow, TabularFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.testing import transition_matrix
from tests.exact.cases import Subsets, balance_error, invariance_error, table_target
from tests.support import (
    Stairs,
    assert_close,
    is_identical,
    random_numbers,
    random_pair,
    sample_paths,
    small_environments,
)

COUNTED = {name: it for name, it in small_environments().items() if isinstance(it, Lattice | HyperGrid)}
UNCOUNTED: dict[str, DiscreteEnvironment] = {
    "stairs": Stairs(5),
    "stairs without exits": Stairs(5, exits=False),
    "subsets": Subsets(),
}


def all_paths(graph: StateGraph) -> Path:
    found = enumerate_paths(graph)
    return Path(graph.states[found.states], found.actions, found.lengths, torch.ones(len(found.lengths)) > 0)


def log_counts(graph: StateGraph) -> Tensor:
    """The number of paths to every state, by following every edge once."""
    count = torch.zeros(graph.num_states, dtype=torch.float64)
    count[graph.index(graph.environment.source(1))] = 1.0
    for height in range(int(graph.heights.max()), 0, -1):
        edges = graph.heights[graph.parents] == height
        count.index_add_(0, graph.children[edges], count[graph.parents[edges]])
    return count.log()


def entropy(forward: DiscretePolicy, path: Path) -> float:
    """Entropy of P_F over complete paths, nats."""
    log_forward = score_forward(forward, forward.environment, path).detach()
    assert_close(log_forward.exp().sum(), 1.0, 1e-10)
    return -float((log_forward.exp() * log_forward).sum())


@pytest.mark.parametrize("name", COUNTED)
def test_environments_count_their_paths(name: str) -> None:
    environment = COUNTED[name]
    graph = enumerate_states(environment)
    counts = environment.log_num_paths(graph.states)
    assert counts.dtype == torch.float64
    assert_close(counts, log_counts(graph), 1e-12)


@pytest.mark.parametrize("name", COUNTED)
def test_every_path_to_an_object_is_equally_likely(name: str) -> None:
    environment = COUNTED[name]
    graph = enumerate_states(environment)
    path = all_paths(graph)
    policy = MaxEntropyPolicy(environment)
    assert_close(score_backward(policy, environment, path), -environment.log_num_paths(path.end), 1e-12)


def test_it_is_not_the_uniform_one() -> None:
    """On a grid, where uniform steps prefer some paths; on a lattice the two agree."""
    for environment, agree in ((HyperGrid(2, 4), False), (Lattice((3,), (0, 1)), True)):
        path = all_paths(enumerate_states(environment))
        uniform = UniformPolicy(environment, Direction.BACKWARD)
        scores = [score_backward(it, environment, path) for it in (uniform, MaxEntropyPolicy(environment))]
        assert (float((scores[0] - scores[1]).abs().max()) < 1e-12) is agree


@pytest.mark.parametrize("environment", [HyperGrid(2, 4), HyperGrid(3, 3), Stairs(6), Subsets()])
def test_its_forward_policy_has_the_greatest_entropy(environment: DiscreteEnvironment) -> None:
    graph = enumerate_states(environment)
    path = all_paths(graph)
    log_reward = random_numbers(4, len(graph.objects))
    best = entropy(solve_forward(graph, log_reward, _exact(graph))[0], path)
    others = [UniformPolicy(environment, Direction.BACKWARD)]
    others += [random_pair(environment, seed).backward for seed in range(5)]
    for other in others:
        found = entropy(solve_forward(graph, log_reward, other)[0], path)
        # On subsets, as on a lattice, the uniform policy is the same one.
        is_same = isinstance(environment, Subsets) and isinstance(other, UniformPolicy)
        assert abs(found - best) < 1e-12 if is_same else found < best - 1e-3


def _exact(graph: StateGraph) -> MaxEntropyPolicy:
    return MaxEntropyPolicy(graph.environment, log_count=TabularFlow(graph, log_counts(graph)))


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("name", UNCOUNTED)
def test_a_count_is_learned(name: str, network: bool) -> None:
    environment = UNCOUNTED[name]
    graph = enumerate_states(environment)
    path = all_paths(graph)
    log_count: StateFlow = TabularFlow(graph)
    if network:
        log_count = MLPFlow(environment, hidden_size=32, dtype=torch.float64)
    policy = MaxEntropyPolicy(environment, log_count=log_count)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01 if network else 0.1)

    def loss() -> Tensor:
        return path_count(policy.log_num_paths_along(path), policy.log_total_along(path), path.lengths).mean()

    assert float(loss().detach()) > 0.1
    for _ in range(400):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert_close(policy.log_num_paths(graph.states), log_counts(graph), 2e-2)
    assert_close(score_backward(policy, environment, path), score_backward(_exact(graph), environment, path), 2e-2)


@pytest.mark.parametrize("name", UNCOUNTED)
def test_the_loss_is_zero_at_the_counts_alone(name: str) -> None:
    graph = enumerate_states(UNCOUNTED[name])
    path = all_paths(graph)
    policy = _exact(graph)
    loss = path_count(policy.log_num_paths_along(path), policy.log_total_along(path), path.lengths)
    assert float(loss.detach().max()) < 1e-20
    assert isinstance(policy.log_count, TabularFlow)
    (gradient,) = torch.autograd.grad(loss.sum(), [policy.log_count.table])
    assert float(gradient.abs().max()) < 1e-10
    with torch.no_grad():
        policy.log_count.table.add_(1.0)
    # A constant factor is not free: the source has one path.
    shifted = path_count(policy.log_num_paths_along(path), policy.log_total_along(path), path.lengths)
    assert float(shifted.detach().max()) > 1e-2


def test_the_law_carries_no_gradient_and_the_count_does() -> None:
    graph = enumerate_states(Stairs(5))
    policy = _exact(graph)
    path = sample_paths(random_pair(graph.environment), 20)
    assert not score_backward(policy, graph.environment, path).requires_grad
    assert policy.log_total_along(path).requires_grad
    assert len(list(policy.parameters())) == 1


def test_a_walk_is_scored_by_its_own_number() -> None:
    stairs = Stairs(9)
    learned = MaxEntropyPolicy(stairs, log_count=MLPFlow(stairs, hidden_size=16, seed=2))
    for policy in (MaxEntropyPolicy(HyperGrid(3, 4)), MaxEntropyPolicy(Lattice((3, 3), (0, 1))), learned):
        environment = policy.environment
        ends = sample_paths(random_pair(environment), 90).end
        frozen = policy.frozen()
        path = walk_backward(frozen, environment, ends, None, PhiloxDraws(1, "back", 90))
        assert_close(score_backward(frozen, environment, path), path.log_backward, 1e-12)
        some = walk_backward(frozen, environment, ends[:7], None, PhiloxDraws(1, "back", 7))
        assert is_identical(some.log_backward, path.log_backward[:7])


@pytest.mark.parametrize("kind", ["counted", "learned", "induced"])
@pytest.mark.parametrize("environment", [HyperGrid(2, 3), Lattice((3,), (0, 1)), Stairs(4)])
def test_a_kernel_is_exact_with_it(environment: DiscreteEnvironment, kind: str) -> None:
    """However wrong the count or the flow: they only shape the proposal."""
    if kind == "counted" and isinstance(environment, Stairs):
        environment = HyperGrid(1, 4)
    graph = enumerate_states(environment)
    target = table_target(graph)
    forward = random_pair(environment).forward
    wrong = TabularFlow(graph, random_numbers(7, graph.num_states))
    backward = {
        "counted": lambda: MaxEntropyPolicy(environment),
        "learned": lambda: MaxEntropyPolicy(environment, log_count=wrong),
        "induced": lambda: FlowBackwardPolicy(forward, wrong),
    }[kind]()
    matrix = transition_matrix(SuffixResampling(GFlowNet(forward, backward), target), graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(CapabilityError, match="log_num_paths"):
        MaxEntropyPolicy(Stairs(4))
    grid = HyperGrid(2, 3)
    with pytest.raises(PolicyError, match="way back"):
        MaxEntropyPolicy(grid, Direction.FORWARD)
    with pytest.raises(PolicyError, match="another environment"):
        MaxEntropyPolicy(grid, log_count=MLPFlow(HyperGrid(2, 3)))
    with pytest.raises(PolicyError, match="no condition"):
        MaxEntropyPolicy(grid, log_count=MLPFlow(grid, num_conditions=1))


def test_it_says_what_it_was_made_with() -> None:
    grid = HyperGrid(2, 3)
    flow = MLPFlow(grid, hidden_size=4)
    assert MaxEntropyPolicy(grid).options() == {}
    assert MaxEntropyPolicy(grid, Direction.BACKWARD, log_count=flow).options() == {"log_count": flow}
