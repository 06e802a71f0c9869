"""Path count: learn how many paths lead to each state, for the backward policy of greatest entropy.

    loss = mean over the states s' entered of (log n(s') - log sum over parents s of n(s))^2,  n(s0) = 1

Zero on all states if and only if n counts the action sequences from the source. The reward plays no part.

Reference: Mohammadpour et al. 2024, "Maximum entropy GFlowNets with soft Q-learning" (2312.14331).
"""

from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.objectives.steps import mean_square, without_padding


def path_count(
    log_count: Float64[Tensor, "batch length"],
    log_parent_count: Float64[Tensor, "batch length"],
    lengths: Int64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return the mean squared mismatch at the states that each path enters, in nats squared.

    Args:
        log_count: log n of the state that each action enters, nats.
        log_parent_count: Log of the sum of n over all parents of that state, nats; n is 1 at the source.
        lengths: Actions of each path; the exit is none.
    """
    return mean_square(without_padding(log_count, lengths) - without_padding(log_parent_count, lengths), lengths)
