"""Thread counts hold inside a block and nowhere else."""

import pytest
import torch

from gfnmc.core.errors import OptionError
from gfnmc.core.threads import thread_limit


def test_the_count_holds_inside_and_is_restored() -> None:
    before = torch.get_num_threads()
    with thread_limit(before + 1):
        assert torch.get_num_threads() == before + 1
        with thread_limit(before + 2):
            assert torch.get_num_threads() == before + 2
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_the_count_is_restored_after_an_error(error: type[BaseException]) -> None:
    before = torch.get_num_threads()
    with pytest.raises(error), thread_limit(before + 1):
        raise error
    assert torch.get_num_threads() == before


def test_none_leaves_the_count_alone() -> None:
    before = torch.get_num_threads()
    with thread_limit(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("num_threads", [0, -1])
def test_fewer_than_one_are_refused(num_threads: int) -> None:
    before = torch.get_num_threads()
    with pytest.raises(OptionError, match=f"num_threads is {num_threads}"), thread_limit(num_threads):
        pass
    assert torch.get_num_threads() == before
