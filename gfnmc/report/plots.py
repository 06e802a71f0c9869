"""The pictures of a comparison, each a matplotlib figure made from the document alone.

How they look is in `style.py`. A sampler has the same colour and marker in every picture.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from gfnmc.report import format as fmt
from gfnmc.report import style
from gfnmc.report.style import Document

_MOST_TRACES, _MOST_RASTER_ROWS, _MOST_MODE_LABELS = 4, 12, 6


@style.styled
def discovery(document: Document) -> Figure:
    """Draw how many modes were found against target calls, training included.

    Args:
        document: The comparison as data.

    Returns:
        One step line a sampler; a dotted line where its training ended.
    """
    figure, axes = style.figure(3.5)
    for index, sampler in enumerate(document["samplers"]):
        colour, training = style.colour(index), sampler["cost"]["training"]["target_calls"]
        calls, found = _discovery_line(sampler)
        # Lines that coincide stay visible: the later one is thinner and on top.
        width = max(1.5, 3.6 - 0.9 * index)
        axes.step(calls, found, where="post", color=colour, linewidth=width, solid_capstyle="butt")
        if calls:
            axes.plot(calls[-1], found[-1], marker=style.marker(index), color=colour, markersize=6, clip_on=False)
        if training:
            _draw_training_end(axes, training)
    total = len(document["target"]["modes"])
    axes.set_ylim(-0.04 * max(total, 1), max(total, 1) * 1.06)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xscale("log")
    style.log_ticks(axes)
    axes.grid(axis="y")
    axes.set_xlabel("target calls, training included")
    axes.set_ylabel(f"modes found (of {total})")
    style.legend(figure, document)
    return figure


@style.styled
def masses(document: Document) -> Figure:
    """Draw the estimated mass of each mode, with its error bar, against the exact one.

    Args:
        document: The comparison as data.

    Returns:
        A slot a mode; in it a point a sampler, and a line at the exact mass where it is known.
    """
    figure, axes = style.figure(3.5 if len(document["target"]["modes"]) <= _MOST_MODE_LABELS else 4.3)
    _draw_masses(axes, document)
    style.legend(figure, document, with_exact=True)
    return figure


@style.styled
def traces(document: Document) -> Figure:
    """Draw the log-density of a few chains of each sampler against the draw.

    Args:
        document: The comparison as data.

    Returns:
        One panel a sampler, all with the same axes.
    """
    samplers = document["samplers"]
    figure = style.new_figure(0.9 + 1.25 * max(len(samplers), 1))
    panels = figure.subplots(max(len(samplers), 1), sharex=True, sharey=True, squeeze=False)[:, 0]
    for index, (sampler, axes) in enumerate(zip(samplers, panels, strict=False)):
        trace = sampler["curves"]["trace"]
        for row, chain in enumerate(trace["log_prob"][:_MOST_TRACES]):
            axes.plot(
                trace["draw"], style.floats(chain), color=style.tint(style.colour(index), 0.2 * row), linewidth=0.8
            )
        axes.set_title(style.label(sampler["name"], 40), fontsize=10.5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.grid(axis="y")
    panels[-1].set_xlabel("draw")
    style.count_ticks(panels[-1])
    figure.supylabel("log density (nats)", fontsize=11)
    return figure


@style.styled
def acceptance(document: Document) -> Figure:
    """Draw how often a proposal that takes back so many steps is accepted.

    Args:
        document: The comparison as data.

    Returns:
        Bars by number of steps taken back, of the samplers whose kernel takes steps back.
    """
    rates = acceptance_rates(document)
    figure, axes = style.figure(3.3)
    steps = sorted({step for rate in rates.values() for step in rate})
    width = 0.8 / max(len(rates), 1)
    for place, (index, rate) in enumerate(rates.items()):
        positions = [steps.index(step) + (place - (len(rates) - 1) / 2) * width for step in rate]
        axes.bar(positions, list(rate.values()), width * 0.94, color=style.colour(index))
    every = math.ceil(len(steps) / 12) or 1
    axes.set_xticks(range(0, len(steps), every), [str(step) for step in steps[::every]])
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y")
    axes.set_xlabel("steps taken back")
    axes.set_ylabel("accepted")
    style.legend(figure, document, only=tuple(rates))
    return figure


@style.styled
def hero(document: Document) -> Figure:
    """Draw the one picture for a README: which mode each chain is in over the steps, and the masses that follow.

    Args:
        document: The comparison as data.

    Returns:
        A wide figure: a coloured raster for each of the first three samplers, and the masses against the exact ones.
    """
    samplers = document["samplers"][:3]
    figure = style.new_figure(1.3 + 1.35 * max(len(samplers), 2), width=9.4)
    left, right = figure.subfigures(1, 2, width_ratios=(1.55, 1), wspace=0.04, squeeze=False)[0]
    panels = left.subplots(max(len(samplers), 1), squeeze=False)[:, 0]
    colours = style.mode_colours(document)
    for sampler, axes in zip(samplers, panels, strict=False):
        _draw_raster(axes, sampler, colours)
    panels[-1].set_xlabel("step")
    style.mode_legend(left, document, colours)
    axes = right.subplots()
    _draw_masses(axes, document)
    style.legend(right, document, with_exact=True)
    figure.suptitle(style.label(document["title"], 64), x=0.012, ha="left", fontsize=14, fontweight="bold")
    return figure


def acceptance_rates(document: Document) -> dict[int, dict[int, float]]:
    """Return, by sampler index and steps taken back, the acceptance of the proposals that were made."""
    rates = {}
    for index, sampler in enumerate(document["samplers"]):
        entries = sampler["acceptance"]["by_num_back_steps"]
        rate = {entry["num_back_steps"]: entry["acceptance"] for entry in entries if entry["proposals"]}
        if rate:
            rates[index] = rate
    return rates


def _draw_training_end(axes: Axes, training: int) -> None:
    """Mark where a sampler's training ends, with words for the first one: samplers may share a pair."""
    if not axes.texts:
        axes.annotate("training ends", (training, 0.06), xycoords=("data", "axes fraction"), xytext=(-5, 0),
                      textcoords="offset points", rotation=90, ha="right", va="bottom", fontsize=9)  # fmt: skip
    axes.axvline(training, color=style.INK, linewidth=1.1, linestyle=":", zorder=5)


