"""How log Z depends on the condition of a family of targets.

    log Z(c) = log Z_0 + a.c + u.tanh(W c + b)

The pair holds log Z_0; this module is the rest.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.policies.weights import InitialWeights


class LogPartition(torch.nn.Module):
    """A small float64 network from conditions to nats.

    Args:
        num_conditions: Numbers in a condition.
        hidden_size: Hidden units.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is below one.
    """

    def __init__(self, num_conditions: int, *, hidden_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        if num_conditions < 1 or hidden_size < 1:
            raise OptionError(f"num_conditions {num_conditions} and hidden_size {hidden_size} must be at least 1")
        self.num_conditions = num_conditions
        self.hidden_size = hidden_size
        weights = InitialWeights(seed, "log_partition", torch.float64)
        self.slope = weights.zeros(num_conditions)
        self.weight = weights.normal("weight", hidden_size, num_conditions, scale=1.0)
        self.bias = weights.normal("bias", hidden_size, scale=1.0)
        self.readout = weights.normal("readout", hidden_size, scale=0.1 * hidden_size**-0.5)

    def options(self) -> dict[str, int]:
        """Return what the constructor takes, so that the network can be saved."""
        return {"num_conditions": self.num_conditions, "hidden_size": self.hidden_size}

    def forward(self, condition: Float[Tensor, "*batch conditions"]) -> Float64[Tensor, "*batch"]:
        """Return what each condition adds to log Z, nats."""
        condition = condition.to(self.weight)
        hidden = torch.tanh(torch.nn.functional.linear(condition, self.weight, self.bias))
        return condition @ self.slope + hidden @ self.readout
