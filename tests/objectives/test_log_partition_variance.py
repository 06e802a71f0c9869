"""VarGrad: a batch's variance, its published gradient, and the bias that it does not have."""

import pytest
import torch

from gfnmc.core.errors import OptionError
from gfnmc.objectives import log_partition_variance, trajectory_balance
from tests.support import assert_close, random_numbers


def test_the_mean_loss_is_the_variance_and_so_is_its_gradient() -> None:
    log_forward, log_backward, log_reward = (random_numbers(seed, 6).requires_grad_() for seed in range(3))
    inputs = [log_forward, log_backward, log_reward]
    loss = log_partition_variance(*inputs).mean()
    variance = (log_reward + log_backward - log_forward).var(correction=0)
    assert_close(loss, variance, 1e-14)
    for one, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(variance, inputs), strict=True):
        assert_close(one, other, 1e-14)


def test_a_path_s_loss_has_its_own_gradient_alone() -> None:
    log_forward = random_numbers(0, 4).requires_grad_()
    losses = log_partition_variance(log_forward, random_numbers(1, 4), random_numbers(2, 4))
    (gradient,) = torch.autograd.grad(losses[1], [log_forward])
    assert (gradient != 0.0).tolist() == [False, True, False, False]


def test_it_is_trajectory_balance_at_the_best_constant() -> None:
    scores = [random_numbers(seed, 6) for seed in range(3)]
    best = (scores[2] + scores[1] - scores[0]).mean()
    assert_close(log_partition_variance(*scores), trajectory_balance(best, *scores), 1e-14)
    assert float(trajectory_balance(best + 0.1, *scores).mean()) > float(log_partition_variance(*scores).mean())


def test_one_path_has_no_variance() -> None:
    with pytest.raises(OptionError, match="at least two"):
        log_partition_variance(*(random_numbers(seed, 1) for seed in range(3)))
