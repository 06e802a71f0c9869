"""State flows: how much of the partition function passes through each state.

    F(s0) = Z;  F(s) = sum over the ways on from s of F(s) P_F = sum over the ways into s of F(parent) P_F(s | parent)

Objectives that look at single steps learn log F beside the policies. One flow can serve a family of targets when it is
told the *condition* (a temperature, a field): `given` returns a view that knows it.

Reference: Bengio et al. 2023, "GFlowNet foundations" (2111.09266).
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError, PolicyError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.environments.enumeration import StateGraph
from gfnmc.policies.base import check_condition
from gfnmc.policies.condition_encoder import ConditionEncoder
from gfnmc.policies.path import Path
from gfnmc.policies.rollout import evaluate_along
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches
from gfnmc.policies.weights import InitialWeights

FlowType = TypeVar("FlowType", bound="StateFlow")


class StateFlow(torch.nn.Module, ABC):
    """The logarithm of a positive number for every state: its flow, or its number of paths.

    Args:
        environment: Whose states it is defined on.
        num_conditions: Numbers in a condition; 0 where the flow depends on none.

    Attributes:
        condition: What the flow is bound to, `(num_conditions,)` or one row a row of the batch; None before `given`.

    Raises:
        OptionError: If `num_conditions` is negative.
    """

    def __init__(self, environment: DiscreteEnvironment, *, num_conditions: int = 0) -> None:
        super().__init__()
        if num_conditions < 0:
            raise OptionError(f"num_conditions is {num_conditions}; give the numbers in a condition, 0 for none")
        self.environment = environment
        self.num_conditions = num_conditions
        self.condition: Tensor | None = None
        self._sub_batch: int | None = None

    @abstractmethod
    def log_flow(self, states: Tensor) -> Float64[Tensor, " batch"]:
        """Return the log-flow through states, nats; with a condition a row, they are in the order of its rows."""

    def log_flow_along(self, path: Path) -> Float64[Tensor, "batch transitions"]:
        """Return the log-flow through the state that each transition of each path leaves, nats; 0 in the padding."""
        return evaluate_along(self.environment, path, lambda states, rows: self.for_rows(rows).log_flow(states))

    def given(self: FlowType, condition: Float[Tensor, "*batch conditions"]) -> FlowType:
        """Return the same flow, weights shared, under a condition.

        Args:
            condition: `(num_conditions,)` for all rows, or `(batch, num_conditions)`, one a row.

        Raises:
            CapabilityError: If the flow depends on no condition.
            OptionError: If the condition does not have `num_conditions` numbers.
        """
        check_condition(condition, self.num_conditions, type(self).__name__)
        bound = copy.copy(self)
        bound.condition = condition
        return bound

    def for_rows(self: FlowType, rows: Int64[Tensor, " states"]) -> FlowType:
        """Return the view whose i-th state is under the condition of row `rows[i]`."""
        if self.condition is None or self.condition.dim() == 1:
            return self
        return self.given(self.condition[rows])

    def frozen(self: FlowType) -> FlowType:
        """Return a copy that no longer learns, and gives a state the same number in any batch."""
        shared = {id(self.environment): self.environment}
        frozen = copy.deepcopy(self, shared).requires_grad_(False).eval()
        frozen._sub_batch = SUB_BATCH
        return frozen

    def options(self) -> dict[str, Any]:
        """Return what the constructor takes beside the environment, so that the flow can be saved.

        Raises:
            CapabilityError: If flows of this kind are not saved.
        """
        raise CapabilityError(f"a {type(self).__name__} cannot be saved; it does not say what it was made with")

    def _bound_condition(self, batch: int) -> Float[Tensor, "rows conditions"]:
        """Return the condition of `batch` states: a row each, or a single row for all."""
        if self.condition is None:
            raise PolicyError(
                f"this {type(self).__name__} depends on a condition of {self.num_conditions} numbers; bind one with "
                "`given`"
            )
        if self.condition.dim() == 1:
            return self.condition[None]
        if self.condition.shape[0] != batch:
            raise PolicyError(
                f"{batch} states met a flow that is bound to {self.condition.shape[0]} conditions; bind one a row, or "
                "a single one for all"
            )
        return self.condition


class TabularFlow(StateFlow):
    """A number a state, in a table.

    Args:
        graph: The enumerated environment.
        log_flow: `(num_states,)` float64, nats; zeros by default.

    Raises:
        PolicyError: If the table has the wrong shape.
    """

    def __init__(self, graph: StateGraph, log_flow: Tensor | None = None) -> None:
        super().__init__(graph.environment)
        table = torch.zeros(graph.num_states, dtype=torch.float64) if log_flow is None else log_flow
        if tuple(table.shape) != (graph.num_states,):
            raise PolicyError(f"the table has shape {tuple(table.shape)}, but there are {graph.num_states} states")
        self.graph = graph
        self.table = torch.nn.Parameter(table.to(torch.float64).clone())

    def log_flow(self, states: Tensor) -> Float64[Tensor, " batch"]:
        return self.table[self.graph.index(states)]


class MLPFlow(StateFlow):
    """A residual MLP on summed token embeddings, like `MLPPolicy`, with one output.

    Args:
        environment: Whose states it is defined on; it must offer `tokens`.
        hidden_size: Width of every layer.
        num_layers: Hidden layers after the embedding.
        dtype: torch.float32 or torch.float64.
        num_conditions: Numbers in a condition; 0 where there is none.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is too small.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        *,
        hidden_size: int = 256,
        num_layers: int = 1,
        dtype: torch.dtype = torch.float32,
        num_conditions: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, num_conditions=num_conditions)
        if hidden_size < 1 or num_layers < 0:
            raise OptionError(f"hidden_size {hidden_size} must be at least 1 and num_layers {num_layers} at least 0")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        weights = InitialWeights(seed, "flow", dtype)
        width = hidden_size
        self.embedding = weights.normal("embedding", environment.vocabulary, width, scale=environment.num_tokens**-0.5)
        self.embedding_bias = weights.zeros(width)
        self.encoder = ConditionEncoder(num_conditions, width, weights) if num_conditions else None
        self.hidden = torch.nn.ParameterList(
            weights.normal(f"hidden{layer}", width, width, scale=(2.0 / width) ** 0.5 / 2)
            for layer in range(num_layers)
        )
        self.hidden_bias = torch.nn.ParameterList(weights.zeros(width) for _ in range(num_layers))
        self.head = weights.normal("head", 1, width, scale=0.1 * width**-0.5)
        self.head_bias = weights.zeros(1)

    def log_flow(self, states: Tensor) -> Float64[Tensor, " batch"]:
        tokens = self.environment.tokens(states)
        if self.encoder is None:
            return in_sub_batches(self._evaluate, self._sub_batch, tokens)
        condition = self._bound_condition(len(states)).expand(len(states), -1)
        return in_sub_batches(self._evaluate, self._sub_batch, tokens, condition)

    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_conditions": self.num_conditions,
            "dtype": self.head.dtype,
        }

    def _evaluate(
        self, tokens: Int64[Tensor, "batch tokens"], condition: Float[Tensor, "batch conditions"] | None = None
    ) -> Float64[Tensor, " batch"]:
        h = torch.nn.functional.embedding_bag(tokens, self.embedding, mode="sum") + self.embedding_bias
        if self.encoder is not None:
            h = h + self.encoder(condition)
        h = torch.relu(h)
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            h = h + torch.relu(torch.nn.functional.linear(h, weight, bias))
        return torch.nn.functional.linear(h, self.head, self.head_bias)[:, 0].to(torch.float64)
