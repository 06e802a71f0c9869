"""The policy that takes every allowed action with equal probability."""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import PolicyError
from gfnmc.environments.base import Direction, DiscreteEnvironment, uniform_log_probs
from gfnmc.policies.base import Cache, DiscretePolicy
from gfnmc.policies.rollout import walk_forward


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

    def sample(
        self, cache: Cache, states: Tensor, draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """Take the j-th allowed action, with j drawn from as many as there are."""
        count = self.environment.mask(states, self.direction).cumsum(-1)
        num_allowed = count[:, -1]
        if bool((active & (num_allowed == 0)).any()):
            row = int((active & (num_allowed == 0)).nonzero()[0, 0])
            raise PolicyError(
                f"row {row} has nothing to choose from: the mask of {states[row].tolist()} allows no action"
            )
        chosen = draws.integers(num_allowed.clamp(min=1), active)
        action = torch.searchsorted(count, chosen[:, None], right=True)[:, 0]
        return torch.where(active, action, 0), -num_allowed.to(torch.float64).log()

    @property
    def empties_as_filled(self) -> bool:
        return self.direction is Direction.BACKWARD and self.environment.filling is not None

    def options(self) -> dict[str, Any]:
        return {}


def uniformly_built(environment: DiscreteEnvironment, draws: Draws) -> Shaped[Tensor, "rows *event"]:
    """Return an object for each row of `draws`, built by uniform choices among the allowed actions."""
    uniform = UniformPolicy(environment, Direction.FORWARD)
    return environment.objects(walk_forward(uniform, environment, environment.source(draws.num_rows), draws).end)
