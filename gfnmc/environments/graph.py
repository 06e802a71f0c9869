"""Draw a simple undirected graph edge by edge, or exit where you stand.

Every graph on the nodes is an object, so objects differ in length; k edges can be drawn in k! orders, all equally long
(graded).

States hold 0 or 1 for each pair of nodes (i < j), in row-major order of the upper triangle; objects are symmetric
adjacency matrices. Tokens say of each pair whether it is joined; nodes are labelled with themselves and their degree.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.choices import ItemChoices


class GraphBuilding(ItemChoices):
    """Graphs on labelled nodes.

    Action e joins the e-th pair of nodes; the last action exits.

    Args:
        num_nodes: Nodes.
        dtype: Dtype of adjacency matrices.

    Raises:
        OptionError: If there are fewer than two nodes.
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
        self.pairs = torch.triu_indices(num_nodes, num_nodes, 1).T.contiguous()
        num_pairs = self.pairs.shape[0]
        super().__init__(num_pairs, has_exit=True)
        self.event_shape = (num_nodes, num_nodes)
        self.max_depth = num_pairs
        self.is_enumerable = num_pairs <= 20

    @classmethod
    def for_target(cls, target: SiteSpace) -> "GraphBuilding":
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
        states = objects[:, self.pairs[:, 0], self.pairs[:, 1]].to(torch.int8)
        wrong = (self.objects(states & 1) != objects).flatten(1).any(-1)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ObjectError(
                f"object {row}, {objects[row].tolist()}, is not the adjacency matrix of a simple undirected graph: it "
                "holds 0 and 1, is symmetric and 0 on the diagonal"
            )
        return states

    def may_enter(self, states: Tensor) -> Bool[Tensor, "batch pairs"]:
        return states == 0

    @property
    def num_nodes(self) -> int:
        return self._num_nodes

    @property
    def node_vocabulary(self) -> int:
        return self._num_nodes**2

    @property
    def action_nodes(self) -> Int64[Tensor, "actions nodes_an_action"]:
        return self.pairs

    def nodes(self, states: Tensor) -> Int64[Tensor, "batch nodes"]:
        degree = self._matrices(states).sum(-1, dtype=torch.int64)
        return degree + self._num_nodes * torch.arange(self._num_nodes, device=states.device)

    def edges(self, states: Tensor) -> Bool[Tensor, "batch nodes nodes"]:
        return self._matrices(states) == 1

    @property
    def num_changes(self) -> int:
        return self.num_tokens

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        row = torch.arange(objects.shape[0], device=objects.device)
        one, other = self.pairs[changes].unbind(-1)
        changed = objects.clone()
        changed[row, one, other] = 1 - objects[row, one, other]
        changed[row, other, one] = 1 - objects[row, other, one]
        return changed

    def _matrices(self, states: Shaped[Tensor, "batch pairs"]) -> Shaped[Tensor, "batch nodes nodes"]:
        matrices = states.new_zeros(states.shape[0], self._num_nodes, self._num_nodes)
        matrices[:, self.pairs[:, 0], self.pairs[:, 1]] = states
        return matrices + matrices.transpose(1, 2)
