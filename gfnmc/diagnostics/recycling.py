"""Waste recycling: means over all candidates of every step, not only over those that the chains went to.

    E[f] = mean over steps of sum over the candidates of (w_i / S) f(x_i)

With multiple tries most candidates are never gone to, and each has cost an evaluation. Weighted by w_i / S they have
the target's mean step by step, so the mean over a chain converges to the same number; as its steps are correlated like
the chain's, its error is judged like a chain's. A recycled mean is not always the better one: compare `mcse`.

References: Frenkel 2004, "Speed-up of Monte Carlo simulations by sampling of rejected states"; Delmas and Jourdain
2009, "Does waste recycling really improve the multi-proposal Metropolis-Hastings algorithm?".
"""

from gfnmc.core.errors import CapabilityError
from gfnmc.diagnostics.convergence import Convergence, convergence
from gfnmc.sampling.chains import Chains

_PREFIX = "recycled["


def recycled_means(chains: Chains) -> dict[str, Convergence]:
    """Return the recycled mean of each of the target's statistics, with its standard error.

    Args:
        chains: Draws of a `MultipleTrySuffix` with `recycle`, or of a cycle that has one among its parts.

    Returns:
        By name of the statistic, or "occ[name]" for the share of a mode.

    Raises:
        CapabilityError: If the chains hold no recycled values.
    """
    recorded = {name: values for name, values in chains.samples.stats.items() if name.startswith(_PREFIX)}
    if not recorded:
        raise CapabilityError(
            f"the chains of {chains.kernel_name} hold no recycled values; sample {chains.target.name} by "
            "MultipleTrySuffix(..., recycle=True), alone or in a Cycle, and let the target have statistics or modes"
        )
    return {
        name.removeprefix(_PREFIX).removesuffix("]"): convergence(values.numpy()) for name, values in recorded.items()
    }
