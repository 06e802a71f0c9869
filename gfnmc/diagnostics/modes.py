"""Which modes chains found, when, and how often they changed between them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class Discovery:
    """When each mode was first visited by any chain; None where it never was.

    Attributes:
        target_calls: Target calls spent by then, by mode.
        seconds: Seconds spent by then, by mode.
    """

    target_calls: list[int | None]
    seconds: list[float | None]

    @property
    def num_found(self) -> int:
        """Number of modes visited."""
        return sum(calls is not None for calls in self.target_calls)


def discovery(
    mode_ids: Int64[np.ndarray, "chains draws"],
    target_calls: Int64[np.ndarray, " draws"],
    seconds: Float64[np.ndarray, " draws"],
    num_modes: int,
) -> Discovery:
    """Return when each mode was first visited.

    Args:
        mode_ids: Mode of each draw, warm-up included, -1 outside all.
        target_calls: Calls spent by all chains together up to each draw, training included.
        seconds: Seconds spent up to each draw, training included.
        num_modes: Number of modes.
    """
    calls_at: list[int | None] = []
    seconds_at: list[float | None] = []
    for mode in range(num_modes):
        visited = (mode_ids == mode).any(0)
        first = int(visited.argmax()) if visited.any() else None
        calls_at.append(None if first is None else int(target_calls[first]))
        seconds_at.append(None if first is None else float(seconds[first]))
    return Discovery(calls_at, seconds_at)


def switches_per_thousand_steps(mode_ids: Int64[np.ndarray, "chains draws"], thinning: int) -> float:
    """Return how often a chain's mode differs from the last mode it was in, per 1,000 steps.

    Time outside all modes is no mode: going out and coming back to the same one is no switch. With thinning, switches
    that were undone between two kept draws are not seen.
    """
    chains, draws = mode_ids.shape
    if draws < 2:
        return 0.0
    return 1_000.0 * count_switches(mode_ids) / (chains * (draws - 1) * thinning)


def count_switches(mode_ids: Int64[np.ndarray, "chains draws"]) -> int:
    """Return how often a chain's mode differs from the last mode it was in; time outside all modes is no mode."""
    return sum(len(visits) - 1 for visits in map(_visits, mode_ids) if len(visits))


def count_round_trips(mode_ids: Int64[np.ndarray, "chains draws"]) -> int:
    """Return how often a chain came back to the first mode it was in, after it had been in another."""
    return sum(int((visits[1:] == visits[0]).sum()) for visits in map(_visits, mode_ids) if len(visits))


def mode_transitions(mode_ids: Int64[np.ndarray, "chains draws"], num_modes: int) -> Int64[np.ndarray, "modes modes"]:
    """Return how often a chain went from one mode to another between two draws, all chains together.

    Time outside all modes counts for the mode that the chain was in last, and nothing counts before its first mode. So
    the numbers off the diagonal add up to `count_switches`, and those on it are stays.

    Args:
        mode_ids: Mode of each draw, -1 outside all.
        num_modes: Number of modes.

    Returns:
        Rows are where chains came from, columns where they went.
    """
    last = last_modes(mode_ids)
    before, after = last[:, :-1], last[:, 1:]
    counted = before >= 0
    places = before[counted] * num_modes + after[counted]
    return np.bincount(places, minlength=num_modes**2).reshape(num_modes, num_modes).astype(np.int64)


def last_modes(mode_ids: Int64[np.ndarray, "chains draws"]) -> Int64[np.ndarray, "chains draws"]:
    """Return the mode that each chain is in, or was in last, at each draw; -1 before it was in any."""
    steps = np.arange(mode_ids.shape[1])
    seen = np.maximum.accumulate(np.where(mode_ids >= 0, steps, -1), axis=1)
    found = np.take_along_axis(mode_ids, np.maximum(seen, 0), 1)
    return np.where(seen >= 0, found, -1).astype(np.int64)


def mean_stays(mode_ids: Int64[np.ndarray, "chains draws"], num_modes: int) -> list[float | None]:
    """Return for how many draws a chain stays in each mode, on average; None where no chain was ever in it.

    Draws in a mode divided by the visits that ended in it: the stays that a run cuts off at its end count with what was
    seen of them, and where no visit ended the whole time is a lower bound.

    Args:
        mode_ids: Mode of each draw, -1 outside all.
        num_modes: Number of modes.
    """
    last = last_modes(mode_ids)
    transitions = mode_transitions(mode_ids, num_modes)
    stays: list[float | None] = []
    for mode in range(num_modes):
        inside = int((last == mode).sum())
        departures = int(transitions[mode].sum() - transitions[mode, mode])
        stays.append(inside / max(departures, 1) if inside else None)
    return stays


def _visits(chain: Int64[np.ndarray, " draws"]) -> Int64[np.ndarray, " visits"]:
    """Return the modes that a chain was in, one after the other, each stay once."""
    inside = chain[chain >= 0]
    return inside[np.concatenate([[True], inside[1:] != inside[:-1]])] if len(inside) else inside
