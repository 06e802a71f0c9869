"""Detailed balance: along every step, what flows up equals what flows down.

    loss = mean over the steps s -> s' of (log F(s) + log P_F(s' | s) - log F(s') - log P_B(s | s'))^2

The flow of a finished object is its reward, so the last step (the exit, where there is one) ties the flows to R. Zero
on all steps if and only if P_F makes every object in proportion to its reward; then F(s0) = Z.

Reference: Bengio et al. 2023, "GFlowNet foundations" (2111.09266).
"""

from jaxtyping import Float64
from torch import Tensor

from gfnmc.objectives.steps import flows_to_reward, mean_square, without_padding
from gfnmc.policies.transitions import Transitions


def detailed_balance(transitions: Transitions) -> Float64[Tensor, " batch"]:
    """Return the mean squared imbalance of each path's steps, in nats squared.

    Args:
        transitions: Scores and flows of the steps.
    """
    num_steps = transitions.num_steps
    flows = flows_to_reward(transitions.log_flow, num_steps, transitions.log_reward)
    log_forward = without_padding(transitions.log_forward, num_steps)
    log_backward = without_padding(transitions.log_backward, num_steps)
    return mean_square(flows[:, :-1] + log_forward - flows[:, 1:] - log_backward, num_steps)
