"""The matrix products of an MLP policy as walks want them: without gradients, and the same for a row in any batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gfnmc.policies.row_products import RowProducts


class MLPProducts:
    """The layers of an `MLPPolicy` after its embeddings.

    Args:
        layers: Weights and biases of the hidden layers, which must not change while this is in use.
        head: Weights of the logits; the same.
        head_bias: Their biases.
    """

    def __init__(
        self,
        layers: Sequence[tuple[Float[Tensor, "hidden hidden"], Float[Tensor, " hidden"]]],
        head: Float[Tensor, "actions hidden"],
        head_bias: Float[Tensor, " actions"],
    ) -> None:
        self.layers = [RowProducts(weight, bias) for weight, bias in layers]
        self._head = RowProducts(head, head_bias)

    def padded(self, num_rows: int) -> int:
        """Return how many rows to fill up to."""
        return max(product.padded(num_rows) for product in [*self.layers, self._head])

    def logits(self, pre: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch actions"]:
        """Return the logits of all actions from sums of embeddings."""
        num_rows = pre.shape[0]
        hidden = pre.new_empty(self.padded(num_rows), pre.shape[1])
        torch.clamp_min(pre, 0.0, out=hidden[:num_rows])
        # Rows that only fill a block up must not be anything that slows a product down.
        hidden[num_rows:].zero_()
        layer = torch.empty_like(hidden)
        for product in self.layers:
            product.into(layer, hidden)
            hidden.add_(layer.relu_())
        logits = hidden.new_empty(hidden.shape[0], self._head.outputs)
        self._head.into(logits, hidden)
        return logits[:num_rows]
