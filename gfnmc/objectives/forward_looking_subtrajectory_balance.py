"""Forward-looking subtrajectory balance: pieces of paths, with the reward collected so far given.

    log F(s) = log F~(s) + partial log R(s);   loss = subtrajectory balance with F

Reference: Pan et al. 2023, "Better training of GFlowNets with local credit and incomplete trajectories" (2302.01687).
"""

from jaxtyping import Float64
from torch import Tensor

from gfnmc.objectives.forward_looking_detailed_balance import forward_looking
from gfnmc.objectives.subtrajectory_balance import subtrajectory_balance
from gfnmc.policies.transitions import Transitions


def forward_looking_subtrajectory_balance(
    transitions: Transitions, partial_log_reward: Float64[Tensor, "batch transitions"], *, decay: float = 0.9
) -> Float64[Tensor, " batch"]:
    """Return the weighted mean squared imbalance of each path's pieces, in nats squared.

    Args:
        transitions: Scores of the steps, with log F~ as the flow, at the source too (log Z is not F~ there).
        partial_log_reward: Log-reward of the state that each transition leaves, nats; finite.
        decay: Weight of a piece against one that is a step shorter (the paper's lambda).

    Raises:
        OptionError: If `decay` is not positive and finite.
    """
    return subtrajectory_balance(forward_looking(transitions, partial_log_reward), decay=decay)
