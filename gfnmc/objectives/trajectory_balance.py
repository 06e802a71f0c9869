"""Trajectory balance: along every complete path, what flows up equals what the reward sends down.

    loss = (log Z + log P_F(tau) - log R(x) - log P_B(tau|x))^2

Zero on all paths if and only if P_F makes every object in proportion to its reward and Z is the partition function.

Reference: Malkin et al. 2022 (2201.13259).
"""

from jaxtyping import Float64
from torch import Tensor


def trajectory_balance(
    log_z: Float64[Tensor, "*rows"],
    log_forward: Float64[Tensor, " batch"],
    log_backward: Float64[Tensor, " batch"],
    log_reward: Float64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return the squared imbalance of each path, in nats squared.

    Args:
        log_z: Learned log-partition function, nats; one number, or one a path.
        log_forward: log P_F of the complete path, exit included, nats.
        log_backward: log P_B of the complete path, nats.
        log_reward: log R of its object, nats.
    """
    return (log_z + log_forward - log_reward - log_backward).square()
