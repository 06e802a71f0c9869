"""Transition matrices through the code of other packages, and broken proposals that have to fail.

A package moves a chain by its own functions, one row or many at a time, and asks `PairProposals.draws` for decisions.
An enumerator in their place follows each to its end.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gfnmc.integrations.proposals import PairProposals
from gfnmc.testing import move_matrix

TOLERANCE = 1e-6
"""Frameworks compute in float32 here and there."""


def transitions(proposals: PairProposals, move: Callable[[Tensor], Tensor], objects: Tensor) -> Tensor:
    """Return the transition matrix of a move of one object, `(entries,)`, that may be called for several in turn."""

    def moved(draws, rows):
        ends = []
        for place, row in enumerate(rows.tolist()):
            one = draws.for_rows(torch.tensor([place]))
            proposals.draws = lambda seed, num_rows, one=one: one
            ends.append(move(objects[row]))
        return torch.stack(ends)

    try:
        return move_matrix(moved, objects)
    finally:
        del proposals.draws


def batch_transitions(proposals: PairProposals, move: Callable[[Tensor], Tensor], objects: Tensor) -> Tensor:
    """Return the transition matrix of a move of a batch of objects."""

    def moved(draws, rows):
        proposals.draws = lambda seed, num_rows: draws
        return move(objects[rows])

    try:
        return move_matrix(moved, objects)
    finally:
        del proposals.draws


def error_of(matrix: Tensor, pmf: Tensor) -> float:
    """Return how far the law after a step is from the law before, at the worst object."""
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    return float((pmf @ matrix - pmf).abs().max())


def break_ratio(proposals: PairProposals, factor: float) -> None:
    """Drop (0) or invert (-1) the correction of all further proposals."""
    right = PairProposals.propose

    def wrong(objects, draws):
        position, log_ratio = right(proposals, objects, draws)
        return position, factor * log_ratio

    proposals.propose = wrong


def normalised(log_prob: Tensor) -> Tensor:
    """Return the law with some log-densities."""
    return log_prob.to(torch.float64).softmax(0)
