"""Many decisions from 16 bits each: exactly the law asked for, whatever stands beside a row."""

import hashlib
import math
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core import coins
from gfnmc.core.coins import FewLaws
from gfnmc.core.draws import Draws, PhiloxDraws, RepeatedDraws
from gfnmc.core.errors import OptionError
from gfnmc.testing import enumerate_decisions
from tests.support import chi_square

# Both ends, both sides of a whole number of 2^-16, the least step, and some between.
PROBABILITIES = [0.0, 1.0, 0.5, 2.0**-53, 1.0 - 2.0**-53, 1e-300, 3 / 65536, 65535 / 65536, 0.3, 0.7, 1e-5, 0.99999]
PROBABILITIES += [3 / 65536 + 2.0**-53, 3 / 65536 - 2.0**-53, 65535 / 65536 + 2.0**-53, 65535 / 65536 - 2.0**-53]
LAWS = FewLaws(torch.tensor(PROBABILITIES, dtype=torch.float64).log())
OPEN = 2**16 - 1


def some_laws(times: int, num_rows: int, num_laws: int = len(PROBABILITIES)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, num_laws, (times, num_rows), dtype=np.uint8)


def thrown(num_rows: int, which: np.ndarray, *, seed: int = 5, role: str = "test", step: int = 0) -> np.ndarray:
    return PhiloxDraws(seed, role, num_rows, step).coins(LAWS, len(which)).decide(which)


def test_every_law_says_yes_as_often_as_its_probability() -> None:
    """Of the 2^53 numbers that h and the open bits make, as many as are below p 2^53."""
    probability = LAWS.log_probs.exp().tolist()
    for law, p in enumerate(probability):
        yes = int(LAWS.thresholds(np.array([law]))[0]) * 2**37 + int(LAWS._left_open[law])
        assert yes == math.ceil(p * 2**53)
        assert 0 <= LAWS._left_open[law] <= 2**37


@pytest.mark.parametrize("law", range(len(PROBABILITIES)))
def test_a_decision_is_made_by_h_and_only_the_last_h_is_open(monkeypatch: pytest.MonkeyPatch, law: int) -> None:
    every = np.arange(2**16, dtype=np.uint16)[:, None]
    number = 0

    def open_bits(name: str, time: int, row: int) -> int:
        assert (time, row) == (OPEN, 0)
        return number

    monkeypatch.setattr(coins, "_bits", lambda *args: every)
    monkeypatch.setattr(coins, "_open_bits", open_bits)
    left_open = int(LAWS._left_open[law])
    for number in {0, max(left_open - 1, 0), min(left_open, 2**37 - 1), 2**37 - 1}:
        decided = thrown(1, np.full((2**16, 1), law, dtype=np.uint8))[:, 0]
        assert np.array_equal(decided[:OPEN], np.arange(OPEN) < int(LAWS.thresholds(np.array([law]))[0]))
        assert decided[OPEN] == (number < left_open)


def test_certain_and_impossible_laws_never_fail_in_ten_million() -> None:
    which = np.broadcast_to(np.array([0, 1], dtype=np.uint8), (2_000, 2)).repeat(250, 1)
    for step in range(10):
        decided = thrown(500, np.ascontiguousarray(which), step=step)
        assert not decided[which == 0].any() and decided[which == 1].all()


def test_what_is_left_open_is_decided_by_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    num_times = 20_000
    laws = FewLaws(torch.tensor([(1000 + 0.3) / 65536], dtype=torch.float64).log())
    monkeypatch.setattr(coins, "_bits", lambda *args: np.full((num_times, 1), OPEN, dtype=np.uint16))
    decided = PhiloxDraws(1, "x", 1).coins(laws, num_times).decide(np.zeros((num_times, 1), dtype=np.uint8))
    counts = torch.tensor([int((~decided).sum()), int(decided.sum())])
    for yes, is_right in ((0.3, True), (0.35, False), (1000.3 / 65536, False)):
        statistic, limit = chi_square(counts, [1.0 - yes, yes])
        assert (statistic < limit) == is_right


def test_decisions_follow_their_laws_and_are_independent() -> None:
    laws = FewLaws(torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).log())
    decided = (
        PhiloxDraws(7, "law", 600).coins(laws, 40_000).decide(np.tile(np.arange(3, dtype=np.uint8), (40_000, 200)))
    )
    chances = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]], dtype=torch.float64)
    # Rows of one word, rows of three groups, and one row at three times.
    triples = decided[:, :3], decided[:, [0, 64, 257]], decided[:39_999, 1].reshape(-1, 3)
    for some, (a, b, c) in zip(triples, ((0, 1, 2), (0, 1, 2), (1, 1, 1)), strict=True):
        product = (chances[a][:, None, None] * chances[b][:, None] * chances[c]).flatten()
        # The negative control: what decides first, decides next as well.
        for triple, is_right in ((some, True), (some[:, [0, 0, 2]], False)):
            code = torch.from_numpy(triple.astype(np.int64)) @ torch.tensor([4, 2, 1])
            statistic, limit = chi_square(torch.bincount(code, minlength=8), product)
            assert (statistic < limit) == is_right


def test_a_row_decides_the_same_whatever_stands_beside_it() -> None:
    which = some_laws(50, 1_000)
    whole = thrown(1_000, which)
    for num_rows in (1, 2, 63, 64, 65, 255, 256, 257, 512, 513, 777):
        assert np.array_equal(thrown(num_rows, np.ascontiguousarray(which[:, :num_rows])), whole[:, :num_rows])


