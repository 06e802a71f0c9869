"""The leaderboard of a benchmark: a page, a flat CSV file, the data itself, and a table for a terminal.

All are made from the leaderboard document alone; the page and the terminal read the same columns, so that they cannot
disagree. Rates are events per cost, r = n / T; where none was seen, n = 0, the document gives an upper bound on r
instead, which stands as "< x" everywhere and is never drawn or written as if it had been measured.

Reference: Hanley & Lippman-Hand (1983), "If nothing goes wrong, is everything all right?", JAMA 249, 1743-1745.
"""

from __future__ import annotations

import csv
import importlib.resources
import io
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfnmc.core import storage
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.report import format as fmt
from gfnmc.report import table as tables
from gfnmc.report.leaderboard_columns import COLUMNS, Row, Target, value_at
from gfnmc.sampling.progress import load_rich

if TYPE_CHECKING:
    import rich.table

SCHEMA = "gfnmc.leaderboard/1"
KINDS = ("learned", "local", "tempering", "cluster")

_NOT_RUN = "not run"
_STATUS_STYLES = {"ok": "bold green", "stuck": "bold red", "unconverged": "bold yellow"}

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A sampler's line on the page: its place among the kinds gives its colour, its status a class of our own."""

    sampler: str
    kind: str
    colour: int
    status: str
    status_class: str
    reason: str
    cells: tuple[str, ...]


def leaderboard_html(document: Document) -> str:
    """Render a leaderboard as one HTML page that needs no network and runs no script.

    Args:
        document: The leaderboard as data.

    Returns:
        The whole page; equal documents give equal pages.

    Raises:
        OptionError: If the document is not a leaderboard that this version reads.
    """
    import jinja2

    from gfnmc.report import leaderboard_picture, style

    _check_schema(document)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = fmt.plain
    source = importlib.resources.files("gfnmc.report").joinpath("leaderboard.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        document=document,
        facts=_facts(document),
        picture=leaderboard_picture.switch_picture(document),
        setup=_setup(document),
        prices=[_prices(target) for target in document["targets"]],
        targets=[_target(target) for target in document["targets"]],
        raw=fmt.json_text(document),
        colours=style.SAMPLER_COLOURS,
    )


def leaderboard_table(document: Document, target_index: int) -> rich.table.Table:
    """Draw the standing on one target for a terminal, the most important columns of the page.

    Args:
        document: The leaderboard as data.
        target_index: Which target, from 0.

    Returns:
        A table for `rich.print`; it fits 100 columns, and names under it what was not run, and why.

    Raises:
        OptionError: If the document is not a leaderboard that this version reads, or has no such target.
    """
    load_rich()
    import rich.box
    import rich.table
    from rich.text import Text

    _check_schema(document)
    target = _target_at(document, target_index)
    columns = [(column, column.terminal) for column in COLUMNS if column.terminal is not None]
    title, caption = Text(fmt.plain(target["name"]), "bold"), Text("\n".join(_not_run_lines(target)), "dim")
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, title=title, caption=caption if caption else None)
    table.title_justify = table.caption_justify = "left"
    table.add_column(Text("sampler"), overflow="fold", max_width=28)
    table.add_column(Text("status"), no_wrap=True)
    for _, heading in columns:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in _run(target):
        cells = [Text(column.cell(row, target).partition("\n")[0]) for column, _ in columns]
        status = Text(_status_words(row), _STATUS_STYLES.get(row["status"], ""))
        table.add_row(Text(fmt.plain(row["sampler"], 56)), status, *cells)
    return table


