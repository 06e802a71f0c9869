"""Every objective, lowered by Adam from tables of zeros, ends at the target: terminal law and log Z."""

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.objectives import maximum_likelihood, path_count, trajectory_balance, trajectory_likelihood
from gfnmc.policies import DiscretePolicy, walk_forward
from gfnmc.policies.flow import TabularFlow
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from tests.objectives.cases import OBJECTIVES, Learned, Problem, log_z_of, minimise, problem, random_backward, untrained
from tests.support import terminal_law


def law_error(it: Problem, forward: DiscretePolicy) -> float:
    """Total variation between P_F's objects and the target."""
    return 0.5 * float((terminal_law(forward) - it.log_reward.softmax(0)).abs().sum())


def assert_solved(it: Problem, learned: Learned, name: str) -> None:
    assert law_error(it, learned.forward) <= 1e-2
    assert abs(log_z_of(it, learned, name) - it.log_z) <= 1e-2


def train_on_all_paths(it: Problem, learned: Learned, name: str, num_steps: int = 250) -> None:
    assert law_error(it, learned.forward) > 0.1
    minimise(lambda _: OBJECTIVES[name](it, learned, it.path, it.path_log_reward).mean(), learned.parameters, num_steps)


@pytest.mark.parametrize("environment", ["lattice", "hypergrid", "stairs", "stairs without exits"])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "modified detailed balance"])
def test_on_all_paths(name: str, environment: str) -> None:
    it = problem(environment)
    learned = untrained(it)
    train_on_all_paths(it, learned, name)
    assert_solved(it, learned, name)


@pytest.mark.parametrize("environment", ["hypergrid", "larger hypergrid", "stairs", "subsets"])
def test_without_flows_where_every_state_is_an_object(environment: str) -> None:
    it = problem(environment)
    learned = untrained(it)
    train_on_all_paths(it, learned, "modified detailed balance")
    assert_solved(it, learned, "modified detailed balance")


@pytest.mark.parametrize(
    "name",
    [
        "trajectory balance",
        "detailed balance",
        "modified detailed balance",
        "subtrajectory balance",
        "log-partition variance",
    ],
)
def test_with_a_backward_policy_that_learns_too(name: str) -> None:
    it = problem("larger hypergrid")
    backward = random_backward(it)
    before = backward.logits.detach().clone()
    learned = untrained(it, backward)
    train_on_all_paths(it, learned, name)
    assert_solved(it, learned, name)
    assert float((backward.logits - before).abs().max().detach()) > 0.05


@pytest.mark.parametrize("name", ["trajectory balance", "detailed balance", "modified detailed balance"])
def test_with_the_backward_policy_of_greatest_entropy(name: str) -> None:
    it = problem("larger hypergrid")
    learned = untrained(it, MaxEntropyPolicy(it.environment))
    train_on_all_paths(it, learned, name, num_steps=400)
    assert_solved(it, learned, name)


@pytest.mark.parametrize("environment", ["stairs", "stairs without exits", "subsets"])
def test_with_a_learned_number_of_paths(environment: str) -> None:
    """The count and the flows are learned at once; P_B moves while P_F follows it."""
    it = problem(environment)
    backward = MaxEntropyPolicy(it.environment, log_count=TabularFlow(it.graph))
    learned = untrained(it, backward)

    def loss(step: int) -> torch.Tensor:
        counts = path_count(backward.log_num_paths_along(it.path), backward.log_total_along(it.path), it.path.lengths)
        return (counts + OBJECTIVES["subtrajectory balance"](it, learned, it.path, it.path_log_reward)).mean()

    minimise(loss, learned.parameters, num_steps=400)
    assert_solved(it, learned, "subtrajectory balance")
    # Every path to an object has the same probability.
    ends = it.graph.index(it.path.end)
    paths_to = torch.bincount(ends, minlength=it.graph.num_states).double()
    assert float((learned.log_backward(it.path) + paths_to[ends].log()).abs().max()) < 1e-2


@pytest.mark.parametrize("environment", ["larger hypergrid", "stairs"])
def test_with_a_backward_policy_that_follows_the_forward_policy(environment: str) -> None:
    it = problem(environment)
    learned = untrained(it, random_backward(it))

    def loss(step: int) -> torch.Tensor:
        log_forward, log_backward = learned.log_forward(it.path), learned.log_backward(it.path)
        balance = trajectory_balance(learned.log_z, log_forward, log_backward.detach(), it.path_log_reward).mean()
        return balance + (log_forward.detach().exp() * trajectory_likelihood(log_backward)).sum()

    minimise(loss, learned.parameters, num_steps=400)
    assert_solved(it, learned, "trajectory balance")
    posterior = learned.log_forward(it.path) - it.path_log_reward + it.log_z
    assert float((learned.log_backward(it.path) - posterior).abs().max().detach()) < 5e-2


@pytest.mark.parametrize("environment", ["lattice", "hypergrid", "stairs", "stairs without exits"])
def test_maximum_likelihood_of_the_target_s_objects(environment: str) -> None:
    it = problem(environment)
    learned = untrained(it, random_backward(it))
    weight = (it.path_log_reward - it.log_z + learned.log_backward(it.path)).exp().detach()
    assert float(weight.sum()) == pytest.approx(1.0)
    minimise(lambda _: (weight * maximum_likelihood(learned.log_forward(it.path))).sum(), learned.parameters)
    assert_solved(it, learned, "maximum likelihood")


@pytest.mark.parametrize("name", ["trajectory balance", "subtrajectory balance", "log-partition variance"])
def test_on_its_own_paths(name: str) -> None:
    """Batches that P_F draws itself, explored a little."""
    it = problem("stairs")
    learned = untrained(it)

    def loss(step: int) -> torch.Tensor:
        draws = PhiloxDraws(0, "own", 64, step)
        explored = learned.forward.with_exploration(epsilon=0.1)
        path = walk_forward(explored, it.environment, it.environment.source(64), draws)
        return OBJECTIVES[name](it, learned, path, it.partial[it.graph.index(path.end)]).mean()

    minimise(loss, learned.parameters)
    assert_solved(it, learned, name)


def test_what_does_not_converge() -> None:
    """Negative controls: the measures above see a reward that is off, a forgotten exit and a forgotten P_B."""
    it = problem("larger hypergrid")
    for spoil in ("reward", "exit", "P_B"):
        learned = untrained(it)

        def loss(step: int, spoil: str = spoil, learned: Learned = learned) -> torch.Tensor:
            reward = it.path_log_reward + (0.5 * it.path.lengths if spoil == "reward" else 0.0)
            log_forward = learned.log_forward(it.path)
            log_backward = learned.log_backward(it.path)
            if spoil == "exit":
                end = it.path.end
                log_forward = log_forward - learned.forward.log_probs(learned.forward.begin(end), end)[:, -1]
            if spoil == "P_B":
                log_backward = 0.0 * log_backward
            return trajectory_balance(learned.log_z, log_forward, log_backward, reward).mean()

        minimise(loss, learned.parameters)
        assert law_error(it, learned.forward) > 5e-2, spoil
