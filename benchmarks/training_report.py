"""What benchmarks/training.py writes: lines of a table, and rows of figures with what is asked of them."""

import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from provenance import commit
from training_judging import Judge, Judgement

from gfnmc.core.storage import write_atomically

Row = dict[str, Any]

_COLUMNS = (
    "target",
    "trainer",
    "seconds",
    "calls",
    "|dlogZ|",
    "learned",
    "modes",
    "restart",
    "half",
    "overlap",
    "missed",
)
_WIDTHS = (34, 16, 8, 10, 8, 8, 6, 8, 6, 8, 0)


@dataclass(frozen=True)
class Figure:
    """A number of a judgement and what is asked of it.

    Attributes:
        name: What rows call it.
        of: Takes it from a judgement; None where the judgement has none.
        required: What is asked of the default, in words; None where nothing is.
        holds: Whether a value will do.
    """

    name: str
    of: Callable[[Judgement], float | int | None]
    required: str | None = None
    holds: Callable[[float], bool] = lambda value: True


def figures(judge: Judge) -> list[Figure]:
    """Return the figures of a problem's table, in order."""
    problem, num_modes = judge.problem, judge.num_modes
    found = [
        Figure("seconds", lambda j: j.seconds, f"< {problem.seconds:g}", lambda value: value < problem.seconds),
        Figure("target calls", lambda j: j.target_calls),
        Figure("|log Z error|", lambda j: j.log_z_error),
        Figure("|learned log Z error|", lambda j: j.learned_log_z_error),
        Figure(
            "full-restart acceptance",
            lambda j: j.acceptance,
            f">= {problem.acceptance:g}",
            lambda value: value >= problem.acceptance,
        ),
        Figure("acceptance of K = half", lambda j: j.half_acceptance),
    ]
    if num_modes is not None:
        found.append(Figure("modes found", lambda j: j.modes_found, f"= {num_modes}", lambda n: n == num_modes))
    if judge.judges_overlaps:
        band = judge.overlap_band
        name = "distance of the overlap distribution"
        found.append(Figure(name, lambda j: j.overlap_distance, f"<= {band:.4f}", lambda value: value <= band))
    return found


def rows_of(judge: Judge, trainer: str, judgement: Judgement, *, is_asked: bool) -> list[Row]:
    """Return a row for each figure of one pair.

    Args:
        judge: What judged it.
        trainer: What trained it.
        judgement: The figures.
        is_asked: Whether the requirements apply, as they do to the default alone.
    """
    work = f"{judge.problem.title}, {trainer}"
    return [
        _row(f"{work}: {figure.name}", value, figure, is_asked=is_asked)
        for figure in figures(judge)
        if (value := figure.of(judgement)) is not None
    ]


def rows_of_seeds(judge: Judge, judgements: Sequence[Judgement]) -> list[Row]:
    """Return median, least and most of each figure over the seeds."""
    rows = []
    for figure in figures(judge):
        values = [value for judgement in judgements if (value := figure.of(judgement)) is not None]
        for what, reduce in (("median", statistics.median), ("least", min), ("most", max)):
            work = f"{judge.problem.title}, default, {what} of {len(judgements)} seeds: {figure.name}"
            if values:
                rows.append(_row(work, reduce(values), figure, is_asked=True))
    return rows


def header() -> str:
    """Return the first line of the table."""
    return _line(_COLUMNS)


def table_line(judge: Judge, trainer: str, judgement: Judgement, *, is_asked: bool) -> str:
    """Return the line of one pair, with what it misses of what is asked."""
    asked = figures(judge) if is_asked else []
    missed = [
        f"{figure.name} {figure.required}"
        for figure in asked
        if figure.required is not None and (value := figure.of(judgement)) is not None and not figure.holds(value)
    ]
    modes = "-" if judge.num_modes is None else f"{judgement.modes_found}/{judge.num_modes}"
    return _line(
        (
            judge.problem.title,
            trainer,
            f"{judgement.seconds:.1f}",
            f"{judgement.target_calls:,}",
            f"{judgement.log_z_error:.4f}",
            f"{judgement.learned_log_z_error:.4f}",
            modes,
            f"{judgement.acceptance:.3f}",
            _or_dash(judgement.half_acceptance),
            _or_dash(judgement.overlap_distance),
            "; ".join(missed),
        )
    )


def missing_line(title: str, trainer: str, why: str) -> str:
    """Return the line of a trainer that was not run."""
    return _line((title, trainer, *["-"] * 8, why))


def seed_lines(judge: Judge, judgements: Sequence[Judgement]) -> list[str]:
    """Return the summary over seeds, one figure a line."""
    lines = [f"{judge.problem.title}, default, {len(judgements)} seeds: median (least to most)"]
    for figure in figures(judge):
        values = [value for judgement in judgements if (value := figure.of(judgement)) is not None]
        if not values:
            continue
        asked = "" if figure.required is None else f"   asked {figure.required}"
        spread = f"{min(values):,.4g} to {max(values):,.4g}"
        lines.append(f"    {figure.name:38}{statistics.median(values):,.4g} ({spread}){asked}")
    return lines


class Document:
    """The JSON file: written after each target, so that a run that is killed leaves what it had.

    Rows of targets that are not run again are kept, if the file is of the same commit and settings.

    Args:
        path: The file; None writes nothing.
        titles: Titles of all problems, in the order of rows.
        settings: What the figures depend on.
        versions: Of the packages beside those that are always named.
    """

    def __init__(
        self, path: Path | None, titles: Sequence[str], settings: dict[str, Any], versions: dict[str, str]
    ) -> None:
        self._path = path
        self._head = {
            "commit": commit(),
            "cores": os.cpu_count(),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in ("gfnmc", "torch", "numpy")}
            | versions,
            "settings": settings,
        }
        self._rows: dict[str, list[Row]] = {title: [] for title in titles}
        if path is not None and path.exists():
            self._keep(json.loads(path.read_text(encoding="utf-8")))

    def put(self, title: str, rows: list[Row]) -> None:
        """Replace the rows of one target and write the file."""
        self._rows[title] = rows
        if self._path is None:
            return
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        everything = {"date": date} | self._head | {"rows": [row for rows in self._rows.values() for row in rows]}
        write_atomically(self._path, (json.dumps(everything, indent=1) + "\n").encode())

    def _keep(self, before: dict[str, Any]) -> None:
        if any(before.get(name) != json.loads(json.dumps(self._head[name])) for name in ("commit", "settings")):
            return
        for title, rows in self._rows.items():
            rows.extend(row for row in before["rows"] if row["work"].startswith(f"{title}, "))


def _row(work: str, value: float | int, figure: Figure, *, is_asked: bool) -> Row:
    required = figure.required if is_asked else None
    # JSON has no infinity.
    shown = "inf" if value == math.inf else value
    return {
        "work": work,
        "value": shown,
        "required": required,
        "holds": None if required is None else figure.holds(value),
    }


def _line(cells: Sequence[str]) -> str:
    first = "  ".join(f"{cell:{width}}" for cell, width in zip(cells[:2], _WIDTHS, strict=False))
    rest = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells[2:], _WIDTHS[2:], strict=True))
    return f"{first}  {rest}".rstrip()


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