def leaderboard_csv(document: Document) -> str:
    """Write a leaderboard as a flat table, a line for each target and sampler.

    A spreadsheet runs a text that begins with =, +, - or @ as a formula, so such texts get an apostrophe before them.

    Args:
        document: The leaderboard as data.

    Returns:
        CSV text. The columns are the same for every document; nested keys are joined by ".", and what is not known is
        empty. Texts are on one line.

    Raises:
        OptionError: If the document is not a leaderboard that this version reads.
    """
    _check_schema(document)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([f"target.{path}" for path in _CSV_TARGET] + list(_CSV_ROW))
    for target in document["targets"]:
        first = [_csv_cell(value_at(target, path)) for path in _CSV_TARGET]
        for row in target["rows"]:
            writer.writerow(first + [_csv_cell(value_at(row, path)) for path in _CSV_ROW])
    return buffer.getvalue()


def save_leaderboard(document: Document, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a leaderboard to a folder: `leaderboard.html`, `leaderboard.csv` and `leaderboard.json`.

    Args:
        document: The leaderboard as data.
        folder: Where to; made if it is not there. Files that exist are replaced, each as a whole.

    Returns:
        The three files.

    Raises:
        OptionError: If the document is not a leaderboard that this version reads; nothing is written.
        StorageError: If the folder cannot be made or a file cannot be written.
    """
    texts = {
        "leaderboard.html": leaderboard_html(document),
        "leaderboard.csv": leaderboard_csv(document),
        "leaderboard.json": fmt.json_text(document) + "\n",
    }
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{fmt.plain(folder)} cannot be made: {reason}; choose another folder") from error
    paths = [Path(folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        # A lone surrogate, which a file name can put into a title, must not cost the report.
        storage.write_atomically(path, text.encode("utf-8", "backslashreplace"))
    return paths


def kind_index(row: Row) -> int:
    """Return the place of a sampler's kind, which gives its colour; kinds that are not known share the last one."""
    return KINDS.index(row["kind"]) if row["kind"] in KINDS else len(KINDS)


def _check_schema(document: Document) -> None:
    """Raise unless this version can read the document."""
    schema = document.get("schema")
    if schema != SCHEMA:
        found = "no schema" if schema is None else f"schema {fmt.plain(schema, 60)!r}"
        raise OptionError(
            f"this document has {found}, and leaderboards are made from {SCHEMA!r}; "
            "give a leaderboard.json written by the same version of gfnmc"
        )


def _target_at(document: Document, index: int) -> Target:
    targets = document["targets"]
    if not 0 <= index < len(targets):
        raise OptionError(f"this leaderboard has no target {index}; it has {len(targets)}, numbered from 0")
    return targets[index]


def _run(target: Target) -> list[Row]:
    return [row for row in target["rows"] if row["status"] != _NOT_RUN]


def _not_run_lines(target: Target) -> list[str]:
    """Name what was not run, and why, on a line each."""
    lines = []
    for row in target["rows"]:
        if row["status"] == _NOT_RUN:
            reason = fmt.plain(row.get("reason") or "")
            lines.append(f"not run: {fmt.plain(row['sampler'])}" + (f" — {reason}" if reason else ""))
    return lines


def _status_words(row: Row) -> str:
    return tables.STATUS_WORDS.get(row["status"], fmt.plain(row["status"], 20))


_CSV_TARGET = (
    "name", "num_states", "num_modes", "log_z", "prices.full_microseconds", "prices.delta", "prices.gradient",
)  # fmt: skip
_CSV_ROW = (
    "sampler", "kind", "status", "reason", "num_cells", "modes_found", "calls_to_all_modes", "seconds_to_all_modes",
    "switches_per_million_calls.value", "switches_per_million_calls.is_bound", "switches_per_second.value",
    "switches_per_second.is_bound", "round_trips_per_million_calls", "acceptance", "worst_mode_ess",
    "ess_per_million_calls", "ess_per_second", "ess_per_million_calls_with_training", "ess_per_second_with_training",
    "total_variation.value", "total_variation.iid_floor", "largest_error.statistic", "largest_error.standard_errors",
    "log_z_error", "calls.training", "calls.sampling", "seconds.training", "seconds.sampling",
)  # fmt: skip


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = fmt.plain(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return None if isinstance(value, float) and math.isnan(value) else value


def _facts(document: Document) -> list[str]:
    """Return the line under the title: the extent of the benchmark."""
    suite = document["suite"]
    samplers = {row["sampler"] for target in document["targets"] for row in _run(target)}
    return [
        f"suite {fmt.plain(suite['name'])}",
        "1 target" if len(document["targets"]) == 1 else f"{len(document['targets'])} targets",
        "1 sampler" if len(samplers) == 1 else f"{len(samplers)} samplers",
        "1 seed" if len(suite["seeds"]) == 1 else f"{len(suite['seeds'])} seeds",
    ]


def _setup(document: Document) -> list[tuple[str, str]]:
    """Return what is needed to run the benchmark again, as terms and their values."""
    suite, machine = document["suite"], document["machine"]
    return [
        ("Made", document["created_at"]),
        ("Suite", suite["name"]),
        ("Budget", suite["budget"]),
        ("Seeds", ", ".join(str(seed) for seed in suite["seeds"]) or fmt.DASH),
        ("Starts", ", ".join(str(start) for start in suite["starts"]) or fmt.DASH),
        ("Chains", fmt.count(suite["num_chains"])),
        ("Processor", machine["processor"] or fmt.DASH),
        ("Cores", fmt.count(machine["cores"])),
        ("Commit", machine["commit"] or fmt.DASH),
        ("Versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) or fmt.DASH),
    ]


def _prices(target: Target) -> tuple[str, ...]:
    """Return a target's line in the table of prices."""
    prices = target["prices"]
    full = fmt.number(prices["full_microseconds"], 3)
    relative = (fmt.number(prices[key], 3) for key in ("delta", "gradient"))
    return target["name"], full if full == fmt.DASH else f"{full} µs", *relative


def _target(target: Target) -> dict[str, Any]:
    """Return everything that the page says about a target; columns in which nobody has a figure are left out."""
    rows = _run(target)
    cells = {column: [column.cell(row, target) for row in rows] for column in COLUMNS}
    shown = [column for column in COLUMNS if any(cell != fmt.DASH for cell in cells[column])]
    groups = [(group, len(list(columns))) for group, columns in itertools.groupby(shown, lambda column: column.group)]
    return {
        "name": target["name"],
        "description": target["description"],
        "facts": _target_facts(target),
        "words": target["words"],
        "groups": groups,
        "headings": [column.heading for column in shown],
        "lines": [_line(row, tuple(cells[column][i] for column in shown)) for i, row in enumerate(rows)],
        "not_run": [_line(row, ()) for row in target["rows"] if row["status"] == _NOT_RUN],
    }


def _target_facts(target: Target) -> list[str]:
    facts = ["1 mode" if target["num_modes"] == 1 else f"{target['num_modes']} modes"]
    if target["num_states"] is not None:
        facts.insert(0, f"{fmt.states(target['num_states'])} states")
    if fmt.to_float(target["log_z"]) is not None:
        facts.append(f"exact log Z {fmt.exact(target['log_z'])}")
    for cost in ("calls", "seconds"):
        facts.append(f"break-even in {cost}: {_break_even(value_at(target, f'break_even.{cost}'))}")
    return facts


def _break_even(found: Mapping[str, Any] | None) -> str:
    """Format a break-even; the words of the target say whether null is "never" or "not known"."""
    if found is None:
        return fmt.DASH
    bound = "at most " if found["is_bound"] else ""
    return f"{bound}{fmt.number(found['samples'], 3)} effective samples, against {fmt.plain(found['against'])}"


def _line(row: Row, cells: tuple[str, ...]) -> Line:
    """Return a line of the page; what is in order needs no reason."""
    status = row["status"]
    status_class = status if status in tables.STATUS_WORDS else "unknown"
    reason = "" if status == "ok" else row.get("reason") or ""
    return Line(row["sampler"], row["kind"], kind_index(row), _status_words(row), status_class, reason, cells)
