"""State flows under conditions and along paths, and the backward policy that flows and P_F imply."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError, PolicyError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import (
    DiscretePolicy,
    GFlowNet,
    MLPPolicy,
    TabularPolicy,
    UniformPolicy,
    score_backward,
    solve_forward,
    walk_backward,
)
from gfnmc.policies.flow import MLPFlow, StateFlow, TabularFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.transitions import score_transitions
from tests.support import (
    Stairs,
    assert_close,
    is_identical,
    network_pair,
    random_numbers,
    random_pair,
    sample_paths,
    small_environments,
)

SMALL = small_environments()
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(params=SMALL)
def environment(request: pytest.FixtureRequest) -> DiscreteEnvironment:
    return SMALL[request.param]


def random_flow(environment: DiscreteEnvironment, seed: int = 0) -> TabularFlow:
    graph = enumerate_states(environment)
    return TabularFlow(graph, random_numbers(seed, graph.num_states))


def network_flow(environment: DiscreteEnvironment, **options: object) -> MLPFlow:
    """A small network that is far from constant."""
    flow = MLPFlow(environment, **({"hidden_size": 16, "num_layers": 2, "seed": 4} | options))  # pyright: ignore
    with torch.no_grad():
        flow.head.mul_(20.0)
        flow.head_bias.add_(0.3)
    return flow


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_flow_along_paths_is_the_flow_at_their_states(environment: DiscreteEnvironment, dtype: torch.dtype) -> None:
    path = sample_paths(random_pair(environment), 50)
    for flow in (random_flow(environment), network_flow(environment, dtype=dtype)):
        found = flow.log_flow_along(path)
        is_last = 0 if environment.exit_action is None else 1
        assert found.dtype == torch.float64
        assert found.shape == (50, path.actions.shape[1] + is_last)
        for place in range(found.shape[1]):
            inside = place < path.lengths + is_last
            here = flow.log_flow(path.states[:, place])
            assert_close(found[:, place], torch.where(inside, here, 0.0), 1e-6 if dtype == torch.float32 else 1e-12)


def test_a_table_holds_what_it_is_given() -> None:
    graph = enumerate_states(HyperGrid(2, 3))
    table = random_numbers(0, 9)
    flow = TabularFlow(graph, table)
    order = torch.tensor([4, 0, 8, 8])
    assert torch.equal(flow.log_flow(graph.states[order]), table[order])
    assert not TabularFlow(graph).log_flow(graph.states).any()
    assert flow.table is not table
    with pytest.raises(PolicyError, match="9 states"):
        TabularFlow(graph, table[:8])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_frozen_flow_gives_a_state_one_number(dtype: torch.dtype) -> None:
    """To the bit, in any batch, with a condition and without."""
    environment = Lattice((4, 4), (-1, 1))
    states = sample_paths(network_pair(environment), 150).states[torch.arange(150), torch.arange(150) % 17]
    condition = random_numbers(1, 150, 2)
    for num_conditions in (0, 2):
        flow = network_flow(environment, dtype=dtype, num_conditions=num_conditions).frozen()
        assert not any(parameter.requires_grad for parameter in flow.parameters())

        def at(rows: Tensor, flow: StateFlow = flow, num_conditions: int = num_conditions) -> Tensor:
            bound = flow.given(condition[rows]) if num_conditions else flow
            return bound.log_flow(states[rows])

        whole = at(torch.arange(150))
        assert len(whole.unique()) > 100
        for rows in (torch.arange(1), torch.arange(70, 79), torch.arange(149, 40, -1)):
            assert is_identical(at(rows), whole[rows])


def test_a_frozen_flow_is_a_copy_on_the_same_environment() -> None:
    environment = HyperGrid(2, 3)
    for flow in (random_flow(environment), network_flow(environment)):
        frozen = flow.frozen()
        states = environment.source(3)
        before = flow.log_flow(states).detach().clone()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(1.0)
        assert_close(frozen.log_flow(states), before, 1e-6)
        assert frozen.environment is environment


def test_a_condition_a_row_and_one_for_all() -> None:
    environment = HyperGrid(2, 4)
    flow = network_flow(environment, num_conditions=2, dtype=torch.float64)
    path = sample_paths(random_pair(environment), 30)
    condition = random_numbers(0, 30, 2)
    whole = flow.given(condition)
    assert whole.head is flow.head
    assert flow.condition is None
    along = whole.log_flow_along(path)
    for row in range(30):
        alone = flow.given(condition[row])
        assert_close(alone.log_flow(path.end)[row], whole.log_flow(path.end)[row], 1e-12)
        assert_close(alone.log_flow_along(path)[row], along[row], 1e-12)
    other = flow.given(condition.flip(0))
    assert float((other.log_flow(path.end) - whole.log_flow(path.end)).abs().max().detach()) > 1e-2


def test_conditions_that_do_not_fit_are_refused() -> None:
    environment = HyperGrid(2, 3)
    flow = network_flow(environment, num_conditions=2)
    with pytest.raises(CapabilityError, match="no condition"):
        network_flow(environment).given(torch.zeros(2))
    for wrong in (torch.zeros(3), torch.zeros(4, 1)):
        with pytest.raises(OptionError, match="condition"):
            flow.given(wrong)
    with pytest.raises(PolicyError, match="`given`"):
        flow.log_flow(environment.source(2))
    with pytest.raises(PolicyError, match="3 states met"):
        flow.given(torch.zeros(2, 2)).log_flow(environment.source(3))
    for options in ({"hidden_size": 0}, {"num_layers": -1}, {"num_conditions": -1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            MLPFlow(environment, **options)


def test_a_network_says_what_it_was_made_with() -> None:
    environment = HyperGrid(2, 3)
    flow = MLPFlow(environment, hidden_size=8, num_layers=0, dtype=torch.float64, num_conditions=1, seed=3)
    again = MLPFlow(environment, **flow.options(), seed=3)
    condition = torch.ones(1, dtype=torch.float64)
    states = enumerate_states(environment).states
    assert is_identical(flow.given(condition).log_flow(states), again.given(condition).log_flow(states))
    with pytest.raises(CapabilityError, match="cannot be saved"):
        random_flow(environment).options()


def plain_law(forward: DiscretePolicy, flow: StateFlow, state: Tensor) -> Tensor:
    """The induced P_B at one state by its definition, one parent at a time."""
    environment = forward.environment
    weights = torch.zeros(environment.num_actions, dtype=torch.float64)
    for action in environment.backward_mask(state)[0].nonzero()[:, 0]:
        parent = environment.unstep(state, action[None])
        step = forward.log_probs(forward.begin(parent), parent)[0, action]
        weights[action] = (flow.log_flow(parent)[0] + step).exp().detach()
    return weights.log() - weights.sum().log()


def test_the_induced_law_is_in_proportion_to_edge_flows(environment: DiscreteEnvironment) -> None:
    forward, flow = random_pair(environment).forward, random_flow(environment)
    policy = FlowBackwardPolicy(forward, flow)
    graph = enumerate_states(environment)
    states = graph.states[~environment.is_source(graph.states)]
    laws = policy.log_probs(policy.begin(states), states)
    assert_close(laws.exp().sum(1), torch.ones(len(states)), 1e-12)
    for row in range(len(states)):
        assert_close(laws[row], plain_law(forward, flow, states[row : row + 1]), 1e-12)
    source = environment.source(2)
    assert (policy.log_probs(policy.begin(source), source) == -math.inf).all()
    assert policy.is_positive


def test_inflows_are_what_parents_send(environment: DiscreteEnvironment) -> None:
    forward, flow = random_pair(environment).forward, random_flow(environment)
    policy = FlowBackwardPolicy(forward, flow)
    path = sample_paths(random_pair(environment), 40)
    inflow = policy.log_inflow_along(path).detach()
    graph = enumerate_states(environment)
    with torch.no_grad():
        steps = forward.log_probs(forward.begin(graph.states), graph.states).exp()
        sent = flow.log_flow(graph.states).exp()[graph.parents] * steps[graph.parents, graph.actions]
    received = torch.zeros(graph.num_states, dtype=torch.float64).index_add(0, graph.children, sent)
    for row, length in enumerate(path.lengths.tolist()):
        entered = graph.index(path.states[row, 1 : length + 1])
        wanted = received[entered].log().tolist()
        if environment.exit_action is not None:
            end = path.end[row : row + 1]
            exits = steps[graph.index(end), environment.exit_action]
            wanted.append(float((flow.log_flow(end).exp() * exits).log().detach()))
        wanted += [0.0] * (inflow.shape[1] - len(wanted))
        assert_close(inflow[row], torch.tensor(wanted, dtype=torch.float64), 1e-12)


def test_the_solved_pair_induces_its_own_backward_policy(environment: DiscreteEnvironment) -> None:
    """From the exact P_F and flows follows the P_B that they were solved with."""
    graph = enumerate_states(environment)
    backward = random_pair(environment).backward
    log_reward = random_numbers(5, len(graph.objects))
    forward, _ = solve_forward(graph, log_reward, backward)
    flow = torch.full((graph.num_states,), -math.inf, dtype=torch.float64)
    flow[graph.is_terminal] = log_reward
    law = backward.log_probs(backward.begin(graph.states), graph.states).detach()
    exits = flow.clone()
    for height in range(1, int(graph.heights.max()) + 1):
        for state in (graph.heights == height).nonzero()[:, 0]:
            edges = graph.parents == state
            through = flow[graph.children[edges]] + law[graph.children[edges], graph.actions[edges]]
            flow[state] = torch.cat([through, exits[state : state + 1]]).logsumexp(0)
    induced = FlowBackwardPolicy(forward, TabularFlow(graph, flow))
    others = graph.states[~environment.is_source(graph.states)]
    with torch.no_grad():
        assert_close(
            induced.log_probs(induced.begin(others), others), backward.log_probs(backward.begin(others), others), 1e-10
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_induced_walk_is_scored_by_its_own_number(dtype: torch.dtype) -> None:
    """Frozen and in a pair, as a kernel uses it; to the bit in any batch."""
    for environment in (Lattice((3, 3), (-1, 1)), HyperGrid(3, 4), Stairs(9)):
        flow = network_flow(environment, dtype=dtype)
        forward = network_pair(environment, dtype=dtype).forward
        pair = GFlowNet(forward, FlowBackwardPolicy(forward, flow).with_exploration(temperature=1.3)).frozen()
        assert pair.backward.temperature == 1.3
        ends = sample_paths(pair, 100).end
        path = walk_backward(pair.backward, environment, ends, None, PhiloxDraws(1, "back", 100))
        assert path.reached_source.all()
        assert_close(score_backward(pair.backward, environment, path), path.log_backward, 1e-12)
        some = walk_backward(pair.backward, environment, ends[:7], None, PhiloxDraws(1, "back", 7))
        assert is_identical(some.log_backward, path.log_backward[:7])


def test_an_induced_policy_has_no_weights_of_its_own() -> None:
    environment = HyperGrid(2, 3)
    forward, flow = random_pair(environment).forward, random_flow(environment)
    policy = FlowBackwardPolicy(forward, flow)
    assert list(policy.parameters()) == []
    path = sample_paths(random_pair(environment), 20)
    score_backward(policy, environment, path).sum().backward()
    for module in (forward, flow):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
    frozen = policy.frozen()
    before = score_backward(frozen, environment, path)
    with torch.no_grad():
        flow.table.add_(random_numbers(1, *flow.table.shape))
    assert torch.equal(score_backward(frozen, environment, path), before)
    assert not torch.equal(score_backward(policy, environment, path), before)
    assert not before.requires_grad


def test_an_induced_policy_under_conditions() -> None:
    environment = HyperGrid(2, 4)
    forward = MLPPolicy(environment, hidden_size=8, num_conditions=1, dtype=torch.float64)
    flow = network_flow(environment, num_conditions=1, dtype=torch.float64)
    path = sample_paths(random_pair(environment), 20)
    condition = 3.0 * random_numbers(2, 20, 1)
    for parts in ((forward, flow), (forward, network_flow(environment, dtype=torch.float64))):
        policy = FlowBackwardPolicy(*parts)
        assert policy.num_conditions == 1
        bound = policy.given(condition)
        whole, inflow = score_backward(bound, environment, path), bound.log_inflow_along(path)
        for row in range(20):
            alone = policy.given(condition[row])
            assert_close(score_backward(alone, environment, path)[row], whole[row], 1e-12)
            assert_close(alone.log_inflow_along(path)[row], inflow[row], 1e-12)
        assert_close(score_backward(bound.frozen(), environment, path), whole, 1e-10)
        moved = score_backward(policy.given(condition.flip(0)), environment, path)
        assert float((moved - whole).abs().max().detach()) > 1e-3


def test_parts_that_do_not_fit_are_refused() -> None:
    environment = HyperGrid(2, 3)
    pair = random_pair(environment)
    with pytest.raises(PolicyError, match="walks backward"):
        FlowBackwardPolicy(pair.backward, random_flow(environment))
    with pytest.raises(PolicyError, match="another environment"):
        FlowBackwardPolicy(pair.forward, random_flow(HyperGrid(2, 3)))
    with pytest.raises(CapabilityError, match="cannot be saved"):
        FlowBackwardPolicy(pair.forward, random_flow(pair.environment)).options()


def test_log_z_in_the_place_of_the_flow_at_the_source() -> None:
    environment = HyperGrid(2, 3)
    graph = enumerate_states(environment)
    forward = TabularPolicy(graph, Direction.FORWARD)
    backward = UniformPolicy(environment, Direction.BACKWARD)
    flow = random_flow(environment)
    path = sample_paths(random_pair(environment), 30)
    path = path.after(torch.arange(30) % 2)
    log_reward = random_numbers(0, 30)
    plain = score_transitions(forward, backward, flow, path, log_reward)
    assert torch.equal(plain.num_steps, path.lengths + 1)
    for log_z in (torch.tensor(3.0).double(), random_numbers(1, 30)):
        replaced = score_transitions(forward, backward, flow, path, log_reward, log_z=log_z)
        wanted = plain.log_flow.clone()
        wanted[path.reached_source, 0] = log_z.expand(30)[path.reached_source]
        assert_close(replaced.log_flow, wanted, 0.0)
        assert not path.reached_source.all()
