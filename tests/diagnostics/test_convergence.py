"""Convergence of a scalar: what arviz-stats says where it can be believed, and nothing where it cannot."""

import math

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from gfnmc.core.errors import OptionError
from gfnmc.diagnostics import autocorrelation, convergence, nested_r_hat, quantile_ess


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
    # Not by az.mcse: that of ArviZ 0.23 fails beside numba on NumPy 2.4.
    mcse = draws.std(ddof=1) / math.sqrt(float(az.ess(draws, method="mean")))
    assert found.mcse == pytest.approx(mcse, rel=0.01)


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


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_time_and_effective_size_of_the_mean_are_each_others_inverse(rho: float) -> None:
    draws = autoregressive(16, 2_000, rho, seed=4)
    found = convergence(draws)
    assert found.integrated_time == pytest.approx((1 + rho) / (1 - rho), rel=0.2)
    assert found.ess_mean * found.integrated_time == pytest.approx(draws.size)
    constant = convergence(np.ones((4, 50)))
    assert (constant.ess_mean, constant.integrated_time) == (None, None)


def test_the_tail_of_an_indicator_that_is_nearly_always_1_is_not_known() -> None:
    """Both quantiles are 1, and so is everything below them: arviz-stats answers the number of draws."""
    import arviz as az

    draws = (autoregressive(4, 1_000, 0.9, seed=1) > -2.2).astype(float)
    assert 0.97 < draws.mean() < 1.0
    assert float(az.ess(draws, method="tail", prob=(0.05, 0.95))) == draws.size
    found = convergence(draws)
    assert found.ess_tail is None
    assert found.ess_bulk is not None and found.ess_bulk < 2_000
    # Where only one of the two quantiles is at the end, the other one is the tail.
    rare = convergence(1.0 - draws)
    assert rare.ess_tail is None or rare.ess_tail < 2_000


@pytest.mark.parametrize("probability", [0.05, 0.25, 0.5, 0.9])
def test_quantile_ess_is_what_arviz_says(probability: float) -> None:
    import arviz as az

    draws = autoregressive(4, 1_000, 0.6, seed=3)
    assert quantile_ess(draws, probability) == pytest.approx(
        float(az.ess(draws, method="quantile", prob=probability)), rel=1e-6
    )


def test_quantile_ess_of_what_does_not_vary() -> None:
    assert quantile_ess(np.ones((4, 50)), 0.5) is None
    assert quantile_ess(autoregressive(4, 3, 0.0), 0.5) is None
    with pytest.raises(OptionError, match=r"probability 1\.0 does not exist"):
        quantile_ess(autoregressive(4, 50, 0.0), 1.0)


def nested_by_hand(draws: np.ndarray, groups: np.ndarray) -> float:
    """Of halves of chains, ranked or folded and ranked, equations 4 to 8 of Margossian et al."""
    halves = np.concatenate([draws[:, : draws.shape[1] // 2], draws[:, draws.shape[1] // 2 :]])
    groups = np.concatenate([groups, groups])
    found = []
    for values in (halves, np.abs(halves - np.median(halves))):
        z = norm.ppf((rankdata(values) - 3 / 8) / (values.size + 1 / 4)).reshape(values.shape)
        means, variances = z.mean(1), z.var(1, ddof=1)
        names = np.unique(groups)
        between = np.array([means[groups == group].mean() for group in names]).var(ddof=1)
        within = [means[groups == group].var(ddof=1) + variances[groups == group].mean() for group in names]
        found.append(math.sqrt(1.0 + between / np.mean(within)))
    return max(found)


def test_nested_r_hat_compares_groups() -> None:
    # 16 groups of 32 chains, each of 8 draws: alone too short for anything.
    groups = np.repeat(np.arange(16), 32)
    draws = autoregressive(512, 8, 0.9, seed=2)
    good = nested_r_hat(draws, groups.tolist())
    assert good == pytest.approx(1.0, abs=0.05)
    assert convergence(draws).r_hat > 1.3
    assert good == pytest.approx(nested_by_hand(draws, groups), abs=1e-12)
    shifted = draws + groups[:, None]
    assert nested_r_hat(shifted, groups.tolist()) == pytest.approx(nested_by_hand(shifted, groups), abs=1e-12)
    assert nested_r_hat(shifted, groups.tolist()) > 2.0
    # Names of groups, and the order of chains, do not matter.
    order = np.random.default_rng(0).permutation(512)
    assert nested_r_hat(draws[order], (7 - 3 * groups[order]).tolist()) == pytest.approx(good, abs=1e-12)


def test_nested_r_hat_of_what_does_not_move() -> None:
    groups = [0, 0, 1, 1]
    assert nested_r_hat(np.ones((4, 50)), groups) is None
    assert nested_r_hat(autoregressive(4, 3, 0.0), groups) is None
    assert nested_r_hat(np.repeat(np.array([0.0, 0.0, 1.0, 1.0])[:, None], 50, 1), groups) == math.inf


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        ([0, 0, 1], "3 superchains for 4 chains"),
        ([0, 0, 0, 0], r"superchains of sizes \[4\]"),
        ([0, 0, 0, 1], r"superchains of sizes \[3, 1\]"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: list, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        nested_r_hat(autoregressive(4, 50, 0.0), groups)


def test_autocorrelation_is_that_of_the_law() -> None:
    found = autocorrelation(autoregressive(50, 2_000, 0.8, seed=7), 10)
    assert found is not None and found.shape == (11,)
    # 100,000 draws worth a ninth of that: a band of five standard errors of a correlation.
    assert found == pytest.approx(0.8 ** np.arange(11), abs=5 / math.sqrt(100_000 / 9))
    assert found != pytest.approx(0.7 ** np.arange(11), abs=5 / math.sqrt(100_000 / 9))


def test_autocorrelation_is_within_chains_that_move() -> None:
    draws = autoregressive(3, 200, 0.5, seed=8)
    with_others = np.concatenate([draws + 100.0 * np.arange(3)[:, None], np.full((1, 200), 5.0)])
    assert autocorrelation(with_others, 5) == pytest.approx(autocorrelation(draws, 5), abs=1e-9)
    assert autocorrelation(np.ones((4, 50)), 5) is None
    short = autocorrelation(draws[:, :4], 50)
    assert short is not None and len(short) == 4
    with pytest.raises(OptionError, match="max_lag is -1"):
        autocorrelation(draws, -1)
