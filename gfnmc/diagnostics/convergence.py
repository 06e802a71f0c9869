"""Effective sample size, standard error and R-hat of one scalar, by arviz-stats, with its traps fenced off.

A constant has no effective sample size: arviz-stats would answer the number of draws, and a mode that was never
visited would look perfect. Here it is None. Chains that each stand still in different places have R-hat inf.

References: Vehtari et al. 2021 (1903.08008); Margossian et al. 2024 (2110.13017), nested R-hat for many short chains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from gfnmc.core.errors import OptionError
from gfnmc.diagnostics.arviz import array_stats

_TAIL = (0.05, 0.95)
_MAX_RHAT_CHAINS = 128


@dataclass(frozen=True)
class Convergence:
    """How well chains have determined the mean of a scalar.

    Attributes:
        mean: Mean over all draws.
        mcse: Its Monte Carlo standard error; None where the scalar never moved.
        ess_bulk: Rank-normalised effective sample size; None where the scalar never moved.
        ess_tail: The smaller one of the 5 % and 95 % quantiles; None where the scalar never moved, or both quantiles
            are its largest value, as of an indicator that is 1 nearly always.
        r_hat: Rank-normalised split R-hat; inf where chains stand still in different places, None where the
            scalar never moved. Of more than 128 chains, 128 evenly chosen ones decide.
        ess_mean: Effective sample size of the mean itself, without ranks; None where the scalar never moved.
        integrated_time: Integrated autocorrelation time, in kept draws: how many of them are worth one independent
            draw; None where the scalar never moved.
    """

    mean: float
    mcse: float | None
    ess_bulk: float | None
    ess_tail: float | None
    r_hat: float | None
    ess_mean: float | None = None
    integrated_time: float | None = None


def convergence(draws: Shaped[np.ndarray, "chains draws"]) -> Convergence:
    """Return the convergence of one scalar."""
    stats = array_stats()
    # float64: ranks of more than 2^22 float32 draws become NaN.
    values = np.asarray(draws, dtype=np.float64)
    mean = float(values.mean())
    if values.shape[1] < 4 or np.ptp(values) == 0.0:
        return Convergence(mean, None, None, None, None)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MAX_RHAT_CHAINS)).astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):
        ess_mean = float(stats.ess(values, chain_axis=0, draw_axis=1, method="mean"))
        ess_bulk = float(stats.ess(values, chain_axis=0, draw_axis=1, method="bulk"))
        r_hat = float(stats.rhat(values[chosen], chain_axis=0, draw_axis=1, method="rank"))
    if np.all(np.ptp(values, axis=1) == 0.0):
        r_hat = math.inf
    # A quantile at the end of the range is a constant, whose answer would be the number of draws.
    tails = [ess for ess in (quantile_ess(values, probability) for probability in _TAIL) if ess is not None]
    mcse = float(values.std()) / math.sqrt(ess_mean) if ess_mean > 0.0 else math.nan
    return Convergence(
        mean,
        _finite(mcse),
        _finite(ess_bulk),
        min(tails, default=None),
        None if math.isnan(r_hat) else r_hat,
        _finite(ess_mean),
        _finite(values.size / ess_mean) if ess_mean > 0.0 else None,
    )


def mean_ess(draws: Shaped[np.ndarray, "chains draws"]) -> float | None:
    """Return the effective sample size of the mean alone, without ranks; None where nothing can be said."""
    values = np.asarray(draws, dtype=np.float64)
    if values.shape[1] < 4 or np.ptp(values) == 0.0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return _finite(float(array_stats().ess(values, chain_axis=0, draw_axis=1, method="mean")))


def quantile_ess(draws: Shaped[np.ndarray, "chains draws"], probability: float) -> float | None:
    """Return the effective sample size of a quantile; None where nothing can be said.

    Args:
        draws: A scalar.
        probability: Of the quantile, between 0 and 1.

    Raises:
        OptionError: If the probability is not between 0 and 1.
    """
    if not 0.0 < probability < 1.0:
        raise OptionError(f"the quantile of probability {probability} does not exist; give a number between 0 and 1")
    values = np.asarray(draws, dtype=np.float64)
    # Where a quantile is the largest value, nothing is above it, and what is estimated is a constant.
    return mean_ess(values <= np.quantile(values, probability))


def nested_r_hat(draws: Shaped[np.ndarray, "chains draws"], superchains: Sequence[int]) -> float | None:
    """Return the nested R-hat of many short chains, in groups that share a start.

    It compares groups, whose means are steady even where each chain is too short for an R-hat of its own.

    Args:
        draws: A scalar.
        superchains: The group of each chain; any integers. Chains of a group started at one object, groups
            independently.

    Returns:
        Near 1 where the groups agree; inf where each group stands still in a place of its own; None where the scalar
        never moved, or there are fewer than 4 draws a chain.

    Raises:
        OptionError: If there is not one group a chain, there is only one group, or groups differ in size.
    """
    values = np.asarray(draws, dtype=np.float64)
    groups = checked_superchains(superchains, len(values))
    if values.shape[1] < 4 or np.ptp(values) == 0.0:
        return None
    if all(np.ptp(values[groups == group]) == 0.0 for group in range(groups.max() + 1)):
        return math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        found = float(array_stats().rhat_nested(values, groups, chain_axis=0, draw_axis=1, method="rank"))
    return None if math.isnan(found) else found


def checked_superchains(superchains: Sequence[int], num_chains: int) -> Int64[np.ndarray, " chains"]:
    """Return groups of chains numbered 0, 1, ...

    Raises:
        OptionError: If there is not one group a chain, there is only one group, or groups differ in size.
    """
    if len(superchains) != num_chains:
        raise OptionError(f"{len(superchains)} superchains for {num_chains} chains; name the group of each chain")
    names, groups = np.unique(np.asarray(superchains), return_inverse=True)
    sizes = np.bincount(groups)
    if len(names) < 2 or sizes.min() != sizes.max():
        raise OptionError(
            f"superchains of sizes {sizes.tolist()}; nested R-hat compares two or more groups of one size, each from a "
            "start of its own"
        )
    return groups.astype(np.int64)


def autocorrelation(draws: Shaped[np.ndarray, "chains draws"], max_lag: int) -> Float64[np.ndarray, " lags"] | None:
    """Return the autocorrelation at lags 0 ... max_lag within chains, their mean; None where no chain moved.

    Each chain is measured about its own mean, so what chains disagree about does not show here; R-hat says it.

    Args:
        draws: A scalar.
        max_lag: The longest lag, in kept draws; cut to what there is.

    Raises:
        OptionError: If `max_lag` is negative.
    """
    if max_lag < 0:
        raise OptionError(f"max_lag is {max_lag}; it must be at least 0")
    values = np.asarray(draws, dtype=np.float64)
    moving = values[np.ptp(values, axis=1) > 0.0]
    if len(moving) == 0:
        return None
    return array_stats().autocorr(moving, axis=-1)[:, : max_lag + 1].mean(0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
