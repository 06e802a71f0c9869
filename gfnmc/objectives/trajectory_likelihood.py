"""Trajectory likelihood maximisation: P_B learns to take objects apart as P_F puts them together.

    loss = -log P_B(tau | x),  tau ~ P_F

It trains P_B alone, and takes turns with (or is added to) a loss that trains P_F with P_B held constant. Its value is
an entropy, not zero, where P_B agrees with P_F.

Reference: Gritsaev et al. 2024 (2410.15474).
"""

from jaxtyping import Float64
from torch import Tensor


def trajectory_likelihood(log_backward: Float64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """Return the negative log-likelihood of each path given its object, in nats.

    Args:
        log_backward: log P_B of the complete path, nats; the path drawn by P_F.
    """
    return -log_backward
