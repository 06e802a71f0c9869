"""Distances between samples: against loops over all pairs and scipy, beside floors that repetition shows."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from gfnmc.core.draws import normal
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.diagnostics import energy_distance, maximum_mean_discrepancy, sliced_wasserstein
from tests.support import random_numbers

MEASURES = {
    "energy": energy_distance,
    "sliced": sliced_wasserstein,
    "mmd": maximum_mean_discrepancy,
}


def spins(seed: int, num: int, chance: float = 0.5) -> Tensor:
    """Objects of 3 x 2 spins."""
    up = np.random.default_rng(seed).random((num, 3, 2)) < chance
    return torch.from_numpy(np.where(up, 1, -1).astype(np.int8))


def mean_over_pairs(x: Tensor, y: Tensor, of: object) -> float:
    pairs = itertools.product(x.flatten(1).double(), y.flatten(1).double())
    return sum(of(float((a - b).norm())) for a, b in pairs) / (len(x) * len(y))  # type: ignore[operator]


def test_energy_distance_is_its_definition() -> None:
    x, y = random_numbers(0, 7, 3), 0.5 + random_numbers(1, 5, 3)

    def mean(a: Tensor, b: Tensor) -> float:
        return mean_over_pairs(a, b, lambda distance: distance)

    found = energy_distance(x, y)
    assert found.value == pytest.approx(2 * mean(x, y) - mean(x, x) - mean(y, y), abs=1e-12)
    apart = mean(y, y) * 5 / 4
    assert found.iid_floor == pytest.approx((1 / 7 + 1 / 5) * apart, abs=1e-12)
    assert found.floor_of(2.5) == pytest.approx((1 / 2.5 + 1 / 5) * apart, abs=1e-12)


def test_squared_mmd_is_its_definition() -> None:
    x, y = random_numbers(0, 6, 2), 0.5 + random_numbers(1, 4, 2)
    width = math.sqrt(mean_over_pairs(y, y, lambda distance: distance**2))

    def kernel(distance: float) -> float:
        return sum(math.exp(-0.5 * (distance / (factor * width)) ** 2) for factor in (0.5, 1.0, 2.0)) / 3

    found = maximum_mean_discrepancy(x, y)
    value = mean_over_pairs(x, x, kernel) + mean_over_pairs(y, y, kernel) - 2 * mean_over_pairs(x, y, kernel)
    assert found.value == pytest.approx(value, abs=1e-12)
    others = sum(kernel(float((a - b).norm())) for a, b in itertools.permutations(y, 2)) / 12
    assert found.iid_floor == pytest.approx((1 / 6 + 1 / 4) * (1 - others), abs=1e-12)


def test_sliced_wasserstein_is_the_mean_of_scipys_over_lines() -> None:
    x, y = random_numbers(0, 11, 2), 0.5 + 2.0 * random_numbers(1, 8, 2)
    lines = normal(3, "sliced", (2, 20), torch.float64)
    lines = lines / lines.norm(dim=0)
    by_scipy = [wasserstein_distance((x @ line).numpy(), (y @ line).numpy()) for line in lines.T]
    assert sliced_wasserstein(x, y, num_lines=20, seed=3).value == pytest.approx(np.mean(by_scipy), abs=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_a_sample_is_at_no_distance_from_itself_in_any_order(name: str) -> None:
    x = spins(0, 40)
    found = MEASURES[name](x, x.flip(0))
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.iid_floor > 0.0
    # Of one object only, there is nothing to tell apart.
    same = MEASURES[name](x[:1].repeat(5, 1, 1), x[:1].repeat(4, 1, 1))
    assert same.value == pytest.approx(0.0, abs=1e-12) and same.iid_floor == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_the_floor_is_what_independent_samples_show(name: str) -> None:
    found = [MEASURES[name](spins(seed, 60), spins(1_000 + seed, 150)) for seed in range(40)]
    values, floors = (np.array([one[place] for one in found]) for place in (0, 1))
    margin = 4.9 * math.hypot(values.std(ddof=1), floors.std(ddof=1)) / math.sqrt(len(found))
    # The floor of the sliced distance is an extrapolation from two halves, good to some per cent.
    slack = 0.05 * floors.mean() if name == "sliced" else 0.0
    assert abs(values.mean() - floors.mean()) < margin + slack
    # Negative control: the floor of half as many draws is told apart.
    half = [one.floor_of(30.0) for one in found]
    assert abs(values.mean() - np.mean(half)) > margin + slack


@pytest.mark.parametrize("name", MEASURES)
def test_a_missing_mode_is_far_above_the_floor(name: str) -> None:
    up, down = spins(0, 100, 0.95), spins(1, 100, 0.05)
    found = MEASURES[name](up, torch.cat([up[:50], down[:50]]))
    assert found.value > 5 * found.iid_floor


@pytest.mark.parametrize("name", MEASURES)
def test_what_has_no_distance_is_refused(name: str) -> None:
    with pytest.raises(ObjectError, match=r"shapes \(3, 2\) and \(6,\) have no distance"):
        MEASURES[name](spins(0, 5), spins(1, 5).flatten(1))
    with pytest.raises(ObjectError, match="between 1 and 5 objects; give at least 2"):
        MEASURES[name](spins(0, 1), spins(1, 5))
    with pytest.raises(OptionError, match="num_lines is 0"):
        sliced_wasserstein(spins(0, 5), spins(1, 5), num_lines=0)
