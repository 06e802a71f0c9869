"""What a policy is: the law of the next action, sampled and scored by the same numbers.

A policy carries a *cache* along a walk, so that a step costs what it changed: `begin` at a state, `advance`
with each action. Sampling and scoring both gather from the one law, in this file and nowhere else.

A policy of a family of targets depends on a *condition*, a vector of numbers (a temperature, a field). `given` binds it
in a view that shares the weights; what the condition does to a row travels in the cache.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError, PolicyError
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.mlp_fill_gradient import MLPLearner
from gfnmc.policies.mlp_filler import MLPFiller
from gfnmc.policies.sub_batches import SUB_BATCH

Cache = Any
PolicyType = TypeVar("PolicyType", bound="DiscretePolicy")


class DiscretePolicy(torch.nn.Module, ABC):
    """The law of the next action in an environment: forward (P_F) or backward (P_B).

    Args:
        environment: Where the policy acts.
        direction: Which way it walks. A backward policy draws the action to undo.
        num_conditions: Numbers in a condition; 0 where the policy depends on none.

    Attributes:
        temperature: Divides the logits; 1 is the policy itself.
        epsilon: Weight of the uniform law over allowed actions that is mixed in.
        condition: What the policy is bound to, `(num_conditions,)` or one row a row of the batch; None before `given`.

    Raises:
        OptionError: If `num_conditions` is negative.
    """

    def __init__(self, environment: DiscreteEnvironment, direction: Direction, *, num_conditions: int = 0) -> None:
        super().__init__()
        if num_conditions < 0:
            raise OptionError(f"num_conditions is {num_conditions}; give the numbers in a condition, 0 for none")
        self.environment = environment
        self.direction = direction
        self.num_actions = environment.num_actions
        self.num_conditions = num_conditions
        self.temperature = 1.0
        self.epsilon = 0.0
        self.condition: Tensor | None = None
        # Rows of a block that is computed together; None, before freezing, is all of them.
        self._sub_batch: int | None = None

    @abstractmethod
    def begin(self, states: Tensor) -> Cache:
        """Return the cache at some states; with a condition a row, they are in the order of its rows."""

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
        if self.num_conditions:
            self._bound_condition(select.shape[0])
        return self.for_rows(select.nonzero()[:, 0]).begin(selected(states, select))

    def score_along(
        self,
        states: Tensor,
        actions: Int64[Tensor, "batch length"],
        select: Bool[Tensor, "batch length_plus_1"],
        scored: Int64[Tensor, " selected"],
        known: Float64[Tensor, " selected"] | None = None,
    ) -> Float64[Tensor, " selected"]:
        """Return the log-probability of an action at each of the selected states of paths, nats.

        Args:
            states: As `along` takes them; so the next two.
            actions: The same.
            select: The same.
            scored: The actions, those of the first path before those of the second.
            known: The log-probabilities themselves, where the same law has been asked for them before.
        """
        if known is not None and not self.is_learning:
            return known
        return self.score(self.along(states, actions, select), selected(states, select), scored)

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

    def given(self: PolicyType, condition: Float[Tensor, "*batch conditions"]) -> PolicyType:
        """Return the same policy, weights shared, under a condition.

        Args:
            condition: `(num_conditions,)` for all rows, or `(batch, num_conditions)`, one a row: then every batch
                that the view meets has these rows, in this order.

        Raises:
            CapabilityError: If the policy depends on no condition.
            OptionError: If the condition does not have `num_conditions` numbers.
        """
        check_condition(condition, self.num_conditions, type(self).__name__)
        bound = copy.copy(self)
        bound.condition = condition
        return bound

    def for_rows(self: PolicyType, rows: Int64[Tensor, " states"]) -> PolicyType:
        """Return the view whose i-th state is under the condition of row `rows[i]`."""
        if self.condition is None or self.condition.dim() == 1:
            return self
        return self.given(self.condition[rows])

    def filler(self) -> MLPFiller | None:
        """Return what chooses values at positions that are known ahead; None where walks go step by step."""
        return None

    def for_walk(self) -> "DiscretePolicy":
        """Return the policy as a walk uses it, in the course of which no weight changes."""
        return self

    @property
    def law_key(self) -> tuple[Any, ...] | None:
        """What differs wherever the policy's laws do, so that a score can be used again; None where nobody knows."""
        return None

    def scorer(self) -> MLPFiller | MLPLearner | None:
        """Return what scores such walks; with gradients where there are any."""
        return self.filler()

    @property
    def is_learning(self) -> bool:
        """Whether what is computed now has gradients with respect to the weights."""
        return torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters())

    @property
    def empties_as_filled(self) -> bool:
        """Whether a backward policy is the law that fits the environment's order of filling positions."""
        return False

    def frozen(self: PolicyType) -> PolicyType:
        """Return a copy that no longer learns, as kernels want it."""
        shared = {id(self.environment): self.environment}
        frozen = copy.deepcopy(self, shared).requires_grad_(False).eval()
        frozen._sub_batch = SUB_BATCH
        return frozen

    def options(self) -> dict[str, Any]:
        """Return what the constructor takes beside environment and direction, so that the policy can be saved.

        Raises:
            CapabilityError: If policies of this kind are not saved.
        """
        raise CapabilityError(f"a {type(self).__name__} cannot be saved; it does not say what it was made with")

    @property
    def is_positive(self) -> bool:
        """Whether every allowed action has positive probability."""
        return True

    @property
    def _positions(self) -> int | None:
        """The number of positions where the environment chooses them, as it may on the way forward."""
        return self.environment.positions if self.direction is Direction.FORWARD else None

    def _bound_condition(self, batch: int) -> Float[Tensor, "rows conditions"]:
        """Return the condition of `batch` states: a row each, or a single row for all."""
        if self.condition is None:
            raise PolicyError(
                f"this {type(self).__name__} depends on a condition of {self.num_conditions} numbers; bind one with "
                "`given` (of the policy, or of the pair) before walking or scoring"
            )
        if self.condition.dim() == 1:
            return self.condition[None]
        if self.condition.shape[0] != batch:
            raise PolicyError(
                f"{batch} states met a policy that is bound to {self.condition.shape[0]} conditions; bind one "
                "condition a row, or a single one for all"
            )
        return self.condition

    def _condition_of_rows(self, batch: int) -> Float[Tensor, "batch conditions"] | None:
        """Return the condition of `batch` states, a row each; None where the policy depends on none."""
        return self._bound_condition(batch).expand(batch, -1) if self.num_conditions else None

    def _normalised(self, logits: Float[Tensor, "batch actions"], states: Tensor) -> Float64[Tensor, "batch actions"]:
        """Turn the logits of all actions into their law; positions that the environment draws keep its law."""
        if self._positions is None:
            return self._softmax(logits, self.environment.mask(states, self.direction))
        position = self.environment.position_log_probs(states)
        value = self._softmax(logits.unflatten(-1, (self._positions, -1)))
        return (position[:, :, None] + value).flatten(1)

    def _softmax(
        self, logits: Float[Tensor, "*batch n"], mask: Bool[Tensor, "*batch n"] | None = None
    ) -> Float64[Tensor, "*batch n"]:
        return masked_log_softmax(logits, mask, temperature=self.temperature, epsilon=self.epsilon)


def selected(states: Tensor, select: Bool[Tensor, "batch length_plus_1"]) -> Tensor:
    """Return the selected states of paths, in row-major order."""
    return states.flatten(0, 1).index_select(0, select.flatten().nonzero()[:, 0])


def gather(log_probs: Float64[Tensor, "batch n"], actions: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """Pick each row's entry. The only place where the log-probability of an action is taken from a law."""
    return log_probs.gather(-1, actions[:, None])[:, 0]


def check_condition(condition: Tensor, num_conditions: int, owner: str) -> None:
    """Hold a condition to what it is given to.

    Raises:
        CapabilityError: If `owner` depends on no condition.
        OptionError: If the condition does not have `num_conditions` numbers.
    """
    if num_conditions == 0:
        raise CapabilityError(f"this {owner} depends on no condition; build it with num_conditions, or bind none")
    if not condition.is_floating_point() or condition.dim() not in (1, 2) or condition.shape[-1] != num_conditions:
        raise OptionError(
            f"a condition of {condition.dtype} and shape {tuple(condition.shape)} was given to a {owner}; give "
            f"floats of shape ({num_conditions},), or (batch, {num_conditions})"
        )
