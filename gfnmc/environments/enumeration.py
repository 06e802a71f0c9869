"""List every state and edge of a small environment.

Tabular policies and exact solutions stand on this list, and making it holds the environment to its contract:
each edge must be walkable in both directions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnvironmentContractError
from gfnmc.core.lookup import RowIndex
from gfnmc.environments.base import DiscreteEnvironment


@dataclass(frozen=True, eq=False)
class StateGraph:
    """All states of an environment and all its edges, the exit not counted.

    Attributes:
        environment: What was enumerated.
        states: Every state once, `(num_states, *state)`.
        parents: Id of the state that each edge leaves.
        actions: Action of each edge.
        children: Id of the state that each edge enters.
        heights: Most steps from each state to a finished object along which no action is left; edges lead
            from greater to smaller heights.
        is_terminal: Which states are finished objects.
    """

    environment: DiscreteEnvironment
    states: Shaped[Tensor, "states *state"]
    parents: Int64[Tensor, " edges"]
    actions: Int64[Tensor, " edges"]
    children: Int64[Tensor, " edges"]
    heights: Int64[Tensor, " states"]
    is_terminal: Bool[Tensor, " states"]

    @cached_property
    def _row_index(self) -> RowIndex:
        return RowIndex(self.states)

    @property
    def num_states(self) -> int:
        """Number of states."""
        return self.states.shape[0]

    @cached_property
    def objects(self) -> Shaped[Tensor, "objects *event"]:
        """Every object, in the order of the terminal states."""
        return self.environment.objects(self.states[self.is_terminal])

    def index(self, states: Shaped[Tensor, "batch *state"]) -> Int64[Tensor, " batch"]:
        """Return the id of each state, -1 for a tensor that is no state."""
        return self._row_index.find(states)


def enumerate_states(environment: DiscreteEnvironment, *, max_states: int = 2**20) -> StateGraph:
    """Walk an environment breadth first from its source and return its graph.

    Raises:
        EnvironmentContractError: If masks, `step` and `unstep` contradict each other on some edge, or an edge
            closes a cycle.
        CapabilityError: If there are more than `max_states` states.
    """
    known = environment.source(1)
    frontier = known
    while len(frontier):
        _, _, children = _edges(environment, frontier)
        merged = torch.cat([known, children]).unique(dim=0)
        if len(merged) > max_states:
            raise CapabilityError(f"{type(environment).__name__} has more than {max_states} states")
        frontier = merged[RowIndex(known).find(merged) < 0]
        known = merged
    index = RowIndex(known)
    rows, actions, children = _edges(environment, known)
    _check_edges(environment, known[rows], actions, children)
    child_ids = index.find(children)
    heights = _heights(environment, len(known), rows, child_ids)
    return StateGraph(environment, known, rows, actions, child_ids, heights, environment.is_terminal(known))


class CompletePaths(NamedTuple):
    """Every path from the source to a finished object.

    Attributes:
        states: Ids of the states along each path; after its end the last one repeats.
        actions: The actions between them, the exit not counted; 0 after the end.
        lengths: Actions of each path.
    """

    states: Int64[Tensor, "paths length_plus_1"]
    actions: Int64[Tensor, "paths length"]
    lengths: Int64[Tensor, " paths"]


def enumerate_paths(graph: StateGraph, *, max_paths: int = 2**20) -> CompletePaths:
    """List every path of a small environment.

    Raises:
        CapabilityError: If there are more than `max_paths` paths.
    """
    order = graph.parents.argsort(stable=True)
    first = torch.searchsorted(graph.parents[order], torch.arange(graph.num_states + 1))
    fan_out = first[1:] - first[:-1]
    states = graph.index(graph.environment.source(1))[:, None]
    actions = torch.zeros(1, 0, dtype=torch.int64)
    finished: list[CompletePaths] = []
    longest = int(graph.heights.max())
    for length in range(longest + 1):
        ends = graph.is_terminal[states[:, -1]]
        finished.append(_padded(states[ends], actions[ends], length, longest))
        row = torch.arange(len(states)).repeat_interleave(fan_out[states[:, -1]])
        if len(row) + sum(len(paths.lengths) for paths in finished) > max_paths:
            raise CapabilityError(f"{type(graph.environment).__name__} has more than {max_paths} paths")
        offset = torch.arange(len(row)) - torch.searchsorted(row, row)
        edge = order[first[states[row, -1]] + offset]
        states = torch.cat([states[row], graph.children[edge][:, None]], 1)
        actions = torch.cat([actions[row], graph.actions[edge][:, None]], 1)
    return CompletePaths(*(torch.cat(pieces) for pieces in zip(*finished, strict=True)))


def _padded(states: Tensor, actions: Tensor, length: int, longest: int) -> CompletePaths:
    states = torch.cat([states, states[:, -1:].expand(-1, longest - length)], 1)
    actions = torch.nn.functional.pad(actions, (0, longest - length))
    return CompletePaths(states, actions, torch.full((len(states),), length))


def _edges(environment: DiscreteEnvironment, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mask = environment.forward_mask(states).clone()
    if environment.exit_action is not None:
        mask[:, environment.exit_action] = False
    rows, actions = mask.nonzero(as_tuple=True)
    return rows, actions, environment.step(states[rows], actions)


def _check_edges(environment: DiscreteEnvironment, states: Tensor, actions: Tensor, children: Tensor) -> None:
    name = type(environment).__name__
    undone = environment.backward_mask(children).gather(1, actions[:, None])[:, 0]
    returned = (environment.unstep(children, actions) == states).flatten(1).all(-1)
    for holds, complaint in (
        (undone, "backward_mask forbids undoing it"),
        (returned | environment.parents_share_actions, "unstep does not lead back"),
        (~environment.is_source(children), "is_source calls the result the source"),
    ):
        if not holds.all():
            edge = int((~holds).nonzero()[0, 0])
            raise EnvironmentContractError(
                f"{name}: action {int(actions[edge])} is allowed in state {states[edge].tolist()} and leads to "
                f"{children[edge].tolist()}, but {complaint}"
            )


def _heights(environment: DiscreteEnvironment, num_states: int, parents: Tensor, children: Tensor) -> Tensor:
    heights = torch.zeros(num_states, dtype=torch.int64)
    for _ in range(num_states + 1):
        raised = heights.scatter_reduce(0, parents, heights[children] + 1, "amax")
        if torch.equal(raised, heights):
            return heights
        heights = raised
    raise EnvironmentContractError(f"{type(environment).__name__} has a cycle: some actions lead back to a state")
