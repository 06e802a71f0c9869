"""The backward policy under which every path to an object is equally likely.

    n(s') = sum over the parents s of s' of n(s),  n(s0) = 1;   P_B(s | s') = n(s) / n(s')

n counts the action sequences from the source. Of all pairs that solve a target, the one with this P_B has the P_F of
greatest entropy over paths.

Reference: Mohammadpour et al. 2024, "Maximum entropy GFlowNets with soft Q-learning" (2312.14331).
"""

from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.errors import PolicyError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.flow import StateFlow
from gfnmc.policies.parents import ParentPolicy
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import scattered


class MaxEntropyPolicy(ParentPolicy):
    """P_B in proportion to the number of paths that lead to each parent.

    The law carries no gradient: a learned count is trained by the path-count objective alone.

    Args:
        environment: Where the policy acts.
        direction: Backward; there is no other.
        log_count: Learned logarithm of the number of paths to a state; its value at the source is not used. Without
            it, the environment counts its paths itself.

    Raises:
        CapabilityError: If nothing is learned and the environment does not count its paths.
        PolicyError: If the direction is forward, or the learned count is on another environment or depends on a
            condition.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        direction: Direction = Direction.BACKWARD,
        *,
        log_count: StateFlow | None = None,
    ) -> None:
        super().__init__(environment)
        if direction is not Direction.BACKWARD:
            raise PolicyError("every path equally likely is a law of the way back; P_F follows from it and the reward")
        if log_count is None:
            environment.log_num_paths(environment.source(1))
        elif log_count.environment is not environment:
            raise PolicyError("log_count is on another environment; build both on the same object")
        elif log_count.num_conditions:
            raise PolicyError("the number of paths depends on no condition; build log_count without one")
        self.log_count = log_count

    def frozen(self) -> "MaxEntropyPolicy":
        frozen = super().frozen()
        frozen.log_count = None if self.log_count is None else self.log_count.frozen()
        return frozen

    def options(self) -> dict[str, Any]:
        return {} if self.log_count is None else {"log_count": self.log_count}

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        """Return the logarithm of the number of paths to states, nats, as known or as learned so far."""
        if self.log_count is None:
            return self.environment.log_num_paths(states)
        return torch.where(self.environment.is_source(states), 0.0, self.log_count.log_flow(states))

    def log_weights(
        self, parents: Tensor, actions: Int64[Tensor, " edges"], rows: Int64[Tensor, " edges"]
    ) -> Float64[Tensor, " edges"]:
        return self.log_num_paths(parents)

    @torch.no_grad()
    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        return super().log_probs(cache, states)

    def log_num_paths_along(self, path: Path) -> Float64[Tensor, "batch length"]:
        """Return the log-count of the state that each action of each path enters, nats; 0 in the padding."""
        return scattered(path.is_action, self.log_num_paths(path.states[:, 1:][path.is_action]))
