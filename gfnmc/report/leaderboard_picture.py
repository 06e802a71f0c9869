"""The picture of a leaderboard: how often each sampler switches between modes, by target."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gfnmc.report import format as fmt
from gfnmc.report import style
from gfnmc.report.gallery import Picture
from gfnmc.report.leaderboard import KINDS, kind_index
from gfnmc.report.leaderboard_columns import rate

Document = Mapping[str, Any]
Row = Mapping[str, Any]

_WIDTH = 7.6


def switch_picture(document: Document) -> Picture | None:
    """Draw the mode switches of every sampler on every target for the page.

    Args:
        document: The leaderboard as data.

    Returns:
        The picture with its words; None where no rate is known.
    """
    words = picture_words(document)
    if not words:
        return None
    data = base64.b64encode(style.png(switch_rates(document))).decode("ascii")
    return Picture(
        "Mode switches",
        "How often chains change between modes per million target calls of sampling, on a log scale: further right is "
        "better, and training is not counted. An open marker that points left is an upper 95 % bound: no switch was "
        "seen.",
        words,
        data,
    )


@style.styled
def switch_rates(document: Document) -> Figure:
    """Draw mode switches per million calls of sampling.

    Args:
        document: The leaderboard as data.

    Returns:
        A line for each target that has a rate; on it a point a sampler in the colour of its kind, on a log scale. A
        bound is an open marker that points left. Kinds stand one above the other, so that equal rates stay visible.
    """
    targets = [target for target in document["targets"] if _drawn(target)]
    drawn = [_drawn(target) for target in targets]
    kinds = sorted({kind_index(row) for rows in drawn for row in rows})
    figure = style.new_figure(1.15 + len(targets) * (0.3 + 0.13 * len(kinds)), width=_WIDTH)
    axes = figure.subplots()
    for slot, rows in enumerate(drawn):
        for row in rows:
            _draw_rate(axes, slot + _shift(kinds, row), row)
    axes.set_xscale("log")
    axes.set_xlim(*_range([row["switches_per_million_calls"]["value"] for rows in drawn for row in rows]))
    style.log_ticks(axes)
    axes.set_yticks(range(len(targets)), [style.label(target["name"], 26) for target in targets])
    axes.set_ylim(max(len(targets), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for edge in range(1, len(targets)):
        axes.axhline(edge - 0.5, color=style.GRID, linewidth=0.8, zorder=0)
    axes.grid(axis="x")
    axes.set_xlabel("mode switches per million calls")
    _legend(figure, kinds, any(_is_bound(row) for rows in drawn for row in rows))
    return figure


def picture_words(document: Document) -> str:
    """Say what the picture shows, for who cannot see it; nothing where no rate is known."""
    words = []
    for target in document["targets"]:
        rates = [
            f"{fmt.plain(row['sampler'])} ({fmt.plain(row['kind'])}) {rate(row['switches_per_million_calls'])}"
            for row in _drawn(target)
        ]
        if rates:
            words.append(f"{fmt.plain(target['name'])}: {', '.join(rates)}")
    return f"Points of mode switches per million calls, by target. {'; '.join(words)}." if words else ""


def _drawn(target: Mapping[str, Any]) -> list[Row]:
    """Return the samplers that have a point: a log axis has no place for zero."""
    return [row for row in target["rows"] if _is_positive((row.get("switches_per_million_calls") or {}).get("value"))]


def _is_positive(value: Any) -> bool:
    number = fmt.to_float(value)
    return number is not None and 0 < number < math.inf


def _is_bound(row: Row) -> bool:
    return bool(row["switches_per_million_calls"]["is_bound"])


def _shift(kinds: Sequence[int], row: Row) -> float:
    """Return how far below the middle of its target's line a sampler's kind stands."""
    return (kinds.index(kind_index(row)) - (len(kinds) - 1) / 2) * 0.7 / max(len(kinds), 1)


def _draw_rate(axes: Axes, place: float, row: Row) -> None:
    """Draw one point, nearly opaque, so that two samplers of a kind at one rate look darker than one."""
    colour = style.colour(kind_index(row))
    look: dict[str, Any] = {"marker": style.marker(kind_index(row)), "markeredgecolor": "white", "alpha": 0.85}
    if _is_bound(row):
        look = {"marker": "<", "markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.4}
    value = row["switches_per_million_calls"]["value"]
    axes.plot(value, place, color=colour, markersize=7.5, linestyle="none", zorder=3, **look)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return limits with room on both sides of the points."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    room = max(1.6, (high / low) ** 0.05)
    # More than a decade, or no power of ten might lie between the ends, and the axis would have no tick.
    return low / room, max(high * room, 12.0 * low)


def _legend(figure: Figure, kinds: Sequence[int], with_bounds: bool) -> None:
    names = (*KINDS, "other")
    handles = [
        Line2D([], [], color=style.colour(kind), marker=style.marker(kind), markersize=7.5, linestyle="none",
               label=names[kind])
        for kind in kinds
    ]  # fmt: skip
    if with_bounds:
        handles.append(
            Line2D([], [], color=style.MUTED, marker="<", markersize=7.5, markerfacecolor="white", linestyle="none",
                   label="none seen, upper bound")
        )  # fmt: skip
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=5, columnspacing=1.2, borderaxespad=0.2)
