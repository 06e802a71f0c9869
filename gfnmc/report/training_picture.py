"""The picture of training: bounds on log Z, and the predicted acceptance, against the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gfnmc.report import style
from gfnmc.report.training import exact_log_z, trained

Document = Mapping[str, Any]


@style.styled
def training_curves(document: Document) -> Figure:
    """Draw what each look during training saw.

    Args:
        document: The comparison as data.

    Returns:
        Two panels: the bounds on log Z, with the exact value where it is known; the acceptance of a full restart.
    """
    figure = style.new_figure(4.6)
    bounds, acceptance = figure.subplots(2, sharex=True, height_ratios=(1.25, 1))
    exact = exact_log_z(document)
    for index, training in trained(document).items():
        curve, colour = training["curves"]["quality"], style.colour(index)
        elbo, eubo = style.floats(curve["elbo"]), style.floats(curve["eubo"])
        bounds.fill_between(curve["step"], elbo, eubo, color=style.tint(colour, 0.82), linewidth=0)
        bounds.plot(curve["step"], elbo, color=colour, marker="^", markersize=4.5, linewidth=1.5)
        bounds.plot(curve["step"], eubo, color=colour, marker="v", markersize=4.5, linewidth=1.5, linestyle="--")
        rate = style.floats(curve["acceptance"])
        acceptance.plot(curve["step"], rate, color=colour, marker=style.marker(index), markersize=4.5, linewidth=1.5)
    if exact is not None and math.isfinite(exact):
        bounds.axhline(exact, color=style.INK, linewidth=1.4, zorder=1)
    _set_range(bounds, document, exact)
    bounds.set_ylabel("log Z (nats)")
    bounds.yaxis.set_major_locator(MaxNLocator(nbins=5))
    acceptance.set_ylim(0, 1.03)
    acceptance.set_ylabel("restart accepted")
    acceptance.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    acceptance.set_xlabel("training step")
    style.count_ticks(acceptance)
    for axes in (bounds, acceptance):
        axes.grid(axis="y")
    _legend(figure, document, exact)
    return figure


def _set_range(axes: Axes, document: Document, exact: float | None) -> None:
    """Show the second half of the looks whole: the bounds begin so far apart that the rest would be one line."""
    shown = [] if exact is None else [exact]
    for training in trained(document).values():
        curve = training["curves"]["quality"]
        for bound in (curve["elbo"], curve["eubo"]):
            shown += style.floats(bound[len(bound) // 2 :])
    finite = [value for value in shown if math.isfinite(value)]
    if finite:
        low, high = min(finite), max(finite)
        # Bounds that agree to the last digit still get an axis.
        room = 0.12 * (high - low) or max(1e-6 * abs(high), 0.05)
        axes.set_ylim(low - room, high + room)


def _legend(figure: Figure, document: Document, exact: float | None) -> None:
    found = trained(document)
    handles = []
    if len(found) > 1:
        names = {index: style.label(document["samplers"][index]["name"], 24) for index in found}
        handles = [
            Line2D([], [], color=style.colour(index), marker=style.marker(index), linewidth=2.2, label=name)
            for index, name in names.items()
        ]
    only = style.colour(next(iter(found))) if len(found) == 1 else style.MUTED
    handles.append(Line2D([], [], color=only, marker="v", markersize=4.5, linestyle="--", label="EUBO"))
    handles.append(Line2D([], [], color=only, marker="^", markersize=4.5, label="ELBO"))
    if exact is not None:
        handles.append(Line2D([], [], color=style.INK, linewidth=1.4, label="exact"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.4, borderaxespad=0.2)
    figure.set_figheight(figure.get_figheight() + 0.22 * ((len(handles) - 1) // 3))
