"""Logits read off embeddings: each action's at the tokens (or nodes) that it is about.

Actions about the same places share z = relu(A sum(h) + B prod(h) + C mean(h)), with sum and product over their places
and the mean over all places; the j-th of them has the logit u_j . z. So a value has the same weights at every site, but
for one bias an action. The exit, and every action where nothing says what actions are about, reads the mean alone.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gfnmc.policies.weights import InitialWeights


class ReadOut(torch.nn.Module):
    """The head of the networks that embed each token or node.

    Args:
        num_actions: Actions, the exit included.
        action_places: Places that each action is about; None where nothing says so. Actions beyond its rows read the
            mean alone.
        width: Width of the embeddings.
        weights: Names the initial weights.
    """

    _places: Tensor
    _column: Tensor

    def __init__(
        self,
        num_actions: int,
        action_places: Int64[Tensor, "actions places_an_action"] | None,
        width: int,
        weights: InitialWeights,
    ) -> None:
        super().__init__()
        self._is_placed = action_places is not None
        num_placed = 0
        if action_places is not None:
            num_placed = action_places.shape[0]
            places, group = action_places.unique(dim=0, return_inverse=True)
            rank = _rank_in_group(group)
            num_ranks = int(rank.max()) + 1
            self.register_buffer("_places", places, persistent=False)
            self.register_buffer("_column", group * num_ranks + rank, persistent=False)
            self.from_sum = weights.normal("read_out/sum", width, width, scale=width**-0.5)
            self.from_mean = weights.normal("read_out/mean", width, width, scale=width**-0.5)
            self.from_product = None
            if places.shape[1] > 1:
                self.from_product = weights.normal("read_out/product", width, width, scale=width**-0.5)
            self.bias = weights.zeros(width)
            self.head = weights.normal("read_out/head", num_ranks, width, scale=0.1 * width**-0.5)
        num_rest = num_actions - num_placed
        self.mean_head = None
        if num_rest:
            self.mean_head = weights.normal("read_out/mean_head", num_rest, width, scale=0.1 * width**-0.5)
        self.action_bias = weights.zeros(num_actions)

    def forward(self, hidden: Float[Tensor, "batch places width"]) -> Float[Tensor, "batch actions"]:
        """Return the logits of all actions."""
        mean = hidden.mean(1)
        logits = [] if self.mean_head is None else [torch.nn.functional.linear(mean, self.mean_head)]
        if self._is_placed:
            logits.insert(0, self._placed_logits(hidden, mean))
        return torch.cat(logits, 1) + self.action_bias

    def _placed_logits(
        self, hidden: Float[Tensor, "batch places width"], mean: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch placed"]:
        at = hidden[:, self._places]
        z = at.sum(2) @ self.from_sum + (mean @ self.from_mean)[:, None] + self.bias
        if self.from_product is not None:
            z = z + at.prod(2) @ self.from_product
        return torch.nn.functional.linear(torch.relu(z), self.head).flatten(1)[:, self._column]


def _rank_in_group(group: Int64[Tensor, " actions"]) -> Int64[Tensor, " actions"]:
    """Return how many earlier actions are of the same group."""
    same = group[:, None] == group
    return same.tril(-1).sum(1)
