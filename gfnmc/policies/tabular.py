"""A policy with a row of logits for every state, and the pair that solves a small environment exactly.

With F(x) = R(x) for exiting at x and F(s) = R-flow through s, the flows of a given P_B satisfy
F(s) = [s terminal] R(s) + sum over children s' of F(s') P_B(s | s'), and then
P_F(s' | s) = F(s') P_B(s | s') / F(s). So P_F follows from P_B and R by one pass over the graph.

Reference: Bengio et al. 2023, "GFlowNet foundations" (2111.09266).
"""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.errors import PolicyError
from gfnmc.core.numerics import masked_log_softmax
from gfnmc.environments.base import Direction
from gfnmc.environments.enumeration import StateGraph
from gfnmc.policies.base import DiscretePolicy


class TabularPolicy(DiscretePolicy):
    """Logits in a table, one row a state; any law on a small environment.

    Args:
        graph: The enumerated environment.
        direction: Which way the policy walks.
        logits: `(num_states, num_actions)`, any float dtype; zeros (uniform) by default. -inf forbids.

    Raises:
        PolicyError: If the table has the wrong shape.
    """

    def __init__(self, graph: StateGraph, direction: Direction, logits: Tensor | None = None) -> None:
        super().__init__(graph.environment, direction)
        expected = (graph.num_states, self.num_actions)
        if logits is None:
            logits = torch.zeros(expected, dtype=torch.float64)
        if tuple(logits.shape) != expected:
            raise PolicyError(
                f"the table has shape {tuple(logits.shape)}, but the environment has {expected[0]} states and "
                f"{expected[1]} actions"
            )
        self.graph = graph
        self.logits = torch.nn.Parameter(logits.clone())

    def begin(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return self.graph.index(states)

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Int64[Tensor, " batch"]:
        move = self.environment.step if self.direction is Direction.FORWARD else self.environment.unstep
        return self.graph.index(move(states, actions))

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        mask = self.environment.mask(states, self.direction)
        return masked_log_softmax(self.logits[cache], mask, temperature=self.temperature, epsilon=self.epsilon)

    @property
    def is_positive(self) -> bool:
        allowed = self.environment.mask(self.graph.states, self.direction)
        return self.epsilon > 0.0 or bool(self.logits[allowed].isfinite().all())


def solve_forward(
    graph: StateGraph, log_reward: Float64[Tensor, " objects"], backward: DiscretePolicy
) -> tuple[TabularPolicy, float]:
    """Return the exact forward policy of a reward and a backward policy, and log Z.

    Args:
        graph: The enumerated environment.
        log_reward: Log-reward of `graph.objects`, nats.
        backward: Any backward policy of the environment.

    Returns:
        The tabular P_F with which every object appears in proportion to its reward, and log Z in nats.
    """
    environment = graph.environment
    flow = torch.full((graph.num_states,), -math.inf, dtype=torch.float64)
    flow[graph.is_terminal] = log_reward
    exit_flow = flow.clone()
    with torch.no_grad():
        back = backward.log_probs(backward.begin(graph.states), graph.states)
    edge_back = back[graph.children, graph.actions]
    logits = torch.full((graph.num_states, environment.num_actions), -math.inf, dtype=torch.float64)
    for height in range(1, int(graph.heights.max()) + 1):
        rows = graph.heights[graph.parents] == height
        logits[graph.parents[rows], graph.actions[rows]] = flow[graph.children[rows]] + edge_back[rows]
        at = graph.heights == height
        flow[at] = torch.logaddexp(exit_flow[at], logits[at].logsumexp(-1))
    if environment.exit_action is not None:
        logits[:, environment.exit_action] = exit_flow
    source = int(graph.index(environment.source(1))[0])
    return TabularPolicy(graph, Direction.FORWARD, logits), float(flow[source])
