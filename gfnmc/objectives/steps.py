"""Arithmetic that the objectives on single steps share. Padding is cut off before it is computed with."""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


def is_step(num_steps: Int64[Tensor, " batch"], length: int) -> Bool[Tensor, "batch length"]:
    """Return which entries are steps and not padding."""
    return torch.arange(length, device=num_steps.device) < num_steps[:, None]


def without_padding(
    values: Float64[Tensor, "batch length"], num_steps: Int64[Tensor, " batch"]
) -> Float64[Tensor, "batch length"]:
    """Return the values with 0 in the padding, where infinities and NaN would spoil the gradient."""
    return torch.where(is_step(num_steps, values.shape[1]), values, 0.0)


def flows_to_reward(
    log_flow: Float64[Tensor, "batch length"],
    num_steps: Int64[Tensor, " batch"],
    log_reward: Float64[Tensor, " batch"],
) -> Float64[Tensor, "batch length_plus_1"]:
    """Return the flows that each path meets, the reward at its end; 0 after it."""
    flows = torch.nn.functional.pad(without_padding(log_flow, num_steps), (0, 1))
    place = torch.arange(flows.shape[1], device=flows.device)
    return torch.where(place == num_steps[:, None], log_reward[:, None], flows)


def mean_square(
    errors: Float64[Tensor, "batch length"], num_steps: Int64[Tensor, " batch"]
) -> Float64[Tensor, " batch"]:
    """Return each path's mean squared error over its steps; 0 for a path without steps."""
    return without_padding(errors, num_steps).square().sum(1) / num_steps.clamp(min=1)
