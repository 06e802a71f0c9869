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
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.coins import Coins, FewLaws, KeyedCoins, RowCoins
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

    def bernoulli_logits(
        self, logits: Float[Tensor, " rows"], active: Bool[Tensor, " rows"] | None = None
    ) -> Bool[Tensor, " rows"]:
        """Return True with probability 1 / (1 + exp(-logits)); with NaN for a logit, anything."""
        return self.bernoulli(torch.nn.functional.logsigmoid(logits.to(torch.float64)), active)

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

    def for_rows(self, rows: Int64[Tensor, " some"]) -> "Draws":
        """Return the same decisions for some of the rows alone, distinct and in any order.

        The view and these draws decide one after the other: what the one has decided, the other does not decide again.
        """
        return RowDraws(self, rows)

    def ahead(self, num: int, order: Int64[Tensor, " rows"] | None = None) -> "Ahead":
        """Return the next `num` decisions of each row, to be made in any order among them.

        Args:
            num: Decisions; all of them count as made.
            order: The order in which the rows will be asked for, a permutation; theirs by default.
        """
        return StepwiseAhead(self, order)

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


class Ahead(ABC):
    """Some decisions of each row, that may be made in any order; each of them once."""

    @abstractmethod
    def integers(self, places: range, highs: Int64[Tensor, "places rows"]) -> Int64[Tensor, "places rows"]:
        """Return an integer at each of some places, uniform over 0 ... high - 1; 0 where high is 0.

        Args:
            places: Which of the decisions.
            highs: For each of them and each row.
        """

    @abstractmethod
    def categorical(self, place: int, log_probs: Float64[Tensor, "some n"], first: int = 0) -> Int64[Tensor, " some"]:
        """Choose an index for some rows that follow each other.

        Nothing is checked: where a law is no law the index may be any, and its log-probability tells.

        Args:
            place: Which of the decisions.
            log_probs: Normalised log-probabilities in nats.
            first: The first of the rows.
        """

    @abstractmethod
    def bernoulli_logits(self, place: int, logits: Float[Tensor, " some"], first: int = 0) -> Bool[Tensor, " some"]:
        """Return True with probability 1 / (1 + exp(-logits)), for some rows that follow each other."""


class StepwiseAhead(Ahead):
    """Decisions that any draws make at the moment when they are asked for.

    Args:
        draws: What decides.
        order: The rows in the order in which they are asked for; None for their own.
    """

    def __init__(self, draws: Draws, order: Int64[Tensor, " rows"] | None) -> None:
        self._draws = draws
        self._order = torch.arange(draws.num_rows) if order is None else order

    def integers(self, places: range, highs: Tensor) -> Tensor:
        rows = self._draws.for_rows(self._order)
        chosen = torch.zeros_like(highs)
        for place, high in enumerate(highs):
            chosen[place] = rows.integers(high.clamp(min=1), high > 0)
        return chosen

    def categorical(self, place: int, log_probs: Tensor, first: int = 0) -> Tensor:
        return self._some(first, len(log_probs)).categorical(log_probs)

    def bernoulli_logits(self, place: int, logits: Tensor, first: int = 0) -> Tensor:
        return self._some(first, len(logits)).bernoulli_logits(logits)

    def _some(self, first: int, count: int) -> Draws:
        return self._draws.for_rows(self._order[first : first + count])


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

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        law = log_probs if log_probs.dim() == 1 else self._spread(log_probs, 0)
        return self._draws.categorical(law, self._spread_active(active))[self._rows]

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.bernoulli(self._spread(log_probs, 0), self._spread_active(active))[self._rows]

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.bernoulli_logits(self._spread(logits, 0), self._spread_active(active))[self._rows]

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.integers(self._spread(highs, 1), self._spread_active(active))[self._rows]

    def permutation(self, length: int) -> Tensor:
        return self._draws.permutation(length)[self._rows]

    def shared_categorical(self, log_probs: Tensor) -> int:
        return self._draws.shared_categorical(log_probs)

    def coins(self, laws: FewLaws, times: int) -> Coins:
        return RowCoins(self._draws.coins(laws, times), self._draws.num_rows, self._rows.numpy())

    def _spread_active(self, active: Bool[Tensor, " rows"] | None) -> Bool[Tensor, " all"]:
        is_mine = torch.ones_like(self._rows, dtype=torch.bool) if active is None else active
        return self._spread(is_mine, 0)

    def _spread(self, some: Shaped[Tensor, "rows *rest"], elsewhere: int) -> Shaped[Tensor, "all *rest"]:
        spread = some.new_full((self._draws.num_rows, *some.shape[1:]), elsewhere)
        spread[self._rows] = some
        return spread


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

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        return self._together(map(self._draws.bernoulli_logits, self._apart(logits), self._apart(active)))

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


