"""Convergence of a scalar: what arviz-stats says where it can be believed, and nothing where it cannot."""

import math

import numpy as np
import pytest

from gfnmc.diagnostics import convergence


def autoregressive(num_chains: int, num_draws: int, rho: float, seed: int = 0) -> np.ndarray:
    """AR(1) chains of variance 1, begun in their law; the effective sample size is known."""
    noise = np.random.default_rng(seed).standard_normal((num_chains, num_draws))
    draws = np.empty_like(noise)
    draws[:, 0] = noise[:, 0]
    for step in range(1, num_draws):
        draws[:, step] = rho * draws[:, step - 1] + math.sqrt(1 - rho**2) * noise[:, step]
    return draws


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_a_constant_has_determined_nothing(value: float, dtype: type) -> None:
    draws = np.full((4, 50), value if dtype is np.float64 else 3).astype(dtype)
    found = convergence(draws)
    assert found.mean == pytest.approx(float(draws[0, 0]))
    assert (found.mcse, found.ess_bulk, found.ess_tail, found.r_hat) == (None, None, None, None)


@pytest.mark.parametrize("num_draws", [1, 3])
def test_a_few_draws_have_determined_nothing(num_draws: int) -> None:
    found = convergence(autoregressive(4, num_draws, 0.0))
    assert math.isfinite(found.mean)
    assert (found.mcse, found.ess_bulk, found.ess_tail, found.r_hat) == (None, None, None, None)


@pytest.mark.parametrize("levels", [[0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
def test_chains_that_stand_still_in_different_places_do_not_agree(levels: list[float]) -> None:
    found = convergence(np.repeat(np.array(levels)[:, None], 100, 1))
    assert found.r_hat == math.inf
    assert found.mean == pytest.approx(np.mean(levels))
    # The plain answer, which the guard is for: arviz-stats does not say infinity of all of these.
    assert found.ess_bulk is None or found.ess_bulk < 10
    assert found.mcse is None or found.mcse > 0.01


def test_one_chain_that_moves_is_no_reason_for_infinity() -> None:
    draws = np.repeat(np.array([0.0, 1.0, 2.0])[:, None], 200, 1)
    draws[0] += autoregressive(1, 200, 0.0)[0] * 0.01
    found = convergence(draws)
    assert found.r_hat is not None
    assert 2.0 < found.r_hat < math.inf


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_it_is_what_arviz_says(rho: float) -> None:
    import arviz as az

    draws = autoregressive(4, 1_000, rho, seed=3)
    found = convergence(draws)
    assert found.mean == pytest.approx(draws.mean(), abs=1e-15)
    assert found.ess_bulk == pytest.approx(float(az.ess(draws, method="bulk")), rel=1e-6)
    assert found.ess_tail == pytest.approx(float(az.ess(draws, method="tail", prob=(0.05, 0.95))), rel=1e-6)
    assert found.r_hat == pytest.approx(float(az.rhat(draws, method="rank")), rel=1e-6)
    assert found.mcse == pytest.approx(float(az.mcse(draws, method="mean")), rel=0.01)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_it_is_what_theory_says(rho: float) -> None:
    draws = autoregressive(16, 2_000, rho, seed=4)
    wanted = draws.size * (1 - rho) / (1 + rho)
    found = convergence(draws)
    # A band, not a test of a law: of 16 x 2,000 draws the estimate is good to some per cent.
    assert found.ess_bulk == pytest.approx(wanted, rel=0.2)
    assert found.mcse == pytest.approx(1 / math.sqrt(wanted), rel=0.2)
    assert found.r_hat == pytest.approx(1.0, abs=0.01)


def test_single_precision_is_read_as_double() -> None:
    draws = autoregressive(4, 500, 0.5, seed=5)
    single = convergence(draws.astype(np.float32))
    double = convergence(draws.astype(np.float32).astype(np.float64))
    assert single == double
    whole_numbers = convergence((10 * draws).astype(np.int8))
    assert whole_numbers == convergence((10 * draws).astype(np.int8).astype(np.float64))
    assert convergence(draws > 0).ess_bulk == pytest.approx(500 * 4 / 2, rel=0.5)


def test_many_chains_are_thinned_for_r_hat_alone() -> None:
    draws = autoregressive(400, 20, 0.0, seed=6)
    found = convergence(draws)
    assert found.mean == pytest.approx(draws.mean())
    assert found.r_hat == pytest.approx(1.0, abs=0.05)
    assert found.ess_bulk == pytest.approx(8_000, rel=0.3)
    # A shift of half of them is still seen.
    draws[::2] += 3.0
    assert convergence(draws).r_hat > 1.5


def test_a_scalar_that_moves_once_is_no_trouble() -> None:
    draws = np.zeros((4, 100))
    draws[2, 70] = 1.0
    found = convergence(draws)
    assert found.mean == pytest.approx(1 / 400)
    for value in (found.mcse, found.ess_bulk, found.ess_tail, found.r_hat):
        assert value is None or math.isfinite(value)
