"""Modified detailed balance, where every state may be the finished object: flows need not be learned.

    loss = mean over the moves s -> s' of
           (log R(s) + log P_F(s' | s) + log P_F(exit | s') - log R(s') - log P_B(s | s') - log P_F(exit | s))^2

It is detailed balance with F(s) = R(s) / P_F(exit | s), so log Z = log R(s0) - log P_F(exit | s0). Every state on a
path needs a positive reward.

Reference: Deleu et al. 2022, "Bayesian structure learning with generative flow networks" (2202.13903).
"""

from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.objectives.steps import mean_square, without_padding


def modified_detailed_balance(
    log_forward: Float64[Tensor, "batch transitions"],
    log_backward: Float64[Tensor, "batch transitions"],
    log_exit: Float64[Tensor, "batch transitions"],
    log_state_reward: Float64[Tensor, "batch transitions"],
    num_steps: Int64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return the mean squared imbalance of each path's moves, in nats squared; 0 for a path that exits at once.

    Args:
        log_forward: log P_F of each transition, nats; the last one of a path is its exit, which is balanced anyhow.
        log_backward: log P_B of undoing it, nats.
        log_exit: log P_F of the exit at the state that it leaves, nats.
        log_state_reward: log R of that state as an object, nats.
        num_steps: Transitions of each path, the exit included.
    """
    flow = without_padding(log_state_reward, num_steps) - without_padding(log_exit, num_steps)
    log_ratio = without_padding(log_forward, num_steps) - without_padding(log_backward, num_steps)
    return mean_square(flow[:, :-1] + log_ratio[:, :-1] - flow[:, 1:], num_steps - 1)
