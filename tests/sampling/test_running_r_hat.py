"""R-hat from running sums: that of arviz-stats on the same draws."""

import math

import numpy as np
import pytest

from gfnmc.diagnostics.arviz import array_stats
from gfnmc.sampling.running_r_hat import RunningRHat


def added(values: np.ndarray) -> RunningRHat:
    """Add draws, `(scalars, chains, draws)`, one after the other."""
    running = RunningRHat(*values.shape[:2])
    for draw in range(values.shape[2]):
        running.add(values[:, :, draw])
    return running


def split_r_hat(values: np.ndarray) -> list[float]:
    stats = array_stats()
    return [float(stats.rhat(scalar, chain_axis=0, draw_axis=1, method="split")) for scalar in values]


@pytest.mark.parametrize("num_draws", [4, 5, 63, 64, 65, 130, 1_000])
def test_it_is_the_split_r_hat_of_the_draws_that_it_uses(num_draws: int) -> None:
    generator = np.random.default_rng(num_draws)
    values = generator.normal(size=(3, 5, num_draws)).cumsum(axis=2) * 0.1 + generator.normal(size=(3, 5, num_draws))
    # Far from zero, where sums of squares lose their digits.
    values[2] += 1e7
    running = added(values)
    assert num_draws - running.num_used <= max(1, num_draws // 16)
    np.testing.assert_allclose(running.r_hat(), split_r_hat(values[:, :, : running.num_used]), rtol=1e-6)


def test_a_shift_of_one_chain_is_seen() -> None:
    values = np.random.default_rng(0).normal(size=(1, 4, 200))
    values[0, 2] += 2.0
    assert added(values).r_hat()[0] > 1.2


def test_a_drift_of_all_chains_is_seen() -> None:
    values = np.random.default_rng(0).normal(size=(1, 4, 200)) + np.linspace(0.0, 4.0, 200)
    assert added(values).r_hat()[0] > 1.2


def test_constants_have_none_and_chains_that_stand_apart_have_infinity() -> None:
    values = np.ones((2, 3, 50))
    values[1, 2] = 7.0
    constant, apart = added(values).r_hat()
    assert math.isnan(constant)
    assert apart == math.inf


def test_a_few_draws_have_none() -> None:
    assert np.isnan(added(np.random.default_rng(0).normal(size=(2, 3, 3))).r_hat()).all()
    assert np.isnan(RunningRHat(2, 3).r_hat()).all()
