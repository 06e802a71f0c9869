"""The one softmax: against a plain float64 reference, with its temperature, its mixture and its edges."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.numerics import log_mean_exp, masked_log_softmax, take_rows
from tests.support import assert_close, random_numbers


def plain_law(logits: Tensor, mask: Tensor, temperature: float, epsilon: float) -> np.ndarray:
    """The law by its definition, one row at a time, in NumPy and in probability space."""
    rows = []
    for row, allowed in zip(logits.double().numpy() / temperature, mask.numpy(), strict=True):
        weights = np.where(allowed, np.exp(row - row[allowed].max()), 0.0)
        rows.append((1 - epsilon) * weights / weights.sum() + epsilon * allowed / allowed.sum())
    return np.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 7.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.2])
def test_the_law_is_the_plain_one(dtype: torch.dtype, temperature: float, epsilon: float) -> None:
    logits = (5.0 * random_numbers(0, 200, 9)).to(dtype)
    mask = random_numbers(1, 200, 9) > 0.3
    mask[:, 4] = True
    log_probs = masked_log_softmax(logits, mask, temperature=temperature, epsilon=epsilon)
    assert log_probs.dtype == torch.float64
    assert torch.equal(log_probs == -math.inf, ~mask)
    assert_close(log_probs.exp(), torch.from_numpy(plain_law(logits, mask, temperature, epsilon)), 1e-13)
    assert_close(log_probs.exp().sum(-1), torch.ones(200), 1e-13)
    # Negative control: the mixture and the temperature are not decoration.
    if epsilon != 0.2 or temperature != 1.0:
        assert not torch.allclose(log_probs.exp(), torch.from_numpy(plain_law(logits, mask, 1.0, 0.2)), atol=1e-3)


def test_no_mask_allows_all_and_any_batch_shape_works() -> None:
    logits = random_numbers(2, 3, 4, 5)
    wanted = logits.log_softmax(-1)
    assert_close(masked_log_softmax(logits), wanted, 1e-14)
    assert_close(masked_log_softmax(logits, torch.ones(3, 4, 5, dtype=torch.bool)), wanted, 1e-14)
    assert_close(masked_log_softmax(logits[0, 0]), wanted[0, 0], 1e-14)
    assert masked_log_softmax(torch.zeros(0, 5)).shape == (0, 5)


def test_large_and_small_logits_neither_overflow_nor_vanish() -> None:
    logits = torch.tensor([[1e30, 0.0, -1e30], [1e4, 1e4, -1e4]])
    log_probs = masked_log_softmax(logits)
    assert_close(log_probs, [[0.0, -1e30, -2e30], [-math.log(2), -math.log(2), -2e4]], 1e23)
    assert_close(log_probs[1], [-math.log(2), -math.log(2), -2e4 - math.log(2)], 1e-11)


def test_minus_infinity_is_probability_zero_until_epsilon_is_mixed_in() -> None:
    logits = random_numbers(3, 50, 6)
    mask = random_numbers(4, 50, 6) > 0
    mask[:, 0] = True
    never = logits.masked_fill(~mask, -math.inf)
    assert_close(masked_log_softmax(never), masked_log_softmax(logits, mask), 1e-14)
    # The mask says what is allowed, and epsilon is uniform over that: here over all six.
    mixed = masked_log_softmax(never, epsilon=0.3).exp()
    assert_close(mixed, 0.7 * masked_log_softmax(never).exp() + 0.3 / 6, 1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_row_with_nothing_allowed_is_minus_infinity_and_stains_no_other(epsilon: float) -> None:
    logits = random_numbers(5, 3, 4).requires_grad_()
    mask = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4])
    log_probs = masked_log_softmax(logits, mask, epsilon=epsilon)
    assert (log_probs[1] == -math.inf).all()
    assert_close(log_probs[[0, 2]].exp().sum(-1), [1.0, 1.0], 1e-14)
    log_probs[[0, 2]][mask[[0, 2]]].sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()
    assert not logits.grad[0, 1]


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_gradients_are_those_of_finite_differences(epsilon: float) -> None:
    mask = torch.tensor([[True, False, True, True], [True, True, False, False], [False, False, True, False]])

    def allowed_entries(logits: Tensor) -> Tensor:
        return masked_log_softmax(logits, mask, temperature=1.7, epsilon=epsilon)[mask]

    assert torch.autograd.gradcheck(allowed_entries, (random_numbers(6, 3, 4).requires_grad_(),))


def test_log_mean_exp() -> None:
    weights = random_numbers(7, 1_000)
    assert log_mean_exp(weights) == pytest.approx(math.log(float(weights.exp().mean())), abs=1e-13)
    assert log_mean_exp(weights + 1e4) == pytest.approx(1e4 + log_mean_exp(weights), abs=1e-11)
    assert log_mean_exp(torch.tensor([0.0, -math.inf]).double()) == pytest.approx(-math.log(2))
    assert log_mean_exp(torch.full((3,), -math.inf).double()) == -math.inf


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.bool])
def test_rows_are_taken_as_by_indexing(dtype: torch.dtype) -> None:
    x = random_numbers(1, 6, 4, 2).to(dtype)
    for rows in (torch.tensor([3, 0, 0]), torch.tensor([[5, 1], [2, 2]]), torch.arange(0)):
        for source in (x, x.transpose(0, 2)):
            kept = rows % len(source)
            found = take_rows(source, kept)
            assert found.dtype == dtype and torch.equal(found, source[kept])
    # Where NumPy cannot go, torch does.
    assert take_rows(x.to("meta"), torch.tensor([[0, 1]], device="meta")).shape == (1, 2, 4, 2)
