"""What a policy is: the law of the next action, sampled and scored by the same numbers.

A policy carries a *cache* along a walk, so that a step costs what it changed: `begin` at a state, `advance`
with each action. Sampling and scoring both gather from the one law, in this file and nowhere else.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment

Cache = Any
PolicyType = TypeVar("PolicyType", bound="DiscretePolicy")


class DiscretePolicy(torch.nn.Module, ABC):
    """The law of the next action in an environment: forward (P_F) or backward (P_B).

    Args:
        environment: Where the policy acts.
        direction: Which way it walks. A backward policy draws the action to undo.

    Attributes:
        temperature: Divides the logits; 1 is the policy itself.
        epsilon: Weight of the uniform law over allowed actions that is mixed in.
    """

    def __init__(self, environment: DiscreteEnvironment, direction: Direction) -> None:
        super().__init__()
        self.environment = environment
        self.direction = direction
        self.num_actions = environment.num_actions
        self.temperature = 1.0
        self.epsilon = 0.0

    @abstractmethod
    def begin(self, states: Tensor) -> Cache:
        """Return the cache at some states."""

    @abstractmethod
    def advance(self, cache: Cache, states: Tensor, actions: Int64[Tensor, " batch"]) -> Cache:
        """Return the cache after the policy took (or, walking backward, undid) the actions in the states."""

    @abstractmethod
    def log_probs(self, cache: Cache, states: Tensor) -> Float64[Tensor, "batch actions"]:
        """Return the normalised log-probabilities of all actions, nats; -inf where the mask forbids one."""

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Cache:
        """Return the cache at the selected states of paths, flattened in row-major order.

        Args:
            states: Paths in forward order, `(batch, length + 1, *state)`.
            actions: The forward actions between them.
            select: Which states the cache is wanted at.
        """
        return self.begin(states[select])

    def sample(
        self, cache: Cache, states: Tensor, draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """Draw an action a row and return it with its log-probability.

        Args:
            cache: The cache at `states`.
            states: Where the policy stands.
            draws: Random decisions for these rows.
            active: Rows that draw; the others get action 0 and any log-probability.
        """
        log_probs = self.log_probs(cache, states)
        actions = draws.categorical(log_probs, active)
        return actions, gather(log_probs, actions)

    def score(self, cache: Cache, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
        """Return the log-probability of given actions, the number that `sample` would have returned."""
        return gather(self.log_probs(cache, states), actions)

    def with_exploration(self: PolicyType, *, temperature: float = 1.0, epsilon: float = 0.0) -> PolicyType:
        """Return the same policy, weights shared, tempered and mixed with the uniform law.

        Raises:
            OptionError: If `temperature` is not positive or `epsilon` not in [0, 1).
        """
        if not temperature > 0.0 or not 0.0 <= epsilon < 1.0:
            raise OptionError(f"temperature {temperature} must be positive and epsilon {epsilon} in [0, 1)")
        explored = copy.copy(self)
        explored.temperature = temperature
        explored.epsilon = epsilon
        return explored

    def frozen(self: PolicyType) -> PolicyType:
        """Return a copy that no longer learns, as kernels want it."""
        shared = {id(self.environment): self.environment}
        return copy.deepcopy(self, shared).requires_grad_(False).eval()

    @property
    def is_positive(self) -> bool:
        """Whether every allowed action has positive probability."""
        return True


def gather(log_probs: Float64[Tensor, "batch n"], actions: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """Pick each row's entry. The only place where the log-probability of an action is taken from a law."""
    return log_probs.gather(-1, actions[:, None])[:, 0]
