"""Split R-hat of scalars while chains run, from sums alone: no draw is kept.

Draws are summed up in blocks. When there are many blocks, neighbours are joined and blocks are twice as long from then
on, so that a point half way through the draws so far is always the border of two blocks, or close to one:

    R-hat^2 = (W (n - 1) / n + V) / W,

with W the mean variance within half chains of n draws, and V the variance of their means. It is not rank-normalised:
that needs all draws at once.

Reference: Gelman et al. 2013, Bayesian Data Analysis, section 11.4.
"""

import numpy as np
from jaxtyping import Float64

_MOST_BLOCKS = 64


class RunningRHat:
    """Sums of some scalars over the draws of some chains."""

    def __init__(self, num_scalars: int, num_chains: int) -> None:
        shape = (num_scalars, num_chains)
        self._origin: Float64[np.ndarray, "scalars chains"] | None = None
        # Sums of draws and of their squares, block by block; the last one is being filled.
        self._sums = np.zeros((_MOST_BLOCKS, 2, *shape))
        self._block = 0
        self._in_block = 0
        self._block_size = 1

    def add(self, values: Float64[np.ndarray, "scalars chains"]) -> None:
        """Add a draw of every chain."""
        if self._origin is None:
            # Squares of numbers far from zero would lose their difference.
            self._origin = values.copy()
        moved = values - self._origin
        self._sums[self._block, 0] += moved
        self._sums[self._block, 1] += moved * moved
        self._in_block += 1
        if self._in_block == self._block_size:
            self._block, self._in_block = self._block + 1, 0
        if self._block == _MOST_BLOCKS:
            self._join()

    @property
    def num_used(self) -> int:
        """How many draws of each chain, from the first one on, the R-hat is made of; an even number."""
        return 2 * (self._block // 2) * self._block_size

    def r_hat(self) -> Float64[np.ndarray, " scalars"]:
        """Return the split R-hat of each scalar.

        Returns:
            NaN where a scalar never moved, inf where it moved in no half chain but differs between them; NaN for all
            before there are four draws.
        """
        half, num_draws = self._block // 2, self.num_used // 2
        if self._origin is None or num_draws < 2:
            return np.full(self._sums.shape[2], np.nan)
        halves = np.stack([self._sums[:half].sum(0), self._sums[half : 2 * half].sum(0)])
        means = halves[:, 0] / num_draws
        within = (halves[:, 1] - num_draws * means**2).clip(min=0.0) / (num_draws - 1)
        between = np.concatenate(means + self._origin, axis=1).var(axis=1, ddof=1)
        # Two halves of each chain.
        within = np.concatenate(within, axis=1).mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt((within * (num_draws - 1) / num_draws + between) / within)

    def _join(self) -> None:
        """Join neighbouring blocks."""
        half = _MOST_BLOCKS // 2
        self._sums[:half] = self._sums[0::2] + self._sums[1::2]
        self._sums[half:] = 0.0
        self._block, self._block_size = half, 2 * self._block_size