class NumberedDraws(Draws):
    """Draws that decide by a number in [0, 1) for each row, at every decision."""

    @abstractmethod
    def uniforms(self) -> Float64[Tensor, " rows"]:
        """Return the numbers of the next decision."""

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        chosen, threshold, total = _by_cdf(log_probs, self.uniforms())
        _check_laws(log_probs, threshold < total, active)
        return chosen if active is None else torch.where(active, chosen, 0)

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        chosen = self.uniforms() < log_probs.exp()
        return chosen if active is None else chosen & active

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        chosen = logits >= _thresholds(self.uniforms())
        return chosen if active is None else chosen & active

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        chosen = (self.uniforms() * highs).to(torch.int64)
        return chosen if active is None else torch.where(active, chosen, 0)

    def permutation(self, length: int) -> Tensor:
        if length == 0:
            return torch.zeros(self.num_rows, 0, dtype=torch.int64)
        return torch.stack([self.uniforms() for _ in range(length)], dim=-1).argsort(-1)


class PhiloxDraws(NumberedDraws):
    """Counter-based random numbers from NumPy's Philox generator.

    Args:
        seed: Any integer; one seed names a whole run.
        role: What the numbers decide; `role(name)` extends it.
        num_rows: Rows of the batch.
        step: Step of the run; `at(step)` moves.
        device: Where the decisions are wanted.
        tile: Rows that share a stream, a multiple of 4.
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
        self._num_read = 0
        self._num_shared = 0
        self._buffer: Tensor = torch.empty(0, num_rows, dtype=torch.float64)
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

    def for_rows(self, rows: Int64[Tensor, " some"]) -> "PhiloxRows":
        return PhiloxRows(self, rows)

    def ahead(self, num: int, order: Int64[Tensor, " rows"] | None = None) -> "NumberedAhead":
        numbers = self._take(num)
        return NumberedAhead(numbers if order is None else numbers.index_select(1, order))

    def coins(self, laws: FewLaws, times: int) -> KeyedCoins:
        return KeyedCoins(laws, times, self._num_rows, f"{self.seed}/{self._role}|coins/{self._step}")

    def shared_categorical(self, log_probs: Tensor) -> int:
        # A block of 4 a decision: that is what the counter counts.
        numbers = np.empty(4)
        self._numbers(_SHARED_TILE, self._num_shared, numbers)
        self._num_shared += 1
        cdf = log_probs.exp().cumsum(-1)
        return int(torch.searchsorted(cdf, float(numbers[0]) * cdf[-1], right=True))

    def uniforms(self) -> Tensor:
        """Return one number in [0, 1) a row, from each tile's own stream."""
        if self._next == self._buffer.shape[0]:
            # In blocks that double: a short role wastes nothing.
            self._buffer, self._next = self._read(max(1, min(2 * self._buffer.shape[0], 64))), 0
        self._next += 1
        return self._buffer[self._next - 1]

    def _take(self, num: int) -> Float64[Tensor, "num rows"]:
        """Return the numbers of the next decisions."""
        begun = self._buffer[self._next : self._next + num]
        self._next += len(begun)
        if len(begun) == num:
            return begun
        rest = self._read(num - len(begun))
        return torch.cat([begun, rest]) if len(begun) else rest

    def _read(self, num: int) -> Float64[Tensor, "num rows"]:
        """Read on in every tile's stream."""
        num_tiles = -(-self._num_rows // self._tile)
        block = np.empty((num_tiles, num, self._tile))
        for tile, rows in enumerate(block):
            self._numbers(tile, self._num_read * self._tile // 4, rows)
        self._num_read += num
        if num_tiles != 1:
            block = block.transpose(1, 0, 2)
        return torch.from_numpy(block.reshape(num, -1)[:, : self._num_rows]).to(self._device)

    def _numbers(self, tile: int, blocks_read: int, out: np.ndarray) -> None:
        _generator(_key(self.seed, self._role), self._step, tile, blocks_read).random(out=out)


class PhiloxRows(NumberedDraws):
    """Some rows of `PhiloxDraws`.

    Args:
        draws: All rows.
        rows: Which of them decide.
    """

    def __init__(self, draws: PhiloxDraws, rows: Int64[Tensor, " some"]) -> None:
        self._draws = draws
        self._rows = rows

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def role(self, name: str) -> "PhiloxRows":
        return PhiloxRows(self._draws.role(name), self._rows)

    def for_rows(self, rows: Int64[Tensor, " some"]) -> "PhiloxRows":
        return PhiloxRows(self._draws, self._rows[rows])

    def shared_categorical(self, log_probs: Tensor) -> int:
        return self._draws.shared_categorical(log_probs)

    def coins(self, laws: FewLaws, times: int) -> Coins:
        return RowCoins(self._draws.coins(laws, times), self._draws.num_rows, self._rows.numpy())

    def uniforms(self) -> Tensor:
        return self._draws.uniforms().index_select(0, self._rows)


class NumberedAhead(Ahead):
    """Decisions by numbers that are there already.

    Args:
        numbers: In [0, 1), one a decision and row.
    """

    def __init__(self, numbers: Float64[Tensor, "num rows"]) -> None:
        self._numbers = numbers

    @functools.cached_property
    def _numbers_at(self) -> tuple[Float64[Tensor, " rows"], ...]:
        return self._numbers.unbind(0)

    @functools.cached_property
    def _thresholds_at(self) -> tuple[Float64[Tensor, " rows"], ...]:
        return _thresholds(self._numbers).unbind(0)

    def integers(self, places: range, highs: Tensor) -> Tensor:
        return (self._numbers[places.start : places.stop : places.step] * highs).to(torch.int64)

    def categorical(self, place: int, log_probs: Tensor, first: int = 0) -> Tensor:
        return _by_cdf(log_probs, _some(self._numbers_at[place], first, len(log_probs)))[0]

    def bernoulli_logits(self, place: int, logits: Tensor, first: int = 0) -> Tensor:
        return logits >= _some(self._thresholds_at[place], first, len(logits))


def normal(seed: int, role: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers of any shape, for initial weights."""
    return torch.from_numpy(_generator(_key(seed, role), 0, 0, 0).standard_normal(shape)).to(dtype)


def _by_cdf(
    log_probs: Float64[Tensor, "*rows n"], numbers: Float64[Tensor, " rows"]
) -> tuple[Int64[Tensor, " rows"], Float64[Tensor, " rows"], Float64[Tensor, " *laws"]]:
    """Return the index that each number falls on, how far it goes along the weights, and what they add up to.

    It goes less far than that wherever there is a law, since u <= 1 - 2^-53: so the first entry of the cumulated
    weights above it exists and carries probability, for an entry of probability zero equals its predecessor.
    """
    weights = log_probs.exp()
    cdf = weights.cumsum(-1)
    threshold = numbers * cdf[..., -1]
    if cdf.dim() == 1:
        return torch.searchsorted(cdf, threshold, right=True), threshold, cdf[-1]
    return torch.searchsorted(cdf, threshold[:, None], right=True)[:, 0], threshold, cdf[:, -1]


def _thresholds(numbers: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return the logits from which on the numbers mean True: sigmoid(logit) >= 1 - u."""
    return -torch.logit(numbers)


def _some(numbers: Float64[Tensor, " rows"], first: int, count: int) -> Float64[Tensor, " count"]:
    return numbers if count == len(numbers) else numbers[first : first + count]


def _check_laws(
    log_probs: Float64[Tensor, "*rows n"], is_law: Bool[Tensor, " rows"], active: Bool[Tensor, " rows"] | None
) -> None:
    """Refuse to choose from nothing.

    Raises:
        PolicyError: If the weights of a law add up to zero or to NaN, in a row that decides.
    """
    if bool(is_law.all()):
        return
    if active is not None:
        is_law = is_law | ~active
    if not bool(is_law.all()):
        row = int((~is_law).nonzero()[0, 0])
        law = log_probs if log_probs.dim() == 1 else log_probs[row]
        raise PolicyError(
            f"row {row} has nothing to choose from: its log-probabilities are {law.tolist()}; a mask allows no "
            "action, or weights are not finite"
        )


def _checked_times(times: int) -> int:
    if times < 1:
        raise OptionError(f"draws repeated {times} times decide for nobody; repeat them once at least")
    return times


@functools.lru_cache(maxsize=1024)
def _key(seed: int, role: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{role}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class _Generators(threading.local):
    """A generator a thread: setting its state takes a tenth of the time that making a new one takes."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(0)
        self.generator = np.random.Generator(self.philox)


_GENERATORS = _Generators()


def _generator(key: tuple[int, int], step: int, tile: int, blocks_read: int) -> np.random.Generator:
    """Return the thread's generator at some place of a stream; it is good until the next call."""
    # Philox counts blocks of 4 numbers in its lowest word, so (step, tile) in the highest two gives streams that
    # never meet.
    _GENERATORS.philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([blocks_read, 0, step, tile], dtype=np.uint64),
            "key": np.array(key, dtype=np.uint64),
        },
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _GENERATORS.generator
