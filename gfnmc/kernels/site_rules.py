"""What sweeps over colours share: how a site is drawn, and what a sweep returns.

A rule draws a site from a law that leaves its conditional law invariant. It is told how the log-density changes with
each value, and nothing else, so every rule goes with every way to find that out.
"""

import functools
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.kernels.base import Info, Reason


class SiteRule(ABC):
    """How a site is drawn, given how its values change the log-density.

    Attributes:
        role: What decides whether a site of two values takes the other one.
        counts_changes: Whether anybody wants to know how many sites changed.
    """

    role: str
    counts_changes: bool

    @abstractmethod
    def log_flip(self, change: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """Return the log-probability that a site of two values takes the other one, nats.

        Args:
            change: Of the tempered log-density with the other value, nats.
        """

    @abstractmethod
    def choose(
        self, draws: Draws, change: Float64[Tensor, "rows values"], present: Int64[Tensor, " rows"]
    ) -> Int64[Tensor, " rows"]:
        """Choose a value for sites of any other number of values.

        Args:
            draws: A row a site.
            change: Of the tempered log-density with each value, nats.
            present: The value that is there.
        """


class Moved(NamedTuple):
    """Where chains are after a sweep.

    Attributes:
        position: The objects.
        log_prob: Their log-densities, nats.
        is_asked: Chains whose changes of the energy were asked for, of the others only the last log-density was; None
            where all were.
        num_changed: Sites that changed, `(chains,)`; None where nobody wants to know.
    """

    position: Shaped[Tensor, "chains *event"]
    log_prob: Float64[Tensor, " chains"]
    is_asked: Bool[Tensor, " chains"] | None
    num_changed: NDArray[np.integer] | None


def report(moved: Moved, acceptance_rate: Float64[Tensor, " chains"] | None, calls: int, *, offers_delta: bool) -> Info:
    """Return the report of visits whose result is always kept.

    Args:
        moved: Where they led.
        acceptance_rate: What to call that; None for 1.
        calls: Target calls of a chain that is asked for changes; of another it is one.
        offers_delta: Whether they count as delta calls.
    """
    zero, one, no_nats, yes, reason, asked = _constants(len(moved.log_prob), calls)
    is_asked = moved.is_asked
    target_calls = asked if is_asked is None else torch.where(is_asked, asked, 1)
    delta_calls = asked if is_asked is None else torch.where(is_asked, asked, 0)
    return Info(
        proposal=moved.position,
        is_accepted=yes,
        log_ratio=no_nats,
        acceptance_rate=one if acceptance_rate is None else acceptance_rate,
        num_back_steps=zero,
        num_forward_steps=zero,
        target_calls=target_calls,
        policy_calls=zero,
        reason=reason,
        delta_calls=delta_calls if offers_delta else zero,
    )


@functools.lru_cache(maxsize=16)
def _constants(num_chains: int, calls: int) -> tuple[Tensor, ...]:
    """Return what is the same in every report; to make it anew takes as long as a sweep of one chain."""
    zero, one = torch.zeros(num_chains, dtype=torch.int64), torch.ones(num_chains, dtype=torch.float64)
    yes, reason = torch.ones_like(zero, dtype=torch.bool), torch.full_like(zero, Reason.ACCEPTED, dtype=torch.int8)
    return zero, one, torch.zeros_like(one), yes, reason, torch.full_like(zero, calls)
