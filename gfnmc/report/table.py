"""The tables of a comparison: their content, and the main one drawn for a terminal.

The content is plain data (`Table`) made from the document alone. The terminal and the page draw the same tables, so
that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gfnmc.core.errors import OptionError
from gfnmc.report import format as fmt
from gfnmc.sampling.progress import load_rich

if TYPE_CHECKING:
    import rich.table

SCHEMA = "gfnmc.comparison/1"
STATUS_WORDS = {"ok": "ok", "stuck": "stuck", "unconverged": "not converged"}

# With more modes than this the main table shows the first ones and the sum of the rest.
_MOST_MODES = 8
# With more numbers of steps taken back than this the main table shows them in ranges.
_MOST_BACK_STEPS = 8
_STATUS_STYLES = {"ok": "bold green", "stuck": "bold red", "unconverged": "bold yellow"}

Document = Mapping[str, Any]
Sampler = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        label: What the line is about.
        cells: One text a column; lines after the first are notes.
        sampler: The index of the sampler that the line is about, if it is about one.
        is_part: Whether the line is a part of the one above.
    """

    label: str
    cells: tuple[str, ...]
    sampler: int | None = None
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that belong together, under a title."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as data.

    Attributes:
        corner: Heading of the column of labels.
        columns: Headings of the other columns.
        groups: The lines.
        column_samplers: For each column the index of its sampler, or None.
    """

    corner: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    column_samplers: tuple[int | None, ...]


def check_schema(document: Document) -> None:
    """Raise unless this version can read the document.

    Args:
        document: The comparison as data.

    Raises:
        OptionError: If it is not a comparison, or one of another schema version.
    """
    schema = document.get("schema")
    if schema != SCHEMA:
        found = "no schema" if schema is None else f"schema {fmt.plain(schema, 60)!r}"
        raise OptionError(
            f"this document has {found}, and reports are made from {SCHEMA!r}; "
            "give a .json file written by the same version of gfnmc's compare"
        )


def verdict_lines(document: Document) -> list[str]:
    """Say in words what came out: the comparison first, then each sampler.

    Args:
        document: The comparison as data.

    Returns:
        Lines without control characters. Names in them may hold brackets: print them as plain text, not as markup.
    """
    lines = [fmt.plain(line) for line in document["verdict"]]
    for sampler in document["samplers"]:
        line = f"{fmt.plain(sampler['name'])}: {fmt.plain(sampler['verdict'])}"
        # The comparison's own words may already say it.
        if sampler["verdict"] and not any(said.startswith(line.rstrip(".")) for said in lines):
            lines.append(line)
    return lines


def comparison_table(document: Document) -> rich.table.Table:
    """Draw the main table for a terminal: a column a sampler, a line a figure.

    Args:
        document: The comparison as data.

    Returns:
        A table for `rich.print`; two samplers fit 100 columns.

    Raises:
        OptionError: If the document is not a comparison that this version reads.
    """
    load_rich()
    import rich.box
    import rich.table
    from rich.text import Text

    content = comparison(document)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, title=Text(fmt.plain(document["title"]), "bold"))
    table.title_justify = "left"
    table.add_column(Text(content.corner), no_wrap=True)
    for column in content.columns:
        table.add_column(Text(fmt.plain(column, 40)), justify="right", overflow="fold")
    for group in content.groups:
        table.add_row(Text(group.title, "bold cyan"))
        for row in group.rows:
            label = ("    " if row.is_part else "  ") + fmt.plain(row.label, 30)
            table.add_row(Text(label), *[_terminal_cell(cell, Text) for cell in row.cells])
        table.add_section()
    return table


def comparison(document: Document) -> Table:
    """Return the main table: a column a sampler, and the exact values where there are any.

    Args:
        document: The comparison as data.

    Returns:
        The table's content.

    Raises:
        OptionError: If the document is not a comparison that this version reads.
    """
    check_schema(document)
    samplers = document["samplers"]
    groups = (
        Group("Modes", tuple(_discovery_rows(document))),
        Group("Cluster masses", tuple(_mass_rows(document))),
        Group("Movement", tuple(_movement_rows(samplers))),
        Group("Effective sample size", tuple(_ess_rows(samplers))),
        Group("Convergence and accuracy", tuple(_accuracy_rows(document))),
        Group("Cost", tuple(_cost_rows(samplers))),
        Group("Outcome", (_row("status", samplers, _status),)),
    )
    groups = tuple(group for group in groups if group.rows)
    columns = (*[sampler["name"] for sampler in samplers], "exact")
    numbers = (*range(len(samplers)), None)
    if not any(row.cells[-1] for group in groups for row in group.rows):
        groups = tuple(Group(group.title, tuple(_without_exact(row) for row in group.rows)) for group in groups)
        columns, numbers = columns[:-1], numbers[:-1]
    return Table("figure", columns, groups, numbers)


def mode_table(document: Document) -> Table:
    """Return the table of modes: a group a mode, a line a sampler."""
    groups = []
    for index, mode in enumerate(document["target"]["modes"]):
        rows = (Row(s["name"], _mode_cells(s["modes"][index]), i) for i, s in enumerate(document["samplers"]))
        groups.append(Group(mode["name"], tuple(rows)))
    columns = ("mass", "exact", "found after", "time", "ESS", "R-hat")
    return Table("mode and sampler", columns, tuple(groups), (None,) * len(columns))


def statistics_table(document: Document) -> Table:
    """Return the table of statistics: a group a statistic, a line a sampler that has it."""
    samplers = document["samplers"]
    groups = []
    for name in _union(statistic["name"] for sampler in samplers for statistic in sampler["statistics"]):
        found = ((i, s["name"], x) for i, s in enumerate(samplers) for x in s["statistics"] if x["name"] == name)
        groups.append(Group(name, tuple(Row(label, _statistic_cells(x), i) for i, label, x in found)))
    columns = ("mean ± MCSE", "exact", "bulk ESS", "tail ESS", "R-hat")
    return Table("statistic and sampler", columns, tuple(groups), (None,) * len(columns))


def cost_table(document: Document) -> Table:
    """Return the table of costs, training and sampling apart: a column a sampler."""
    samplers = document["samplers"]
    groups = []
    for title, parts in (("Training", ("training",)), ("Sampling", ("sampling",)), ("Both", ("training", "sampling"))):
        rows = (
            _cost_row("target calls", samplers, parts, "target_calls", fmt.count),
            _cost_row("policy calls", samplers, parts, "policy_calls", fmt.count),
            _cost_row("time", samplers, parts, "seconds", fmt.seconds),
        )
        groups.append(Group(title, rows))
    return Table("cost", tuple(s["name"] for s in samplers), tuple(groups), tuple(range(len(samplers))))


def _discovery_rows(document: Document) -> Iterable[Row]:
    samplers, total = document["samplers"], len(document["target"]["modes"])
    if total == 0:
        return
    yield _row("modes found", samplers, lambda s: f"{s['modes_found']} of {total}")
    yield _row("first mode after", samplers, _first_found)
    if total > 1:
        yield _row("every mode after", samplers, _all_found)


def _first_found(sampler: Sampler) -> str:
    found = [mode for mode in sampler["modes"] if mode["found_after_calls"] is not None]
    if not found:
        return _not_within(sampler)
    first = min(found, key=lambda mode: mode["found_after_calls"])
    return fmt.calls_and_time(first["found_after_calls"], first["found_after_seconds"])


def _all_found(sampler: Sampler) -> str:
    if any(mode["found_after_calls"] is None for mode in sampler["modes"]):
        return _not_within(sampler)
    last = max(sampler["modes"], key=lambda mode: mode["found_after_calls"])
    return fmt.calls_and_time(last["found_after_calls"], last["found_after_seconds"])


def _not_within(sampler: Sampler) -> str:
    calls = sampler["cost"]["training"]["target_calls"] + sampler["cost"]["sampling"]["target_calls"]
    return f"not within {fmt.num_calls(calls)}"


def _mass_rows(document: Document) -> Iterable[Row]:
    samplers, modes = document["samplers"], document["target"]["modes"]
    shown = modes if len(modes) <= _MOST_MODES else modes[: _MOST_MODES - 1]
    for index, mode in enumerate(shown):
        yield _row(mode["name"], samplers, lambda s, i=index: _mass(s["modes"][i]), _exact(mode["mass"]))
    rest = slice(len(shown), None)
    if modes[rest]:
        masses = [mode["mass"] for mode in modes[rest]]
        exact = "" if None in masses else fmt.exact(sum(masses))
        label = f"{len(masses)} more, together"
        yield _row(label, samplers, lambda s: fmt.number(sum(m["mass"] for m in s["modes"][rest])), exact)


def _movement_rows(samplers: list[Sampler]) -> Iterable[Row]:
    yield _row("mode switches per 1,000 steps", samplers, lambda s: fmt.number(s["switches_per_1000_steps"], 3))
    yield _row("acceptance", samplers, lambda s: fmt.percent(s["acceptance"]["overall"]))
    for part in _union(part for sampler in samplers for part in sampler["acceptance"]["parts"]):
        yield _row(part, samplers, lambda s, p=part: fmt.percent(s["acceptance"]["parts"].get(p)), is_part=True)
    yield from _back_step_rows(samplers)
    for key, label in (("lazy", "lazy steps"), ("no_reverse_move", "no reverse move")):
        if any(sampler["acceptance"][key] for sampler in samplers):
            yield _row(label, samplers, lambda s, k=key: fmt.percent(s["acceptance"][k]), is_part=True)


def _back_step_rows(samplers: list[Sampler]) -> Iterable[Row]:
    """Yield the acceptance by number of steps taken back, in ranges where there are many."""
    counts = {row["num_back_steps"] for sampler in samplers for row in sampler["acceptance"]["by_num_back_steps"]}
    steps = sorted(counts)
    size = -(-len(steps) // _MOST_BACK_STEPS)
    for start in range(0, len(steps), max(size, 1)):
        low, high = steps[start], steps[min(start + size, len(steps)) - 1]
        label = f"{low} step{'' if low == 1 else 's'} back" if low == high else f"{low} to {high} steps back"
        yield _row(label, samplers, lambda s, a=low, b=high: _pooled_acceptance(s, a, b), is_part=True)


def _pooled_acceptance(sampler: Sampler, low: int, high: int) -> str:
    rows = [row for row in sampler["acceptance"]["by_num_back_steps"] if low <= row["num_back_steps"] <= high]
    proposals = sum(row["proposals"] for row in rows)
    if not proposals:
        return fmt.DASH
    return fmt.percent(sum(row["proposals"] * row["acceptance"] for row in rows) / proposals)


def _ess_rows(samplers: list[Sampler]) -> Iterable[Row]:
    yield _row("worst statistic", samplers, lambda s: fmt.plain(s["worst"]["statistic"]))
    yield _row("bulk ESS", samplers, lambda s: fmt.ess(s["worst"]["ess_bulk"]))
    for key, label in (("ess_bulk_per_second", "per second"), ("ess_bulk_per_1000_calls", "per 1,000 target calls")):
        yield _row(label, samplers, lambda s, k=key: fmt.number(s["worst"][k], 3), is_part=True)
        both = f"{key}_with_training"
        yield _row("same, training included", samplers, lambda s, k=both: fmt.number(s["worst"][k], 3), is_part=True)
    yield _row("tail ESS", samplers, lambda s: fmt.ess(s["worst"]["ess_tail"]))


def _accuracy_rows(document: Document) -> Iterable[Row]:
    samplers = document["samplers"]
    yield _row("worst R-hat", samplers, lambda s: _worst_r_hat(s["worst"]))
    if any(sampler["total_variation"] for sampler in samplers):
        yield _row("total variation", samplers, lambda s: _total_variation(s["total_variation"]))
    if any(sampler["log_z"] for sampler in samplers):
        yield _row("log Z", samplers, lambda s: _log_z(s["log_z"]), _exact(document["target"]["log_z"]))


def _cost_rows(samplers: list[Sampler]) -> Iterable[Row]:
    for part in ("training", "sampling"):
        yield _row(part, samplers, lambda s, p=part: _cost(s["cost"][p]))


def _status(sampler: Sampler) -> str:
    return STATUS_WORDS.get(sampler["status"], fmt.plain(sampler["status"]))


def _mass(mode: Mapping[str, Any]) -> str:
    return fmt.with_error(mode["mass"], mode["mass_error"])


def _worst_r_hat(worst: Mapping[str, Any]) -> str:
    return f"{fmt.r_hat(worst['r_hat'])}\n{fmt.plain(worst['r_hat_statistic'])}"


def _total_variation(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return fmt.DASH
    floor, floor_at_ess = found["iid_floor"], found["iid_floor_at_worst_ess"]
    notes = f"i.i.d. floor {fmt.number(floor, 3)}\nat worst ESS {fmt.number(floor_at_ess, 3)}"
    return f"{fmt.number(found['value'], 3)}\n{notes}"


def _log_z(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return fmt.DASH
    note = fmt.plain(found["label"])
    if found["k_hat"] is not None:
        note = f"{note}\nk-hat {fmt.number(found['k_hat'], 2)}"
    return f"{fmt.with_error(found['estimate'], found['standard_error'])}\n{note}"


def _cost(cost: Mapping[str, Any]) -> str:
    if not cost["target_calls"] and not cost["seconds"]:
        return "none"
    return fmt.calls_and_time(cost["target_calls"], cost["seconds"])


def _mode_cells(mode: Mapping[str, Any]) -> tuple[str, ...]:
    calls, time = mode["found_after_calls"], mode["found_after_seconds"]
    when = ("not found", fmt.DASH) if calls is None else (fmt.num_calls(calls), fmt.seconds(time))
    return _mass(mode), fmt.exact(mode["exact_mass"]), *when, fmt.number(mode["ess"], 3), fmt.r_hat(mode["r_hat"])


def _statistic_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    mean, exact = fmt.with_error(found["mean"], found["mcse"]), fmt.exact(found["exact"])
    return mean, exact, fmt.ess(found["ess_bulk"]), fmt.ess(found["ess_tail"]), fmt.r_hat(found["r_hat"])


def _cost_row(
    label: str, samplers: list[Sampler], parts: tuple[str, ...], key: str, words: Callable[[Any], str]
) -> Row:
    cells = (words(sum(sampler["cost"][part][key] for part in parts)) for sampler in samplers)
    return Row(label, tuple(cells))


def _row(
    label: str, samplers: list[Sampler], figure: Callable[[Any], str], exact: str = "", *, is_part: bool = False
) -> Row:
    return Row(label, (*[figure(sampler) for sampler in samplers], exact), is_part=is_part)


def _exact(value: Any) -> str:
    return "" if value is None else fmt.exact(value)


def _without_exact(row: Row) -> Row:
    return Row(row.label, row.cells[:-1], row.sampler, row.is_part)


def _union(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _terminal_cell(cell: str, text: Callable[..., Any]) -> Any:
    """Colour a status, and set the notes under a figure dim."""
    figure, _, notes = cell.partition("\n")
    style = next((_STATUS_STYLES[key] for key, words in STATUS_WORDS.items() if words == figure), "")
    styled = text(figure, style)
    return styled.append(f"\n{notes}", "dim") if notes else styled
