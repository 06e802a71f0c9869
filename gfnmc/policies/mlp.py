"""A residual MLP on summed token embeddings, updated instead of recomputed as a walk goes on.

    pre(s) = sum of E[token] over the tokens of s  (+ part(c), what a condition adds)
    h      = relu(pre + b0);  h <- h + relu(W h + b)  for each hidden layer
    logits = U h + c  (+ sum of D[token], the direct path: first-order terms that the layers need not learn)

A step changes a few tokens, so `pre += E[added] - E[removed]`. Where the environment fixes or draws the position
that an action fills, only the head rows of that position are used. D stands beside E as further columns of one table,
and its sum in the cache beside pre.

A frozen float32 policy must give a state the same logits however it was reached (docs/explanation/architecture.md,
"Numbers"): its embeddings, and what a condition adds, are rounded to a grid on which float32 sums are exact in any
order, and its matrix products run in sub-batches of one fixed size.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy, gather
from gfnmc.policies.condition_encoder import ConditionEncoder
from gfnmc.policies.sub_batches import in_sub_batches
from gfnmc.policies.weights import InitialWeights

_FINEST_GRID = 2.0**14


class MLPPolicy(DiscretePolicy):
    """The default network policy.

    Args:
        environment: Where the policy acts; it must offer `tokens`.
        direction: Which way the policy walks.
        hidden_size: Width of every layer.
        num_layers: Hidden layers after the embedding.
        direct: Whether tokens also add to the logits directly.
        num_conditions: Numbers in a condition.
        dtype: torch.float32 or torch.float64.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is below one.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        direction: Direction = Direction.FORWARD,
        *,
        hidden_size: int = 256,
        num_layers: int = 1,
        direct: bool = False,
        num_conditions: int = 0,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, direction, num_conditions=num_conditions)
        if hidden_size < 1 or num_layers < 0:
            raise OptionError(f"hidden_size {hidden_size} must be at least 1 and num_layers {num_layers} at least 0")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.direct = direct
        self.seed = seed
        width = hidden_size
        weights = InitialWeights(seed, direction.value, dtype)
        self.embedding = weights.normal("embedding", environment.vocabulary, width, scale=environment.num_tokens**-0.5)
        if direct:
            columns = torch.zeros(environment.vocabulary, self.num_actions, dtype=dtype)
            self.embedding = torch.nn.Parameter(torch.cat([self.embedding.detach(), columns], 1))
        self.embedding_bias = weights.zeros(width)
        self.hidden = torch.nn.ParameterList(
            weights.normal(f"hidden{layer}", width, width, scale=(2.0 / width) ** 0.5 / 2)
            for layer in range(num_layers)
        )
        self.hidden_bias = torch.nn.ParameterList(weights.zeros(width) for _ in range(num_layers))
        self.head = weights.normal("head", self.num_actions, width, scale=0.1 * width**-0.5)
        self.head_bias = weights.zeros(self.num_actions)
        self.encoder = ConditionEncoder(num_conditions, width, weights) if num_conditions else None
        # What sums are exact on, once frozen; None before, and in float64.
        self._grid: float | None = None

    def begin(self, states: Tensor) -> Float[Tensor, "batch cache"]:
        tokens = self.environment.tokens(states)
        total = torch.nn.functional.embedding_bag(tokens, self.embedding, mode="sum")
        return total if self.encoder is None else total + self._condition_part(self.encoder, states.shape[0])

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Float[Tensor, "batch cache"]:
        if self.direction is Direction.FORWARD:
            return cache + self._change(states, actions)
        return cache - self._change(self.environment.unstep(states, actions), actions)

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Float[Tensor, "selected cache"]:
        first = self.begin(states[:, 0])[:, None]
        change = self._change(states[:, :-1].flatten(0, 1), actions.flatten()).unflatten(0, actions.shape)
        return torch.cat([first, first + change.cumsum(1)], 1)[select]

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        return self._normalised(in_sub_batches(self._all_logits, self._sub_batch, cache), states)

    def sample(
        self, cache: Tensor, states: Tensor, draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        if self._positions is None:
            return super().sample(cache, states, draws, active)
        position_law = self.environment.position_log_probs(states)
        position = draws.categorical(position_law, active)
        value_law = self._value_law(cache, position)
        value = draws.categorical(value_law, active)
        log_prob = gather(position_law, position) + gather(value_law, value)
        return position * self._values_per_position + value, log_prob

    def score(self, cache: Tensor, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
        if self._positions is None:
            return super().score(cache, states, actions)
        position, value = actions // self._values_per_position, actions % self._values_per_position
        position_law = self.environment.position_log_probs(states)
        return gather(position_law, position) + gather(self._value_law(cache, position), value)

    def frozen(self) -> "MLPPolicy":
        frozen = super().frozen()
        if frozen.embedding.dtype == torch.float32 and frozen._grid is None:
            bound = float(frozen.embedding.abs().max()) * self.environment.num_tokens
            frozen._grid = _grid(bound + (0.0 if frozen.encoder is None else frozen.encoder.bound))
            frozen.embedding.copy_(_rounded(frozen.embedding, frozen._grid))
        return frozen

    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "direct": self.direct,
            "num_conditions": self.num_conditions,
            "dtype": self.head.dtype,
        }

    @property
    def _values_per_position(self) -> int:
        return self.num_actions // (self._positions or 1)

    def _change(self, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float[Tensor, "batch cache"]:
        removed, added = self.environment.changed_tokens(states, actions)
        change = self.embedding[added] - self.embedding[removed]
        return change.sum(1)

    def _condition_part(self, encoder: ConditionEncoder, batch: int) -> Float[Tensor, "rows cache"]:
        part = in_sub_batches(encoder, self._sub_batch, self._bound_condition(batch))
        if self._grid is not None:
            part = _rounded(part, self._grid)
        return torch.nn.functional.pad(part, (0, self.num_actions)) if self.direct else part

    def _value_law(self, cache: Tensor, position: Int64[Tensor, " batch"]) -> Float64[Tensor, "batch values"]:
        logits = in_sub_batches(self._position_logits, self._sub_batch, cache, position)
        return self._softmax(logits)

    def _trunk(self, cache: Tensor) -> Tensor:
        h = torch.relu(cache[:, : self.hidden_size] + self.embedding_bias)
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            h = h + torch.relu(torch.nn.functional.linear(h, weight, bias))
        return h

    def _all_logits(self, cache: Tensor) -> Float[Tensor, "batch actions"]:
        logits = torch.nn.functional.linear(self._trunk(cache), self.head, self.head_bias)
        return logits + cache[:, self.hidden_size :] if self.direct else logits

    def _position_logits(self, cache: Tensor, position: Tensor) -> Float[Tensor, "batch values"]:
        values = self._values_per_position
        rows = position[:, None] * values + torch.arange(values, device=position.device)
        if self.num_actions <= self.hidden_size:
            # All logits in one dense product cost less than gathering a head for each row.
            return self._all_logits(cache).gather(1, rows)
        logits = (self.head[rows] @ self._trunk(cache)[:, :, None])[:, :, 0] + self.head_bias[rows]
        return logits + cache.gather(1, self.hidden_size + rows) if self.direct else logits


def _grid(bound: float) -> float:
    """Return the finest power of two (2^14 at most) on whose grid float32 sums up to `bound` are exact."""
    return min(_FINEST_GRID, 2.0 ** (23 - math.frexp(bound)[1]))


def _rounded(numbers: Tensor, grid: float) -> Tensor:
    return (numbers * grid).round() / grid
