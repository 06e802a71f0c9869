"""Forward-looking detailed balance: the reward collected so far is given, and only the rest of the flow is learned.

    log F(s) = log F~(s) + partial log R(s);   loss = detailed balance with F

The network learns the small remainder log F~, and every step carries a signal, not the last alone.

Reference: Pan et al. 2023, "Better training of GFlowNets with local credit and incomplete trajectories" (2302.01687).
"""

from jaxtyping import Float64
from torch import Tensor

from gfnmc.objectives.detailed_balance import detailed_balance
from gfnmc.objectives.steps import without_padding
from gfnmc.policies.transitions import Transitions


def forward_looking_detailed_balance(
    transitions: Transitions, partial_log_reward: Float64[Tensor, "batch transitions"]
) -> Float64[Tensor, " batch"]:
    """Return the mean squared imbalance of each path's steps, in nats squared.

    Args:
        transitions: Scores of the steps, with log F~ as the flow, at the source too (log Z is not F~ there).
        partial_log_reward: Log-reward of the state that each transition leaves, nats; finite.
    """
    return detailed_balance(forward_looking(transitions, partial_log_reward))


def forward_looking(transitions: Transitions, partial_log_reward: Float64[Tensor, "batch transitions"]) -> Transitions:
    """Return the same transitions with the whole flow F in place of the remainder F~."""
    num_steps = transitions.num_steps
    remainder = without_padding(transitions.log_flow, num_steps)
    return transitions._replace(log_flow=remainder + without_padding(partial_log_reward, num_steps))
