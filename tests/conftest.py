"""What all tests share. pytest reads this file before any test, so it imports nothing of gfnmc at the top."""

from collections.abc import Iterator
from zlib import crc32

import jaxtyping
import pytest
import torch

# A check of annotated shapes costs several times what it checks.
CASES_PER_CHECKED_CASE = 8


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Run the tests on one torch thread: each worker has one core, and more threads only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def annotated_shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check the annotated shapes in every test without parameters, and in some cases of every one with them."""
    has_parameters = hasattr(request.node, "callspec")
    is_checked = not has_parameters or crc32(request.node.nodeid.encode()) % CASES_PER_CHECKED_CASE == 0
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", not is_checked)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
