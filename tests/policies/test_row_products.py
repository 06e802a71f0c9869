"""A product of a row is the same number in blocks of any size that is used."""

import pytest
import torch

from gfnmc.policies.row_products import RowProducts, _agreeing_sizes
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches
from tests.support import is_identical, random_numbers

SHAPES = [(256, 256), (128, 128), (24, 5), (256, 32), (7, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_products_are_those_of_the_standard_block(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    weight, bias = random_numbers(0, outputs, inputs).to(dtype), random_numbers(1, outputs).to(dtype)
    products = RowProducts(weight, bias)
    for num_rows in (1, 15, 16, 17, 33, 64, 65, 100, 130, 256, 300, 512, 700, 1_100):
        rows = random_numbers(num_rows, num_rows, inputs).to(dtype)
        padded = torch.zeros(products.padded(num_rows), inputs, dtype=dtype)
        padded[:num_rows] = rows
        out = torch.full((len(padded), outputs), torch.nan, dtype=dtype)
        products.into(out, padded)
        standard = in_sub_batches(lambda some: torch.nn.functional.linear(some, weight, bias), SUB_BATCH, rows)
        assert is_identical(out[:num_rows], standard), num_rows
        assert out.isfinite().all()


def test_rows_are_filled_up_to_blocks() -> None:
    products = RowProducts(torch.ones(4, 4), torch.zeros(4))
    for num_rows in range(1, 300):
        padded = products.padded(num_rows)
        assert num_rows <= padded <= num_rows + SUB_BATCH - 1
        assert padded % SUB_BATCH in (0, *products._sizes)
    assert products.padded(128) == 128


def test_sizes_that_do_not_agree_are_not_used() -> None:
    sizes = _agreeing_sizes(256, 256, torch.float32, torch.device("cpu"), torch.get_num_threads())
    assert SUB_BATCH in sizes and list(sizes) == sorted(sizes, reverse=True)
    # Negative control: sizes exist that do not agree, so trying them out is of use.
    rows, weight = random_numbers(2, 512, 256).float(), random_numbers(3, 256, 256).float()
    blocks = {
        size: torch.cat([torch.nn.functional.linear(some, weight) for some in rows.split(size)])
        for size in (1, 3, 7, SUB_BATCH)
    }
    assert any(not is_identical(blocks[size], blocks[SUB_BATCH]) for size in (1, 3, 7))
