"""Find rows of integers in a table of rows, a batch at a time."""

import math

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError


class RowIndex:
    """An index over distinct rows of small integers, by mixed-radix codes.

    Args:
        rows: Distinct rows, any integer dtype; trailing dimensions are flattened.

    Raises:
        CapabilityError: If the rows span a space too large for 63-bit codes.
    """

    def __init__(self, rows: Shaped[Tensor, "n *row"]) -> None:
        flat = rows.flatten(1).to(torch.int64)
        self._low, self._high = flat.amin(0), flat.amax(0)
        # Python integers: a range of all of int64 would overflow.
        sizes = [high - low + 1 for low, high in zip(self._low.tolist(), self._high.tolist(), strict=True)]
        if math.prod(sizes) >= 2**63:
            raise CapabilityError(f"rows of {len(sizes)} coordinates span too large a space to index")
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        self._stride = torch.tensor(strides, dtype=torch.int64, device=flat.device)
        self._codes, self._order = self._encode(flat).sort()

    def find(self, rows: Shaped[Tensor, "batch *row"]) -> Int64[Tensor, " batch"]:
        """Return the place of each row in the table, -1 where it is not there."""
        flat = rows.flatten(1).to(torch.int64)
        codes = self._encode(flat)
        place = torch.searchsorted(self._codes, codes).clamp(max=len(self._codes) - 1)
        inside = ((flat >= self._low) & (flat <= self._high)).all(-1)
        return torch.where(inside & (self._codes[place] == codes), self._order[place], -1)

    def _encode(self, flat: Tensor) -> Tensor:
        return ((flat - self._low) * self._stride).sum(-1)
