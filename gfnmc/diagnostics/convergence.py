"""Effective sample size, standard error and R-hat of one scalar, by arviz-stats, with its traps fenced off.

A constant has no effective sample size: arviz-stats would answer the number of draws, and a mode that was never
visited would look perfect. Here it is None. Chains that each stand still in different places have R-hat inf.

Reference: Vehtari et al. 2021 (1903.08008).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

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
        ess_tail: The smaller one of the 5 % and 95 % quantiles; None where the scalar never moved.
        r_hat: Rank-normalised split R-hat; inf where chains stand still in different places, None where the
            scalar never moved. Of more than 128 chains, 128 evenly chosen ones decide.
    """

    mean: float
    mcse: float | None
    ess_bulk: float | None
    ess_tail: float | None
    r_hat: float | None


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
        ess_tail = float(stats.ess(values, chain_axis=0, draw_axis=1, method="tail", prob=_TAIL))
        r_hat = float(stats.rhat(values[chosen], chain_axis=0, draw_axis=1, method="rank"))
    if np.all(np.ptp(values, axis=1) == 0.0):
        r_hat = math.inf
    mcse = float(values.std()) / math.sqrt(ess_mean) if ess_mean > 0.0 else math.nan
    return Convergence(mean, _finite(mcse), _finite(ess_bulk), _finite(ess_tail), None if math.isnan(r_hat) else r_hat)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
