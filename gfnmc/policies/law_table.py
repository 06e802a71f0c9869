"""The laws of a frozen policy at every state of a small space, so that its network is evaluated once at each.

A frozen policy gives a state the same law however it was reached and whatever stands beside it in a batch. So a table
of its laws changes no number.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.environments.base import MOST_NUMBERED, Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy, selected

MOST_STATES = MOST_NUMBERED
"""The table of a larger space could cost more than a run would save."""


class LawTable(NamedTuple):
    """Laws at the states of an environment, in the order of their numbers.

    Attributes:
        environment: Whose states.
        log_probs: Log-probabilities of the actions at each state, nats.
        steps: What each action adds to the number of a state that the policy leaves by it.
    """

    environment: DiscreteEnvironment
    log_probs: Float64[Tensor, "states actions"]
    steps: Int64[Tensor, " actions"]

    def at(self, numbers: Int64[Tensor, " batch"]) -> Float64[Tensor, "batch actions"]:
        """Return the laws at some states."""
        return self.log_probs.index_select(0, numbers)

    def score_along(
        self, states: Tensor, select: Bool[Tensor, "batch length_plus_1"], scored: Int64[Tensor, " selected"]
    ) -> Float64[Tensor, " selected"]:
        """Return the log-probability of an action at each of the selected states of paths, nats."""
        numbers = self.environment.state_numbers(selected(states, select))
        return self.log_probs.flatten().index_select(0, numbers * self.log_probs.shape[1] + scored)


def is_small(environment: DiscreteEnvironment) -> bool:
    """Return whether a table of an environment's states is worth its making."""
    return environment.number_steps is not None and environment.num_numbers <= MOST_STATES


def table_of(policy: DiscretePolicy) -> LawTable:
    """Return the laws of a frozen policy on an environment with few states."""
    environment = policy.environment
    assert environment.number_steps is not None
    states = environment.numbered_states()
    steps = environment.number_steps if policy.direction is Direction.FORWARD else -environment.number_steps
    return LawTable(environment, policy.log_probs(policy.begin(states), states), steps)


class TabulatedWalk(DiscretePolicy):
    """A policy that looks its laws up; what it carries along a walk is the number of the state.

    Args:
        policy: Whose laws.
        table: These laws.
    """

    def __init__(self, policy: DiscretePolicy, table: LawTable) -> None:
        super().__init__(policy.environment, policy.direction)
        self._table = table

    def begin(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return self.environment.state_numbers(states)

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Int64[Tensor, " batch"]:
        return cache + self._table.steps.index_select(0, actions)

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        return self._table.at(cache)
