"""Energies that are not finite, taken for impossible objects and counted, where a run asks for that.

By default NaN and +inf stop a run. Inside `rejecting_nonfinite` a log-density that is NaN or +inf counts as -inf, and
each case is counted for its chain. Chains then sample the target restricted to the objects where it is finite, provided
that an object which fails once fails always.

Only log-densities are taken so. A difference (`log_prob_delta`), a gradient or a start that is not finite is an error
all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Int64
from torch import Tensor


class NonFiniteTally:
    """How many log-densities of each chain were not finite.

    Args:
        num_chains: Chains.
    """

    def __init__(self, num_chains: int) -> None:
        self._counts = torch.zeros(num_chains, dtype=torch.int64)
        self.rows_per_chain = 1

    def add(self, rows: Int64[Tensor, " some"]) -> None:
        """Count some rows of a batch."""
        chains = (rows // self.rows_per_chain).to(self._counts.device)
        self._counts.index_add_(0, chains, torch.ones_like(chains))

    def take(self) -> Int64[Tensor, " chains"]:
        """Return the counts since this was last called."""
        taken, self._counts = self._counts, torch.zeros_like(self._counts)
        return taken


_TALLY: ContextVar[NonFiniteTally | None] = ContextVar("gfnmc_nonfinite_tally", default=None)


@contextmanager
def rejecting_nonfinite(tally: NonFiniteTally | None) -> Iterator[None]:
    """Take log-densities that are not finite for -inf, and count them; with None for a tally they stay errors."""
    token = _TALLY.set(tally)
    try:
        yield
    finally:
        _TALLY.reset(token)


@contextmanager
def rows_per_chain(times: int) -> Iterator[None]:
    """Count rows inside for the chain that they belong to, where each has `times` of them, one after the other."""
    tally = _TALLY.get()
    if tally is None:
        yield
        return
    before = tally.rows_per_chain
    tally.rows_per_chain = before * times
    try:
        yield
    finally:
        tally.rows_per_chain = before


def rejected_if_asked(value: object, rows: Int64[Tensor, " batch"] | None) -> object:
    """Return log-densities with -inf for those that are not finite where that is wanted; anything else as it is.

    Args:
        value: What a target returned.
        rows: What the rows of the batch are called; 0, 1, ... by default.
    """
    tally = _TALLY.get()
    if tally is None or not isinstance(value, Tensor) or value.dim() != 1 or not value.is_floating_point():
        return value
    bad = value.isnan() | (value == torch.inf)
    if not bad.any():
        return value
    tally.add(bad.nonzero()[:, 0] if rows is None else rows[bad])
    return value.masked_fill(bad, -torch.inf)
