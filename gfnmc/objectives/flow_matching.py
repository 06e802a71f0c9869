"""Flow matching: into every state flows what flows through it.

    loss = mean over the states s' entered of (log sum over parents s of F(s) P_F(s' | s) - log F(s'))^2

The flow of a finished object is its reward. Edge flows are F(s) P_F(s' | s), so what flows out of a state is F(s) by
itself and no backward policy is needed; the one that goes with the flows is `FlowBackwardPolicy`. F(s0) = Z.

Reference: Bengio et al. 2021 (2106.04399), whose network gives the edge flows themselves.
"""

from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.objectives.steps import flows_to_reward, mean_square, without_padding


def flow_matching(
    log_inflow: Float64[Tensor, "batch transitions"],
    log_flow: Float64[Tensor, "batch transitions"],
    log_reward: Float64[Tensor, " batch"],
    num_steps: Int64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return the mean squared mismatch at the states that each path enters, in nats squared.

    Args:
        log_inflow: Log of what flows into the state that each transition enters, nats; the exit enters the finished
            object, from the state that it leaves alone.
        log_flow: log F of the state that each transition leaves, nats.
        log_reward: log R of each path's object, nats.
        num_steps: Transitions of each path, the exit included.
    """
    entered = flows_to_reward(log_flow, num_steps, log_reward)[:, 1:]
    return mean_square(without_padding(log_inflow, num_steps) - entered, num_steps)