def _draw_masses(axes: Axes, document: Document) -> None:
    samplers, modes = document["samplers"], document["target"]["modes"]
    step = 0.7 / max(len(samplers), 1)
    exact = [(slot, mode["mass"]) for slot, mode in enumerate(modes) if mode["mass"] is not None]
    top = _mass_limit(document)
    for slot, mass in exact:
        axes.plot(
            (slot - 0.42, slot + 0.42), (mass, mass), color=style.INK, linewidth=1.6, solid_capstyle="butt", zorder=2
        )
    for index, sampler in enumerate(samplers):
        places = [slot + (index - (len(samplers) - 1) / 2) * step for slot in range(len(sampler["modes"]))]
        values = [mode["mass"] for mode in sampler["modes"]]
        errors = [fmt.to_float(mode["mass_error"]) or 0.0 for mode in sampler["modes"]]
        size, cap = (6, 2.5) if len(modes) <= _MOST_MODE_LABELS else (3.5, 1.2)
        shown = [value if value <= top else math.nan for value in values]
        look = {"fmt": style.marker(index), "color": style.colour(index), "markersize": size, "capsize": cap}
        axes.errorbar(places, shown, errors, **look, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
        for place, value in zip(places, values, strict=True):
            if value > top:
                side = "left" if place < len(modes) / 2 else "right"
                words = f"{fmt.number(value, 3)} ↑"
                axes.annotate(words, (place, top), color=style.colour(index), fontsize=9, ha=side, va="top")
    _name_modes(axes, [mode["name"] for mode in modes])
    axes.set_xlim(-0.6, max(len(modes), 1) - 0.4)
    # A little below zero, so that a mass of zero is a whole point.
    axes.set_ylim(-0.025 * top, top)
    axes.grid(axis="y")
    axes.set_ylabel("mass of the mode")


def _mass_limit(document: Document) -> float:
    """Return the top of the axis of masses: a sampler that is far off must not squash the others."""
    exact = max((mode["mass"] or 0.0 for mode in document["target"]["modes"]), default=0.0)
    found = max((mode["mass"] for s in document["samplers"] for mode in s["modes"]), default=0.0)
    if exact and found > 4 * exact:
        return 1.8 * exact
    return 1.06 * max(exact, found) or 1.0


def _name_modes(axes: Axes, names: Sequence[str]) -> None:
    """Name the slots: a few names in two lines each, many names turned."""
    turned = len(names) > _MOST_MODE_LABELS
    width = 14 if turned else max(6, 24 // max(len(names), 1))
    labels = [style.label(name, width if turned else 2 * width) for name in names]
    if not turned:
        labels = ["\n".join(textwrap.wrap(label, width)[:2]) for label in labels]
    axes.set_xticks(range(len(names)), labels)
    axes.tick_params(axis="x", length=0, labelrotation=90 if turned else 0, labelsize=8.5 if turned else 11)


def _draw_raster(axes: Axes, sampler: Mapping[str, Any], colours: Sequence[str]) -> None:
    """Colour each chain's row by the mode it is in; outside every mode is grey."""
    raster = sampler["curves"]["mode_raster"]
    rows = np.asarray(raster["mode"][:_MOST_RASTER_ROWS], dtype=int).reshape(-1, max(len(raster["step"]), 1))
    if rows.size:
        palette = ListedColormap([style.OUTSIDE, *colours])
        edges = np.arange(-1.5, len(colours))
        first, last = raster["step"][0], raster["step"][-1]
        axes.imshow(rows, cmap=palette, norm=BoundaryNorm(edges, palette.N), interpolation="nearest", aspect="auto",
                    extent=(first, max(last, first + 1), len(rows), 0))  # fmt: skip
        axes.hlines(range(1, len(rows)), first, max(last, first + 1), color="white", linewidth=1.2)
    axes.set_title(style.label(sampler["name"], 44))
    axes.set_ylabel(f"{len(rows)} chains" if len(rows) != 1 else "1 chain")
    axes.yaxis.set_major_locator(NullLocator())
    style.count_ticks(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _discovery_line(sampler: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the step line's corners, from no mode found to the end of the budget; a log axis has no zero."""
    curve, cost = sampler["curves"]["discovery"], sampler["cost"]
    if not curve["calls"]:
        return [], []
    end = max(curve["calls"][-1], cost["training"]["target_calls"] + cost["sampling"]["target_calls"])
    calls = [max(1, call) for call in (curve["calls"][0], *curve["calls"], end)]
    return calls, [0, *curve["modes_found"], curve["modes_found"][-1]]
