"""Initial weights, each named by a seed and what it is for."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.nn import Parameter

from gfnmc.core.draws import normal
from gfnmc.core.errors import OptionError

# How many weights may still be made.
_left: ContextVar[int | None] = ContextVar("weights left", default=None)


@contextmanager
def at_most(num_weights: int) -> Iterator[None]:
    """Refuse networks of more weights than that in a block, before memory is taken for them.

    For descriptions that somebody else may have written. The rest of the thread is not concerned.

    Raises:
        OptionError: If more are asked for.
    """
    token = _left.set(num_weights)
    try:
        yield
    finally:
        _left.reset(token)


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
        _take(shape)
        return Parameter(scale * normal(self._seed, f"weights/{self._role}/{name}", shape, self.dtype))

    def zeros(self, *shape: int) -> Parameter:
        """Return zeros, as biases start."""
        _take(shape)
        return Parameter(torch.zeros(shape, dtype=self.dtype))

    def ones(self, *shape: int) -> Parameter:
        """Return ones, as scales start."""
        _take(shape)
        return Parameter(torch.ones(shape, dtype=self.dtype))


def _take(shape: tuple[int, ...]) -> None:
    left = _left.get()
    if left is None:
        return
    if math.prod(shape) > left:
        raise OptionError(f"weights of shape {shape} are more than the {left:,} that there can be")
    _left.set(left - math.prod(shape))
