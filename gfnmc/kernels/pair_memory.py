"""What P_F computed of the objects of a step, kept for the next one.

A chain stands where it stood, or at what it proposed, or a change or two away where another kernel moved it. So what a
walk of P_F begins with, a sum over all sites of an object, is had from the last step by adding what is different. It
is remembered together with the states it belongs to and compared with those that are asked for, so that it can be out
of date but never wrong; and sums of a frozen pair are exact in any order, so that it changes no number.
"""

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from gfnmc.core.numerics import where_rows
from gfnmc.policies.mlp_filler import MLPFiller
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.path import Path


class _Known(NamedTuple):
    """Caches of P_F at some states."""

    states: Shaped[Tensor, "chains *state"]
    cache: Float[Tensor, "chains hidden"]


class PairMemory:
    """The caches of P_F at the objects of the last step."""

    def __init__(self) -> None:
        # In one tuple, so that two threads never see a half of each other's.
        self._last: tuple[ProposalPair, list[_Known]] | None = None

    def with_caches(self, pair: ProposalPair, down: Path) -> Path:
        """Return paths to finished states with the caches of P_F at both ends, where P_F has any use for them."""
        filler = pair.forward.filler() if isinstance(pair, GFlowNet) else None
        if filler is None:
            return down
        end_cache = self._at(pair, filler, down.end)
        if end_cache is None:
            assert isinstance(pair, GFlowNet)
            end_cache = pair.forward.begin(down.end)
        start_cache = filler.retreat(end_cache, down.actions, down.lengths)
        return replace(down, start_cache=start_cache, end_cache=end_cache)

    def keep(self, pair: ProposalPair, *paths: Path) -> None:
        """Remember what is known at the ends of paths, each with a row a chain."""
        known = [_Known(path.end, path.end_cache) for path in paths if path.end_cache is not None]
        self._last = (pair, known) if known else None

    def _at(
        self, pair: ProposalPair, filler: MLPFiller, states: Shaped[Tensor, "chains *state"]
    ) -> Float[Tensor, "chains hidden"] | None:
        """Return the cache at states that are near those of the last step; None where nothing is known."""
        last = self._last
        if last is None or last[0] is not pair or last[1][0].states.shape != states.shape:
            return None
        nearest, *others = last[1]
        for other in others:
            is_nearer = _distance(other.states, states) < _distance(nearest.states, states)
            nearest = _Known(*(where_rows(is_nearer, a, b) for a, b in zip(other, nearest, strict=True)))
        return filler.moved(nearest.cache, nearest.states, states)


def _distance(one: Shaped[Tensor, "chains sites"], other: Shaped[Tensor, "chains sites"]) -> Int64[Tensor, " chains"]:
    return (one != other).sum(1)
