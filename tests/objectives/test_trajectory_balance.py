"""Trajectory balance: its value, its gradient, and that it vanishes on a solved pair and there alone."""

import pytest
import torch

from gfnmc.environments import HyperGrid, enumerate_states
from gfnmc.objectives import trajectory_balance
from gfnmc.targets import HyperGrid as HyperGridTarget
from tests.support import assert_close, random_numbers, random_pair, sample_paths, solved_pair


def test_the_value() -> None:
    log_z, log_forward, log_backward, log_reward = (random_numbers(seed, 5) for seed in range(4))
    loss = trajectory_balance(log_z[0], log_forward, log_backward, log_reward)
    assert_close(loss, (log_z[0] + log_forward - log_backward - log_reward) ** 2, 1e-15)
    assert float(
        trajectory_balance(*(torch.tensor(x).double() for x in (1.0,)), *torch.tensor([[-2.0], [-0.5], [3.0]]).double())
    ) == (pytest.approx((1.0 - 2.0 + 0.5 - 3.0) ** 2))


def test_a_log_z_for_each_path() -> None:
    log_z, *scores = (random_numbers(seed, 5) for seed in range(4))
    each = [trajectory_balance(log_z[row], *(score[row : row + 1] for score in scores)) for row in range(5)]
    assert_close(trajectory_balance(log_z, *scores), torch.cat(each), 1e-15)


def test_the_gradient() -> None:
    assert torch.autograd.gradcheck(
        trajectory_balance,
        (random_numbers(0).requires_grad_(), *(random_numbers(seed, 4).requires_grad_() for seed in (1, 2, 3))),
    )


def test_it_vanishes_on_a_solved_pair_alone() -> None:
    environment, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    solved = solved_pair(environment, target)
    path = sample_paths(random_pair(environment), 100)
    log_reward = target.log_prob(environment.objects(path.end))
    losses = trajectory_balance(solved.log_z, solved.log_forward(path), solved.log_backward(path), log_reward)
    assert_close(losses, torch.zeros(100), 1e-20)
    # Negative controls: another log Z, a forgotten P_B, another P_F.
    assert (
        float(
            trajectory_balance(solved.log_z + 0.1, solved.log_forward(path), solved.log_backward(path), log_reward)
            .min()
            .detach()
        )
        > 1e-3
    )
    assert (
        float(
            trajectory_balance(solved.log_z, solved.log_forward(path), torch.zeros(100).double(), log_reward)
            .max()
            .detach()
        )
        > 0.1
    )
    other = random_pair(environment)
    assert (
        float(
            trajectory_balance(solved.log_z, other.log_forward(path), solved.log_backward(path), log_reward)
            .max()
            .detach()
        )
        > 0.1
    )
    assert len(enumerate_states(environment).objects) == 16
