"""What the objectives that look at single steps read of a batch of paths."""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.flow import StateFlow
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import backward_scores, forward_scores, num_transitions


class Transitions(NamedTuple):
    """The steps of a batch of paths, padded to one length; what stands in the padding does not matter.

    Transition t leaves the t-th state of its path. Where there is an exit action, the exit is the last transition;
    where there is none, the last action enters the finished object. The flow after the last transition is the
    object's reward.

    Attributes:
        log_forward: log P_F of each transition, nats.
        log_backward: log P_B of undoing it, nats; 0 for the exit.
        log_flow: log F of the state it leaves, nats.
        num_steps: Transitions of each path, the exit included.
        log_reward: log R of each path's object, nats.
    """

    log_forward: Float64[Tensor, "batch transitions"]
    log_backward: Float64[Tensor, "batch transitions"]
    log_flow: Float64[Tensor, "batch transitions"]
    num_steps: Int64[Tensor, " batch"]
    log_reward: Float64[Tensor, " batch"]


def score_transitions(
    forward: DiscretePolicy,
    backward: DiscretePolicy,
    log_flow: StateFlow,
    path: Path,
    log_reward: Float64[Tensor, " batch"],
    *,
    log_z: Float64[Tensor, "*rows"] | None = None,
) -> Transitions:
    """Score every transition of paths; differentiable.

    Args:
        forward: P_F.
        backward: P_B.
        log_flow: Flow of the states.
        path: The paths.
        log_reward: log R of their objects, nats.
        log_z: Where given, it takes the place of the flow at the source, nats: the two are the same number, and a
            single one is learned faster. One number, or one a path.
    """
    environment = forward.environment
    flow = log_flow.log_flow_along(path)
    if log_z is not None:
        is_source = torch.zeros_like(flow, dtype=torch.bool)
        is_source[:, :1] = path.reached_source[:, None]
        flow = torch.where(is_source, log_z[..., None], flow)
    return Transitions(
        forward_scores(forward, environment, path),
        backward_scores(backward, environment, path),
        flow,
        num_transitions(environment, path),
        log_reward,
    )
