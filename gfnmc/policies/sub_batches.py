"""Row-wise arithmetic in blocks of one size, so that a row's numbers do not depend on the rows beside it.

A matrix product rounds differently for another number of rows. A frozen policy must give a state the same numbers in
any batch (docs/explanation/architecture.md, "Numbers"), so it computes in blocks that always have the same shape.
"""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

SUB_BATCH = 64
"""Rows of a block."""


def in_sub_batches(
    fn: Callable[..., Tensor], size: int | None, *rows: Shaped[Tensor, "batch ..."]
) -> Shaped[Tensor, "batch ..."]:
    """Apply a row-wise function in blocks of `size` rows; to all rows at once where `size` is None.

    Args:
        fn: Takes as many tensors as are given and returns one, a row for each row.
        size: Rows of a block. The last one is filled up with copies of the first row.
        rows: What `fn` takes.
    """
    if size is None:
        return fn(*rows)
    batch = rows[0].shape[0]
    short = -batch % size
    filled = [torch.cat([row, row[:1].expand(short, *row.shape[1:])]) if short else row for row in rows]
    blocks = zip(*(row.split(size) for row in filled), strict=True)
    return torch.cat([fn(*block) for block in blocks])[:batch]
