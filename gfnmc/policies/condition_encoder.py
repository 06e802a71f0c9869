"""What a condition adds to a network's first layer.

    part(c) = tanh(W c + b) V

The tanh bounds it, whatever the condition, which a frozen policy needs to choose its grid (`mlp`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gfnmc.policies.weights import InitialWeights

_NUM_FEATURES = 32


class ConditionEncoder(torch.nn.Module):
    """A small network from conditions to vectors of a network's width. Conditions should be of order one.

    Args:
        num_conditions: Numbers in a condition.
        width: Numbers it becomes.
        weights: Names the initial weights.
    """

    def __init__(self, num_conditions: int, width: int, weights: InitialWeights) -> None:
        super().__init__()
        self.weight = weights.normal("condition_weight", _NUM_FEATURES, num_conditions, scale=1.0)
        # Spread, or all features would be odd functions of the condition.
        self.bias = weights.normal("condition_bias", _NUM_FEATURES, scale=1.0)
        self.readout = weights.normal("condition_readout", _NUM_FEATURES, width, scale=_NUM_FEATURES**-0.5)

    def forward(self, condition: Float[Tensor, "rows conditions"]) -> Float[Tensor, "rows width"]:
        """Return what each condition adds."""
        features = torch.tanh(torch.nn.functional.linear(condition.to(self.weight), self.weight, self.bias))
        return features @ self.readout

    @property
    def bound(self) -> float:
        """The largest absolute value that any condition can add."""
        return float(self.readout.detach().abs().sum(0).max())
