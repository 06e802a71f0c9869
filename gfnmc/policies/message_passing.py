"""Message passing over nodes that the environment joins by edges.

    h_v = E[label of v]  (+ part(c), what a condition adds)
    h_v <- h_v + W2 relu(W1 ((1 + e) n_v + sum of n_u over the neighbours u of v)),  n = norm(h),  for each layer

Logits are read off the nodes that an action is about: the two ends of an edge to be drawn, a site to be filled.

Reference: Gilmer et al. 2017 (1704.01212); sums of neighbours, Xu et al. 2019 (1810.00826).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.condition_encoder import ConditionEncoder
from gfnmc.policies.read_out import ReadOut
from gfnmc.policies.recomputed import RecomputedPolicy, normed
from gfnmc.policies.weights import InitialWeights


class MessagePassingPolicy(RecomputedPolicy):
    """A policy that sees a state as a graph.

    Args:
        environment: Where the policy acts; it must offer `nodes` and `edges`.
        direction: Which way the policy walks.
        hidden_size: Width of every layer.
        num_layers: Rounds of messages: how far a node sees.
        num_conditions: Numbers in a condition.
        dtype: torch.float32 or torch.float64.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is below one.
        CapabilityError: If the environment joins no nodes.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        direction: Direction = Direction.FORWARD,
        *,
        hidden_size: int = 64,
        num_layers: int = 3,
        num_conditions: int = 0,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, direction, num_conditions=num_conditions)
        if min(hidden_size, num_layers) < 1:
            raise OptionError(f"hidden_size {hidden_size} and num_layers {num_layers} must be at least 1")
        environment.edges(environment.source(1))
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.seed = seed
        weights = InitialWeights(seed, f"message_passing/{direction.value}", dtype)
        self.embedding = weights.normal("embedding", environment.node_vocabulary, hidden_size, scale=1.0)
        self.encoder = ConditionEncoder(num_conditions, hidden_size, weights) if num_conditions else None
        self.rounds = torch.nn.ModuleList(_Round(hidden_size, f"round{place}", weights) for place in range(num_layers))
        self.last_scale = weights.ones(hidden_size)
        self.read_out = ReadOut(environment.num_actions, environment.action_nodes, hidden_size, weights)

    def read(self, states: Tensor) -> tuple[Int64[Tensor, "batch nodes"], Bool[Tensor, "batch nodes nodes"]]:
        return self.environment.nodes(states), self.environment.edges(states)

    def logits(
        self, read: tuple[Tensor, ...], condition: Float[Tensor, "batch conditions"] | None
    ) -> Float[Tensor, "batch actions"]:
        nodes, edges = read
        hidden = self.embedding[nodes]
        if self.encoder is not None:
            hidden = hidden + self.encoder(condition)[:, None]
        adjacency = edges.to(hidden.dtype)
        for one_round in self.rounds:
            hidden = one_round(hidden, adjacency)
        return self.read_out(normed(hidden, self.last_scale))

    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "num_conditions": self.num_conditions,
            "dtype": self.embedding.dtype,
        }


class _Round(torch.nn.Module):
    """One exchange of messages between neighbours."""

    def __init__(self, width: int, name: str, weights: InitialWeights) -> None:
        super().__init__()
        self.scale = weights.ones(width)
        self.own = weights.zeros(1)
        self.up = weights.normal(f"{name}/up", width, width, scale=(2.0 / width) ** 0.5)
        self.up_bias = weights.zeros(width)
        self.down = weights.normal(f"{name}/down", width, width, scale=width**-0.5)
        self.down_bias = weights.zeros(width)

    def forward(
        self, hidden: Float[Tensor, "batch nodes width"], adjacency: Float[Tensor, "batch nodes nodes"]
    ) -> Float[Tensor, "batch nodes width"]:
        read = normed(hidden, self.scale)
        heard = (1.0 + self.own) * read + adjacency @ read
        up = torch.nn.functional.linear(heard, self.up, self.up_bias)
        return hidden + torch.nn.functional.linear(torch.relu(up), self.down, self.down_bias)
