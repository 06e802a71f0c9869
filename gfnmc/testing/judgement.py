"""What a judge of kernels says: whether a claim about a kernel held, and by how much it failed."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from gfnmc.kernels.base import Kernel
from gfnmc.kernels.metropolis import MetropolisKernel


class Judgement(NamedTuple):
    """What came out when a kernel was judged.

    Attributes:
        is_right: Whether the claim held.
        figure: What was measured, in words: the largest error, or the smallest p-value.
        complaint: Where it failed worst, in words; empty where it held.
        outcome: What the kernel did, its transition matrix or where its chains went; two kernels with one outcome are
            one kernel, as far as the judge can see.
    """

    is_right: bool
    figure: str
    complaint: str
    outcome: Tensor


Judge = Callable[[Kernel], Judgement]


def where_to_look(kernel: Kernel) -> str:
    """Return what is usually wrong with a kernel of this kind."""
    if isinstance(kernel, MetropolisKernel):
        return (
            "look at the acceptance ratio (each term of log_hastings, the move there and the move back, with the "
            "number of moves to choose from at both ends), and at masks, step and unstep of the environment "
            "(`check_environment`)"
        )
    return "look at the laws that it draws from, given what it keeps fixed, and at what decides which part is changed"
