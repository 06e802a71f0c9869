"""Initial weights, each named by a seed and what it is for."""

import torch
from torch.nn import Parameter

from gfnmc.core.draws import normal


class InitialWeights:
    """Normal initial weights of one network; the same seed and name give the same numbers.

    Args:
        seed: Names the network.
        role: Which of the networks of that seed, such as "forward".
        dtype: Dtype of the weights.
    """

    def __init__(self, seed: int, role: str, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._seed = seed
        self._role = role

    def normal(self, name: str, *shape: int, scale: float) -> Parameter:
        """Return normal numbers times `scale`."""
        return Parameter(scale * normal(self._seed, f"weights/{self._role}/{name}", shape, self.dtype))

    def zeros(self, *shape: int) -> Parameter:
        """Return zeros, as biases start."""
        return Parameter(torch.zeros(shape, dtype=self.dtype))

    def ones(self, *shape: int) -> Parameter:
        """Return ones, as scales start."""
        return Parameter(torch.ones(shape, dtype=self.dtype))
