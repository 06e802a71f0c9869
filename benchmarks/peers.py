"""Measure gfnmc side by side with its peers, torchgfn and gfnx, and write what it must reach as rows.

    python benchmarks/peers.py --torchgfn-python torchgfn-venv/bin/python --gfnx-python gfnx-venv/bin/python \\
        --json benchmarks/results/peers.json --figure docs/pictures/scaling.png
    python benchmarks/peers.py --rounds 1 --min-time 0.2 --only chain,sampling-ising

Each library works in a process of its own interpreter, on one thread, and they take turns; a ratio is one of medians of
CPU-seconds over the rounds. Rows of a peer that is not given are reported as not measured. benchmarks/README.md says
how to make the interpreters, and what is fair and what is not. A quarter of an hour on two cores.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers_contests import Row, contests, run
from peers_libraries import GFNX, OWN, TORCHGFN, Libraries
from peers_processes import import_row, memory_rows, site_rows
from peers_scaling import scaling_rows
from provenance import provenance


def main() -> None:
    """Measure what is asked for, print the rows and write them."""
    options = _parse()
    pythons = {OWN: sys.executable, TORCHGFN: options.torchgfn_python, GFNX: options.gfnx_python}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    summary: dict[str, Any] = provenance() | {"versions": {}, "settings": _settings(options), "rows": []}
    with Libraries({name: str(python) for name, python in pythons.items() if python is not None}) as libraries:
        for row in _rows(libraries, options):
            print(_line(row), flush=True)
            summary["rows"].append(row)
            summary["versions"] = {"python": platform.python_version()} | libraries.versions
            summary["minutes"] = round((time.perf_counter() - begun) / 60.0, 1)
            if options.json is not None:
                options.json.write_text(json.dumps(_short(summary), indent=1) + "\n", encoding="utf-8")
    if not summary["rows"]:
        raise SystemExit(f"no row has a name that begins with {' or '.join(options.only)}; see benchmarks/README.md")
    if options.figure is not None:
        # Not before: it imports torch.
        from scaling_figure import draw

        draw(summary, options.figure)


def _rows(libraries: Libraries, options: argparse.Namespace) -> Iterator[Row]:
    def is_wanted(name: str) -> bool:
        return options.only is None or any(name.startswith(wanted) for wanted in options.only)

    for contest in contests():
        if is_wanted(contest.name):
            yield run(contest, libraries, options.rounds, options.min_time)
    if is_wanted("sites"):
        yield from site_rows(options.rounds)
    if is_wanted("memory"):
        yield from memory_rows(libraries)
    if is_wanted("import"):
        yield import_row(options.rounds)
    if is_wanted("scaling"):
        yield from scaling_rows(libraries, options.rounds, options.min_time)


def _line(row: Row) -> str:
    said = {True: "holds ", False: "MISSED", None: "      "}[row["holds"]]
    if row["value"] is None:
        alone = f"{row['clocked'][OWN]['cpu_seconds']:.4g} CPU-seconds" if "clocked" in row else "measured"
        missing = " nor ".join(row["not_measured"])
        return f"{said}  {row['work']}: not measured, for there is no {missing}; gfnmc: {alone}"
    by_wall = f", {row['by_wall']:.3g} by the wall" if "by_wall" in row else ""
    asked = "" if row["required"] is None else f" (required: {row['required']})"
    return f"{said}  {row['work']}: {row['value']:.3g}{by_wall}{asked}"


def _short(figures: Any) -> Any:
    """Return the figures with as many digits as mean something."""
    if isinstance(figures, dict):
        return {name: _short(figure) for name, figure in figures.items()}
    if isinstance(figures, list):
        return [_short(figure) for figure in figures]
    return float(f"{figures:.4g}") if isinstance(figures, float) else figures


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"rounds": options.rounds, "min_time": options.min_time, "num_threads": 1}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchgfn-python", type=Path, help="an interpreter that has torchgfn")
    parser.add_argument("--gfnx-python", type=Path, help="an interpreter that has gfnx, equinox and optax")
    parser.add_argument("--json", type=Path, help="file for the rows, written after each of them")
    parser.add_argument("--figure", type=Path, help="PNG or SVG file for how the cost of a chain step grows")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library in each row")
    parser.add_argument("--min-time", type=float, default=0.5, help="least seconds of a turn")
    parser.add_argument("--only", type=lambda text: text.split(","), help="beginnings of names of rows: chain,import")
    return parser.parse_args()


if __name__ == "__main__":
    main()
