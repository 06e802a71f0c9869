"""The pictures of costs: effective draws per cost, what was spent on what, and when training is paid back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gfnmc.report import format as fmt
from gfnmc.report import style
from gfnmc.report.style import Document

_MOST_STATISTICS = 12
_WORST_R_HAT = 1.1
_EFFECTIVE_DRAWS = np.logspace(1, 7, 121)
_PARTS = ("training", "sampling")
_UNITS = {"target_calls": "target calls", "seconds": "seconds", "policy_calls": "policy calls"}


@style.styled
def ess_rates(document: Document) -> Figure:
    """Draw the effective sample size of each statistic per 1,000 target calls of sampling.

    Args:
        document: The comparison as data.

    Returns:
        Bars on a log scale, the worst statistics first. A statistic that never moved has no bar but says so.
    """
    return _rate_bars(document, "target_calls", 1_000.0, "bulk ESS per 1,000 target calls")


@style.styled
def ess_per_second(document: Document) -> Figure:
    """Draw the effective sample size of each statistic per second of sampling, as `ess_rates` does."""
    return _rate_bars(document, "seconds", 1.0, "bulk ESS per second")


@style.styled
def cost_split(document: Document) -> Figure:
    """Draw what each sampler spent on training and on sampling.

    Args:
        document: The comparison as data.

    Returns:
        A panel a unit (target calls, seconds, policy calls), in it a bar a sampler: training pale, sampling full.
    """
    samplers = document["samplers"]
    units = [unit for unit in _UNITS if any(sampler["cost"][part][unit] for sampler in samplers for part in _PARTS)]
    figure = style.new_figure(0.6 + max(1, len(units)) * (0.62 + 0.24 * len(samplers)))
    panels = figure.subplots(max(1, len(units)), squeeze=False)[:, 0]
    for unit, axes in zip(units, panels, strict=False):
        for index, sampler in enumerate(samplers):
            training, sampling = (fmt.to_float(sampler["cost"][part][unit]) or 0.0 for part in _PARTS)
            colour = style.colour(index)
            axes.barh(
                index, training, 0.72, color=style.tint(colour, 0.62), hatch="///", edgecolor="white", linewidth=0
            )
            axes.barh(index, sampling, 0.72, left=training, color=colour)
        axes.set_title(_UNITS[unit])
        axes.set_ylim(len(samplers) - 0.4, -0.6)
        axes.set_yticks([])
        axes.grid(axis="x")
        style.count_ticks(axes)
    style.legend(figure, document)
    return figure


@style.styled
def break_even(document: Document) -> Figure:
    """Draw what so many effective draws cost with each sampler, training included.

    Args:
        document: The comparison as data.

    Returns:
        Two panels, target calls and seconds; a line a sampler that has effective draws. Where two lines cross, the
        sampler with the dearer training has paid it back.
    """
    figure = style.new_figure(5.2)
    panels = figure.subplots(2, sharex=True)
    for axes, unit in zip(panels, ("target_calls", "seconds"), strict=True):
        for index in priced_samplers(document):
            training, per_draw = _price(document["samplers"][index], unit)
            if per_draw is not None:
                cost = training + per_draw * _EFFECTIVE_DRAWS
                axes.plot(_EFFECTIVE_DRAWS, cost, color=style.colour(index), linewidth=max(1.5, 2.6 - 0.4 * index))
                middle = len(cost) // 2
                axes.plot(_EFFECTIVE_DRAWS[middle], cost[middle], marker=style.marker(index), color=style.colour(index))
        axes.set_xscale("log")
        axes.set_yscale("log")
        style.log_ticks(axes)
        axes.yaxis.set_major_locator(LogLocator(10, numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.count(value) if value >= 1 else f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel(_UNITS[unit])
        axes.grid()
    panels[-1].set_xlabel("effective draws of the worst statistic")
    style.legend(figure, document, only=priced_samplers(document))
    return figure


def priced_samplers(document: Document) -> tuple[int, ...]:
    """Return the samplers whose effective draws have a price: not stuck, R-hat up to 1.1, and all moved."""
    return tuple(
        index
        for index, sampler in enumerate(document["samplers"])
        if _is_counted(sampler) and _price(sampler, "target_calls")[1] is not None
    )


def _is_counted(sampler: Mapping[str, Any]) -> bool:
    try:
        r_hat = fmt.to_float(sampler["worst"]["r_hat"])
    except ValueError:
        return False
    return sampler["status"] != "stuck" and (r_hat is None or r_hat <= _WORST_R_HAT)


def _price(sampler: Mapping[str, Any], unit: str) -> tuple[float, float | None]:
    """Return the cost of training, and of one effective draw of the worst statistic."""
    ess, spent = fmt.to_float(sampler["worst"]["ess_bulk"]), fmt.to_float(sampler["cost"]["sampling"][unit])
    training = fmt.to_float(sampler["cost"]["training"][unit]) or 0.0
    is_priced = ess is not None and spent is not None and 0.0 < ess < math.inf and spent > 0.0
    return training, spent / ess if is_priced else None  # type: ignore[operator]


def _rate_bars(document: Document, unit: str, scale: float, words: str) -> Figure:
    names = _worst_statistics(document)
    samplers = document["samplers"]
    rates = [_rates(sampler, unit, scale) for sampler in samplers]
    figure, axes = style.figure(0.95 + max(1.2, len(names) * (0.24 + 0.2 * len(samplers))))
    low, high = _decades([value for rate in rates for value in rate.values() if value])
    height = 0.8 / max(len(samplers), 1)
    for index, rate in enumerate(rates):
        for slot, name in enumerate(names):
            place = slot + (index - (len(samplers) - 1) / 2) * height
            _draw_rate(axes, place, height, rate.get(name, math.nan), low, style.colour(index))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    style.log_ticks(axes)
    axes.set_yticks(range(len(names)), [style.label(name, 18) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(words)
    style.legend(figure, document)
    return figure


def _draw_rate(axes: Axes, place: float, height: float, rate: float | None, low: float, colour: str) -> None:
    """Draw one bar; a rate of None never moved and gets words, NaN is a sampler without the statistic."""
    if rate is None:
        axes.plot(low, place, marker="x", color=colour, markersize=6, markeredgewidth=1.8, clip_on=False, zorder=3)
        axes.annotate(fmt.DID_NOT_MOVE, (low, place), xytext=(8, 0), textcoords="offset points", va="center",
                      fontsize=9, color=style.INK)  # fmt: skip
    elif rate > 0:
        axes.barh(place, rate - low, height * 0.92, left=low, color=colour)


def _rates(sampler: Mapping[str, Any], unit: str, scale: float) -> dict[str, float | None]:
    """Return each statistic's bulk ESS per `scale` units of the cost of sampling; None where it never moved."""
    spent = sampler["cost"]["sampling"][unit]
    found = ((statistic["name"], fmt.to_float(statistic["ess_bulk"])) for statistic in sampler["statistics"])
    return {name: None if ess is None else scale * ess / spent if spent else math.nan for name, ess in found}


def _worst_statistics(document: Document) -> list[str]:
    """Return the statistics to draw: those that some sampler knows least about, in the document's order."""
    worst: dict[str, float] = {}
    for sampler in document["samplers"]:
        for statistic in sampler["statistics"]:
            ess = fmt.to_float(statistic["ess_bulk"]) or 0.0
            worst[statistic["name"]] = min(ess, worst.get(statistic["name"], math.inf))
    kept = sorted(worst, key=worst.__getitem__)[:_MOST_STATISTICS]
    return [name for name in worst if name in kept]


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around some positive values, with room below the smallest for its bar."""
    finite = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    return 10.0 ** math.floor(math.log10(min(finite)) - 0.3), 10.0 ** math.ceil(math.log10(max(finite)) + 0.02)
