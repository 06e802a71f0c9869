"""Small problems whose every path is listed, what can be learned on them, and all objectives written on these."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gfnmc.environments import (
    Direction,
    DiscreteEnvironment,
    HyperGrid,
    Lattice,
    StateGraph,
    enumerate_paths,
    enumerate_states,
)
from gfnmc.objectives import (
    detailed_balance,
    flow_matching,
    forward_looking_detailed_balance,
    forward_looking_subtrajectory_balance,
    log_partition_variance,
    modified_detailed_balance,
    subtrajectory_balance,
    trajectory_balance,
)
from gfnmc.policies import (
    DiscretePolicy,
    Path,
    TabularPolicy,
    UniformPolicy,
    score_backward,
    score_forward,
    solve_forward,
)
from gfnmc.policies.flow import StateFlow, TabularFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.rollout import backward_scores, evaluate_along, exit_scores, forward_scores, num_transitions
from gfnmc.policies.transitions import Transitions, score_transitions
from tests.exact.cases import Subsets
from tests.support import Stairs, random_numbers

ENVIRONMENTS: dict[str, Callable[[], DiscreteEnvironment]] = {
    "lattice": lambda: Lattice((3,), (0, 1)),
    "hypergrid": lambda: HyperGrid(2, 3),
    "larger hypergrid": lambda: HyperGrid(2, 4),
    "stairs": lambda: Stairs(4),
    "stairs without exits": lambda: Stairs(4, exits=False),
    "subsets": Subsets,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """An environment with a reward.

    Attributes:
        graph: The enumerated environment.
        log_reward: Of `graph.objects`.
        partial: A partial log-reward of every state; the log-reward itself where the state is an object.
        path: Every path.
        path_log_reward: Log-reward of each path's object.
    """

    graph: StateGraph
    log_reward: Tensor
    partial: Tensor
    path: Path
    path_log_reward: Tensor

    @property
    def environment(self) -> DiscreteEnvironment:
        return self.graph.environment

    @property
    def log_z(self) -> float:
        return float(self.log_reward.logsumexp(0))

    @property
    def has_exit(self) -> bool:
        return self.environment.exit_action is not None

    @property
    def uniform(self) -> DiscretePolicy:
        return UniformPolicy(self.environment, Direction.BACKWARD)

    def partial_along(self, path: Path) -> Tensor:
        """The partial log-reward of the states that transitions leave."""
        return evaluate_along(self.environment, path, lambda states, _: self.partial[self.graph.index(states)])


@functools.cache
def problem(name: str) -> Problem:
    """A random reward on a small environment."""
    graph = enumerate_states(ENVIRONMENTS[name]())
    log_reward = random_numbers(11, len(graph.objects))
    partial = random_numbers(12, graph.num_states)
    partial[graph.is_terminal] = log_reward
    found = enumerate_paths(graph)
    path = Path(graph.states[found.states], found.actions, found.lengths, torch.ones(len(found.lengths)) > 0)
    return Problem(graph, log_reward, partial, path, partial[graph.index(path.end)])


@dataclasses.dataclass(eq=False)
class Learned:
    """What an objective may train."""

    forward: DiscretePolicy
    backward: DiscretePolicy
    flow: StateFlow
    log_z: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        modules = (self.forward, self.backward, self.flow)
        return [parameter for module in modules for parameter in module.parameters()] + [self.log_z]

    def log_forward(self, path: Path) -> Tensor:
        return score_forward(self.forward, self.forward.environment, path)

    def log_backward(self, path: Path) -> Tensor:
        return score_backward(self.backward, self.forward.environment, path)

    def transitions(self, path: Path, log_reward: Tensor) -> Transitions:
        return score_transitions(self.forward, self.backward, self.flow, path, log_reward)


def untrained(it: Problem, backward: DiscretePolicy | None = None) -> Learned:
    """Tables of zeros."""
    log_z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    return Learned(TabularPolicy(it.graph, Direction.FORWARD), backward or it.uniform, TabularFlow(it.graph), log_z)


def random_backward(it: Problem, seed: int = 3) -> TabularPolicy:
    """Any P_B."""
    logits = random_numbers(seed, it.graph.num_states, it.environment.num_actions)
    return TabularPolicy(it.graph, Direction.BACKWARD, logits)


def solved(it: Problem, backward: DiscretePolicy, *, forward_looking: bool = False) -> Learned:
    """The exact solution that goes with a P_B: the flow through a state is what all paths through it carry."""
    forward, log_z = solve_forward(it.graph, it.log_reward, backward)
    carried = (it.path_log_reward + score_backward(backward, it.environment, it.path)).exp().detach()
    is_met = torch.arange(it.path.states.shape[1]) <= it.path.lengths[:, None]
    met = it.graph.index(it.path.states[is_met])
    flow = torch.zeros(it.graph.num_states, dtype=torch.float64)
    flow.index_add_(0, met, carried[:, None].expand_as(is_met)[is_met])
    log_flow = flow.log() - it.partial if forward_looking else flow.log()
    with torch.no_grad():  # an impossible action's logit, so that perturbing and differentiating it is possible
        forward.logits.masked_fill_(forward.logits == -math.inf, 0.0)
    z = torch.tensor(log_z, dtype=torch.float64, requires_grad=True)
    return Learned(forward, backward, TabularFlow(it.graph, log_flow), z)


Objective = Callable[[Problem, Learned, Path, Tensor], Tensor]


def _modified(it: Problem, learned: Learned, path: Path, log_reward: Tensor) -> Tensor:
    environment = it.environment
    return modified_detailed_balance(
        forward_scores(learned.forward, environment, path),
        backward_scores(learned.backward, environment, path),
        exit_scores(learned.forward, environment, path),
        it.partial_along(path),
        num_transitions(environment, path),
    )


def _flow_matching(it: Problem, learned: Learned, path: Path, log_reward: Tensor) -> Tensor:
    return flow_matching(
        FlowBackwardPolicy(learned.forward, learned.flow).log_inflow_along(path),
        learned.flow.log_flow_along(path),
        log_reward,
        num_transitions(it.environment, path),
    )


OBJECTIVES: dict[str, Objective] = {
    "trajectory balance": lambda it, learned, path, log_reward: trajectory_balance(
        learned.log_z, learned.log_forward(path), learned.log_backward(path), log_reward
    ),
    "detailed balance": lambda it, learned, path, log_reward: detailed_balance(learned.transitions(path, log_reward)),
    "modified detailed balance": _modified,
    "subtrajectory balance": lambda it, learned, path, log_reward: subtrajectory_balance(
        learned.transitions(path, log_reward)
    ),
    "log-partition variance": lambda it, learned, path, log_reward: log_partition_variance(
        learned.log_forward(path), learned.log_backward(path), log_reward
    ),
    "forward-looking detailed balance": lambda it, learned, path, log_reward: forward_looking_detailed_balance(
        learned.transitions(path, log_reward), it.partial_along(path)
    ),
    "forward-looking subtrajectory balance": lambda it, learned, path, log_reward: (
        forward_looking_subtrajectory_balance(learned.transitions(path, log_reward), it.partial_along(path))
    ),
    "flow matching": _flow_matching,
}

FORWARD_LOOKING = {"forward-looking detailed balance", "forward-looking subtrajectory balance"}
NO_FLOW = {"trajectory balance", "modified detailed balance", "log-partition variance"}


def log_z_of(it: Problem, learned: Learned, name: str) -> float:
    """log Z as the objective of that name learns it."""
    source = it.environment.source(1)
    with torch.no_grad():
        if name == "trajectory balance":
            return float(learned.log_z)
        if name == "modified detailed balance":
            exits = learned.forward.log_probs(learned.forward.begin(source), source)[0, it.environment.exit_action]
            return float(it.partial[it.graph.index(source)] - exits)
        if name in ("log-partition variance", "maximum likelihood"):
            log_joint = it.path_log_reward + learned.log_backward(it.path)
            return float(log_joint.softmax(0) @ (log_joint - learned.log_forward(it.path)))
        flow = learned.flow.log_flow(source)
        return float(flow + it.partial[it.graph.index(source)] if name in FORWARD_LOOKING else flow)


def minimise(
    loss: Callable[[int], Tensor], parameters: list[Tensor], num_steps: int = 250, *, peak: float = 0.15
) -> None:
    """Adam with a learning rate that falls to zero along a cosine."""
    optimizer = torch.optim.Adam(parameters)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = peak * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
