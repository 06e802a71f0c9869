"""How chains mixed, as a comparison shows it: moves between modes, and the ranks of the statistic that mixed worst.

Ranks: the range of all draws of a statistic is cut where each piece holds about as many of them. Chains that mixed have
the same share of their draws in each piece.

Reference: Vehtari et al. 2021 (1903.08008), section 4.4, rank plots.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from gfnmc.diagnostics.modes import mode_transitions
from gfnmc.sampling.chains import Chains

_MOST_MODES = 30
_MOST_CHAINS, _MOST_PIECES = 16, 20


def mixing_figures(chains: Chains, statistic: str) -> dict[str, Any]:
    """Return what the pictures of mixing show, as plain data.

    Args:
        chains: The chains.
        statistic: The statistic that mixed worst, or "in " and the name of a mode.

    Returns:
        "transitions", how often a chain went from one mode (row) to another between two kept draws, time outside all
        modes not counted; empty where there are not two modes, or more than 30. "ranks", of the chains that stray most.
    """
    modes, ids = chains.target.modes(), chains.mode_ids(chains.samples)
    transitions: list[list[int]] = []
    if modes is not None and ids is not None and 2 <= len(modes) <= _MOST_MODES:
        transitions = mode_transitions(ids, len(modes)).tolist()
    return {"transitions": transitions, "ranks": _ranks(statistic, _values(chains, statistic, ids))}


def _values(chains: Chains, statistic: str, ids: np.ndarray | None) -> Float64[np.ndarray, "chains draws"] | None:
    if statistic in chains.statistics:
        return chains.statistics[statistic]
    modes = chains.target.modes()
    if modes is None or ids is None or statistic.removeprefix("in ") not in modes.names:
        return None
    return (ids == modes.names.index(statistic.removeprefix("in "))).astype(np.float64)


def _ranks(statistic: str, values: np.ndarray | None) -> dict[str, Any]:
    """Return each chain's share of draws by rank, as a multiple of the share of all chains; chains that stray first."""
    if values is None or np.ptp(values) == 0.0:
        return {"statistic": statistic, "chain": [], "share": []}
    # A statistic of few values has as many pieces as values.
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _MOST_PIECES + 1)[1:], method="lower"))
    if len(edges) == 1:
        edges = np.array([values.min(), values.max()])
    counts = np.stack([_histogram(np.searchsorted(edges, chain), len(edges)) for chain in values])
    expected = counts.mean(axis=0)
    counts, expected = counts[:, expected > 0], expected[expected > 0]
    strays = ((counts - expected) ** 2 / expected).sum(axis=1)
    worst = np.argsort(-strays, kind="stable")[:_MOST_CHAINS]
    share = (counts[worst] / expected).round(3)
    return {"statistic": statistic, "chain": worst.tolist(), "share": share.tolist()}


def _histogram(pieces: Int64[np.ndarray, " draws"], num_pieces: int) -> Int64[np.ndarray, " pieces"]:
    return np.bincount(pieces, minlength=num_pieces)
