"""Draw a directed acyclic graph edge by edge, or exit where you stand.

Every subset of a DAG's edges is a DAG. So every DAG is an object, its k edges can be drawn in all k! orders, and each
order is equally long (graded). An edge i -> j may be drawn unless it is there or a path leads from j to i; the paths
are found by squaring the adjacency matrix, log2(nodes) times.

States hold 0 or 1 for each ordered pair of nodes (i, j), i != j, in row-major order; objects are adjacency matrices
with A[i, j] = 1 for i -> j. Single changes draw, remove or reverse an edge: without reversals a random walk has to
take edges away before it can turn them, and is no fair baseline.

References: Deleu et al. 2022, "Bayesian structure learning with generative flow networks" (2202.13903); Giudici and
Castelo 2003, "Improving Markov chain Monte Carlo model search for data mining" (single changes with reversals).
"""

from typing import Any

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.choices import ItemChoices


class DAGs(ItemChoices):
    """Directed acyclic graphs on labelled nodes.

    Action e draws the e-th ordered pair of nodes; the last action exits. Change e draws or removes that edge, and
    change `num_tokens` + e reverses it.

    For networks that pass messages, nodes are labelled with themselves and their number of parents, and joined
    whichever way an edge points. That loses nothing: two orientations of one graph with equal numbers of parents
    differ by directed cycles turned round, and a DAG has none.

    Attributes:
        pairs: The ends i and j of each edge i -> j that may be drawn, `(num_tokens, 2)`.

    Args:
        num_nodes: Nodes.
        dtype: Dtype of adjacency matrices.

    Raises:
        OptionError: If there are fewer than two nodes, or the dtype is bool.
    """

    is_fixed_length = False
    changes_connect = True

    def __init__(self, num_nodes: int, *, dtype: torch.dtype = torch.int8) -> None:
        if num_nodes < 2:
            raise OptionError(f"num_nodes is {num_nodes}; a graph of fewer than two nodes has no edges to choose")
        if dtype is torch.bool:
            raise OptionError("adjacency matrices of bool cannot be added up; give an integer dtype")
        self._num_nodes = num_nodes
        self.dtype = dtype
        self.pairs = (~torch.eye(num_nodes, dtype=torch.bool)).nonzero()
        num_pairs = self.pairs.shape[0]
        super().__init__(num_pairs, has_exit=True)
        self.event_shape = (num_nodes, num_nodes)
        self.max_depth = num_pairs // 2
        self.is_enumerable = num_nodes <= 5

    @classmethod
    def for_target(cls, target: SiteSpace) -> "DAGs":
        """Return the environment that builds a target's objects.

        Raises:
            CapabilityError: If the target's objects are not square matrices.
        """
        shape = target.event_shape
        if len(shape) != 2 or shape[0] != shape[1]:
            raise CapabilityError(f"{target.name} is not defined on adjacency matrices: its objects have shape {shape}")
        return cls(shape[0], dtype=target.dtype)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"num_nodes": self.num_nodes}

    def objects(self, states: Tensor) -> Shaped[Tensor, "batch nodes nodes"]:
        return self._matrices(states).to(self.dtype)

    def states(self, objects: Tensor) -> Shaped[Tensor, "batch pairs"]:
        is_edge = objects == 1
        # An edge i -> j is on a cycle where j reaches i; a node reaches itself, so the diagonal is seen to as well.
        wrong = (objects != is_edge) | (is_edge & _reach(is_edge).mT)
        if wrong.any():
            row = int(wrong.flatten(1).any(-1).nonzero()[0, 0])
            raise ObjectError(
                f"object {row}, {objects[row].tolist()}, is not the adjacency matrix of a directed acyclic graph: it "
                "holds 0 and 1, is 0 on the diagonal and has no directed cycle"
            )
        return self._entries(is_edge).to(torch.int8)

    def may_enter(self, states: Tensor) -> Bool[Tensor, "batch pairs"]:
        is_edge = self._matrices(states) == 1
        return self._entries(_may_draw(is_edge, _reach(is_edge)))

    @property
    def num_nodes(self) -> int:
        return self._num_nodes

    @property
    def node_vocabulary(self) -> int:
        return self._num_nodes**2

    @property
    def action_nodes(self) -> Int64[Tensor, "actions nodes_an_action"]:
        """The ends of each edge, the lower first: the two ways between them share their place and not their weights."""
        return self.pairs.sort(1).values

    def nodes(self, states: Tensor) -> Int64[Tensor, "batch nodes"]:
        num_parents = self._matrices(states).sum(1, dtype=torch.int64)
        return num_parents + self._num_nodes * torch.arange(self._num_nodes, device=states.device)

    def edges(self, states: Tensor) -> Bool[Tensor, "batch nodes nodes"]:
        is_edge = self._matrices(states) == 1
        return is_edge | is_edge.mT

    @property
    def num_changes(self) -> int:
        return 2 * self.num_tokens

    def change_mask(self, objects: Tensor) -> Bool[Tensor, "batch changes"]:
        is_edge = objects == 1
        reach = _reach(is_edge)
        # The edge i -> j can be turned unless another path leads from i to j: through some other child k of i. That
        # path cannot use the edge itself, or it would go round a cycle.
        reach_further = reach & ~torch.eye(self._num_nodes, dtype=torch.bool, device=objects.device)
        detours = is_edge.to(torch.float32) @ reach_further.to(torch.float32)
        may_toggle = is_edge | _may_draw(is_edge, reach)
        may_reverse = is_edge & (detours == 0)
        return torch.cat([self._entries(may_toggle), self._entries(may_reverse)], -1)

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        row = torch.arange(objects.shape[0], device=objects.device)
        parent, child = self.pairs[changes % self.num_tokens].unbind(-1)
        is_reversal = changes >= self.num_tokens
        changed = objects.clone()
        changed[row, parent, child] = 1 - objects[row, parent, child]
        there, back = objects[row, parent, child], objects[row, child, parent]
        changed[row, child, parent] = torch.where(is_reversal, there, back)
        return changed

    def _entries(self, matrices: Shaped[Tensor, "batch nodes nodes"]) -> Shaped[Tensor, "batch pairs"]:
        return matrices[:, self.pairs[:, 0], self.pairs[:, 1]]

    def _matrices(self, states: Shaped[Tensor, "batch pairs"]) -> Shaped[Tensor, "batch nodes nodes"]:
        matrices = states.new_zeros(states.shape[0], self._num_nodes, self._num_nodes)
        matrices[:, self.pairs[:, 0], self.pairs[:, 1]] = states
        return matrices


def _reach(is_edge: Bool[Tensor, "batch nodes nodes"]) -> Bool[Tensor, "batch nodes nodes"]:
    """Return whether a path leads from i to j; the empty path leads from each node to itself."""
    num_nodes = is_edge.shape[-1]
    reach = is_edge.to(torch.float32) + torch.eye(num_nodes, device=is_edge.device)
    # After k squarings all paths of up to 2^k edges are found, and no path needs more than num_nodes - 1. Entries count
    # paths and are cut to 1, so they stay small whole numbers, which float32 holds exactly.
    for _ in range((num_nodes - 2).bit_length()):
        reach = (reach @ reach).clamp(max=1.0)
    return reach > 0


def _may_draw(
    is_edge: Bool[Tensor, "batch nodes nodes"], reach: Bool[Tensor, "batch nodes nodes"]
) -> Bool[Tensor, "batch nodes nodes"]:
    """Return where an edge i -> j can be drawn: it is not there and j does not reach i."""
    return ~is_edge & ~reach.mT
