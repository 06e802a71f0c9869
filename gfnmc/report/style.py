"""The look of the pictures: colours, sizes, figures, legends and ticks.

Nothing global is changed: figures are made without pyplot, and the style holds inside a block. A sampler has the same
colour and marker in every picture; both palettes can be told apart with any kind of colour vision.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gfnmc.report import format as fmt

# Okabe and Ito (2008), without the yellow, which is too light for lines on white.
SAMPLER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3C3C3C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Paul Tol's muted scheme: modes must not look like samplers.
MODE_COLOURS = ("#332288", "#DDCC77", "#44AA99", "#CC6677", "#88CCEE", "#AA4499", "#117733", "#999933", "#882255")
OUTSIDE, INK, MUTED, GRID = "#ECEFF2", "#1B2430", "#5B6775", "#E3E7EB"

WIDTH, DPI = 5.2, 200
STYLE = {
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
}

Document = Mapping[str, Any]


def styled(draw: Callable[[Document], Figure]) -> Callable[[Document], Figure]:
    """Make a picture in the report's style, whatever the user's own style is, and restore theirs."""

    @functools.wraps(draw)
    def in_style(document: Document) -> Figure:
        with matplotlib.style.context(["default", STYLE]):
            return draw(document)

    return in_style


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes, the same bytes for the same figure.

    Args:
        figure: A figure of this module.

    Returns:
        The image at 200 dots an inch.
    """
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the page's text has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of some inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure(height: float) -> tuple[Figure, Axes]:
    """Return a figure of the usual width with one pair of axes."""
    figure = new_figure(height)
    return figure, figure.subplots()


def legend(figure: Any, document: Document, *, only: Sequence[int] | None = None, with_exact: bool = False) -> None:
    """Name the samplers above a picture, all or only some, and the line of exact values."""
    samplers, limit = document["samplers"], 40 if isinstance(figure, Figure) else 26
    handles = [
        Line2D([], [], color=colour(i), marker=marker(i), linewidth=2.2, label=label(samplers[i]["name"], limit))
        for i in (range(len(samplers)) if only is None else only)
    ]
    if with_exact and any(mode["mass"] is not None for mode in document["target"]["modes"]):
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label="exact"))
    if handles:
        columns = 3 if sum(len(str(handle.get_label())) for handle in handles) < 34 else 1
        if columns == 1 and isinstance(figure, Figure):
            # A list of names must not eat the picture below it.
            figure.set_figheight(figure.get_figheight() + 0.22 * (len(handles) - 1))
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, columnspacing=1.4, borderaxespad=0.2)


def mode_legend(figure: Any, document: Document, colours: Sequence[str]) -> None:
    """Name the modes above a picture, where they are few enough to tell apart."""
    names = [label(mode["name"], 18) for mode in document["target"]["modes"]]
    if not names or len(names) > len(MODE_COLOURS):
        return
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=False)]
    if any(-1 in chain for s in document["samplers"] for chain in s["curves"]["mode_raster"]["mode"]):
        handles.append(Patch(color=OUTSIDE, label="in no mode"))
    figure.legend(handles=handles, loc="outside upper left", ncols=4, columnspacing=1.2, borderaxespad=0.2)


def mode_colours(document: Document) -> Sequence[str]:
    """Return a colour for every mode that a chain is in: named ones while they last, a colour map beyond."""
    highest = [max(chain, default=-1) for s in document["samplers"] for chain in s["curves"]["mode_raster"]["mode"]]
    needed = max(len(document["target"]["modes"]), 1, 1 + max(highest, default=-1))
    if needed <= len(MODE_COLOURS):
        return MODE_COLOURS[:needed]
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, needed))]


def count_ticks(axes: Axes) -> None:
    """Label the horizontal axis with a few whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=(1, 2, 2.5, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.count(value)))


def log_ticks(axes: Axes) -> None:
    """Label the powers of ten in words that need no mathematical typesetting."""
    axes.xaxis.set_major_locator(LogLocator(10, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.count(value) if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def label(text: object, limit: int) -> str:
    """Return a name as matplotlib must be given it: short, on one line, its dollars not read as mathematics."""
    return fmt.plain(text, limit).replace("$", r"\$")


def floats(values: Sequence[Any]) -> list[float]:
    """Return values to draw: what is not known or not finite is a gap in the line."""
    converted = (fmt.to_float(value) for value in values)
    return [value if value is not None and math.isfinite(value) else math.nan for value in converted]


def colour(index: int) -> str:
    """Return the colour of a sampler."""
    return SAMPLER_COLOURS[index % len(SAMPLER_COLOURS)]


def marker(index: int) -> str:
    """Return the marker of a sampler."""
    return MARKERS[index % len(MARKERS)]


def tint(colour: str, amount: float) -> tuple[float, float, float]:
    """Mix a colour with white."""
    red, green, blue = (channel + (1 - channel) * amount for channel in to_rgb(colour))
    return red, green, blue
