"""Conditions are bound as views: of policies, of pairs with their log Z, and a row at a time along paths."""

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError, PolicyError
from gfnmc.environments import Direction, HyperGrid, Lattice
from gfnmc.policies import GFlowNet, LogPartition, MLPPolicy, UniformPolicy
from gfnmc.policies import pair as pair_module
from gfnmc.policies.flow import MLPFlow
from tests.exact.networks import network_pair, randomised
from tests.support import assert_close, is_identical, random_numbers

GRID = HyperGrid(2, 4)
NAMES = ("inverse_temperature", "field")


def conditional(*, backward: bool = True, seed: int = 5, **options: object) -> GFlowNet:
    policies = [
        randomised(MLPPolicy(GRID, way, hidden_size=8, num_conditions=2, dtype=torch.float64), seed=seed)
        for way in Direction
    ]
    return GFlowNet(policies[0], policies[1] if backward else None, condition_names=NAMES, **options)


@pytest.mark.parametrize("backward", [True, False])
def test_a_bound_pair_walks_and_scores_under_its_condition(backward: bool) -> None:
    pair = conditional(backward=backward)
    condition = random_numbers(0, 30, 2)
    bound = pair.given(condition)
    draws = PhiloxDraws(0, "x", 30)
    path = bound.sample_forward(GRID.source(30), draws)
    back = bound.sample_backward(path.end, None, draws.role("back"))
    assert_close(bound.log_forward(path), path.log_forward, 1e-12)
    assert_close(bound.log_backward(back), back.log_backward, 1e-12)
    scores = bound.log_forward(back).detach(), bound.log_backward(path).detach()
    for row in range(30):
        one = pair.given(condition[row])
        assert_close(one.log_forward(back)[row], scores[0][row], 1e-12)
        assert_close(one.log_backward(path)[row], scores[1][row], 1e-12)
    # Negative control: another condition, another law.
    other = pair.given(condition.flip(0))
    assert not torch.allclose(other.log_forward(back), scores[0], atol=1e-2)
    assert torch.allclose(other.log_backward(path), scores[1], atol=1e-2) == (not backward)


def test_the_log_partition_depends_on_the_condition() -> None:
    partition = LogPartition(2, seed=3)
    pair = conditional(log_z=7.0, log_partition=partition)
    condition = random_numbers(1, 5, 2)
    assert isinstance(pair.log_z, torch.nn.Parameter) and pair.log_z.item() == 7.0
    by_row = pair.given(condition).log_z
    assert by_row.shape == (5,) and by_row.dtype == torch.float64
    for row in range(5):
        one = pair.given(condition[row]).log_z
        assert one.shape == ()
        assert_close(one, by_row[row], 1e-12)
    assert float(by_row.detach().std()) > 1e-3
    by_row.sum().backward()
    for parameter in (pair.log_z_weight, *partition.parameters()):
        assert parameter.grad is not None and parameter.grad.any()
    before = by_row.detach().clone()
    with torch.no_grad():
        pair.log_z_weight.add_(1.0)
    assert_close(pair.given(condition).log_z, before + 1.0, 1e-12)
    # One is made where none is given, and an ordinary pair has none.
    assert conditional().log_partition is not None
    assert GFlowNet(UniformPolicy(GRID, Direction.FORWARD)).log_partition is None
    with pytest.raises(OptionError, match="hidden_size 0"):
        LogPartition(2, hidden_size=0)


def test_the_state_flow_is_bound_with_its_pair() -> None:
    flow = MLPFlow(GRID, hidden_size=8, num_conditions=2, dtype=torch.float64)
    pair = conditional(log_flow=flow)
    states = GRID.source(3)
    condition = random_numbers(1, 3, 2)
    bound = pair.given(condition).log_flow
    assert bound is not None and pair.log_flow is flow and flow.condition is None
    assert_close(bound.log_flow(states), flow.given(condition).log_flow(states), 1e-12)
    plain = MLPFlow(GRID, hidden_size=8)
    assert conditional(log_flow=plain).given(condition).log_flow is plain
    weights = list(pair.parameters())
    for part in (flow, pair.log_partition, pair.forward, pair.backward):
        assert part is not None
        assert all(any(mine is one for one in weights) for mine in part.parameters())
    assert not any(one is pair.log_z_weight for one in weights)


def test_frozen_pairs_stay_bound_and_bound_pairs_freeze() -> None:
    pair = conditional(log_flow=MLPFlow(GRID, hidden_size=8, num_conditions=2))
    condition = random_numbers(1, 4, 2)
    path = pair.given(condition).sample_forward(GRID.source(4), PhiloxDraws(0, "x", 4))
    one, other = pair.frozen().given(condition), pair.given(condition).frozen()
    assert is_identical(one.log_forward(path), other.log_forward(path))
    assert is_identical(one.log_z, other.log_z)
    for frozen in (one, other):
        assert not frozen.log_z.requires_grad
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
        assert frozen.condition_names == NAMES and frozen.environment is GRID
    before = one.log_z.clone(), one.log_forward(path)
    with torch.no_grad():
        for parameter in (*pair.parameters(), pair.log_z_weight):
            parameter.add_(1.0)
    assert is_identical(one.log_z, before[0]) and is_identical(one.log_forward(path), before[1])
    assert all(parameter.requires_grad for parameter in pair.parameters())


