"""Many decisions by a few laws, from 16 random bits each.

With 2^16 p = H + q, H whole and q below 1, a number h of 16 random bits says

    yes if h < H;    no if H <= h < 2^16 - 1;    if h = 2^16 - 1, yes with probability q,

which is yes with probability p, exactly. One decision in 65,536 is left open, whatever the law, and takes more bits.
Where a law is one of a few, H stands in a table, and is looked up for two decisions at once.

The h come from NumPy's SFC64, which takes half the time of Philox; more bits come from a hash. Both are keyed by seed,
role and step. Rows are in groups of fixed places, each with a stream of its own, so that a row decides the same
whatever stands beside it.

Reference: Chris Doty-Humphrey, PractRand, for the generator (http://pracrand.sourceforge.net).
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.errors import OptionError

GROUP_ENDS = (64, 256)
"""Where the first groups of rows end; all others have 256 rows."""

_OPEN = 2**16 - 1
_ROWS_OF_A_WORD = 4
# 2^16 p of a number of 53 bits leaves 37 bits behind the point.
_OPEN_BITS = 37
# Tables for two decisions at once are made for as many laws as a byte can name.
_MOST_PAIRED = 256


class FewLaws:
    """A few probabilities, made ready to decide by; to make one takes longer than to decide by it.

    Attributes:
        log_probs: Their logarithms, nats.

    Args:
        log_probs: Log-probabilities of True, nats.
    """

    def __init__(self, log_probs: Float64[Tensor, " laws"]) -> None:
        self.log_probs = log_probs
        # As where a uniform number of 53 bits is compared with p: as many of these numbers are below it.
        number = np.ceil(log_probs.exp().numpy() * 2.0**53).astype(np.int64)
        thresholds = np.minimum(number >> _OPEN_BITS, _OPEN)
        self._thresholds = thresholds.astype(np.uint16)
        self._left_open = number - (thresholds << _OPEN_BITS)
        self._pairs: NDArray[np.uint32] | None = None
        if len(thresholds) <= _MOST_PAIRED:
            # In the place 256 b + a those of the laws a and b.
            table = np.zeros((_MOST_PAIRED, _MOST_PAIRED, 2), dtype=np.uint16)
            table[:, : len(thresholds), 0] = thresholds
            table[: len(thresholds), :, 1] = thresholds[:, None]
            self._pairs = table.view(np.uint32).ravel()

    def thresholds(self, which: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Return H of the law of each decision."""
        if self._pairs is None or which.dtype != np.uint8 or which.shape[-1] % 2 or not which.flags.c_contiguous:
            return self._thresholds.take(which)
        # Every pair of bytes is in the table, and clipping is quicker than looking whether it is.
        return self._pairs.take(which.view("<u2"), mode="clip").view(np.uint16)

    def is_yes(self, law: int, number: int) -> bool:
        """Return what a number of 37 random bits makes of a decision that was left open."""
        return number < int(self._left_open[law])


class Coins(ABC):
    """Decisions of the rows of some draws, each by one of a few laws that is named when its turn comes.

    They are NumPy arrays, because on bytes NumPy is quicker than torch.
    """

    @abstractmethod
    def decide(self, which: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return the next decisions of every row.

        Args:
            which: The law of each, `(times, rows)`; uint8 is quickest.

        Raises:
            OptionError: If a row would take more decisions than were ordered.
        """


class KeyedCoins(Coins):
    """Coins whose every throw has a name.

    Args:
        laws: Decide.
        times: Most decisions of a row.
        num_rows: Rows that decide.
        name: Names the streams: seed, role and step.
    """

    def __init__(self, laws: FewLaws, times: int, num_rows: int, name: str) -> None:
        self._laws = laws
        self._name = name
        self._bits = _bits(name, times, num_rows)
        self._open = list(_open_places(self._bits))
        self._next = 0

    def decide(self, which: NDArray[np.integer]) -> NDArray[np.bool_]:
        begun, self._next = self._next, self._next + len(which)
        if self._next > len(self._bits):
            raise OptionError(f"{len(self._bits)} decisions a row were ordered, and {self._next} asked for; order more")
        decided = self._bits[begun : self._next] < self._laws.thresholds(which)
        while self._open and self._open[0][0] < self._next:
            time, row = self._open.pop(0)
            law = int(which[time - begun, row])
            decided[time - begun, row] = self._laws.is_yes(law, _open_bits(self._name, time, row))
        return decided


class RowCoins(Coins):
    """Coins of some rows of a batch, which fall as they would beside all others.

    Args:
        coins: Those of the whole batch.
        num_rows: Its rows.
        rows: Which of them decide, distinct.
    """

    def __init__(self, coins: Coins, num_rows: int, rows: NDArray[np.int64]) -> None:
        self._coins = coins
        self._num_rows = num_rows
        self._rows = rows

    def decide(self, which: NDArray[np.integer]) -> NDArray[np.bool_]:
        spread = np.zeros((len(which), self._num_rows), dtype=which.dtype)
        spread[:, self._rows] = which
        return self._coins.decide(spread)[:, self._rows]


def _bits(name: str, times: int, num_rows: int) -> NDArray[np.uint16]:
    """Return 16 bits a decision, `(times, num_rows)`."""
    groups = []
    for first, end in _groups(num_rows):
        words = _GENERATOR.words(f"{name}/{first}", times * (end - first) // _ROWS_OF_A_WORD)
        groups.append(words.astype("<u8", copy=False).view("<u2").reshape(times, -1)[:, : num_rows - first])
    return groups[0] if len(groups) == 1 else np.concatenate(groups, 1)


def _open_bits(name: str, time: int, row: int) -> int:
    digest = hashlib.blake2b(f"{name}/open/{time}/{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - _OPEN_BITS)


def _groups(num_rows: int) -> Iterator[tuple[int, int]]:
    """Yield where each group begins and ends that some rows are in."""
    first = 0
    for end in (*GROUP_ENDS, *range(2 * GROUP_ENDS[-1], num_rows + GROUP_ENDS[-1], GROUP_ENDS[-1])):
        if first < num_rows:
            yield first, end
        first = end


def _open_places(bits: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    """Yield time and row of the few decisions that are left open, in their order."""
    # To look for the largest number is quickest.
    flat, begun = bits.ravel(), 0
    while begun < flat.size and flat[place := begun + int(flat[begun:].argmax())] == _OPEN:
        yield divmod(place, bits.shape[1])
        begun = place + 1


class _Generator(threading.local):
    """A generator for each thread, set to the start of any stream; a fresh one takes five times as long."""

    def __init__(self) -> None:
        self._generator = np.random.SFC64()
        self._state = self._generator.state
        # The last of its four words counts, and begins at 1.
        words = np.array([0, 0, 0, 1], dtype="<u8")
        self._state["state"] = {"state": words}
        self._seeded = words.data.cast("B")[:24]

    def words(self, name: str, number: int) -> NDArray[np.uint64]:
        """Return the first words of the stream of a name."""
        self._seeded[:] = hashlib.blake2b(name.encode(), digest_size=24).digest()
        self._generator.state = self._state
        return self._generator.random_raw(number)


_GENERATOR = _Generator()
