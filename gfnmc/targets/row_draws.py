"""Some rows of a batch's random decisions, so that an object's numbers do not depend on which others are evaluated."""

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.coins import Coins, FewLaws
from gfnmc.core.draws import Draws


class RowDraws(Draws):
    """The decisions of some rows of a batch; each row gets the numbers that it would get beside all others.

    Args:
        draws: The decisions of the whole batch.
        rows: Which rows decide, distinct.
    """

    def __init__(self, draws: Draws, rows: Int64[Tensor, " some"]) -> None:
        self._draws = draws
        self._rows = rows

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def role(self, name: str) -> "RowDraws":
        return RowDraws(self._draws.role(name), self._rows)

    def categorical(
        self, log_probs: Float64[Tensor, "... n"], active: Bool[Tensor, " rows"] | None = None
    ) -> Int[Tensor, " rows"]:
        law = log_probs if log_probs.dim() == 1 else self._spread(log_probs, 0)
        return self._draws.categorical(law, self._spread_active(active))[self._rows]

    def bernoulli(
        self, log_probs: Float64[Tensor, " rows"], active: Bool[Tensor, " rows"] | None = None
    ) -> Bool[Tensor, " rows"]:
        return self._draws.bernoulli(self._spread(log_probs, 0), self._spread_active(active))[self._rows]

    def integers(
        self, highs: Int[Tensor, " rows"], active: Bool[Tensor, " rows"] | None = None
    ) -> Int[Tensor, " rows"]:
        return self._draws.integers(self._spread(highs, 1), self._spread_active(active))[self._rows]

    def permutation(self, length: int) -> Int[Tensor, "rows length"]:
        return self._draws.permutation(length)[self._rows]

    def shared_categorical(self, log_probs: Float64[Tensor, " n"]) -> int:
        return self._draws.shared_categorical(log_probs)

    def coins(self, laws: FewLaws, times: int) -> Coins:
        return _RowCoins(self._draws.coins(laws, times), self._draws.num_rows, self._rows.cpu().numpy())

    def _spread_active(self, active: Bool[Tensor, " rows"] | None) -> Bool[Tensor, " all"]:
        is_mine = torch.ones_like(self._rows, dtype=torch.bool) if active is None else active
        return self._spread(is_mine, 0)

    def _spread(self, some: Shaped[Tensor, "rows *rest"], elsewhere: int) -> Shaped[Tensor, "all *rest"]:
        spread = some.new_full((self._draws.num_rows, *some.shape[1:]), elsewhere)
        spread[self._rows] = some
        return spread


class _RowCoins(Coins):
    def __init__(self, coins: Coins, num_rows: int, rows: NDArray[np.int64]) -> None:
        self._coins = coins
        self._num_rows = num_rows
        self._rows = rows

    def decide(self, which: NDArray[np.integer]) -> NDArray[np.bool_]:
        spread = np.zeros((len(which), self._num_rows), dtype=which.dtype)
        spread[:, self._rows] = which
        return self._coins.decide(spread)[:, self._rows]
