"""Log-partition variance (VarGrad): trajectory balance whose log Z is the batch's own mean.

    log w = log R(x) + log P_B(tau|x) - log P_F(tau);   loss = (log w - mean of log w over the batch)^2

Each log w is an estimate of log Z, and they agree on all paths if and only if the pair is exact. No log Z is learned,
so all paths of a batch belong to one target. The published gradient is that of the batch's variance, mean included.
Deviations from a mean add up to zero, so for the mean loss of the batch it is the same with the mean held constant, as
here, where each path's loss is its own.

Reference: Zhang et al. 2023, "Robust scheduling with GFlowNets" (2302.05446), after Richter et al. 2020 (2010.10436).
"""

from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import OptionError


def log_partition_variance(
    log_forward: Float64[Tensor, " batch"],
    log_backward: Float64[Tensor, " batch"],
    log_reward: Float64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return the squared deviation of each path's log-weight from the batch's mean, in nats squared.

    Args:
        log_forward: log P_F of the complete path, exit included, nats.
        log_backward: log P_B of the complete path, nats.
        log_reward: log R of its object, nats; finite, or the mean is not.

    Raises:
        OptionError: If there are fewer than two paths, which always agree.
    """
    if len(log_forward) < 2:
        raise OptionError(f"a batch of {len(log_forward)} has no variance; give at least two paths")
    log_weight = log_reward + log_backward - log_forward
    return (log_weight - log_weight.mean().detach()).square()