def test_decisions_are_the_same_all_at_once_or_one_after_the_other() -> None:
    which = some_laws(50, 70)
    whole = thrown(70, which)
    several = PhiloxDraws(5, "test", 70).coins(LAWS, 50)
    assert np.array_equal(np.concatenate([several.decide(part) for part in np.split(which, [1, 20, 20, 43])]), whole)
    ordered = PhiloxDraws(5, "test", 70).coins(LAWS, 60)
    assert np.array_equal(ordered.decide(which), whole)


def test_open_decisions_are_found_whichever_part_they_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.zeros((6, 3), dtype=np.uint16)
    bits[[0, 2, 2, 5], [1, 0, 2, 2]] = OPEN
    monkeypatch.setattr(coins, "_bits", lambda *args: bits)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(coins, "_open_bits", lambda name, time, row: asked.append((time, row)) or 2**37 - 1)
    several = PhiloxDraws(5, "test", 3).coins(LAWS, 6)
    decided = np.concatenate([several.decide(np.full((2, 3), 2, dtype=np.uint8)) for _ in range(3)])
    assert np.array_equal(decided, bits == 0)
    assert asked == [(0, 1), (2, 0), (2, 2), (5, 2)]


def test_another_seed_role_or_step_decides_otherwise() -> None:
    which = np.full((50, 40), 2, dtype=np.uint8)
    first = thrown(40, which)
    assert np.array_equal(thrown(40, which), first)
    for where in ({"seed": 6}, {"role": "other"}, {"step": 1}):
        assert not np.array_equal(thrown(40, which, **where), first)
    draws = PhiloxDraws(5, "run", 40)
    assert np.array_equal(
        draws.at(4).role("x").coins(LAWS, 50).decide(which),
        PhiloxDraws(5, "run/x", 40, 4).coins(LAWS, 50).decide(which),
    )


def test_a_stream_is_numpys_sfc64_begun_at_a_hash() -> None:
    bits = coins._bits("5/test|coins/7", 30, 300)
    for first, end in ((0, 64), (64, 256), (256, 512)):
        digest = hashlib.blake2b(f"5/test|coins/7/{first}".encode(), digest_size=24).digest()
        generator = np.random.SFC64()
        generator.state = generator.state | {"state": {"state": np.append(np.frombuffer(digest, "<u8"), np.uint64(1))}}
        words = generator.random_raw(30 * (end - first) // 4)
        lanes = np.stack([(words >> np.uint64(16 * lane)) & np.uint64(OPEN) for lane in range(4)], 1)
        wanted = lanes.reshape(30, end - first)[:, : 300 - first]
        assert np.array_equal(bits[:, first : min(end, 300)], wanted)
    digest = hashlib.blake2b(b"5/test|coins/7/open/3/65", digest_size=8).digest()
    assert coins._open_bits("5/test|coins/7", 3, 65) == int.from_bytes(digest, "little") // 2**27 < 2**37


@pytest.mark.parametrize("num_laws", [1, 16, 256, 257, 1_000])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 6), (7, 2)])
def test_thresholds_are_looked_up_alike_in_every_way(num_laws: int, shape: tuple[int, int]) -> None:
    probability = np.random.default_rng(1).random(num_laws)
    laws = FewLaws(torch.from_numpy(probability).log())
    single = np.floor(laws.log_probs.exp().numpy() * 2**16).astype(np.uint16)
    which = np.random.default_rng(2).integers(0, num_laws, shape)
    for dtype in (np.uint8, np.int32, np.int64):
        if num_laws > 256 and dtype is np.uint8:
            continue
        found = laws.thresholds(which.astype(dtype))
        assert found.dtype == np.uint16 and np.array_equal(found, single[which])
        assert np.array_equal(laws.thresholds(np.asfortranarray(which.astype(dtype))), single[which])


def test_more_decisions_than_were_ordered_are_refused() -> None:
    few = PhiloxDraws(0, "x", 3).coins(LAWS, 4)
    few.decide(some_laws(3, 3))
    with pytest.raises(OptionError, match="4 decisions a row were ordered, and 5 asked for; order more"):
        few.decide(some_laws(2, 3))


def test_threads_do_not_read_each_others_streams() -> None:
    which = np.full((4_000, 64), 2, dtype=np.uint8)
    wanted = [thrown(64, which, step=step) for step in range(8)]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda step=step: found.update({step: thrown(64, which, step=step)}))
        for step in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[step], wanted[step]) for step in range(8))


def test_any_draws_have_coins() -> None:
    """Thrown one after the other; followed by the enumerator they are all that may happen."""
    which = some_laws(4, 6)
    log_probs = LAWS.log_probs[torch.from_numpy(which.astype(np.int64))]
    for num_rows in (6, 2):
        one, other = (RepeatedDraws(PhiloxDraws(3, "x", num_rows), 6 // num_rows) for _ in range(2))
        wanted = torch.stack([one.bernoulli(row) for row in log_probs])
        assert np.array_equal(other.coins(LAWS, 4).decide(which), wanted.numpy())

    laws = FewLaws(torch.tensor([0.25, 0.6], dtype=torch.float64).log())

    def move(draws: Draws, rows: Tensor) -> Tensor:
        thrown = draws.role("x").coins(laws, 2)
        first = thrown.decide(rows.numpy()[None])
        return torch.from_numpy(np.concatenate([first, thrown.decide(1 - rows.numpy()[None])])).T

    found = enumerate_decisions(move, 2)
    for row, (p, q) in enumerate([(0.25, 0.6), (0.6, 0.25)]):
        here = found.row == row
        weights = dict(zip(map(tuple, found.result[here].tolist()), found.weight[here].tolist(), strict=True))
        product = {(a, b): (p if a else 1 - p) * (q if b else 1 - q) for a in (False, True) for b in (False, True)}
        assert weights == pytest.approx(product)
