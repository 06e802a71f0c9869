"""A residual MLP on summed token embeddings, updated instead of recomputed as a walk goes on.

    pre(s) = sum of E[token] over the tokens of s
    h      = relu(pre + b0);  h <- h + relu(W h + b)  for each hidden layer
    logits = U h + c

A step changes a few tokens, so `pre += E[added] - E[removed]`. Where the environment fixes or draws the position
that an action fills, only the head rows of that position are used.

A frozen float32 policy must give a state the same logits however it was reached (docs/explanation/architecture.md,
"Numbers"): its embeddings are rounded to a grid on which float32 sums are exact in any order, and its matrix products
run in sub-batches of one fixed size.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import Parameter

from gfnmc.core.draws import Draws, normal
from gfnmc.core.errors import OptionError
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy, gather

_FINEST_GRID = 2.0**14
_SUB_BATCH = 64


class MLPPolicy(DiscretePolicy):
    """The default network policy.

    Args:
        environment: Where the policy acts; it must offer `tokens`.
        direction: Which way the policy walks.
        hidden_size: Width of every layer.
        num_layers: Hidden layers after the embedding.
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
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, direction)
        if hidden_size < 1 or num_layers < 0:
            raise OptionError(f"hidden_size {hidden_size} must be at least 1 and num_layers {num_layers} at least 0")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.seed = seed

        def weight(name: str, *shape: int, scale: float) -> Parameter:
            return Parameter(scale * normal(seed, f"weights/{direction.value}/{name}", shape, dtype))

        width = hidden_size
        self.embedding = weight("embedding", environment.vocabulary, width, scale=environment.num_tokens**-0.5)
        self.embedding_bias = Parameter(torch.zeros(width, dtype=dtype))
        self.hidden = torch.nn.ParameterList(
            weight(f"hidden{layer}", width, width, scale=(2.0 / width) ** 0.5 / 2) for layer in range(num_layers)
        )
        self.hidden_bias = torch.nn.ParameterList(torch.zeros(width, dtype=dtype) for _ in range(num_layers))
        self.head = weight("head", self.num_actions, width, scale=0.1 * width**-0.5)
        self.head_bias = Parameter(torch.zeros(self.num_actions, dtype=dtype))
        # Which rows of the head a forward step needs: those of one position, or all.
        self._positions = environment.positions if direction is Direction.FORWARD else None
        self._sub_batch: int | None = None

    def begin(self, states: Tensor) -> Float[Tensor, "batch hidden"]:
        tokens = self.environment.tokens(states)
        return torch.nn.functional.embedding_bag(tokens, self.embedding, mode="sum")

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Float[Tensor, "batch hidden"]:
        if self.direction is Direction.FORWARD:
            return cache + self._change(states, actions)
        return cache - self._change(self.environment.unstep(states, actions), actions)

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Float[Tensor, "selected hidden"]:
        first = self.begin(states[:, 0])[:, None]
        change = self._change(states[:, :-1].flatten(0, 1), actions.flatten()).reshape(*actions.shape, self.hidden_size)
        return torch.cat([first, first + change.cumsum(1)], 1)[select]

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        logits = self._in_sub_batches(self._all_logits, cache)
        if self._positions is None:
            return self._law(logits, self.environment.mask(states, self.direction))
        position = self.environment.position_log_probs(states)
        value = self._law(logits.unflatten(-1, (self._positions, -1)))
        return (position[:, :, None] + value).flatten(1)

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
        if frozen.embedding.dtype == torch.float32:
            grid = _grid(float(frozen.embedding.abs().max()) * self.environment.num_tokens)
            frozen.embedding.copy_((frozen.embedding * grid).round() / grid)
        frozen._sub_batch = _SUB_BATCH
        return frozen

    @property
    def _values_per_position(self) -> int:
        return self.num_actions // (self._positions or 1)

    def _change(self, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float[Tensor, "batch hidden"]:
        removed, added = self.environment.changed_tokens(states, actions)
        change = self.embedding[added] - self.embedding[removed]
        return change.sum(1)

    def _law(self, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return masked_log_softmax(logits, mask, temperature=self.temperature, epsilon=self.epsilon)

    def _value_law(self, cache: Tensor, position: Int64[Tensor, " batch"]) -> Float64[Tensor, "batch values"]:
        return self._law(self._in_sub_batches(self._position_logits, cache, position))

    def _trunk(self, pre: Tensor) -> Tensor:
        h = torch.relu(pre + self.embedding_bias)
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            h = h + torch.relu(torch.nn.functional.linear(h, weight, bias))
        return h

    def _all_logits(self, pre: Tensor) -> Float[Tensor, "batch actions"]:
        return torch.nn.functional.linear(self._trunk(pre), self.head, self.head_bias)

    def _position_logits(self, pre: Tensor, position: Tensor) -> Float[Tensor, "batch values"]:
        values = self._values_per_position
        rows = position[:, None] * values + torch.arange(values, device=position.device)
        if self.num_actions <= self.hidden_size:
            # All logits in one dense product cost less than gathering a head for each row.
            return self._all_logits(pre).gather(1, rows)
        return (self.head[rows] @ self._trunk(pre)[:, :, None])[:, :, 0] + self.head_bias[rows]

    def _in_sub_batches(self, fn: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Apply a row-wise function, when frozen in blocks of one size, so that a row's result is its own."""
        size = self._sub_batch
        if size is None:
            return fn(*rows)
        batch = rows[0].shape[0]
        short = -batch % size
        padded = [torch.nn.functional.pad(row, (0, 0) * (row.dim() - 1) + (0, short)) for row in rows]
        blocks = zip(*(row.split(size) for row in padded), strict=True)
        return torch.cat([fn(*block) for block in blocks])[:batch]


def _grid(bound: float) -> float:
    """Return the finest power of two (2^14 at most) on whose grid float32 sums up to `bound` are exact."""
    return min(_FINEST_GRID, 2.0 ** (23 - math.frexp(bound)[1]))
