"""Some rows of a batch's decisions are those rows' decisions."""

import math

import numpy as np
import pytest
import torch

from gfnmc.core.coins import FewLaws
from gfnmc.core.draws import PhiloxDraws, RowDraws

ROWS = torch.tensor([1, 4, 5, 299])
NUM_ROWS = 300


def whole() -> PhiloxDraws:
    return PhiloxDraws(3, "test", NUM_ROWS)


def some() -> RowDraws:
    return RowDraws(whole(), ROWS)


def test_every_decision_is_the_one_beside_all_others() -> None:
    law = torch.arange(1.0, 6.0, dtype=torch.float64).log().log_softmax(0)
    laws = torch.arange(5 * NUM_ROWS, dtype=torch.float64).reshape(NUM_ROWS, 5).cos().log_softmax(1)
    half = torch.full((NUM_ROWS,), math.log(0.5), dtype=torch.float64)
    highs = torch.arange(1, NUM_ROWS + 1)
    assert some().num_rows == 4
    assert torch.equal(some().categorical(law), whole().categorical(law)[ROWS])
    assert torch.equal(some().categorical(laws[ROWS]), whole().categorical(laws)[ROWS])
    assert torch.equal(some().bernoulli(half[ROWS]), whole().bernoulli(half)[ROWS])
    assert torch.equal(some().integers(highs[ROWS]), whole().integers(highs)[ROWS])
    assert torch.equal(some().permutation(6), whole().permutation(6)[ROWS])
    assert some().shared_categorical(law) == whole().shared_categorical(law)
    few, which = FewLaws(law), np.arange(7 * NUM_ROWS, dtype=np.uint8).reshape(7, NUM_ROWS) % 5
    for draws in (some(), whole().for_rows(ROWS)):
        found = draws.coins(few, 7).decide(np.ascontiguousarray(which[:, ROWS]))
        assert np.array_equal(found, whole().coins(few, 7).decide(which)[:, ROWS])
    named = some().role("noise").categorical(law)
    assert torch.equal(named, whole().role("noise").categorical(law)[ROWS])
    # Negative control: the first rows decide otherwise.
    assert not torch.equal(some().permutation(6), whole().permutation(6)[:4])


@pytest.mark.parametrize("active", [[True, False, True, False], [False] * 4])
def test_rows_that_do_not_decide_get_nothing(active: list) -> None:
    marks = torch.tensor(active)
    laws = torch.full((4, 3), -math.log(3), dtype=torch.float64)
    laws[~marks] = -math.inf
    chosen = some().categorical(laws, marks)
    assert not chosen[~marks].any()
    assert not some().bernoulli(torch.zeros(4, dtype=torch.float64), marks)[~marks].any()
    assert some().bernoulli(torch.zeros(4, dtype=torch.float64), marks)[marks].all()
    assert not some().integers(torch.full((4,), 9), marks)[~marks].any()
