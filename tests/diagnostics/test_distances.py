"""Total variation, Jensen-Shannon and their floors: against every sequence of draws, simulation, and at the edges."""

import itertools
import math

import numpy as np
import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.diagnostics import iid_jensen_shannon, iid_total_variation, jensen_shannon, total_variation
from tests.support import random_numbers

LAWS = {
    "even": torch.zeros(3),
    "uneven": torch.tensor([0.7, 0.2, 0.1]).log(),
    "two": torch.tensor([0.999, 0.001]).log(),
    "one impossible": torch.tensor([0.5, 0.0, 0.5]).log(),
    "one": torch.zeros(1),
}


def law(name: str) -> torch.Tensor:
    return LAWS[name].double().log_softmax(0)


def over_every_sequence(log_pmf: torch.Tensor, num_draws: int) -> float:
    """E[TV] by its definition."""
    pmf, total = log_pmf.exp().tolist(), 0.0
    for draws in itertools.product(range(len(pmf)), repeat=num_draws):
        counts = np.bincount(draws, minlength=len(pmf)) / num_draws
        total += math.prod(pmf[place] for place in draws) * 0.5 * np.abs(counts - pmf).sum()
    return total


@pytest.mark.parametrize("num_draws", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("name", LAWS)
def test_the_floor_is_the_mean_over_every_sequence(name: str, num_draws: int) -> None:
    assert iid_total_variation(law(name), float(num_draws)) == pytest.approx(
        over_every_sequence(law(name), num_draws), abs=1e-13
    )


@pytest.mark.parametrize("num_draws", [10, 333, 5_000])
def test_the_floor_is_the_mean_of_simulations(num_draws: int) -> None:
    log_pmf = (2.0 * random_numbers(0, 40)).log_softmax(0)
    num_runs = 200
    found = []
    for run in range(num_runs):
        index = PhiloxDraws(run, "simulation", num_draws).categorical(log_pmf)
        found.append(total_variation(index, log_pmf))
    floor = iid_total_variation(log_pmf, float(num_draws))
    # The mean of 200 is normal to a good approximation; 4.9 standard errors are 1e-6.
    margin = 4.9 * np.std(found) / math.sqrt(num_runs)
    assert abs(np.mean(found) - floor) < margin
    # Negative control: the floor of a few draws more or less is told apart.
    assert abs(np.mean(found) - iid_total_variation(log_pmf, 1.3 * num_draws)) > 4.9 * np.std(found) / math.sqrt(
        num_runs
    )


def test_the_floor_falls_with_the_draws_and_stays_finite() -> None:
    log_pmf = (5.0 * random_numbers(1, 1_000)).log_softmax(0)
    floors = [iid_total_variation(log_pmf, float(10**power)) for power in range(9)]
    assert all(math.isfinite(floor) and 0.0 < floor <= 1.0 for floor in floors)
    assert floors == sorted(floors, reverse=True)
    # For many draws of an ordinary cell, the mean absolute deviation of a normal law.
    pmf = law("uneven").exp()
    normal = 0.5 * float((2 * pmf * (1 - pmf) / (math.pi * 1e6)).sqrt().sum())
    assert iid_total_variation(law("uneven"), 1e6) == pytest.approx(normal, rel=1e-4)


def test_an_effective_number_is_rounded_and_never_none() -> None:
    assert iid_total_variation(law("uneven"), 6.6) == iid_total_variation(law("uneven"), 7.0)
    assert iid_total_variation(law("uneven"), 0.01) == iid_total_variation(law("uneven"), 1.0)
    assert iid_total_variation(law("one"), 10.0) == 0.0
    nearly_certain = torch.tensor([math.log1p(-(2.0**-53)), -53 * math.log(2.0)]).double()
    for num_draws in (1.0, 2.0, 3.0, 1e3, 1e9):
        assert 0.0 <= iid_total_variation(nearly_certain, num_draws) < 1e-12


def test_total_variation() -> None:
    assert total_variation(torch.tensor([0, 0, 1, 2]), law("even")) == pytest.approx(0.5 * (1 / 6 + 1 / 12 + 1 / 12))
    assert total_variation(torch.tensor([0, 1, 2]), law("even")) == pytest.approx(0.0, abs=1e-15)
    assert total_variation(torch.tensor([1]), law("one impossible")) == pytest.approx(1.0)
    assert total_variation(torch.tensor([2, 2, 2]), law("uneven")) == pytest.approx(0.9)
    assert total_variation(torch.zeros(5, dtype=torch.int64), law("one")) == 0.0


def divergence_over_every_sequence(log_pmf: torch.Tensor, num_draws: int) -> float:
    """E[JSD] by its definition."""
    pmf, total = log_pmf.exp().tolist(), 0.0
    for draws in itertools.product(range(len(pmf)), repeat=num_draws):
        chance = math.prod(pmf[place] for place in draws)
        total += chance * divergence_by_hand(np.bincount(draws, minlength=len(pmf)) / num_draws, pmf)
    return total


def divergence_by_hand(q: np.ndarray, p: list[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(q, p, strict=True)]
    return sum(
        0.5 * part * math.log(part / m) for law in (q, p) for part, m in zip(law, middle, strict=True) if part > 0.0
    )


@pytest.mark.parametrize("num_draws", [1, 2, 5, 7])
@pytest.mark.parametrize("name", LAWS)
def test_the_floor_of_the_divergence_is_the_mean_over_every_sequence(name: str, num_draws: int) -> None:
    assert iid_jensen_shannon(law(name), num_draws) == pytest.approx(
        divergence_over_every_sequence(law(name), num_draws), abs=1e-13
    )


def test_the_floor_of_the_divergence_is_the_mean_of_simulations() -> None:
    log_pmf = (2.0 * random_numbers(0, 40)).log_softmax(0)
    found = [jensen_shannon(PhiloxDraws(run, "simulation", 500).categorical(log_pmf), log_pmf) for run in range(200)]
    margin = 4.9 * np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - iid_jensen_shannon(log_pmf, 500)) < margin
    assert abs(np.mean(found) - iid_jensen_shannon(log_pmf, 650)) > margin
    # Cells in blocks, and cut binomial laws: of many draws, chi-square / (8 n).
    many = (0.5 * random_numbers(1, 3_000)).log_softmax(0)
    assert iid_jensen_shannon(many, 1e6) == pytest.approx(2_999 / 8e6, rel=0.01)


def test_jensen_shannon() -> None:
    from scipy.spatial.distance import jensenshannon

    index = torch.tensor([0, 0, 1, 2, 2, 2])
    assert jensen_shannon(index, law("uneven")) == pytest.approx(
        jensenshannon([2 / 6, 1 / 6, 3 / 6], law("uneven").exp()) ** 2, abs=1e-15
    )
    assert jensen_shannon(torch.tensor([0, 1, 2]), law("even")) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon(torch.tensor([1]), law("one impossible")) == pytest.approx(math.log(2))
