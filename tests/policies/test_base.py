"""Explored copies share weights, frozen copies keep theirs, and every policy samples what it scores."""

import math

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError, PolicyError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, enumerate_states
from gfnmc.policies import GFlowNet, MLPPolicy, TabularPolicy, UniformPolicy
from tests.support import assert_close, chi_square, network_pair, random_numbers, random_pair, small_environments

ENVIRONMENTS = small_environments()


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> DiscreteEnvironment:
    return ENVIRONMENTS[request.param]


@pytest.mark.parametrize("kind", ["network", "table"])
def test_explored_copies_share_weights(kind: str) -> None:
    environment = HyperGrid(2, 3)
    policy = (network_pair if kind == "network" else random_pair)(environment).forward
    explored = policy.with_exploration(temperature=2.0, epsilon=0.25)
    assert (policy.temperature, policy.epsilon) == (1.0, 0.0)
    assert (explored.temperature, explored.epsilon) == (2.0, 0.25)
    source = environment.source(1)

    def law(of: MLPPolicy | TabularPolicy) -> torch.Tensor:
        with torch.no_grad():
            return of.log_probs(of.begin(source), source)[0].exp()

    wanted = 0.75 * torch.softmax(law(policy).log() / 2.0, -1) + 0.25 / 3
    assert_close(law(explored), wanted, 1e-7)
    before = law(explored)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(parameter + torch.arange(parameter.numel()).reshape(parameter.shape).to(parameter))
    assert not torch.allclose(law(explored), before)
    assert_close(law(explored), 0.75 * torch.softmax(law(policy).log() / 2.0, -1) + 0.25 / 3, 1e-6)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"epsilon": -0.1}, {"epsilon": 1.0}])
@pytest.mark.parametrize("kind", [UniformPolicy, MLPPolicy])
def test_exploration_that_cannot_work_is_refused(kind: type, options: dict) -> None:
    with pytest.raises(OptionError, match="must be positive and epsilon"):
        kind(HyperGrid(2, 3), Direction.FORWARD).with_exploration(**options)


@pytest.mark.parametrize("kind", ["network", "table"])
def test_frozen_copies_do_not_follow_training(kind: str) -> None:
    environment = HyperGrid(2, 3)
    pair = (network_pair if kind == "network" else random_pair)(environment)
    frozen = pair.frozen()
    assert frozen.environment is environment
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.requires_grad for parameter in pair.parameters())
    assert not frozen.log_z.requires_grad
    before = [parameter.clone() for parameter in frozen.parameters()]
    optimizer = torch.optim.SGD([*pair.parameters(), pair.log_z], lr=0.1)
    source = environment.source(4)
    loss = (
        pair.forward.score(pair.forward.begin(source), source, torch.tensor([0, 1, 0, 1])).sum() + pair.log_z.square()
    )
    loss.backward()
    with torch.no_grad():
        pair.log_z.fill_(3.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))
    assert float(frozen.log_z) == 0.0
    # Freezing twice changes nothing more.
    again = frozen.frozen()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), frozen.parameters(), strict=True))


def test_a_uniform_policy_is_uniform(environment: DiscreteEnvironment) -> None:
    graph = enumerate_states(environment)
    for direction in Direction:
        policy = UniformPolicy(environment, direction)
        mask = environment.mask(graph.states, direction)
        log_probs = policy.log_probs(policy.begin(graph.states), graph.states)
        wanted = torch.where(mask, -mask.sum(-1, keepdim=True).double().log(), -math.inf)
        assert_close(log_probs, wanted, 1e-15)
        assert policy.is_positive
        table = TabularPolicy(graph, direction)
        assert_close(table.log_probs(table.begin(graph.states), graph.states), wanted, 1e-14)


@pytest.mark.parametrize("direction", Direction)
def test_a_table_samples_what_it_scores(environment: DiscreteEnvironment, direction: Direction) -> None:
    graph = enumerate_states(environment)
    pair = random_pair(environment, seed=4)
    policy = pair.forward if direction is Direction.FORWARD else pair.backward
    states = graph.states[environment.mask(graph.states, direction).any(-1)]
    cache = policy.begin(states)
    law = policy.log_probs(cache, states).detach()
    assert_close(law.exp().sum(-1), torch.ones(len(states)), 1e-12)
    assert torch.equal(law > -math.inf, environment.mask(states, direction))
    everyone = torch.ones(len(states), dtype=torch.bool)
    actions, log_prob = policy.sample(cache, states, PhiloxDraws(0, "x", len(states)), everyone)
    assert torch.equal(policy.score(cache, states, actions), log_prob)
    # The state that leaves most to choose; in a fixed order there is nothing to choose backward.
    most = int((law > -math.inf).sum(-1).argmax())
    if (law[most] > -math.inf).sum() == 1:
        return
    many = states[most : most + 1].expand(20_000, *[-1] * (states.dim() - 1))
    actions, _ = policy.sample(policy.begin(many), many, PhiloxDraws(1, "x", 20_000), everyone.new_ones(20_000))
    statistic, limit = chi_square(torch.bincount(actions, minlength=environment.num_actions), law[most].exp())
    assert statistic < limit


def test_a_table_follows_its_walk(environment: DiscreteEnvironment) -> None:
    graph = enumerate_states(environment)
    forward, backward = random_pair(environment).forward, random_pair(environment).backward
    above, below = graph.states[graph.parents], graph.states[graph.children]
    assert torch.equal(forward.advance(graph.parents, above, graph.actions), graph.children)
    assert torch.equal(backward.advance(graph.children, below, graph.actions), graph.parents)


def test_tables_of_the_wrong_shape_are_refused() -> None:
    graph = enumerate_states(HyperGrid(2, 3))
    for shape in ((9, 2), (8, 3), (9,), (3, 9)):
        with pytest.raises(PolicyError, match="has 9 states and 3 actions"):
            TabularPolicy(graph, Direction.FORWARD, torch.zeros(shape))


def test_a_table_with_a_forbidden_action_is_not_positive() -> None:
    graph = enumerate_states(HyperGrid(2, 3))
    logits = random_numbers(0, 9, 3)
    source = int(graph.index(torch.zeros(1, 2, dtype=torch.int64))[0])
    corner = int(graph.index(torch.full((1, 2), 2))[0])
    # Only the exit is allowed in the far corner, so what the table says of other actions there does not count.
    logits[corner, 0] = -math.inf
    assert TabularPolicy(graph, Direction.FORWARD, logits).is_positive
    logits[source, 0] = -math.inf
    policy = TabularPolicy(graph, Direction.FORWARD, logits)
    assert not policy.is_positive
    assert not GFlowNet(policy).is_positive
    assert policy.with_exploration(epsilon=0.1).is_positive
    at = graph.states[source][None]
    assert float(policy.log_probs(policy.begin(at), at)[0, 0].detach()) == -math.inf
    explored = policy.with_exploration(epsilon=0.1)
    assert float(explored.log_probs(explored.begin(at), at)[0, 0].detach()) == pytest.approx(math.log(0.1 / 3))


def test_a_table_copies_what_it_is_given() -> None:
    graph = enumerate_states(HyperGrid(2, 3))
    logits = torch.zeros(9, 3, dtype=torch.float64)
    policy = TabularPolicy(graph, Direction.FORWARD, logits)
    logits += 1.0
    assert not policy.logits.any()
