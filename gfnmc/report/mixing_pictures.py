"""The pictures of mixing, heat maps both: moves between modes, and the ranks of the statistic that mixed worst."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gfnmc.report import format as fmt
from gfnmc.report import style
from gfnmc.report.style import Document

_MOST_NUMBERS = 8
# From white to the blue of the samplers; from brown over white to blue for shares below and above 1.
_MOVES = LinearSegmentedColormap.from_list("moves", ["#FFFFFF", "#56B4E9", "#0B3C6F"])
_SHARES = LinearSegmentedColormap.from_list("shares", ["#8C510A", "#F6E8C3", "#FFFFFF", "#9ECAE1", "#0B3C6F"])


@style.styled
def transitions(document: Document) -> Figure:
    """Draw where chains went from each mode.

    Args:
        document: The comparison as data.

    Returns:
        A heat map a sampler: rows are modes that were left, columns those that were entered next; the share of the
        departures. A row of a mode that was never left is grey.
    """
    found = samplers_with(document, "transitions")
    columns = min(2, max(1, len(found)))
    rows = math.ceil(len(found) / columns) or 1
    figure = style.new_figure(0.4 + rows * 2.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    names = [style.label(mode["name"], 16) for mode in document["target"]["modes"]]
    shares = {index: _departures(moves) for index, moves in found.items()}
    most = max((float(np.nanmax(share, initial=0.0)) for share in shares.values()), default=0.0) or 1.0
    image = None
    for place, index in enumerate(found):
        axes = panels[place]
        image = _draw_moves(axes, shares[index], found[index], most)
        axes.set_title(style.label(document["samplers"][index]["name"], 22), color=style.colour(index))
        if len(names) <= _MOST_NUMBERS and place % columns == 0:
            axes.set_yticks(range(len(names)), [f"{name}  {number}" for number, name in enumerate(names, 1)])
            axes.set_ylabel("left")
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), shrink=0.7, pad=0.02)
        bar.set_label("share of departures")
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


@style.styled
def ranks(document: Document) -> Figure:
    """Draw the rank plot of the statistic that mixed worst, for the chains that stray most.

    Args:
        document: The comparison as data.

    Returns:
        A heat map a sampler: rows are chains, columns ranges of the statistic with equal numbers of draws, the colour a
        chain's share of draws there as a multiple of that of all chains.
    """
    found = samplers_with(document, "ranks")
    shown = {index: ranked for index, ranked in found.items() if ranked["share"]}
    heights = [0.55 + 0.09 * len(ranked["share"]) for ranked in shown.values()] or [1.0]
    figure = style.new_figure(0.9 + sum(heights))
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    image = None
    for (index, ranked), axes in zip(shown.items(), panels, strict=False):
        with np.errstate(divide="ignore"):
            values = np.log2(np.asarray([style.floats(row) for row in ranked["share"]]))
        image = axes.imshow(values, cmap=_SHARES, vmin=-2, vmax=2, aspect="auto", interpolation="nearest")
        name = style.label(document["samplers"][index]["name"], 22)
        axes.set_title(f"{name}: {style.label(ranked['statistic'], 24)}", color=style.colour(index))
        axes.set_ylabel(f"{len(values)} chains" if len(values) != 1 else "1 chain")
        _clear(axes)
    panels[-1].set_xlabel("from low to high values of the statistic")
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), ticks=[-2, -1, 0, 1, 2], pad=0.02)
        bar.ax.set_yticklabels(["¼ or less", "½", "1", "2", "4 or more"])
        bar.set_label("times its share")
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def samplers_with(document: Document, key: str) -> dict[int, Any]:
    """Return what is recorded of mixing under a key, by the index of the sampler; older documents have nothing."""
    found: dict[int, Any] = {}
    for index, sampler in enumerate(document["samplers"]):
        recorded: Mapping[str, Any] = sampler["curves"].get("mixing") or {}
        if recorded.get(key):
            found[index] = recorded[key]
    return found


def _departures(moves: list[list[int]]) -> np.ndarray:
    """Return the share of the departures from each mode (row) that led to another; NaN where there is none."""
    counts = np.asarray(moves, dtype=float)
    np.fill_diagonal(counts, 0.0)
    left = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, left, out=np.full_like(counts, np.nan), where=left > 0)
    np.fill_diagonal(share, np.nan)
    return share


def _draw_moves(axes: Axes, share: np.ndarray, moves: list[list[int]], most: float) -> Any:
    """Draw one matrix, with numbers where they are few."""
    axes.set_facecolor(style.OUTSIDE)
    image = axes.imshow(share, cmap=_MOVES, vmin=0, vmax=most, interpolation="nearest")
    _clear(axes)
    axes.set_xlabel("entered")
    if len(moves) > _MOST_NUMBERS:
        return image
    for (row, column), part in np.ndenumerate(share):
        if not math.isnan(part):
            ink = "white" if part > 0.6 * most else style.INK
            axes.text(column, row, fmt.count(moves[row][column]), ha="center", va="center", fontsize=8.5, color=ink)
    # The names stand once, at the left.
    numbers = [str(number) for number in range(1, len(moves) + 1)]
    axes.set_xticks(range(len(moves)), numbers)
    axes.set_yticks(range(len(moves)), numbers)
    axes.tick_params(length=0, labelsize=9)
    return image


def _clear(axes: Axes) -> None:
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    for spine in axes.spines.values():
        spine.set_visible(False)