def test_views_share_weights_and_cost_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = conditional()
    monkeypatch.setattr(pair_module, "check_environment", lambda environment: pytest.fail("checked again"))
    bound = pair.given(torch.zeros(2)).given(torch.ones(2))
    assert bound.condition is not None and bound.condition.tolist() == [1.0, 1.0]
    assert all(mine is yours for mine, yours in zip(bound.parameters(), pair.parameters(), strict=True))
    assert pair.condition is None and pair.forward.condition is None
    pair.frozen()


def test_exploration_keeps_the_condition() -> None:
    policy = conditional().forward
    states = GRID.source(2)
    condition = random_numbers(0, 2, 2)
    one = policy.given(condition).with_exploration(epsilon=0.2)
    other = policy.with_exploration(epsilon=0.2).given(condition)
    assert is_identical(one.log_probs(one.begin(states), states), other.log_probs(other.begin(states), states))


def test_a_conditional_policy_without_a_condition_says_so() -> None:
    pair = conditional()
    with pytest.raises(PolicyError, match="bind one with `given`"):
        pair.sample_forward(GRID.source(2), PhiloxDraws(0, "x", 2))
    for network in ("transformer", "mlp"):
        lattice = Lattice((3,), (0, 1))
        policy = network_pair(network, lattice, num_conditions=1).forward
        with pytest.raises(PolicyError, match="bind one with `given`"):
            policy.begin(lattice.source(1))


@pytest.mark.parametrize("network", ["mlp", "transformer", "message passing"])
def test_as_many_states_as_conditions(network: str) -> None:
    lattice = Lattice((3,), (0, 1))
    pair = network_pair(network, lattice, num_conditions=1).given(torch.zeros(4, 1))
    path = pair.sample_forward(lattice.source(4), PhiloxDraws(0, "x", 4))
    with pytest.raises(PolicyError, match="3 states met a policy that is bound to 4 conditions"):
        pair.sample_forward(lattice.source(3), PhiloxDraws(0, "x", 3))
    short = path.after(torch.zeros(4, dtype=torch.int64))
    fewer = type(path)(short.states[:3], short.actions[:3], short.lengths[:3], short.reached_source[:3])
    with pytest.raises(PolicyError, match="3 states met a policy that is bound to 4 conditions"):
        pair.log_forward(fewer)


def test_conditions_that_do_not_fit_are_refused() -> None:
    pair = conditional()
    for wrong in (torch.zeros(3), torch.zeros(4, 1), torch.zeros(1, 1, 2)):
        with pytest.raises(OptionError, match=r"was given to a pair; give floats of shape \(2,\)"):
            pair.given(wrong)
        with pytest.raises(OptionError, match="was given to a MLPPolicy"):
            pair.forward.given(wrong)
    plain = GFlowNet(UniformPolicy(GRID, Direction.FORWARD))
    with pytest.raises(CapabilityError, match="this pair depends on no condition"):
        plain.given(torch.zeros(2))
    with pytest.raises(CapabilityError, match="this UniformPolicy depends on no condition"):
        plain.forward.given(torch.zeros(2))


def test_names_fit_the_policies() -> None:
    policy = MLPPolicy(GRID, hidden_size=8, num_conditions=2)
    for names in ((), ("field",)):
        with pytest.raises(PolicyError, match="the forward policy depends on a condition of 2 numbers"):
            GFlowNet(policy, condition_names=names)
    with pytest.raises(PolicyError, match="but the forward policy depends on no condition"):
        GFlowNet(UniformPolicy(GRID, Direction.FORWARD), condition_names=("field",))
    with pytest.raises(PolicyError, match="the state flow depends on a condition of 1 numbers"):
        GFlowNet(policy, condition_names=NAMES, log_flow=MLPFlow(GRID, num_conditions=1))
    with pytest.raises(PolicyError, match="log_partition depends on a condition of 3 numbers"):
        GFlowNet(policy, condition_names=NAMES, log_partition=LogPartition(3))


def test_a_frozen_float32_sum_is_exact_with_a_condition() -> None:
    lattice = Lattice((6, 6), (-1, 1), dtype=torch.int8)
    policy = randomised(MLPPolicy(lattice, hidden_size=16, num_conditions=1, direct=True))
    condition = 3.0 * random_numbers(0, 10, 1)
    order = torch.argsort(random_numbers(1, 10, 36), 1)
    for frozen in (True, False):
        bound = (policy.frozen() if frozen else policy).given(condition)
        states, cache = lattice.source(10), bound.begin(lattice.source(10))
        for step in range(36):
            actions = 2 * order[:, step] + (order[:, step] + step) % 2
            cache = bound.advance(cache, states, actions)
            states = lattice.step(states, actions)
        # Unfrozen, rounding errors pile up: the negative control.
        assert is_identical(cache, bound.begin(states)) == frozen
        assert torch.allclose(cache, bound.begin(states), atol=1e-3)
