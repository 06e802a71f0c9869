"""What kernels that propose by a pair share: the pair, bound to the chains' temperatures where it depends on them."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.tempering import InverseTemperature
from gfnmc.kernels.base import Reach
from gfnmc.kernels.metropolis import MetropolisKernel
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.targets.base import Target

PairKernelType = TypeVar("PairKernelType", bound="PairKernel")

TEMPERATURE_CONDITION = ("inverse_temperature",)
"""The `condition_names` of a pair that was trained for a range of inverse temperatures."""


class PairKernel(MetropolisKernel):
    """A kernel whose proposals are made by P_F and P_B.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`. A pair that is conditional on the inverse
            temperature is given that of each chain, 1 where the kernel is not tempered.
        target: What to sample.
    """

    def __init__(self, pair: ProposalPair, target: Target) -> None:
        self._given_pair: ProposalPair = pair.frozen() if isinstance(pair, GFlowNet) else pair
        self.pair = _bound(self._given_pair, self.inverse_temperature)
        self.target = target
        self.environment = pair.environment
        self.training_cost = pair.training_cost

    def start(self, draws: Draws) -> Tensor:
        source = self.environment.source(draws.num_rows)
        return self.environment.objects(self.pair.sample_forward(source, draws).end)

    def tempered(self: PairKernelType, inverse_temperature: InverseTemperature) -> PairKernelType:
        tempered = super().tempered(inverse_temperature)
        tempered.pair = _bound(self._given_pair, tempered.inverse_temperature)
        return tempered

    @property
    def reach(self) -> Reach:
        return Reach.EVERYWHERE if self.pair.is_positive else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        return self.pair.is_positive


def _bound(pair: ProposalPair, inverse_temperature: InverseTemperature) -> ProposalPair:
    """Return a pair at the inverse temperatures of the chains; as it is where it knows none."""
    if tuple(getattr(pair, "condition_names", ())) != TEMPERATURE_CONDITION:
        return pair
    conditional: Any = pair
    condition = torch.as_tensor(inverse_temperature, dtype=torch.float64)
    return conditional.given(condition[..., None])
