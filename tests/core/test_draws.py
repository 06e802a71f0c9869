"""Random numbers: keyed, independent of the batch, exactly distributed, and never a forbidden choice."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import TILE, Draws, PhiloxDraws, RepeatedDraws, normal
from gfnmc.core.errors import OptionError
from gfnmc.testing import enumerate_decisions
from tests.support import LAST_UNIFORM, chi_square, random_numbers

NUM_ROWS = 600
LAWS = random_numbers(0, NUM_ROWS, 5).log_softmax(-1)
BERNOULLI = LAWS[:, 0]
HIGHS = torch.arange(NUM_ROWS) % 7 + 1
ACTIVE = torch.arange(NUM_ROWS) % 3 > 0

# What some draws decide by the laws of some rows.
DECISIONS = {
    "categorical": lambda draws, rows: draws.categorical(LAWS[rows]),
    "categorical, some": lambda draws, rows: draws.categorical(LAWS[rows], ACTIVE[rows]),
    "categorical, shared law": lambda draws, rows: draws.categorical(LAWS[0]),
    "bernoulli": lambda draws, rows: draws.bernoulli(BERNOULLI[rows]),
    "bernoulli, some": lambda draws, rows: draws.bernoulli(BERNOULLI[rows], ACTIVE[rows]),
    "integers": lambda draws, rows: draws.integers(HIGHS[rows]),
    "integers, some": lambda draws, rows: draws.integers(HIGHS[rows], ACTIVE[rows]),
    "permutation": lambda draws, rows: draws.permutation(4),
}


def decide(kind: str, num_rows: int, times: int = 1, **where: object) -> Tensor:
    """A decision taken some times in a row, `(num_rows, ...)`."""
    draws = PhiloxDraws(**({"seed": 5, "role": "test", "num_rows": num_rows} | where))
    return torch.stack([DECISIONS[kind](draws, torch.arange(num_rows)) for _ in range(times)], 1)


@pytest.mark.parametrize("kind", DECISIONS)
def test_a_row_decides_the_same_whatever_stands_beside_it(kind: str) -> None:
    # 20 times: across the blocks of 1, 2, 4, 8 and 16 numbers that a stream is read in; 300 and 600: across tiles.
    whole = decide(kind, NUM_ROWS, 20)
    for num_rows in (1, 4, TILE, TILE + 1, 300):
        assert torch.equal(decide(kind, num_rows, 20), whole[:num_rows]), num_rows


def decide_repeatedly(kind: str, num_rows: int, times: int, role: str = "test") -> Tensor:
    """Some decisions of repeated rows, `(num_rows, times, ...)`."""
    draws = PhiloxDraws(5, role, num_rows).repeated(times)
    assert draws.num_rows == num_rows * times
    rows = torch.arange(draws.num_rows) % NUM_ROWS
    return torch.stack([DECISIONS[kind](draws, rows) for _ in range(6)], 1).unflatten(0, (num_rows, times))


@pytest.mark.parametrize("times", [1, 3, 20])
@pytest.mark.parametrize("kind", DECISIONS)
def test_repeated_rows_decide_the_same_whatever_stands_beside_them(kind: str, times: int) -> None:
    whole = decide_repeatedly(kind, 300, times)
    for num_rows in (1, 4, TILE, TILE + 1):
        assert torch.equal(decide_repeatedly(kind, num_rows, times), whole[:num_rows]), num_rows
    assert not torch.equal(decide_repeatedly(kind, 300, times, role="other"), whole)


def test_repeated_rows_have_streams_of_their_own() -> None:
    draws = PhiloxDraws(5, "own", TILE + 9)
    streams = [draws, draws.repeated(2), draws.repeated(3), draws.repeated(6), draws.repeated(2).repeated(3)]
    streams += [stream.role("x") for stream in streams] + [stream.at(1) for stream in streams]
    seen = torch.cat([stream.uniforms() for stream in streams])
    assert len(seen.unique()) == len(seen)
    # A role or a step of repeated draws is repeated as well, and is the same whichever was said first.
    for one, other in ((draws.at(3).repeated(4), draws.repeated(4).at(3)), (draws.repeated(4), draws.repeated(4))):
        assert one.num_rows == 4 * (TILE + 9)
        assert torch.equal(one.uniforms(), other.uniforms())


def test_repeated_rows_follow_their_laws_and_are_independent() -> None:
    draws = PhiloxDraws(6, "law", 20_000).repeated(3)
    law = torch.tensor([0.5, 0.2, 0.3]).double()
    chosen = draws.categorical(law.log()).unflatten(0, (-1, 3))
    triples = torch.bincount((chosen * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    product = (law[:, None, None] * law[:, None] * law).flatten()
    statistic, limit = chi_square(triples, product)
    assert statistic < limit
    # Negative control: rows that decide for their copies as well.
    copied = chosen[:, :1].expand(-1, 3)
    statistic, limit = chi_square(torch.bincount((copied * torch.tensor([9, 3, 1])).sum(1), minlength=27), product)
    assert statistic > limit


@pytest.mark.parametrize("kind", DECISIONS)
def test_any_draws_can_be_repeated_one_decision_after_the_other(kind: str) -> None:
    repeated, plain = RepeatedDraws(PhiloxDraws(5, "test", 100), 3).role("x"), PhiloxDraws(5, "test", 100).role("x")
    assert repeated.num_rows == 300
    together = DECISIONS[kind](repeated, torch.arange(300)).unflatten(0, (100, 3))
    for place in range(3):
        assert torch.equal(DECISIONS[kind](plain, torch.arange(place, 300, 3)), together[:, place])
    law = LAWS[0]
    assert repeated.role("y").shared_categorical(law) == plain.role("y").shared_categorical(law)


def test_repeated_decisions_can_be_enumerated() -> None:
    laws = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0], [0.1, 0.9]]).double()

    def move(draws: Draws, rows: Tensor) -> Tensor:
        both = torch.stack([rows, rows + 2], 1).flatten()
        return draws.role("x").repeated(2).categorical(laws[both].log()).unflatten(0, (-1, 2))

    found = enumerate_decisions(move, 2)
    for row in range(2):
        here = found.row == row
        weights = dict(zip(map(tuple, found.result[here].tolist()), found.weight[here].tolist(), strict=True))
        product = {(i, j): float(laws[row, i] * laws[row + 2, j]) for i in range(2) for j in range(2)}
        assert weights == pytest.approx({pair: weight for pair, weight in product.items() if weight > 0})


@pytest.mark.parametrize("times", [0, -1])
def test_rows_are_repeated_once_at_least(times: int) -> None:
    for draws in (PhiloxDraws(0, "x", 3), RepeatedDraws(PhiloxDraws(0, "x", 3), 1)):
        with pytest.raises(OptionError, match=f"repeated {times} times"):
            draws.repeated(times)


@pytest.mark.parametrize("kind", DECISIONS)
@pytest.mark.parametrize("where", [{"seed": 6}, {"role": "other"}, {"step": 1}], ids=str)
def test_another_seed_role_or_step_decides_otherwise(kind: str, where: dict) -> None:
    assert not torch.equal(decide(kind, 40, 10, **where), decide(kind, 40, 10))
    assert torch.equal(decide(kind, 40, 10), decide(kind, 40, 10))


def test_no_two_streams_share_a_number() -> None:
    streams = {
        (seed, role, step): PhiloxDraws(seed, role, 2 * TILE, step)
        for seed in (-1, 0, 1, 2**80)
        for role in ("a", "b", "a/b")
        for step in (0, 1, 2**40)
    }
    seen = set()
    for draws in streams.values():
        for _ in range(3):
            seen |= set(draws.uniforms().tolist())
    # 110,592 of 2^53 numbers: two would meet by chance with probability 7e-7.
    assert len(seen) == len(streams) * 3 * 2 * TILE


def test_at_and_role_say_where_a_stream_begins() -> None:
    draws = PhiloxDraws(3, "run", 10)
    first = draws.at(4).role("x").categorical(LAWS[0])
    draws.categorical(LAWS[0])
    assert torch.equal(draws.at(4).role("x").categorical(LAWS[0]), first)
    assert torch.equal(PhiloxDraws(3, "run/x", 10, 4).categorical(LAWS[0]), first)
    assert draws.at(4).num_rows == draws.role("x").num_rows == 10


def test_a_stream_is_numpys_philox_read_row_by_row_in_blocks() -> None:
    draws = PhiloxDraws(9, "blocks", TILE + 44, step=3)
    found = torch.stack([draws.uniforms() for _ in range(200)])
    for tile, columns in ((0, slice(0, TILE)), (1, slice(TILE, TILE + 44))):
        digest = hashlib.blake2b(b"9/blocks", digest_size=16).digest()
        key = np.frombuffer(digest, dtype="<u8")
        philox = np.random.Philox(counter=np.array([0, 0, 3, tile], dtype=np.uint64), key=key)
        wanted = np.random.Generator(philox).random((200, TILE))
        assert np.array_equal(found[:, columns].numpy(), wanted[:, : found[:, columns].shape[1]])


def test_a_forbidden_action_is_never_drawn_in_ten_million() -> None:
    tiny = math.log(1e-300)
    shared = torch.tensor([-math.inf, tiny, -math.inf, math.log(0.5), -math.inf, math.log(0.5), tiny, -math.inf])
    shared = shared.to(torch.float64)
    num_rows = 100_000
    draws = PhiloxDraws(1, "forbidden", num_rows)
    laws = shared.expand(num_rows, -1).contiguous()
    counts = torch.zeros(len(shared), dtype=torch.int64)
    for time in range(100):
        counts += torch.bincount(draws.categorical(laws if time % 2 else shared), minlength=len(shared))
    assert counts.sum() == 10_000_000
    assert counts[shared == -math.inf].tolist() == [0, 0, 0, 0]
    assert counts[1] == counts[6] == 0
    # The two that are left are equally likely: Binomial(10^7, 1/2) leaves 5 10^6 +- 7,734 with probability 1e-6.
    assert abs(int(counts[3]) - 5_000_000) < 7_734


@pytest.mark.parametrize("uniform", [0.0, LAST_UNIFORM])
def test_the_edges_of_the_uniform_choose_what_is_allowed(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    num_rows, width = 20_000, 40
    scores = 20.0 * random_numbers(2, num_rows, width)
    mask = random_numbers(3, num_rows, width) > 0.5
    mask[:, 7] = True
    laws = scores.masked_fill(~mask, -math.inf).log_softmax(-1)
    monkeypatch.setattr(
        PhiloxDraws, "uniforms", lambda self: torch.full((self.num_rows,), uniform, dtype=torch.float64)
    )
    chosen = PhiloxDraws(0, "edge", num_rows).categorical(laws)
    assert mask.gather(1, chosen[:, None]).all()
    for row in range(200):
        assert mask[row, PhiloxDraws(0, "edge", 1).categorical(laws[row])]
    # Negative control: the rules that come to mind first choose forbidden actions here.
    cdf = laws.exp().cumsum(-1)
    at_or_above = (cdf >= uniform).to(torch.int64).argmax(-1)
    edges = torch.full((num_rows, 1), uniform, dtype=torch.float64)
    not_normalised = torch.searchsorted(cdf, edges, right=True)[:, 0]
    naive = at_or_above if uniform == 0.0 else not_normalised.clamp(max=width - 1)
    assert not mask.gather(1, naive[:, None]).all()


@pytest.mark.parametrize("uniform", [0.0, LAST_UNIFORM])
def test_the_edges_of_the_uniform_keep_certainties_certain(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    monkeypatch.setattr(
        PhiloxDraws, "uniforms", lambda self: torch.full((self.num_rows,), uniform, dtype=torch.float64)
    )
    draws = PhiloxDraws(0, "edge", 3)
    assert draws.bernoulli(torch.tensor([0.0, -math.inf, -1e4]).double()).tolist() == [True, False, False]
    highs = torch.tensor([1, 2, 2**40])
    assert ((draws.integers(highs) >= 0) & (draws.integers(highs) < highs)).all()


def test_categorical_follows_its_law() -> None:
    num_rows = 20_000
    law = torch.tensor([0.5, 0.0, 0.2, 0.05, 0.25]).double()
    laws = torch.stack([law, law.flip(0)]).log().repeat(num_rows // 2, 1)
    draws = PhiloxDraws(4, "law", num_rows)
    chosen = torch.stack([draws.categorical(laws) for _ in range(5)])
    for rows, wanted in ((slice(0, None, 2), law), (slice(1, None, 2), law.flip(0))):
        counts = torch.bincount(chosen[:, rows].flatten(), minlength=5)
        statistic, limit = chi_square(counts, wanted)
        assert statistic < limit
        # Negative control: a law that is one part in twenty off is told apart.
        bent = wanted * (1.0 + 0.05 * torch.tensor([1, 0, -1, 1, -1]))
        statistic, limit = chi_square(counts, bent / bent.sum())
        assert statistic > limit
    # Successive decisions of a row are independent: pairs have the product law.
    pairs = 5 * chosen[:-1, ::2] + chosen[1:, ::2]
    statistic, limit = chi_square(torch.bincount(pairs.flatten(), minlength=25), (law[:, None] * law).flatten())
    assert statistic < limit
    # And so are neighbours.
    pairs = 5 * chosen[:, 0::4] + chosen[:, 2::4]
    statistic, limit = chi_square(torch.bincount(pairs.flatten(), minlength=25), (law[:, None] * law).flatten())
    assert statistic < limit


def test_bernoulli_follows_its_law() -> None:
    draws = PhiloxDraws(5, "law", 40_000)
    for probability in (0.03, 0.5, 0.9):
        heads = int(draws.bernoulli(torch.full((40_000,), math.log(probability)).double()).sum())
        statistic, limit = chi_square([40_000 - heads, heads], [1 - probability, probability])
        assert statistic < limit
        statistic, limit = chi_square([40_000 - heads, heads], [1 - 0.8 * probability, 0.8 * probability])
        assert statistic > limit


def test_integers_are_uniform() -> None:
    draws = PhiloxDraws(6, "law", 42_000)
    highs = torch.arange(42_000) % 7 + 1
    chosen = draws.integers(highs)
    for high in range(1, 8):
        counts = torch.bincount(chosen[highs == high], minlength=high)
        assert len(counts) == high
        if high > 1:
            statistic, limit = chi_square(counts, torch.full((high,), 1.0 / high))
            assert statistic < limit


def test_permutations_are_uniform() -> None:
    orders = PhiloxDraws(7, "law", 60_000).permutation(4)
    assert torch.equal(orders.sort(-1).values, torch.arange(4).expand(60_000, -1))
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(-1)
    known = [int(np.dot(order, [64, 16, 4, 1])) for order in itertools.permutations(range(4))]
    counts = torch.bincount(code, minlength=256)[known]
    assert counts.sum() == 60_000
    statistic, limit = chi_square(counts, torch.full((24,), 1.0 / 24))
    assert statistic < limit
    assert PhiloxDraws(7, "law", 3).permutation(0).shape == (3, 0)
    assert PhiloxDraws(7, "law", 3).permutation(1).tolist() == [[0], [0], [0]]


def test_inactive_rows_decide_nothing_and_spend_their_numbers() -> None:
    active = ACTIVE[:300]
    laws = LAWS[:300].masked_fill(~active[:, None], -math.inf)
    highs = torch.where(active, 1_000, 0)
    some, all_rows = PhiloxDraws(8, "some", 300), PhiloxDraws(8, "some", 300)
    for _ in range(5):
        for few, many in (
            (some.categorical(laws, active), all_rows.categorical(LAWS[:300])),
            (some.bernoulli(BERNOULLI[:300], active), all_rows.bernoulli(BERNOULLI[:300])),
            (some.integers(highs, active), all_rows.integers(torch.full_like(highs, 1_000))),
        ):
            assert not few[~active].any()
            assert torch.equal(few[active], many[active])
    nan = torch.full((300,), math.nan, dtype=torch.float64)
    assert not some.bernoulli(nan, torch.zeros(300, dtype=torch.bool)).any()
    assert not some.categorical(nan[:, None].expand(-1, 4), torch.zeros(300, dtype=torch.bool)).any()


def test_one_law_for_all_rows_is_that_law_for_each() -> None:
    shared, each = (PhiloxDraws(9, "shared", 400) for _ in range(2))
    for row in range(10):
        law = LAWS[row]
        assert torch.equal(shared.categorical(law), each.categorical(law.expand(400, -1).contiguous()))


def test_a_shared_decision_is_one_whatever_the_rows() -> None:
    law = torch.tensor([-math.inf, math.log(0.25), -math.inf, math.log(0.75), -math.inf]).double()
    chosen = [PhiloxDraws(10, "all", 4, step).shared_categorical(law) for step in range(4_000)]
    assert chosen[:50] == [PhiloxDraws(10, "all", 1_000, step).shared_categorical(law) for step in range(50)]
    statistic, limit = chi_square(np.bincount(chosen, minlength=5), law.exp())
    assert statistic < limit
    statistic, limit = chi_square(np.bincount(chosen, minlength=5), [0, 0.5, 0, 0.5, 0])
    assert statistic > limit
    # It takes nothing from the rows' own streams.
    draws, other = PhiloxDraws(10, "all", 40), PhiloxDraws(10, "all", 40)
    draws.shared_categorical(law)
    assert torch.equal(draws.categorical(LAWS[:40]), other.categorical(LAWS[:40]))


def test_normal_numbers_for_weights() -> None:
    weights = normal(3, "weights", (100, 200), torch.float32)
    assert weights.dtype == torch.float32
    assert weights.shape == (100, 200)
    assert torch.equal(weights, normal(3, "weights", (100, 200), torch.float32))
    assert not torch.equal(weights, normal(4, "weights", (100, 200), torch.float32))
    assert not torch.equal(weights, normal(3, "other", (100, 200), torch.float32))
    # Of 20,000: the mean is Normal(0, 0.00707), the variance Normal(1, 0.01); 4.9 deviations are 1e-6.
    assert abs(float(weights.mean())) < 4.9 * 0.00707
    assert abs(float(weights.var()) - 1.0) < 4.9 * 0.01


def test_draws_are_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Draws()


def test_shared_decisions_follow_each_other() -> None:
    law = torch.zeros(1000, dtype=torch.float64).log_softmax(0)
    draws = PhiloxDraws(0, "test", 3)
    first, second = draws.shared_categorical(law), draws.shared_categorical(law)
    assert first != second
    again = PhiloxDraws(0, "test", 3)
    assert (again.shared_categorical(law), again.shared_categorical(law)) == (first, second)
