"""Wolff: choose a site at random and turn the cluster that it is in to another value.

The usual way grows the cluster from its site, and draws only the bonds that it meets. Here all bonds are drawn, which
a batch of chains does at once: each bond is active independently of all others, so the cluster that holds the site
has the same law. Turning it always, to any of the other values alike, is as likely there as it is back, given the
bonds; so the target is invariant, and the chain reversible. Large clusters are chosen more often than by
Swendsen-Wang.

Reference: Wolff 1989, "Collective Monte Carlo updating for spin systems".
"""

import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Reach
from gfnmc.kernels.clusters import ClusterKernel
from gfnmc.targets.base import Target


class Wolff(ClusterKernel):
    """One cluster turned at every step; `Info.extras` says how many sites it has, as "cluster_size".

    Args:
        environment: How objects are built.
        target: What to sample: `Ising` without a field, `EdwardsAnderson`, or `Potts` with a coupling of 0 or above.

    Raises:
        CapabilityError: If the target is none of them.
    """

    name = "Wolff"

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        super().__init__(environment, target)
        if self._model.field.any():
            raise CapabilityError(
                f"{target.name} has a field, and Wolff turns its cluster whatever the field says; use SwendsenWang"
            )

    @property
    def reach(self) -> Reach:
        return Reach.CONNECTED if self._may_all_part else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        return False

    def _turns(self, draws: Draws, values: Tensor, labels: Tensor, power: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        num_chains, num_sites = labels.shape
        site = draws.role("site").integers(torch.full((num_chains,), num_sites))
        is_turned = labels == labels.gather(1, site[:, None])
        turn = 1 + draws.role("turn").integers(torch.full((num_chains,), len(self._values) - 1))
        return torch.where(is_turned, turn[:, None], 0), {"cluster_size": is_turned.sum(1)}
