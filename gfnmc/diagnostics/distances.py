"""Distances between draws and an exact law, and the floor that independent draws would have.

Total variation of n draws from a law on many objects is far from zero even for a perfect sampler, so it is never
shown without its floor. A cell of probability p counts X ~ Binomial(n, p), and its mean absolute deviation is known
exactly:

    E|X - np| = 2 (k + 1) C(n, k + 1) p^(k+1) (1 - p)^(n-k),   k = floor(np)

Reference: Diaconis & Zabell 1991, "Closed form summation for classical distributions" (De Moivre's formula).
"""

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor


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
