"""The objectives on single steps: their values by plain loops, and that padding never matters, not even as NaN."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.objectives import (
    detailed_balance,
    flow_matching,
    forward_looking_detailed_balance,
    forward_looking_subtrajectory_balance,
    modified_detailed_balance,
    path_count,
    subtrajectory_balance,
)
from gfnmc.policies.transitions import Transitions
from tests.support import assert_close, random_numbers

NUM_STEPS = torch.tensor([4, 1, 3, 0, 2])
LENGTH = 4


def numbers() -> dict[str, Tensor]:
    """Any numbers in the place of scores, flows and rewards."""
    names = ("log_forward", "log_backward", "log_flow", "partial")
    return {name: random_numbers(seed, 5, LENGTH) for seed, name in enumerate(names)}


def transitions(of: dict[str, Tensor]) -> Transitions:
    return Transitions(of["log_forward"], of["log_backward"], of["log_flow"], NUM_STEPS, random_numbers(9, 5))


ON_STEPS: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
    "detailed balance": lambda of: detailed_balance(transitions(of)),
    "modified detailed balance": lambda of: modified_detailed_balance(
        of["log_forward"], of["log_backward"], of["log_flow"], of["partial"], NUM_STEPS
    ),
    "subtrajectory balance": lambda of: subtrajectory_balance(transitions(of)),
    "forward-looking detailed balance": lambda of: forward_looking_detailed_balance(transitions(of), of["partial"]),
    "forward-looking subtrajectory balance": lambda of: forward_looking_subtrajectory_balance(
        transitions(of), of["partial"], decay=0.7
    ),
    "flow matching": lambda of: flow_matching(of["log_forward"], of["log_flow"], random_numbers(9, 5), NUM_STEPS),
    "path count": lambda of: path_count(of["log_forward"], of["log_backward"], NUM_STEPS),
}


@pytest.mark.parametrize("fill", [0.0, 7.0, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ON_STEPS)
def test_padding_does_not_matter(name: str, fill: float) -> None:
    """Neither to the loss nor to its gradient; a path without a step has no loss."""
    is_padding = torch.arange(LENGTH) >= NUM_STEPS[:, None]
    plain = {key: value.requires_grad_() for key, value in numbers().items()}
    filled = {key: value.detach().masked_fill(is_padding, fill).requires_grad_() for key, value in plain.items()}
    losses = [ON_STEPS[name](of) for of in (plain, filled)]
    assert_close(losses[0], losses[1], 1e-14)
    assert losses[0][3] == 0.0
    assert (losses[0][NUM_STEPS > 1] > 1e-4).all()
    gradients = [
        torch.autograd.grad(loss.sum(), list(of.values()), allow_unused=True)
        for loss, of in zip(losses, (plain, filled), strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        if one is not None:
            assert other is not None
            assert_close(one, other, 1e-14)
            assert not one[is_padding].any()


@pytest.mark.parametrize("name", ON_STEPS)
def test_gradients_are_right(name: str) -> None:
    keys, values = zip(*numbers().items(), strict=True)
    inputs = tuple(value.requires_grad_() for value in values)
    assert torch.autograd.gradcheck(lambda *given: ON_STEPS[name](dict(zip(keys, given, strict=True))), inputs)


def flows_of(it: Transitions, row: int) -> list[float]:
    """The flows that a path meets, the reward last."""
    steps = int(it.num_steps[row])
    return [*it.log_flow[row, :steps].tolist(), float(it.log_reward[row])]


def test_detailed_balance_by_hand() -> None:
    it = transitions(numbers())
    for row, loss in enumerate(detailed_balance(it)):
        flows, total = flows_of(it, row), 0.0
        steps = len(flows) - 1
        for step in range(steps):
            error = flows[step] + it.log_forward[row, step] - flows[step + 1] - it.log_backward[row, step]
            total += float(error) ** 2
        assert float(loss) == pytest.approx(total / max(steps, 1), abs=1e-14)


def test_modified_detailed_balance_by_hand() -> None:
    of = numbers()
    log_exit, log_reward = of["log_flow"], of["partial"]
    for row, loss in enumerate(ON_STEPS["modified detailed balance"](of)):
        moves = max(int(NUM_STEPS[row]) - 1, 0)
        total = 0.0
        for step in range(moves):
            down = log_reward[row, step + 1] + of["log_backward"][row, step] + log_exit[row, step]
            up = log_reward[row, step] + of["log_forward"][row, step] + log_exit[row, step + 1]
            total += float(up - down) ** 2
        assert float(loss) == pytest.approx(total / max(moves, 1), abs=1e-14)


def test_flow_matching_by_hand() -> None:
    of = numbers()
    it = transitions(of)
    for row, loss in enumerate(ON_STEPS["flow matching"](of)):
        entered = flows_of(it, row)[1:]
        errors = [float(of["log_forward"][row, step]) - flow for step, flow in enumerate(entered)]
        assert float(loss) == pytest.approx(sum(error**2 for error in errors) / max(len(errors), 1), abs=1e-14)


def test_path_count_by_hand() -> None:
    of = numbers()
    for row, loss in enumerate(ON_STEPS["path count"](of)):
        steps = int(NUM_STEPS[row])
        errors = (of["log_forward"] - of["log_backward"])[row, :steps].tolist()
        assert float(loss) == pytest.approx(sum(error**2 for error in errors) / max(steps, 1), abs=1e-14)


@pytest.mark.parametrize("decay", [0.1, 0.9, 1.0, 2.5])
def test_subtrajectory_balance_by_two_loops(decay: float) -> None:
    it = transitions(numbers())
    for row, loss in enumerate(subtrajectory_balance(it, decay=decay)):
        flows, total, weights = flows_of(it, row), 0.0, 0.0
        for start in range(len(flows)):
            for end in range(start + 1, len(flows)):
                error = flows[start] - flows[end]
                for step in range(start, end):
                    error += float(it.log_forward[row, step] - it.log_backward[row, step])
                total += decay ** (end - start) * error**2
                weights += decay ** (end - start)
        assert float(loss) == pytest.approx(total / weights if weights else 0.0, rel=1e-12)


def test_subtrajectory_balance_between_its_limits() -> None:
    """Single steps with a small lambda, whole paths with a large one, at any extreme."""
    it = transitions(numbers())
    whole = (it.log_forward - it.log_backward).masked_fill(torch.arange(LENGTH) >= NUM_STEPS[:, None], 0.0).sum(1)
    trajectory = (it.log_flow[:, 0] + whole - it.log_reward).square() * (NUM_STEPS > 0)
    for decay in (1e-16, 1e-300):
        assert_close(subtrajectory_balance(it, decay=decay), detailed_balance(it), 1e-13)
    for decay in (1e16, 1e300):
        assert_close(subtrajectory_balance(it, decay=decay), trajectory, 1e-13)
    middle = subtrajectory_balance(it, decay=1.0)[NUM_STEPS > 1]
    for limit in (detailed_balance(it), trajectory):
        assert float((middle - limit[NUM_STEPS > 1]).abs().min()) > 1e-3


@pytest.mark.parametrize("decay", [0.0, -1.0, math.inf, math.nan])
def test_a_lambda_that_weighs_nothing_is_refused(decay: float) -> None:
    with pytest.raises(OptionError, match="decay"):
        subtrajectory_balance(transitions(numbers()), decay=decay)


def test_forward_looking_is_the_same_with_the_reward_so_far_in_the_flow() -> None:
    it, partial = transitions(numbers()), numbers()["partial"]
    whole = it._replace(log_flow=it.log_flow + partial)
    assert_close(forward_looking_detailed_balance(it, partial), detailed_balance(whole), 1e-14)
    looked = forward_looking_subtrajectory_balance(it, partial, decay=0.7)
    assert_close(looked, subtrajectory_balance(whole, decay=0.7), 1e-14)
    # Negative control: it does read the reward so far.
    assert float((forward_looking_detailed_balance(it, partial) - detailed_balance(it)).abs().max()) > 0.1
