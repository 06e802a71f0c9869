"""Distances between draws and an exact law, and the floor that independent draws would have.

Total variation of n draws from a law on many objects is far from zero even for a perfect sampler, so it is never
shown without its floor. A cell of probability p counts X ~ Binomial(n, p), and its mean absolute deviation is known
exactly:

    E|X - np| = 2 (k + 1) C(n, k + 1) p^(k+1) (1 - p)^(n-k),   k = floor(np)

The Jensen-Shannon divergence is a sum over cells as well, so its floor is a sum of binomial means, too.

Reference: Diaconis & Zabell 1991, "Closed form summation for classical distributions" (De Moivre's formula).
"""

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

_TERMS_AT_ONCE = 2**18


def total_variation(index: Int64[Tensor, " draws"], log_pmf: Float64[Tensor, " objects"]) -> float:
    """Return the total variation between the empirical law of draws and the exact one.

    Args:
        index: Where each draw stands in the support.
        log_pmf: Exact log-probabilities of the support, nats.
    """
    counts = np.bincount(index.numpy(), minlength=len(log_pmf))
    return 0.5 * float(np.abs(counts / counts.sum() - log_pmf.exp().numpy()).sum())


def iid_total_variation(log_pmf: Float64[Tensor, " objects"], num_draws: int | float) -> float:
    """Return the expected total variation of independent draws from the law itself.

    Args:
        log_pmf: Exact log-probabilities of the support, nats.
        num_draws: How many; an effective sample size is rounded.
    """
    from scipy.special import gammaln, xlog1py, xlogy

    n = max(1, round(num_draws))
    p = log_pmf.exp().numpy()
    p = p[(p > 0.0) & (p < 1.0)]
    k = np.floor(n * p)
    log_choose = gammaln(n + 1) - gammaln(k + 2) - gammaln(np.maximum(n - k, 1))
    log_deviation = np.log(2.0 * (k + 1)) + log_choose + xlogy(k + 1, p) + xlog1py(n - k, -p)
    return 0.5 * float(np.exp(log_deviation).sum()) / n


def jensen_shannon(index: Int64[Tensor, " draws"], log_pmf: Float64[Tensor, " objects"]) -> float:
    """Return the Jensen-Shannon divergence between the empirical law of draws and the exact one, in nats: 0 to log 2.

    Args:
        index: Where each draw stands in the support.
        log_pmf: Exact log-probabilities of the support, nats.
    """
    counts = np.bincount(index.numpy(), minlength=len(log_pmf))
    return float(_divergence(counts / counts.sum(), log_pmf.exp().numpy()).sum())


def iid_jensen_shannon(log_pmf: Float64[Tensor, " objects"], num_draws: int | float) -> float:
    """Return the expected Jensen-Shannon divergence of independent draws from the law itself, nats.

    The mean over the binomial law of each cell, cut where less than 1e-15 of it is left.

    Args:
        log_pmf: Exact log-probabilities of the support, nats.
        num_draws: How many; an effective sample size is rounded.
    """
    n = max(1, round(num_draws))
    probabilities, times = np.unique(log_pmf.exp().numpy(), return_counts=True)
    # A cell of probability 1 has every draw.
    is_cell = (probabilities > 0.0) & (probabilities < 1.0)
    probabilities, times = probabilities[is_cell], times[is_cell]
    total, end = 0.0, len(probabilities)
    while end > 0:
        # Cells are in order, so those of a block have windows of about one width.
        first = max(
            0, end - max(1, _TERMS_AT_ONCE // int(2.0 * _half_window(probabilities[end - 1 : end], n)[0] + 1.0))
        )
        total += float(times[first:end] @ _mean_divergence(probabilities[first:end], n))
        end = first
    return total


def _half_window(p: Float64[np.ndarray, " cells"], n: int) -> Float64[np.ndarray, " cells"]:
    """Return how far from its mean a binomial count is looked for."""
    return 9.0 * np.sqrt(n * p * (1.0 - p)) + 30.0


def _mean_divergence(p: Float64[np.ndarray, " cells"], n: int) -> Float64[np.ndarray, " cells"]:
    """Return the mean contribution of cells of similar probability to the divergence of n draws."""
    from scipy.special import gammaln, xlog1py, xlogy

    low = np.maximum(np.floor(n * p - _half_window(p, n)), 0.0)
    high = np.minimum(np.ceil(n * p + _half_window(p, n)), n)
    k = low[:, None] + np.arange(int((high - low).max()) + 1)
    is_count, k = k <= n, np.minimum(k, n)
    p = p[:, None]
    log_law = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)
    return np.where(is_count, np.exp(log_law) * _divergence(k / n, p), 0.0).sum(1)


def _divergence(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return what each cell adds to the Jensen-Shannon divergence between q and p, nats."""
    from scipy.special import rel_entr

    middle = 0.5 * (q + p)
    return 0.5 * (rel_entr(q, middle) + rel_entr(p, middle))
