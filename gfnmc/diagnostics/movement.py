"""Which chains move, and which cannot leave where they are.

A chain that stands still, or stays in one mode, is remarkable only beside the others: were it like them, it would have
moved with probability 1 - (1 - rate)^draws. It is called stuck, or trapped, where that leaves it less than one chance
in a million. Where nobody leaves a mode there is no rate to compare with; then the mode is closed, if nobody enters it
either and there are draws outside of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.diagnostics.modes import last_modes, mode_transitions

UNLIKELY = 1e-6
"""Probability below which it is no chance that a chain stayed where it was."""


@dataclass(frozen=True)
class Trap:
    """A chain that stayed in one mode throughout, though other draws are elsewhere.

    Attributes:
        chain: Which.
        mode: Where.
    """

    chain: int
    mode: int


def moves(position: Shaped[Tensor, "chains draws *event"]) -> Bool[np.ndarray, "chains steps"]:
    """Return between which successive draws each chain changed its object."""
    return (position[:, 1:] != position[:, :-1]).flatten(2).any(-1).numpy()


def stuck_chains(has_moved: Bool[np.ndarray, "chains steps"]) -> list[int]:
    """Return the chains that never moved and, by the median rate of those that did, should have.

    All of them, where no chain moved at all.
    """
    is_still = ~has_moved.any(1)
    if is_still.all():
        return list(range(len(has_moved))) if has_moved.shape[1] else []
    rate = float(np.median(has_moved[~is_still].mean(1)))
    return np.nonzero(is_still)[0].tolist() if _is_no_chance(rate, has_moved.shape[1]) else []


def trapped_chains(mode_ids: Int64[np.ndarray, "chains draws"], num_modes: int) -> list[Trap]:
    """Return the chains that stayed in one mode and, by how the other chains left it, should not have.

    Args:
        mode_ids: Mode of each draw, -1 outside all; a chain that goes out and comes back to the same mode has not left.
        num_modes: Number of modes.
    """
    last = last_modes(mode_ids)
    num_steps = mode_ids.shape[1] - 1
    is_constant = (last == last[:, :1]).all(1) & (last[:, 0] >= 0)
    if num_steps < 1 or len(np.unique(last[last >= 0])) < 2:
        return []
    traps = []
    for chain in np.nonzero(is_constant)[0].tolist():
        mode = int(last[chain, 0])
        others = mode_transitions(np.delete(mode_ids, chain, 0), num_modes)
        stays, exits = int(others[mode, mode]), int(others[mode].sum() - others[mode, mode])
        entries = int(others[:, mode].sum() - others[mode, mode])
        is_closed = exits == entries == 0
        if is_closed or (exits and _is_no_chance(exits / (exits + stays), num_steps)):
            traps.append(Trap(chain, mode))
    return traps


def describe_chains(chains: Sequence[int], num_chains: int) -> str:
    """Return "chain 2 of 4", or "5 of 64 chains"."""
    if len(chains) == 1:
        return f"chain {chains[0]} of {num_chains}"
    return f"{len(chains)} of {num_chains} chains"


def _is_no_chance(rate: float, num_steps: int) -> bool:
    return rate >= 1.0 or num_steps * math.log1p(-rate) < math.log(UNLIKELY)
