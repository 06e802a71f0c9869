"""Matrix products in which a row gets the same numbers whatever rows are beside it.

A product rounds differently for another number of rows, because another inner loop is chosen for it. In blocks of one
size it does not (`sub_batches`). Larger blocks are faster and smaller ones waste less on a few rows, so here the sizes
are used that give, on this machine, the very numbers of the standard block: which they are is tried out once for each
shape of weights. The order in which a product adds does not depend on what it adds, so that random numbers show any
difference.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from gfnmc.core.draws import normal
from gfnmc.policies.sub_batches import SUB_BATCH

_SIZES = (512, 256, 128, 32, 16)
_TRIAL_ROWS = 2 * max(_SIZES)


class RowProducts:
    """The products of rows with one matrix of weights.

    Args:
        weight: The matrix, as `torch.nn.functional.linear` takes it.
        bias: What is added.

    Attributes:
        outputs: Width of a product.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None:
        self._weight = weight.detach().t()
        self._bias = bias.detach()
        self.outputs, inputs = weight.shape
        self._sizes = _agreeing_sizes(inputs, self.outputs, weight.dtype, weight.device, torch.get_num_threads())

    def into(self, out: Float[Tensor, "padded outputs"], rows: Float[Tensor, "padded inputs"]) -> None:
        """Write the products of the rows, as many as `padded` says, into `out`."""
        begun, num_rows = 0, rows.shape[0]
        if num_rows in self._sizes:
            torch.addmm(self._bias, rows, self._weight, out=out)
            return
        for size in self._sizes:
            while begun + size <= num_rows:
                end = begun + size
                torch.addmm(self._bias, rows[begun:end], self._weight, out=out[begun:end])
                begun = end

    def padded(self, num_rows: int) -> int:
        """Return how many rows to fill up to: whole blocks, the last of which may be smaller than the standard one."""
        whole = num_rows // SUB_BATCH * SUB_BATCH
        rest = num_rows - whole
        return whole + min((size for size in (0, *self._sizes) if rest <= size <= SUB_BATCH), default=SUB_BATCH)


@functools.lru_cache(maxsize=256)
def _agreeing_sizes(
    inputs: int, outputs: int, dtype: torch.dtype, device: torch.device, num_threads: int
) -> tuple[int, ...]:
    """Return the sizes of blocks that give the numbers of blocks of `SUB_BATCH` rows, the largest first."""
    rows = normal(0, "trial rows", (_TRIAL_ROWS, inputs), dtype).to(device)
    weight = normal(0, "trial weights", (outputs, inputs), dtype).to(device)
    bias = normal(0, "trial bias", (outputs,), dtype).to(device)

    def products(size: int) -> Tensor:
        return torch.cat([torch.nn.functional.linear(block, weight, bias) for block in rows.split(size)])

    standard = products(SUB_BATCH)
    agreeing = [size for size in _SIZES if torch.equal(products(size), standard)]
    return tuple(sorted({SUB_BATCH, *agreeing}, reverse=True))
