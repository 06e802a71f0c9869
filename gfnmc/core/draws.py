"""The one door for random numbers.

Every random decision of the package is asked of a `Draws`: "choose an action by these log-probabilities",
never "give me a uniform". Numbers are keyed by (seed, role, tile, step) and consumed in fixed shapes, so the
same seed repeats a run whatever the number of chains beside a chain, the blocks or the worker; and the
exactness tests can put an enumerator in this place and follow every decision to its end.

A *tile* is a fixed group of rows with a stream of its own; a *role* names what a number decides ("forward",
"accept"), so that a walk that takes longer in one tile moves nothing in another.

Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (the Philox generator).
"""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.coins import Coins, FewLaws, KeyedCoins
from gfnmc.core.errors import OptionError, PolicyError

TILE = 256
# Rows have lower tiles, so decisions that all rows share have a stream of their own.
_SHARED_TILE = 2**64 - 1


class Draws(ABC):
    """Random decisions for a batch of rows, one decision a row at a time.

    `active` marks the rows that really decide. The others get 0 (or False); their numbers are spent all the
    same, so that a row's numbers never depend on its neighbours.
    """

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Rows that a decision is made for."""

    @abstractmethod
    def role(self, name: str) -> "Draws":
        """Return the independent stream that decides `name` at the same step."""

    @abstractmethod
    def categorical(
        self, log_probs: Float64[Tensor, "... n"], active: Bool[Tensor, " rows"] | None = None
    ) -> Int[Tensor, " rows"]:
        """Choose an index a row.

        Args:
            log_probs: Normalised log-probabilities in nats, `(rows, n)`, or `(n,)` for one law that all rows
                share. An index with log-probability -inf is never drawn.
            active: Rows that decide. Rows that do not may hold anything, even no allowed index.

        Raises:
            PolicyError: If a row that decides has no index of positive probability, or NaN.
        """

    @abstractmethod
    def bernoulli(
        self, log_probs: Float64[Tensor, " rows"], active: Bool[Tensor, " rows"] | None = None
    ) -> Bool[Tensor, " rows"]:
        """Return True with probability `exp(log_probs)`; 0 nats is always True, -inf never."""

    @abstractmethod
    def integers(
        self, highs: Int[Tensor, " rows"], active: Bool[Tensor, " rows"] | None = None
    ) -> Int[Tensor, " rows"]:
        """Return an integer a row, uniform over 0 ... high - 1."""

    @abstractmethod
    def permutation(self, length: int) -> Int[Tensor, "rows length"]:
        """Return a uniformly drawn order of 0 ... length - 1 for each row."""

    @abstractmethod
    def shared_categorical(self, log_probs: Float64[Tensor, " n"]) -> int:
        """Choose one index for all rows together.

        Legal only where each choice alone leaves the target invariant: then the rows stay independent.
        """

    def coins(self, laws: FewLaws, times: int) -> Coins:
        """Return up to `times` decisions a row, each by one of a few laws that is named when its turn comes."""
        return _PlainCoins(self, laws)

    def repeated(self, times: int) -> "Draws":
        """Return decisions for `times` rows in the place of each; row i * times + j belongs to row i.

        They do not depend on the other rows of the batch either.

        Raises:
            OptionError: If `times` is below 1.
        """
        return RepeatedDraws(self, times)


class RepeatedDraws(Draws):
    """Several rows in the place of each row of other draws, which decide for them one after the other.

    Args:
        draws: What decides.
        times: Rows in the place of each.

    Raises:
        OptionError: If `times` is below 1.
    """

    def __init__(self, draws: Draws, times: int) -> None:
        self._draws = draws
        self._times = _checked_times(times)

    @property
    def num_rows(self) -> int:
        return self._draws.num_rows * self._times

    def role(self, name: str) -> "RepeatedDraws":
        return RepeatedDraws(self._draws.role(name), self._times)

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        laws = [log_probs] * self._times if log_probs.dim() == 1 else self._apart(log_probs)
        return self._together(map(self._draws.categorical, laws, self._apart(active)))

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._together(map(self._draws.bernoulli, self._apart(log_probs), self._apart(active)))

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._together(map(self._draws.integers, self._apart(highs), self._apart(active)))

    def permutation(self, length: int) -> Tensor:
        return self._together(self._draws.permutation(length) for _ in range(self._times))

    def shared_categorical(self, log_probs: Tensor) -> int:
        return self._draws.shared_categorical(log_probs)

    def _apart(self, values: Tensor | None) -> Sequence[Tensor | Any]:
        """Return the first of the rows in each place, the second and so on."""
        return [None] * self._times if values is None else values.unflatten(0, (-1, self._times)).unbind(1)

    @staticmethod
    def _together(decisions: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(decisions), 1).flatten(0, 1)


class _PlainCoins(Coins):
    """Coins of any draws, thrown one after the other."""

    def __init__(self, draws: Draws, laws: FewLaws) -> None:
        self._draws = draws
        self._laws = laws

    def decide(self, which: NDArray[np.integer]) -> NDArray[np.bool_]:
        log_probs = self._laws.log_probs[torch.from_numpy(which.astype(np.int64))]
        return torch.stack([self._draws.bernoulli(laws) for laws in log_probs]).numpy()


class PhiloxDraws(Draws):
    """Counter-based random numbers from NumPy's Philox generator.

    Args:
        seed: Any integer; one seed names a whole run.
        role: What the numbers decide; `role(name)` extends it.
        num_rows: Rows of the batch.
        step: Step of the run; `at(step)` moves.
        device: Where the decisions are wanted.
        tile: Rows that share a stream; a multiple of the rows that must stay together.
    """

    def __init__(
        self,
        seed: int,
        role: str,
        num_rows: int,
        step: int = 0,
        device: torch.device | str = "cpu",
        *,
        tile: int = TILE,
    ) -> None:
        self.seed = int(seed)
        self._role = role
        self._num_rows = num_rows
        self._step = step
        self._device = device
        self._tile = tile
        self._generators: list[np.random.Generator] = []
        self._shared: np.random.Generator | None = None
        self._buffer: Tensor = torch.empty(0)
        self._next = 0

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def at(self, step: int) -> "PhiloxDraws":
        """Return the numbers of another step of the same run."""
        return PhiloxDraws(self.seed, self._role, self._num_rows, step, self._device, tile=self._tile)

    def role(self, name: str) -> "PhiloxDraws":
        role = f"{self._role}/{name}"
        return PhiloxDraws(self.seed, role, self._num_rows, self._step, self._device, tile=self._tile)

    def repeated(self, times: int) -> "PhiloxDraws":
        # A tile holds as many of the old rows as before, so which stream a row reads, and where, is its own affair.
        role, tile = f"{self._role}*{_checked_times(times)}", self._tile * times
        return PhiloxDraws(self.seed, role, self._num_rows * times, self._step, self._device, tile=tile)

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        cdf = log_probs.exp().cumsum(-1)
        # Strictly below the total, because u <= 1 - 2^-53; so the first entry above it exists and carries
        # probability: an entry of probability zero equals its predecessor and is never the first.
        threshold = self._uniforms() * cdf[..., -1]
        if cdf.dim() == 1:
            chosen = torch.searchsorted(cdf, threshold, right=True)
        else:
            chosen = torch.searchsorted(cdf, threshold[:, None], right=True)[:, 0]
        chosen = chosen if active is None else torch.where(active, chosen, 0)
        if (chosen == log_probs.shape[-1]).any():
            row = int((chosen == log_probs.shape[-1]).nonzero()[0, 0])
            law = log_probs if log_probs.dim() == 1 else log_probs[row]
            raise PolicyError(
                f"row {row} has nothing to choose from: its log-probabilities are {law.tolist()}; a mask allows no "
                "action, or weights are not finite"
            )
        return chosen

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        chosen = self._uniforms() < log_probs.exp()
        return chosen if active is None else chosen & active

    def coins(self, laws: FewLaws, times: int) -> KeyedCoins:
        return KeyedCoins(laws, times, self._num_rows, f"{self.seed}/{self._role}|coins/{self._step}")

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        chosen = (self._uniforms() * highs).to(torch.int64)
        return chosen if active is None else torch.where(active, chosen, 0)

    def permutation(self, length: int) -> Tensor:
        if length == 0:
            return torch.zeros(self._num_rows, 0, dtype=torch.int64, device=self._device)
        return torch.stack([self._uniforms() for _ in range(length)], dim=-1).argsort(-1)

    def shared_categorical(self, log_probs: Tensor) -> int:
        if self._shared is None:
            self._shared = _generator(_key(self.seed, self._role), self._step, tile=_SHARED_TILE)
        cdf = log_probs.exp().cumsum(-1)
        return int(torch.searchsorted(cdf, self._shared.random() * cdf[-1], right=True))

    def _uniforms(self) -> Float64[Tensor, " rows"]:
        """Return one number in [0, 1) a row, from each tile's own stream."""
        if self._next == self._buffer.shape[0]:
            self._refill()
        self._next += 1
        return self._buffer[self._next - 1]

    def _refill(self) -> None:
        """Read on in every tile's stream, in blocks that double: a short role wastes nothing."""
        num_tiles = -(-self._num_rows // self._tile)
        if not self._generators:
            key = _key(self.seed, self._role)
            self._generators = [_generator(key, self._step, tile) for tile in range(num_tiles)]
        size = max(1, min(2 * self._buffer.shape[0], 64))
        block = np.empty((num_tiles, size, self._tile))
        for generator, rows in zip(self._generators, block, strict=True):
            generator.random(out=rows)
        rows = torch.from_numpy(block.transpose(1, 0, 2).reshape(size, -1)[:, : self._num_rows])
        self._buffer = rows.to(self._device)
        self._next = 0


def normal(seed: int, role: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers of any shape, for initial weights."""
    return torch.from_numpy(_generator(_key(seed, role), 0, 0).standard_normal(shape)).to(dtype)


def _checked_times(times: int) -> int:
    if times < 1:
        raise OptionError(f"draws repeated {times} times decide for nobody; repeat them once at least")
    return times


@functools.lru_cache(maxsize=1024)
def _key(seed: int, role: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{role}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _generator(key: tuple[int, int], step: int, tile: int) -> np.random.Generator:
    # Philox counts in its lowest word, so (step, tile) in the highest two gives streams that never meet.
    counter = np.array([0, 0, step, tile], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=np.array(key, dtype=np.uint64)))
