"""The rows of benchmarks/peers.py about how the cost of a chain step grows: with D, with K and with the chains.

The target is flat, so that none of the cost is its own. The exponent is the slope of log seconds on the log of what
grows, by least squares.
"""

import math
from collections.abc import Iterator
from statistics import linear_regression
from typing import Any

from peers_contests import Row
from peers_libraries import OWN, Libraries, clock

MOST = 0.3
SIDES, STEPS_BACK, CHAINS = (8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 64, 256, 1024)
USUAL = {"D": 1024, "K": 32, "chains": 64}
"""What holds while something else grows."""

SERIES = {
    "D": [USUAL | {"D": side**2} for side in SIDES],
    "K": [USUAL | {"K": steps} for steps in STEPS_BACK],
    "chains": [USUAL | {"chains": chains} for chains in CHAINS],
}


def scaling_rows(libraries: Libraries, rounds: int, seconds: float) -> Iterator[Row]:
    """Clock chain steps of all sizes in turns; yield a row for each thing that grows."""
    sizes = {_label(size): size for series in SERIES.values() for size in series}
    works = {label: (OWN, _task(size)) for label, size in sizes.items()}
    clocked = clock(libraries, works, rounds, seconds)
    for against, series in SERIES.items():
        points = [size | clocked[_label(size)] for size in series]
        value = _exponent(points, against, "cpu_seconds")
        is_asked = against == "D"
        others = " and ".join(f"{name} = {number}" for name, number in USUAL.items() if name != against)
        yield {
            "work": f"cost of a chain step against {against}, fitted exponent, {others}",
            "value": value,
            "required": f"<= {MOST:g}" if is_asked else None,
            "holds": value <= MOST if is_asked else None,
            "name": f"scaling-{against}",
            "by_wall": _exponent(points, against, "wall_seconds"),
            "points": points,
        }


def _task(size: dict[str, int]) -> dict[str, Any]:
    space = {"kind": "flat", "side": math.isqrt(size["D"])}
    return {"kind": "chain", "space": space, "batch": size["chains"], "branch": ["Fixed", size["K"]]}


def _exponent(points: list[dict[str, Any]], against: str, seconds: str) -> float:
    return linear_regression(
        [math.log(point[against]) for point in points], [math.log(point[seconds]) for point in points]
    ).slope


def _label(size: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in size.items())
