"""Waste recycling: means over all candidates of every step, not only over those that the chains went to.

    E[f] = mean over steps of sum over the candidates of (w_i / S) f(x_i)

With multiple tries most candidates are never gone to, and each has cost an evaluation. Weighted by w_i / S they have
the target's mean step by step, so the mean over a chain converges to the same number; as its steps are correlated like
the chain's, its error is judged like a chain's. A recycled mean is not always the better one: compare `mcse`.

With a single proposal the two candidates are x and x', weighted by 1 - a and a for an acceptance probability a; that
averages over the coin of the accept step (`kernels.Recycled`).

References: Frenkel 2004, "Speed-up of Monte Carlo simulations by sampling of rejected states"; Delmas and Jourdain
2009, "Does waste recycling really improve the multi-proposal Metropolis-Hastings algorithm?".
"""

from typing import Any

import numpy as np

from gfnmc.core.errors import CapabilityError
from gfnmc.diagnostics.convergence import Convergence, convergence
from gfnmc.sampling.chains import Chains

_PREFIX = "recycled["


def recycled_means(chains: Chains) -> dict[str, Convergence]:
    """Return the recycled mean of each of the target's statistics, with its standard error.

    Args:
        chains: Draws of a `MultipleTrySuffix` with `recycle`, or of a kernel in `Recycled`, or of a cycle that has one
            of them among its parts.

    Returns:
        By name of the statistic, or "occ[name]" for the share of a mode.

    Raises:
        CapabilityError: If the chains hold no recycled values.
    """
    recorded = {name: values for name, values in chains.samples.stats.items() if name.startswith(_PREFIX)}
    if not recorded:
        raise CapabilityError(
            f"the chains of {chains.kernel_name} hold no recycled values; sample {chains.target.name} by "
            "MultipleTrySuffix(..., recycle=True) or Recycled(kernel), alone or in a Cycle, and let the target have "
            "statistics or modes"
        )
    return {
        name.removeprefix(_PREFIX).removesuffix("]"): convergence(values.numpy()) for name, values in recorded.items()
    }


def recycling_gains(chains: Chains) -> list[dict[str, Any]]:
    """Return each recycled mean beside the error of the plain one, and what recycling gained.

    Returns:
        A row a statistic: `name`, `mean`, `mcse`, `plain_mcse`, and `gain`, the variance of the plain mean over that of
        the recycled one, above 1 where recycling pays; None where either never moved. Empty where the chains hold no
        recycled values.
    """
    if not any(name.startswith(_PREFIX) for name in chains.samples.stats):
        return []
    plain, ids, modes = dict(chains.statistics), chains.mode_ids(chains.samples), chains.target.modes()
    if ids is not None and modes is not None:
        plain |= {f"occ[{name}]": (ids == mode).astype(np.float64) for mode, name in enumerate(modes.names)}
    rows = []
    for name, recycled in recycled_means(chains).items():
        error = convergence(plain[name]).mcse
        gain = None if not error or not recycled.mcse else (error / recycled.mcse) ** 2
        rows.append({"name": name, "mean": recycled.mean, "mcse": recycled.mcse, "plain_mcse": error, "gain": gain})
    return rows
