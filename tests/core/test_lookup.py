"""Rows are found where they stand and nowhere else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfnmc.core.errors import CapabilityError
from gfnmc.core.lookup import RowIndex


@st.composite
def tables(draw: st.DrawFn, largest: int = 2**15) -> Tensor:
    width = draw(st.integers(1, 4))
    low = draw(st.integers(-largest, largest))
    high = draw(st.integers(low, largest))
    rows = st.tuples(*[st.integers(low, high)] * width)
    return torch.tensor(draw(st.lists(rows, min_size=1, max_size=20, unique=True)), dtype=torch.int64)


FIXED = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@FIXED
@given(table=tables(), data=st.data())
def test_every_row_is_found_where_it_stands_and_no_other_row_is(table: Tensor, data: st.DataObject) -> None:
    index = RowIndex(table)
    assert index.find(table).tolist() == list(range(len(table)))
    assert index.find(table.flip(0)).tolist() == list(range(len(table)))[::-1]
    known = {tuple(row) for row in table.tolist()}
    number = st.one_of(
        st.integers(-(2**15), 2**15), st.sampled_from(table.flatten().tolist()), st.integers(-(2**62), 2**62)
    )
    queries = data.draw(st.lists(st.tuples(*[number] * table.shape[1]), min_size=1, max_size=20))
    found = index.find(torch.tensor(queries, dtype=torch.int64)).tolist()
    for query, place in zip(queries, found, strict=True):
        assert (tuple(table[place].tolist()) == query) if query in known else (place == -1)


def test_rows_of_any_integer_dtype_and_shape() -> None:
    table = torch.tensor([[[-1, 1], [1, 1]], [[1, -1], [-1, -1]]], dtype=torch.int8)
    index = RowIndex(table)
    assert index.find(table).tolist() == [0, 1]
    assert index.find(table.to(torch.int32).flip(0)).tolist() == [1, 0]
    assert index.find(table.abs()).tolist() == [-1, -1]
    assert index.find(table[:0]).shape == (0,)


def test_codes_out_of_range_do_not_collide() -> None:
    index = RowIndex(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
    # By their codes alone these would be (1, 0), (0, 1), (1, 1) and (0, 0).
    assert index.find(torch.tensor([[0, 2], [1, -1], [2, -1], [-1, 2]])).tolist() == [-1, -1, -1, -1]


@pytest.mark.parametrize(
    "rows",
    [
        [[0] * 64, [1] * 64],
        [[0], [2**63 - 1]],
        [[-(2**63)], [2**63 - 1]],
        [[-(2**62), 0], [2**62, 1]],
    ],
    ids=["64 bits", "63 bits", "the whole of int64", "two coordinates"],
)
def test_spaces_too_large_for_a_code_are_refused(rows: list) -> None:
    with pytest.raises(CapabilityError, match="too large"):
        RowIndex(torch.tensor(rows))
    assert RowIndex(torch.tensor([[0] * 62, [1] * 62])).find(torch.tensor([[1] * 62])).tolist() == [1]
