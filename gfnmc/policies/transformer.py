"""A Transformer over the tokens of a state.

    h_t = E[token t]  (and one more h, of the condition, that the others attend to)
    h <- h + attention(norm(h));  h <- h + W2 gelu(W1 norm(h))  for each layer

The vocabulary already says where a token stands, so there is no other code of position. Logits are read off where the
environment says what an action is about, such as a site (`read_out`), else off the mean.

Reference: Vaswani et al. 2017 (1706.03762); norms before the layers, Xiong et al. 2020 (2002.04745).
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.condition_encoder import ConditionEncoder
from gfnmc.policies.read_out import ReadOut
from gfnmc.policies.recomputed import RecomputedPolicy, normed
from gfnmc.policies.weights import InitialWeights


class TransformerPolicy(RecomputedPolicy):
    """A policy that attends to all tokens.

    Args:
        environment: Where the policy acts; it must offer `tokens`.
        direction: Which way the policy walks.
        hidden_size: Width of every layer, a multiple of `num_heads`.
        num_layers: Layers of attention.
        num_heads: Attention heads of each.
        num_conditions: Numbers in a condition.
        dtype: torch.float32 or torch.float64.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is below one, or heads do not divide the width.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        direction: Direction = Direction.FORWARD,
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        num_conditions: int = 0,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, direction, num_conditions=num_conditions)
        if min(hidden_size, num_layers, num_heads) < 1 or hidden_size % num_heads:
            raise OptionError(
                f"hidden_size {hidden_size}, num_layers {num_layers} and num_heads {num_heads} must be at least 1, and "
                "the heads divide the width"
            )
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.seed = seed
        weights = InitialWeights(seed, f"transformer/{direction.value}", dtype)
        self.embedding = weights.normal("embedding", environment.vocabulary, hidden_size, scale=1.0)
        self.encoder = ConditionEncoder(num_conditions, hidden_size, weights) if num_conditions else None
        self.layers = torch.nn.ModuleList(
            _Layer(hidden_size, num_heads, f"layer{place}", weights) for place in range(num_layers)
        )
        self.last_scale = weights.ones(hidden_size)
        self.read_out = ReadOut(environment.num_actions, environment.action_tokens, hidden_size, weights)

    def read(self, states: Tensor) -> tuple[Int64[Tensor, "batch tokens"]]:
        return (self.environment.tokens(states),)

    def logits(
        self, read: tuple[Tensor, ...], condition: Float[Tensor, "batch conditions"] | None
    ) -> Float[Tensor, "batch actions"]:
        (tokens,) = read
        hidden = self.embedding[tokens]
        if self.encoder is not None:
            hidden = torch.cat([hidden, self.encoder(condition)[:, None]], 1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.read_out(normed(hidden[:, : tokens.shape[1]], self.last_scale))

    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_conditions": self.num_conditions,
            "dtype": self.embedding.dtype,
        }


class _Layer(torch.nn.Module):
    """Attention, then a network for each token, both added to what they read."""

    def __init__(self, width: int, num_heads: int, name: str, weights: InitialWeights) -> None:
        super().__init__()
        self.num_heads = num_heads
        scale = width**-0.5
        self.attention_scale = weights.ones(width)
        self.query_key_value = weights.normal(f"{name}/query_key_value", 3 * width, width, scale=scale)
        self.joined = weights.normal(f"{name}/joined", width, width, scale=scale)
        self.network_scale = weights.ones(width)
        self.up = weights.normal(f"{name}/up", 2 * width, width, scale=scale)
        self.up_bias = weights.zeros(2 * width)
        self.down = weights.normal(f"{name}/down", width, 2 * width, scale=(2 * width) ** -0.5)
        self.down_bias = weights.zeros(width)

    def forward(self, hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        hidden = hidden + self._attended(normed(hidden, self.attention_scale))
        up = torch.nn.functional.linear(normed(hidden, self.network_scale), self.up, self.up_bias)
        return hidden + torch.nn.functional.linear(torch.nn.functional.gelu(up), self.down, self.down_bias)

    def _attended(self, hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        projected = torch.nn.functional.linear(hidden, self.query_key_value)
        query, key, value = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weight = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return torch.nn.functional.linear((weight @ value).transpose(1, 2).flatten(2), self.joined)
