"""Gradients of the hidden layers of an MLP policy, added up over blocks of states whose layers are computed anew.

Autograd would keep every layer of every state until its backward pass. Computing them again takes one product more with
each matrix, and room for some hundred states instead of all.

Reference: Griewank and Walther 2000, "Algorithm 799: revolve", for recomputing instead of storing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 256
"""States whose layers are computed together: they fit into a cache."""


class Layers(NamedTuple):
    """What the layers make of some states.

    Attributes:
        hidden: What each layer is given, and what the last one gives.
        rises: What each of them adds.
    """

    hidden: list[Float[Tensor, "states hidden"]]
    rises: list[Float[Tensor, "states hidden"]]


class LayerGradients:
    """The gradients of weights and biases of the hidden layers.

    Args:
        layers: Weight and bias of each layer, one after the other.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        self._layers = list(zip(layers[::2], layers[1::2], strict=True))
        self._sums = [(torch.zeros_like(weight), torch.zeros_like(bias)) for weight, bias in self._layers]

    def forward(self, pre: Float[Tensor, "states hidden"]) -> Layers:
        """Compute the layers of some states from their sums of embeddings."""
        hidden, rises = [pre.relu()], []
        for weight, bias in self._layers:
            rises.append(torch.nn.functional.linear(hidden[-1], weight, bias).relu_())
            hidden.append(hidden[-1] + rises[-1])
        return Layers(hidden, rises)

    def backward(self, gradient: Float[Tensor, "states hidden"], layers: Layers) -> Float[Tensor, "states hidden"]:
        """Add what the states contribute, and return the gradient of their sums of embeddings.

        Args:
            gradient: That of what the last layer gives; it is overwritten.
            layers: What `forward` returned.
        """
        parts = zip(self._layers, self._sums, layers.hidden[:-1], layers.rises, strict=True)
        for (weight, _), (of_weight, of_bias), below, rise in reversed(list(parts)):
            of_rise = torch.ops.aten.threshold_backward(gradient, rise, 0.0)
            of_weight.addmm_(of_rise.t(), below)
            of_bias += of_rise.sum(0)
            gradient.addmm_(of_rise, weight)
        return torch.ops.aten.threshold_backward(gradient, layers.hidden[0], 0.0)

    def sums(self) -> tuple[Tensor, ...]:
        """Return the gradients in the order of the weights and biases that were given."""
        return tuple(gradient for layer in self._sums for gradient in layer)
