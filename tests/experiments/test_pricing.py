"""Prices of differences and gradients, by a clock that the target itself moves."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.experiments import pricing
from gfnmc.experiments.pricing import Prices, measure_prices
from gfnmc.targets import Target, from_function


class Clocked(Target):
    """A target whose every answer takes its time."""

    name = "clocked"
    event_shape = (3,)
    dtype = torch.int64
    values = (0, 1, 2)

    def __init__(self) -> None:
        self.now = 0.0

    def log_prob(self, x: Tensor) -> Tensor:
        self.now += 4.0
        return torch.zeros(len(x), dtype=torch.float64)

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        self.now += 2.0
        return torch.zeros(len(x), 3, dtype=torch.float64)

    def log_prob_relaxed(self, weights: Tensor) -> Tensor:
        self.now += 12.0
        return weights.flatten(1).sum(1)


def test_prices_are_ratios_to_a_full_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Clocked()
    monkeypatch.setattr(pricing.time, "perf_counter", lambda: target.now)
    prices = measure_prices(target, torch.zeros(8, 3, dtype=torch.int64))
    # A visit of a site takes half as long as an energy, and tells the change with each of two other values.
    assert prices == Prices(full_microseconds=4e6 / 8, delta=0.25, gradient=3.0)


def test_priced_costs() -> None:
    prices = Prices(full_microseconds=1.0, delta=0.25, gradient=3.0)
    assert prices.priced(Cost(target_calls=100)) == 100.0
    assert prices.priced(Cost(target_calls=100, delta_calls=40)) == 70.0
    assert prices.priced(Cost(target_calls=100, gradient_calls=10)) == 120.0
    nothing_special = Prices(full_microseconds=1.0, delta=None, gradient=None)
    assert nothing_special.priced(Cost(target_calls=100)) == 100.0


def test_a_plain_function_has_no_other_prices() -> None:
    target = from_function(lambda x: x.sum(1).double(), (2,), values=(0, 1))
    prices = measure_prices(target, torch.zeros(4, 2, dtype=torch.int64))
    assert prices.delta is None and prices.gradient is None and prices.full_microseconds > 0.0
