"""A thread count that holds inside a block and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gfnmc.core.errors import OptionError


@contextmanager
def thread_limit(num_threads: int | None) -> Iterator[None]:
    """Run a block with `num_threads` torch threads and restore the count afterwards.

    Small networks are fastest on one thread, and thrash on more when the machine is shared.

    Args:
        num_threads: Threads inside the block; None leaves the count alone.

    Raises:
        OptionError: If `num_threads` is below one.
    """
    if num_threads is None:
        yield
        return
    if num_threads < 1:
        raise OptionError(
            f"num_threads is {num_threads}; it must be at least 1, or None to leave torch's setting alone"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
