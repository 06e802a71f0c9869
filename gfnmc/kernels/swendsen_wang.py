"""Swendsen-Wang: draw the bonds, then draw the values of every cluster anew.

Given the active bonds the clusters are independent. Without a field each value of a cluster is equally likely; with a
field h an Ising cluster C is flipped with probability

    1 / (1 + exp(2 beta h_C)),    h_C = sum over its sites of h_i s_i

which is its law given the bonds. Bonds and values are drawn in turn from their laws given each other, so the target is
invariant, and the values alone make a reversible chain.

Reference: Swendsen and Wang 1987, "Nonuniversal critical dynamics in Monte Carlo simulations".
"""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.kernels.base import Reach
from gfnmc.kernels.clusters import ClusterKernel


class SwendsenWang(ClusterKernel):
    """Every cluster drawn anew; `Info.extras` counts them as "num_clusters".

    Args:
        environment: How objects are built.
        target: What to sample: `Ising`, `EdwardsAnderson`, or `Potts` with a coupling of 0 or above.

    Raises:
        CapabilityError: If the target is none of them.
    """

    name = "Swendsen-Wang"

    @property
    def reach(self) -> Reach:
        return Reach.EVERYWHERE if self._may_all_part else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        return True

    def _turns(self, draws: Draws, values: Tensor, labels: Tensor, power: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        num_sites = labels.shape[1]
        is_root = labels == torch.arange(num_sites)
        cluster_draws = draws.role("clusters").repeated(num_sites)
        if self._model.field.any():
            log_flip = log_flip_probability(self._model.field, values, labels, power)
            turns = cluster_draws.bernoulli(log_flip.flatten(), is_root.flatten()).to(torch.int64)
        else:
            num_values = torch.full((labels.numel(),), len(self._values))
            turns = cluster_draws.integers(num_values, is_root.flatten())
        # A site that names no cluster has decided nothing, and is turned as its cluster is.
        return turns.reshape(labels.shape).gather(1, labels), {"num_clusters": is_root.sum(1)}


def log_flip_probability(
    field: Float64[Tensor, " sites"],
    values: Int64[Tensor, "chains sites"],
    labels: Int64[Tensor, "chains sites"],
    power: Float64[Tensor, " chains"],
) -> Float64[Tensor, "chains sites"]:
    """Return the log-probability that the Ising cluster that a site names is flipped, nats.

    Args:
        field: h of each site, nats.
        values: 0 for spin -1 and 1 for spin +1.
        labels: The lowest site of the cluster that each site is in.
        power: Inverse temperatures.
    """
    on_site = field * (2.0 * values - 1.0)
    on_cluster = torch.zeros_like(on_site).scatter_add(1, labels, on_site)
    return torch.nn.functional.logsigmoid(-2.0 * power[:, None] * on_cluster)
