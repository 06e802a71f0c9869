"""The policy that takes every allowed action with equal probability."""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.environments.base import uniform_log_probs
from gfnmc.policies.base import Cache, DiscretePolicy


class UniformPolicy(DiscretePolicy):
    """Uniform over allowed actions; the usual P_B. Temperature and epsilon change nothing, nor does a condition."""

    def begin(self, states: Tensor) -> Cache:
        return None

    def advance(self, cache: Cache, states: Tensor, actions: Int64[Tensor, " batch"]) -> Cache:
        return None

    def along(self, states: Tensor, actions: Tensor, select: Bool[Tensor, "batch length_plus_1"]) -> Cache:
        return None

    def log_probs(self, cache: Cache, states: Tensor) -> Float64[Tensor, "batch actions"]:
        with torch.no_grad():
            return uniform_log_probs(self.environment.mask(states, self.direction))

    def options(self) -> dict[str, Any]:
        return {}
