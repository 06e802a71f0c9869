"""Draw how the cost of a chain step grows with D, K and the number of chains, from the file of benchmarks/peers.py.

    python benchmarks/scaling_figure.py benchmarks/results/peers.json docs/pictures/scaling.png

Nothing is run again.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from gfnmc.report import style

WIDTH, HEIGHT = 9.0, 3.1
NAMES = {"D": "sites D", "K": "actions undone K", "chains": "chains"}


def main() -> None:
    """Read the rows and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help=".json file that benchmarks/peers.py wrote")
    parser.add_argument("picture", type=Path, help="PNG or SVG file to write")
    options = parser.parse_args()
    draw(json.loads(options.results.read_text(encoding="utf-8")), options.picture)


def draw(summary: Mapping[str, Any], picture: Path) -> None:
    """Write the picture of the scaling rows.

    Raises:
        SystemExit: If there are none.
    """
    rows = [row for row in summary["rows"] if row["name"].startswith("scaling-")]
    if not rows:
        raise SystemExit("there are no rows of scaling; run benchmarks/peers.py with --only scaling, or without --only")
    figure = _figure({"rows": rows})
    if picture.suffix == ".svg":
        figure.savefig(picture, metadata={"Date": None})
    else:
        picture.write_bytes(style.png(figure))
    print(f"{picture}: {picture.stat().st_size:,} bytes")


@style.styled
def _figure(document: Mapping[str, Any]) -> Figure:
    figure = style.new_figure(HEIGHT, WIDTH)
    panels = figure.subplots(1, len(document["rows"]), sharey=True, squeeze=False)[0]
    for place, (axes, row) in enumerate(zip(panels, document["rows"], strict=True)):
        _panel(axes, row, place)
    panels[0].set_ylabel("CPU-milliseconds a step")
    return figure


def _panel(axes: Axes, row: Mapping[str, Any], place: int) -> None:
    """Draw the points of one row, and a line with the fitted slope."""
    against = row["name"].removeprefix("scaling-")
    sizes = [point[against] for point in row["points"]]
    costs = [1_000 * point["cpu_seconds"] for point in row["points"]]
    axes.plot(sizes, costs, color=style.colour(place), marker=style.marker(place), linewidth=2.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    held = row["work"].rpartition("exponent, ")[2]
    axes.set_title(f"grows as {against}^{row['value']:.2f}\n{held}")
    axes.set_xlabel(NAMES[against])
    axes.grid(visible=True)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
