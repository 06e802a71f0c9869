"""What all tests share. pytest reads this file before any test, so it imports nothing of gfnmc at the top."""

import os
from collections.abc import Iterator
from zlib import crc32

import jaxtyping
import pytest
import torch

# PyMC's models are tiny here, and a compiler would take longer than they do; read when PyTensor is imported.
os.environ.setdefault("PYTENSOR_FLAGS", "mode=FAST_COMPILE,cxx=")

# A check of annotated shapes costs several times what it checks; with all of them the tests take four times as long.
TESTS_PER_CHECKED_TEST = 24


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Run the tests on one torch thread: each worker has one core, and more threads only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def annotated_shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check the annotated shapes of what runs in some tests and some cases, always the same ones."""
    before = jaxtyping.config.jaxtyping_disable
    is_checked = crc32(request.node.nodeid.encode()) % TESTS_PER_CHECKED_TEST == 0
    jaxtyping.config.update("jaxtyping_disable", before or not is_checked)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
