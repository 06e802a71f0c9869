"""What changes in the course of a run: the power of the reward, by the clock or by sample size, and the step sizes."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gfnmc.training.schedule import annealed_power, learning_rate_factor, raised_power
from tests.support import random_numbers
from tests.training.cases import tiny


def test_an_annealed_power_grows_linearly_and_stays_at_one() -> None:
    config = tiny(num_steps=200, anneal_until=0.25)
    powers = [annealed_power(config, step) for step in range(200)]
    assert powers[:50] == pytest.approx([step / 50 for step in range(50)], abs=1e-15)
    assert powers[50:] == [1.0] * 150
    # A fraction that ends between two steps.
    assert annealed_power(tiny(num_steps=3, anneal_until=0.5), 1) == pytest.approx(2 / 3)
    assert annealed_power(tiny(num_steps=3, anneal_until=0.5), 2) == 1.0


def test_an_annealed_power_may_last_the_whole_run_or_no_step_of_it() -> None:
    assert annealed_power(tiny(num_steps=10, anneal_until=0.0), 0) == 1.0
    assert annealed_power(tiny(num_steps=10, anneal_until=1.0), 9) == 0.9


def fraction(log_reward: Tensor, log_path_ratio: Tensor, power: float) -> float:
    """The effective fraction of the possible objects, in plain arithmetic."""
    possible = log_reward > -math.inf
    weights = (power * log_reward[possible] + log_path_ratio[possible]).exp()
    return float(weights.sum() ** 2 / (weights.square().sum() * possible.sum()))


def by_brute_force(log_reward: Tensor, log_path_ratio: Tensor, current: float, threshold: float) -> float:
    """The last of many powers, from the current one up, before the fraction first falls below the threshold."""
    if fraction(log_reward, log_path_ratio, 1.0) >= threshold:
        return 1.0
    found = current
    for power in torch.linspace(current, 1.0, 5_001).tolist():
        if fraction(log_reward, log_path_ratio, power) < threshold:
            break
        found = power
    return found


@pytest.mark.parametrize("impossible", [0, 50])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("current", [0.0, 0.2, 0.6])
def test_an_adaptive_power_is_the_largest_that_keeps_the_sample_size(
    current: float, threshold: float, impossible: int
) -> None:
    log_reward = 2.0 * random_numbers(3, 60)
    log_reward[:impossible] = -math.inf
    # The pair has learned the current power up to some noise, so sizes fall from there on.
    log_path_ratio = 0.1 * random_numbers(4, 60) - torch.where(log_reward > -math.inf, current * log_reward, 0.0)
    found = raised_power(log_reward, log_path_ratio, current, threshold)
    assert found == pytest.approx(by_brute_force(log_reward, log_path_ratio, current, threshold), abs=1e-3)
    if current < found < 1.0:
        assert fraction(log_reward, log_path_ratio, found) == pytest.approx(threshold, abs=1e-6)
        assert fraction(log_reward, log_path_ratio, found + 1e-3) < threshold


def test_what_a_smaller_sample_size_allows_is_more() -> None:
    """The negative control: the power depends on the threshold, on both parts of the weights, and on where it is."""
    log_reward, flat = 2.0 * random_numbers(3, 60), torch.zeros(60, dtype=torch.float64)
    powers = [raised_power(log_reward, flat, 0.0, threshold) for threshold in (0.9, 0.5, 0.2)]
    assert 0.05 < powers[0] < powers[1] - 0.1 < powers[2] - 0.2
    assert raised_power(2.0 * log_reward, flat, 0.0, 0.5) == pytest.approx(powers[1] / 2, abs=1e-6)
    assert raised_power(log_reward, -0.5 * log_reward, 0.5, 0.5) == pytest.approx(powers[1] + 0.5, abs=1e-6)


def test_an_adaptive_power_is_never_lowered() -> None:
    for seed in range(30):
        log_reward, log_path_ratio = 5.0 * random_numbers(seed, 20), 3.0 * random_numbers(100 + seed, 20)
        for current in (0.0, 0.3, 0.99, 1.0):
            assert current <= raised_power(log_reward, log_path_ratio, current, 0.5) <= 1.0
    # Objects of the pair that are too uneven for the power as it is: the pair is waited for.
    assert raised_power(torch.tensor([0.0, 50.0]).double(), torch.zeros(2).double(), 0.4, 0.9) == 0.4


def test_equal_weights_go_straight_to_the_full_reward() -> None:
    log_reward = random_numbers(1, 40)
    assert raised_power(log_reward, -log_reward, 0.0, 0.99) == 1.0
    assert raised_power(torch.full((5,), -3.0).double(), torch.zeros(5).double(), 0.0, 0.99) == 1.0


def test_impossible_objects_neither_stop_nor_spoil_it() -> None:
    nothing = torch.full((8,), -math.inf).double()
    assert raised_power(nothing, torch.zeros(8).double(), 0.25, 0.5) == 0.25
    # Nine in ten impossible, the others alike: what is possible could not be more even.
    mostly = torch.where(torch.arange(50) % 10 == 0, 1.0, -math.inf).double()
    assert raised_power(mostly, torch.zeros(50).double(), 0.0, 0.9) == 1.0
    # Impossible by the way back.
    assert raised_power(torch.zeros(4).double(), torch.full((4,), -math.inf).double(), 0.5, 0.5) == 0.5


def test_step_sizes_rise_stay_and_fall() -> None:
    config = tiny(num_steps=100, lr_warmup_steps=10, lr_decay_from=0.5)
    factors = [learning_rate_factor(config, step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:51] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[50:]))
    assert 0.0 < factors[99] < 1e-2


def test_step_sizes_without_rise_or_fall() -> None:
    flat = tiny(num_steps=20, lr_warmup_steps=0, lr_decay_from=1.0)
    assert [learning_rate_factor(flat, step) for step in range(20)] == [1.0] * 20
    falls = tiny(num_steps=20, lr_warmup_steps=0, lr_decay_from=0.0)
    assert learning_rate_factor(falls, 10) == pytest.approx(0.5)
    # A rise that is not over when the fall begins: both count.
    both = tiny(num_steps=20, lr_warmup_steps=20, lr_decay_from=0.0)
    assert learning_rate_factor(both, 10) == pytest.approx(11 / 20 * 0.5)
