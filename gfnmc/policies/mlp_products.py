"""The matrix products of an MLP policy as walks want them: without gradients, and the same for a row in any batch."""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gfnmc.policies.row_products import RowProducts

_BLOCK = 256
"""Rows that are computed together: they fit into a cache."""


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
        self._padded = functools.lru_cache(maxsize=1024)(self._num_padded)

    def logits(self, pre: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch actions"]:
        """Return the logits of all actions from sums of embeddings."""
        num_rows, width = pre.shape
        num_padded = self._padded(num_rows)
        logits = pre.new_empty(num_padded, self._head.outputs)
        most = min(num_padded, _BLOCK)
        # Zeros: rows that only fill a block up must not be anything that slows a product down.
        hidden, layer = pre.new_zeros(most, width), pre.new_empty(most, width)
        for first in range(0, num_rows, _BLOCK):
            size, count = min(num_padded - first, most), min(num_rows - first, most)
            out = logits if size == num_padded else logits[first : first + size]
            if size < most:
                hidden, layer = hidden[:size], layer[:size]
            if count == num_rows == size:
                torch.clamp_min(pre, 0.0, out=hidden)
            else:
                torch.clamp_min(pre[first : first + count], 0.0, out=hidden[:count])
            for product in self.layers:
                product.into(layer, hidden)
                hidden.add_(layer.relu_())
            self._head.into(out, hidden)
        return logits if num_padded == num_rows else logits[:num_rows]

    def _num_padded(self, num_rows: int) -> int:
        return max(product.padded(num_rows) for product in [*self.layers, self._head])
