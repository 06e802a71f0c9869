"""Decisions that are handed out ahead, or for some rows, are the decisions that would have been made."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import TILE, Draws, PhiloxDraws, RowDraws, StepwiseAhead
from gfnmc.testing import enumerate_decisions
from tests.support import LAST_UNIFORM, assert_close, chi_square, random_numbers

NUM_ROWS = TILE + 44
ORDER = torch.from_numpy(random_numbers(0, NUM_ROWS).argsort().numpy())
HIGHS = torch.arange(NUM_ROWS) % 5 + 1
LAWS = random_numbers(1, NUM_ROWS, 4).log_softmax(-1)
LOGITS = 2.0 * random_numbers(2, NUM_ROWS)


def draws() -> PhiloxDraws:
    return PhiloxDraws(7, "ahead", NUM_ROWS)


def one_by_one(source: Draws) -> list[Tensor]:
    """Nine decisions: three times an integer, an index and a truth value."""
    return [
        decided
        for _ in range(3)
        for decided in (source.integers(HIGHS), source.categorical(LAWS), source.bernoulli_logits(LOGITS))
    ]


@pytest.mark.parametrize("read_before", [0, 1, 5])
@pytest.mark.parametrize("order", [None, ORDER], ids=["in order", "out of order"])
def test_decisions_ahead_are_those_one_by_one(order: Tensor | None, read_before: int) -> None:
    plain, source = draws(), draws()
    for _ in range(read_before):
        plain.uniforms(), source.uniforms()
    wanted = one_by_one(plain)
    ahead = source.ahead(9, order)
    rows = torch.arange(NUM_ROWS) if order is None else order
    # The last first, and all integers together: the order in which they are asked for does not matter.
    for place in (8, 5, 2):
        assert torch.equal(ahead.bernoulli_logits(place, LOGITS[rows]), wanted[place][rows])
    integers = ahead.integers(range(0, 9, 3), HIGHS[rows].expand(3, -1))
    assert torch.equal(integers, torch.stack(wanted[::3])[:, rows])
    for place in (4, 1, 7):
        first, count = 11 * place, 100
        some = rows[first : first + count]
        assert torch.equal(ahead.categorical(place, LAWS[some], first), wanted[place][some])
        assert torch.equal(ahead.bernoulli_logits(8, LOGITS[some], first), wanted[8][some])
    # What was handed out is spent.
    assert torch.equal(source.uniforms(), plain.uniforms())


def test_other_draws_decide_when_they_are_asked() -> None:
    ahead = StepwiseAhead(RowDraws(draws(), torch.arange(NUM_ROWS)), ORDER)
    wanted = one_by_one(draws())
    assert torch.equal(ahead.integers(range(1), HIGHS[ORDER][None])[0], wanted[0][ORDER])
    assert torch.equal(ahead.categorical(1, LAWS[ORDER]), wanted[1][ORDER])
    assert torch.equal(ahead.bernoulli_logits(2, LOGITS[ORDER]), wanted[2][ORDER])


def test_some_rows_decide_as_they_would_among_all() -> None:
    rows = ORDER[:60]
    source, plain = draws(), draws()
    source.uniforms(), plain.uniforms()
    some = source.for_rows(rows)
    assert some.num_rows == 60
    assert torch.equal(some.categorical(LAWS[rows]), plain.categorical(LAWS)[rows])
    fewer = some.for_rows(torch.tensor([3, 50]))
    assert torch.equal(fewer.bernoulli_logits(LOGITS[rows][[3, 50]]), plain.bernoulli_logits(LOGITS)[rows][[3, 50]])
    assert torch.equal(source.integers(HIGHS), plain.integers(HIGHS))
    named = some.role("x").integers(HIGHS[rows])
    assert torch.equal(named, draws().role("x").integers(HIGHS)[rows])
    assert some.shared_categorical(LAWS[0]) == draws().shared_categorical(LAWS[0])


def test_nothing_ahead_is_nothing() -> None:
    assert draws().ahead(0).integers(range(0), torch.zeros(0, NUM_ROWS, dtype=torch.int64)).shape == (0, NUM_ROWS)


def test_logits_follow_their_law() -> None:
    source = PhiloxDraws(5, "logits", 40_000)
    for logit in (-3.0, 0.0, 1.5):
        chance = float(torch.sigmoid(torch.tensor(logit)))
        heads = int(source.bernoulli_logits(torch.full((40_000,), logit)).sum())
        statistic, limit = chi_square([40_000 - heads, heads], [1 - chance, chance])
        assert statistic < limit
        statistic, limit = chi_square([40_000 - heads, heads], [chance * 1.2, 1 - chance * 1.2])
        assert statistic > limit


@pytest.mark.parametrize("uniform", [0.0, LAST_UNIFORM])
def test_the_edges_of_the_uniform_keep_certain_logits_certain(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    monkeypatch.setattr(
        PhiloxDraws, "uniforms", lambda self: torch.full((self.num_rows,), uniform, dtype=torch.float64)
    )
    certain = torch.tensor([torch.inf, -torch.inf, -40.0], dtype=torch.float64)
    assert PhiloxDraws(0, "edge", 3).bernoulli_logits(certain).tolist() == [True, False, False]


def test_inactive_rows_are_false() -> None:
    active = torch.arange(NUM_ROWS) % 3 > 0
    decided = draws().bernoulli_logits(torch.full((NUM_ROWS,), torch.inf), active)
    assert torch.equal(decided, active)


def test_decisions_ahead_can_be_enumerated() -> None:
    laws = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)

    def move(source: Draws, rows: Tensor) -> Tensor:
        ahead = source.ahead(3)
        truth = ahead.bernoulli_logits(2, torch.tensor([0.0, 1.0])[rows])
        number = ahead.integers(range(1), torch.full((1, len(rows)), 2))[0]
        index = torch.zeros_like(rows)
        for first in range(0, len(rows), 2):
            some = slice(first, min(first + 2, len(rows)))
            index[some] = ahead.categorical(1, laws[rows[some]].log(), first)
        return (6 * truth + 3 * number + index)[:, None]

    found = enumerate_decisions(move, 2)
    for row, chance in ((0, 0.5), (1, float(torch.sigmoid(torch.tensor(1.0))))):
        here = found.row == row
        weight = torch.zeros(12, dtype=torch.float64).index_add_(0, found.result[here, 0], found.weight[here])
        truth, number = torch.tensor([1 - chance, chance]), torch.tensor([0.5, 0.5])
        wanted = truth[:, None, None] * number[:, None] * laws[row]
        assert_close(weight, wanted.flatten(), 1e-7)
        assert_close(weight.sum(), 1.0, 1e-14)
