"""Independence Metropolis-Hastings: propose whole objects by P_F, whatever the chain's own object is.

The ratio lives on paths, with a fresh tau_- ~ P_B(.|x) at each step:

    log A = log w(x', tau_+) - log w(x, tau_-),   log w(x, tau) = log R(x) + log P_B(tau|x) - log P_F(tau)

Where an object has one path, A is the textbook ratio and the relaxation time is max over x of pi(x) / P_F(x).

Reference: Liu 1996, "Metropolized independent sampling".
"""

import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.kernels.metropolis import Proposal
from gfnmc.kernels.pair_kernel import PairKernel


class IndependenceMH(PairKernel):
    """Rebuild from the source at every step.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        target: What to sample.
    """

    name = "independence MH"

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        states = self.environment.states(position)
        old = self.pair.sample_backward(states, None, draws.role("backward"))
        new = self.pair.sample_forward(self.environment.source(len(states)), draws.role("forward"))
        assert old.log_backward is not None and new.log_forward is not None
        log_weight_old = old.log_backward - self.pair.log_forward(old)
        log_weight_new = self.pair.log_backward(new) - new.log_forward
        exits = 0 if self.environment.exit_action is None else 2
        return Proposal(
            position=self.environment.objects(new.end),
            log_hastings=log_weight_new - log_weight_old,
            is_lazy=torch.zeros_like(old.reached_source),
            num_back_steps=old.lengths,
            num_forward_steps=new.lengths,
            policy_calls=2 * (old.lengths + new.lengths) + exits,
        )
