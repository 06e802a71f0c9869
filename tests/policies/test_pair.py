"""The pair: policies that do not fit are refused, and a solved pair makes objects in proportion to their reward."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnvironmentContractError, PolicyError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, enumerate_states
from gfnmc.policies import GFlowNet, MLPPolicy, ProposalPair, TabularPolicy, UniformPolicy, solve_forward, walk_forward
from gfnmc.testing import enumerate_decisions
from tests.support import Stairs, assert_close, random_numbers, random_pair, sample_paths, small_environments

SMALL = small_environments()


def terminal_law(forward: TabularPolicy, environment: DiscreteEnvironment) -> Tensor:
    """The probability with which P_F makes each object, by following every path."""
    graph = enumerate_states(environment)

    def ends(draws: Draws, rows: Tensor) -> Tensor:
        return graph.index(walk_forward(forward, environment, environment.source(len(rows)), draws).end)

    found = enumerate_decisions(ends, 1)
    law = torch.zeros(graph.num_states, dtype=torch.float64).index_add(0, found.result, found.weight)
    return law[graph.is_terminal]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("backward", ["uniform", "random"])
def test_a_solved_pair_makes_objects_in_proportion_to_their_reward(name: str, backward: str) -> None:
    environment = SMALL[name]
    graph = enumerate_states(environment)
    log_reward = 2.0 * random_numbers(0, len(graph.objects))
    if backward == "uniform":
        policy = UniformPolicy(environment, Direction.BACKWARD)
    else:
        policy = random_pair(environment, seed=1, scale=2.0).backward
    forward, log_z = solve_forward(graph, log_reward, policy)
    assert log_z == pytest.approx(float(log_reward.logsumexp(0)), abs=1e-12)
    pmf = log_reward.softmax(0)
    assert_close(terminal_law(forward, environment), pmf, 1e-12)
    # Detailed balance on whole paths: log Z + log P_F = log R + log P_B.
    pair = GFlowNet(forward, policy, log_z=log_z)
    path = sample_paths(pair, 50)
    place = enumerate_states(environment).index(path.end)
    by_state = torch.full((graph.num_states,), -math.inf, dtype=torch.float64)
    by_state[graph.is_terminal] = log_reward
    assert_close(log_z + pair.log_forward(path).detach(), by_state[place] + pair.log_backward(path).detach(), 1e-11)
    # Negative control: a forward policy made for another backward policy's flows, or none, makes another law.
    assert not torch.allclose(terminal_law(random_pair(environment).forward, environment), pmf, atol=1e-3)


def test_solving_for_impossible_objects_avoids_them() -> None:
    environment = HyperGrid(2, 3)
    graph = enumerate_states(environment)
    log_reward = torch.zeros(9, dtype=torch.float64)
    log_reward[graph.objects[:, 0] == 1] = -math.inf
    forward, log_z = solve_forward(graph, log_reward, UniformPolicy(environment, Direction.BACKWARD))
    assert log_z == pytest.approx(math.log(6))
    assert_close(terminal_law(forward, environment), log_reward.softmax(0), 1e-12)
    assert not forward.is_positive


def test_a_pair_is_a_proposal_pair_with_defaults() -> None:
    environment = HyperGrid(2, 3)
    pair = GFlowNet(UniformPolicy(environment, Direction.FORWARD))
    assert isinstance(pair, ProposalPair)
    assert isinstance(pair.backward, UniformPolicy)
    assert pair.backward.direction is Direction.BACKWARD
    assert pair.training_cost == Cost()
    assert pair.environment is environment
    assert pair.log_z.dtype == torch.float64
    assert float(GFlowNet(pair.forward, log_z=1.25).frozen().log_z) == 1.25
    assert GFlowNet(pair.forward, training_cost=Cost(1, 2, 3.0)).frozen().training_cost == Cost(1, 2, 3.0)


def test_both_policies_act_on_the_same_object() -> None:
    one, other = HyperGrid(2, 3), HyperGrid(2, 3)
    with pytest.raises(PolicyError, match="the backward policy acts on another environment"):
        GFlowNet(UniformPolicy(one, Direction.FORWARD), UniformPolicy(other, Direction.BACKWARD))


def test_policies_walk_the_way_they_were_made_for() -> None:
    environment = HyperGrid(2, 3)
    up, down = (UniformPolicy(environment, direction) for direction in Direction)
    with pytest.raises(PolicyError, match="the forward policy was made for direction backward"):
        GFlowNet(down, down)
    with pytest.raises(PolicyError, match="the backward policy was made for direction forward"):
        GFlowNet(up, up)


def test_policies_have_an_action_for_each_of_the_environments() -> None:
    environment = HyperGrid(2, 3)
    policy = MLPPolicy(environment, hidden_size=4)
    policy.num_actions = 5
    with pytest.raises(PolicyError, match="has 5 actions, but HyperGrid has 3"):
        GFlowNet(policy)

    class TooFew(UniformPolicy):
        def log_probs(self, cache: object, states: Tensor) -> Tensor:
            return super().log_probs(cache, states)[:, :-1]

    with pytest.raises(PolicyError, match="gives 2 log-probabilities a state, but HyperGrid has 3"):
        GFlowNet(TooFew(environment, Direction.FORWARD))


def test_environments_that_cannot_work_are_refused() -> None:
    class Merges(Stairs):
        parents_share_actions = True

    with pytest.raises(CapabilityError, match="give every edge into a state its own action id"):
        GFlowNet(UniformPolicy(Merges(3), Direction.FORWARD))

    class Lies(Stairs):
        def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
            return states - 1

    with pytest.raises(EnvironmentContractError, match="unstep"):
        GFlowNet(UniformPolicy(Lies(3), Direction.FORWARD))
