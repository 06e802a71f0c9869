"""Backward policies that follow from a number for each way into a state.

    P_B(s | s') = w(s -> s') / sum over the parents s'' of s' of w(s'' -> s')

All parents of a batch of states are looked at in one call, so a step costs as much as they are many.
"""

import math
from abc import abstractmethod

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import scattered


class ParentPolicy(DiscretePolicy):
    """A backward policy in proportion to a weight of each edge into a state.

    The cache is the row of the batch, or of the path, that each state belongs to.

    Args:
        environment: Where the policy acts.
        num_conditions: Numbers in a condition; 0 where the policy depends on none.
    """

    def __init__(self, environment: DiscreteEnvironment, *, num_conditions: int = 0) -> None:
        super().__init__(environment, Direction.BACKWARD, num_conditions=num_conditions)

    @abstractmethod
    def log_weights(
        self, parents: Tensor, actions: Int64[Tensor, " edges"], rows: Int64[Tensor, " edges"]
    ) -> Float64[Tensor, " edges"]:
        """Return the log-weight of edges, nats.

        Args:
            parents: The states that the edges leave.
            actions: The forward actions that the edges are.
            rows: The row of the batch that each edge belongs to.
        """

    def begin(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return torch.arange(len(states), device=states.device)

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Int64[Tensor, " batch"]:
        return cache

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Int64[Tensor, " selected"]:
        return select.nonzero()[:, 0]

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        mask = self.environment.backward_mask(states)
        return masked_log_softmax(
            self._by_action(cache, states), mask, temperature=self.temperature, epsilon=self.epsilon
        )

    def log_total_along(self, path: Path) -> Float64[Tensor, "batch length"]:
        """Return the log of the sum of the weights into the state that each action enters; 0 in the padding."""
        entered = path.states[:, 1:][path.is_action]
        total = self._by_action(path.is_action.nonzero()[:, 0], entered).logsumexp(-1)
        return scattered(path.is_action, total)

    def _by_action(self, rows: Int64[Tensor, " batch"], states: Tensor) -> Float64[Tensor, "batch actions"]:
        """Return the log-weight of the edge that each action undoes; -inf where it undoes none."""
        mask = self.environment.backward_mask(states)
        place, actions = mask.nonzero(as_tuple=True)
        weights = self.log_weights(self.environment.unstep(states[place], actions), actions, rows[place])
        table = torch.full(mask.shape, -math.inf, dtype=torch.float64, device=weights.device)
        return table.masked_scatter(mask, weights)
