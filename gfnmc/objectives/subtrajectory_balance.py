"""Subtrajectory balance: every piece of a path is balanced, long pieces counting less.

    loss = sum over i < j of w_ij (log F(s_i) + log P_F(s_i ... s_j) - log F(s_j) - log P_B(s_i ... s_j))^2
    w_ij = lambda^(j - i), normalised to sum to one on each path

The flow after the last step is the reward. A small lambda leaves single steps (detailed balance), a large one the whole
path (trajectory balance). With c_j the sum of log P_F - log P_B over the first j steps, a piece's imbalance is
(log F(s_i) - c_i) - (log F(s_j) - c_j), so all pairs cost one subtraction each, in time and in memory.

Reference: Madan et al. 2023 (2209.12782).
"""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.objectives.steps import flows_to_reward, without_padding
from gfnmc.policies.transitions import Transitions


def subtrajectory_balance(transitions: Transitions, *, decay: float = 0.9) -> Float64[Tensor, " batch"]:
    """Return the weighted mean squared imbalance of each path's pieces, in nats squared.

    Args:
        transitions: Scores and flows of the steps.
        decay: The lambda above: weight of a piece against one that is a step shorter.

    Raises:
        OptionError: If `decay` is not positive and finite.
    """
    if not 0.0 < decay < math.inf:
        raise OptionError(f"decay is {decay}; give a positive number (a very small one is detailed balance)")
    num_steps = transitions.num_steps
    log_forward = without_padding(transitions.log_forward, num_steps)
    log_backward = without_padding(transitions.log_backward, num_steps)
    so_far = torch.nn.functional.pad((log_forward - log_backward).cumsum(1), (1, 0))
    level = flows_to_reward(transitions.log_flow, num_steps, transitions.log_reward) - so_far
    imbalance = level[:, :, None] - level[:, None, :]
    return (_pair_weights(num_steps, level.shape[1], decay) * imbalance.square()).sum((1, 2))


def _pair_weights(
    num_steps: Int64[Tensor, " batch"], num_places: int, decay: float
) -> Float64[Tensor, "batch places places"]:
    """Return the weight of each piece (start, end); 0 for what is no piece of the path."""
    place = torch.arange(num_places, device=num_steps.device)
    span = (place - place[:, None]).to(torch.float64)
    is_piece = (span > 0) & (place <= num_steps[:, None, None])
    # Against the heaviest piece: its weight is 1 before the normalisation, however extreme the decay.
    heaviest = num_steps if decay > 1.0 else torch.ones_like(num_steps)
    weights = torch.where(is_piece, ((span - heaviest[:, None, None]) * math.log(decay)).exp(), 0.0)
    return weights / weights.sum((1, 2), keepdim=True).clamp(min=1.0)
