"""A leaderboard as a page, a CSV file, JSON and a terminal table: complete, inert, and with the document's figures."""

import copy
import csv
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import rich.console

from gfnmc.core.errors import OptionError, StorageError
from gfnmc.report import leaderboard_picture, style
from gfnmc.report.leaderboard import leaderboard_csv, leaderboard_html, leaderboard_table, save_leaderboard

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></pre><iframe src=https://example.org/>",
)
FIGURES = {
    "modes_found": None,
    "calls_to_all_modes": None,
    "seconds_to_all_modes": None,
    "switches_per_million_calls": None,
    "switches_per_second": None,
    "round_trips_per_million_calls": None,
    "acceptance": None,
    "worst_mode_ess": None,
    "ess_per_million_calls": None,
    "ess_per_second": None,
    "ess_per_million_calls_with_training": None,
    "ess_per_second_with_training": None,
    "total_variation": None,
    "largest_error": None,
    "log_z_error": None,
    "calls": {"training": None, "sampling": None},
    "seconds": {"training": None, "sampling": None},
}


def _row(sampler: str, kind: str, status: str, reason: str | None = None, **figures: Any) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "kind": kind,
        "status": status,
        "reason": reason,
        "num_cells": 4,
        **copy.deepcopy(FIGURES),
        **figures,
    }


def _learned() -> dict[str, Any]:
    return _row(
        "default cycle",
        "learned",
        "ok",
        modes_found=2,
        calls_to_all_modes=1_310_000.0,
        seconds_to_all_modes=21.4,
        switches_per_million_calls={"value": 81_234.5, "is_bound": False},
        switches_per_second={"value": 4_321.0, "is_bound": False},
        acceptance=0.4712,
        worst_mode_ess=3_877.4,
        ess_per_million_calls=12_950.0,
        ess_per_second=777.0,
        ess_per_million_calls_with_training=2_408.0,
        ess_per_second_with_training=88.8,
        total_variation={"value": 0.0123, "iid_floor": 0.0098},
        largest_error={"statistic": "energy", "standard_errors": 1.62},
        log_z_error=-0.0042,
        calls={"training": 1_204_224.0, "sampling": 406_000.0},
        seconds={"training": 20.7, "sampling": 5.31},
    )


def _local() -> dict[str, Any]:
    return _row(
        "random walk",
        "local",
        "stuck",
        "no chain changed between modes",
        modes_found=1,
        switches_per_million_calls={"value": 0.0371, "is_bound": True},
        switches_per_second={"value": 0.512, "is_bound": True},
        acceptance=0.213,
        largest_error={"statistic": "magnetisation", "standard_errors": 41.7},
        calls={"training": 0, "sampling": 1_610_224.0},
        seconds={"training": 0, "sampling": 6.0},
    )


def _ising() -> dict[str, Any]:
    tempering = _row(
        "parallel tempering",
        "tempering",
        "unconverged",
        "R-hat of 'up' is 1.084",
        modes_found=2,
        switches_per_million_calls={"value": 71.3, "is_bound": False},
        round_trips_per_million_calls=35.1,
        worst_mode_ess=61.2,
    )
    unrun = {"sampler": "Wolff", "kind": "cluster", "status": "not run", "reason": "needs a lattice", "num_cells": 0}
    return {
        "name": "ising-8x8",
        "description": "An Ising ferromagnet below its critical temperature.",
        "num_states": 2**64,
        "num_modes": 2,
        "log_z": 72.31042,
        "prices": {"full_microseconds": 3.25, "delta": 0.117, "gradient": 2.64},
        "words": ["default cycle switches 1,139 times as often as parallel tempering."],
        "break_even": {
            "calls": {"samples": 182_000.0, "against": "parallel tempering", "is_bound": True},
            "seconds": None,
        },
        # What was not run stands last on the page wherever it is here.
        "rows": [_learned(), unrun, tempering, _local()],
    }


def _bare() -> dict[str, Any]:
    return {
        "name": "bare",
        "description": "Nothing is known of it.",
        "num_states": None,
        "num_modes": 1,
        "log_z": None,
        "prices": {"full_microseconds": None, "delta": None, "gradient": None},
        "words": [],
        "break_even": {"calls": None, "seconds": None},
        "rows": [_row("default cycle", "learned", "ok"), {"sampler": "Gibbs", "kind": "local", "status": "not run"}],
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """Return a leaderboard with every kind of row, and a target of which nothing is known."""
    return {
        "schema": "gfnmc.leaderboard/1",
        "title": "Leaderboard of the quick suite",
        "created_at": "2026-03-02T14:05:11+00:00",
        "command": "gfnmc leaderboard quick --seeds 2",
        "suite": {
            "name": "quick",
            "seeds": [11, 12],
            "starts": ["one mode", "dispersed"],
            "num_chains": 256,
            "budget": "as many target calls as the default cycle spent, training included; at most 6 s a cell",
        },
        "machine": {
            "cores": 3,
            "processor": "Some CPU @ 2.60GHz",
            "commit": "bb28150",
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
        },
        "verdict": ["default cycle is first on 1 of 2 targets.", "Nothing is known of bare."],
        "targets": [_ising(), _bare()],
    }


class _Page(html.parser.HTMLParser):
    """Collects the elements, the text, and the cells of each line of each table of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.lines: list[list[str]] = []
        self.is_in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
            self.is_in_cell = True
        if (dict(attrs).get("class") or "").startswith("note"):
            self.lines[-1][-1] += " / "

    def handle_endtag(self, tag: str) -> None:
        self.is_in_cell = self.is_in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.is_in_cell:
            self.lines[-1][-1] += data.strip("\n")

    def line(self, name: str) -> list[str]:
        return next(cells for cells in self.lines if cells and cells[0].strip() == name)


def _hostile(value: Any, string: str, *, key: str = "") -> Any:
    """Replace every string of a document but the schema, the names of versions included."""
    if key == "schema" or value == "not run":
        return value
    if isinstance(value, dict):
        if key == "versions":
            return {string + str(index): string for index in range(len(value))}
        return {name: _hostile(item, string, key=name) for name, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item, string) for item in value]
    return string if isinstance(value, str) else value


def _without_images(page: str) -> str:
    first, *rest = page.split("data:image/png;base64,")
    return first + "".join(part.partition('"')[2] for part in rest)


def _drawn(document: dict[str, Any], index: int = 0, width: int = 100) -> str:
    console = rich.console.Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(leaderboard_table(document, index))
    return capture.get()


def _records(document: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(leaderboard_csv(document)), strict=True))


def test_the_figures_of_the_page_are_those_of_the_document(document: dict[str, Any]) -> None:
    page = _Page(leaderboard_html(document))
    assert [cell.strip() for cell in page.line("default cycle")] == [
        *("default cycle", "learned", "ok", "2 of 2", "1.31 M calls / 21.4 s", "81,234", "4,321", "—", "47.1 %"),
        *("3,877", "12,950", "2,408", "777", "88.8", "0.0123 / i.i.d. floor 0.00980", "1.62 / energy", "-0.00420"),
        *("1.2 M calls / 20.7 s", "406 k calls / 5.31 s"),
    ]
    stuck = page.line("random walk")
    assert stuck[2].strip() == "stuck / no chain changed between modes"
    assert stuck[3:10] == ["1 of 2", "—", "< 0.0371", "< 0.512", "—", "21.3 %", "did not move"]
    assert stuck[-2:] == ["none", "1.61 M calls / 6.00 s"]
    assert page.line("parallel tempering")[5:10] == ["71.3", "—", "35.1", "—", "61.2"]
    assert page.line("ising-8x8") == ["ising-8x8", "3.25 µs", "0.117", "2.64"]


def test_another_figure_gives_another_page(document: dict[str, Any]) -> None:
    before = _Page(leaderboard_html(document)).line("random walk")
    document["targets"][0]["rows"][3]["switches_per_million_calls"]["is_bound"] = False
    after = _Page(leaderboard_html(document)).line("random walk")
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [("< 0.0371", "0.0371")]


def test_only_what_is_stuck_did_not_move(document: dict[str, Any]) -> None:
    document["targets"][0]["rows"][0]["worst_mode_ess"] = None
    page = _Page(leaderboard_html(document))
    assert [page.line(name)[9] for name in ("default cycle", "random walk")] == ["—", "did not move"]


def test_headings_stand_over_their_figures(document: dict[str, Any]) -> None:
    page = _Page(leaderboard_html(document))
    headings = next(cells for cells in page.lines if "all found after" in cells)
    figures = page.line("default cycle")
    assert len(headings) == len(figures)
    spans = [int(found["colspan"] or 0) for tag, found in page.elements if found.get("scope") == "colgroup"]
    # Every column of the first target has a group; the second has no figure, so no column.
    assert sum(spans) + 3 == len(headings) == 19
    assert figures[headings.index("accepted")] == "47.1 %"
    assert figures[headings.index("error of log Z (nats)")] == "-0.00420"


def test_what_was_not_run_stands_last_with_its_reason(document: dict[str, Any]) -> None:
    page = _Page(leaderboard_html(document))
    names = [cells[0].strip() for cells in page.lines if cells]
    assert names.index("Wolff") == names.index("random walk") + 1
    assert [cell.strip() for cell in page.line("Wolff")] == ["Wolff", "cluster", "not run: needs a lattice"]
    assert [cell.strip() for cell in page.line("Gibbs")] == ["Gibbs", "local", "not run"]


def test_words_and_how_it_was_run(document: dict[str, Any]) -> None:
    text = " ".join(" ".join(_Page(leaderboard_html(document)).text).split())
    wanted = [document["title"], *document["verdict"], document["command"], document["suite"]["budget"], "11, 12"]
    wanted += ["one mode, dispersed", "256", "Some CPU @ 2.60GHz", "bb28150", "python 3.11.7, torch 2.13.0"]
    wanted += [document["targets"][0]["description"], "about 10^19.3 states 2 modes", "exact log Z 72.3104"]
    wanted += [*document["targets"][0]["words"]]
    wanted += ["break-even in calls: at most 182,000 effective samples, against parallel tempering"]
    wanted += ["break-even in seconds: —"]
    for words in wanted:
        assert words in text


def test_a_break_even_that_is_known_is_no_bound(document: dict[str, Any]) -> None:
    document["targets"][0]["break_even"]["calls"]["is_bound"] = False
    assert "break-even in calls: 182,000 effective samples" in leaderboard_html(document)


def test_what_is_wrong_stands_under_the_status_and_only_there(document: dict[str, Any]) -> None:
    for row in document["targets"][0]["rows"]:
        row["reason"] = f"because {row['status']}"
    page = _Page(leaderboard_html(document))
    names = ("default cycle", "parallel tempering", "random walk")
    assert [page.line(name)[2].strip() for name in names] == [
        *("ok", "not converged / because unconverged", "stuck / because stuck"),
    ]


def test_nulls_and_nothing(document: dict[str, Any]) -> None:
    document.update(command=None, verdict=[])
    document["suite"].update(seeds=[], starts=[], num_chains=None)
    document["machine"].update(cores=None, processor=None, commit=None, versions={})
    document["targets"] = document["targets"][1:]
    document["targets"][0]["break_even"] = None
    bound = {"value": None, "is_bound": True}
    parts = {"total_variation": {"value": None, "iid_floor": None}, "switches_per_second": bound}
    parts["largest_error"] = {"statistic": "energy", "standard_errors": None}
    document["targets"][0]["rows"] += [_row("b", "local", "stuck", **parts), _row("c", "odd", "odd", calls=None)]
    page = leaderboard_html(document)
    assert not re.search(r"\b(None|nan|inf)\b|< —", page.partition("<details>")[0])
    assert "<img" not in page
    assert _drawn(document)
    assert len(_records(document)) == 4
    document["targets"] = []
    assert "How it was run" in leaderboard_html(document)
    assert _records(document) == []


@pytest.mark.parametrize("string", HOSTILE)
def test_every_string_is_inert(document: dict[str, Any], string: str) -> None:
    page, clean = (_Page(leaderboard_html(_hostile(document, each))) for each in (string, "harmless"))
    # Not one block more than the harmless page has; a command is a span a word.
    blocks = [[tag for tag, _ in each.elements if tag != "span"] for each in (page, clean)]
    assert blocks[0] == blocks[1]
    assert not {name for _, found in page.elements for name in found if name.startswith("on") or name == "href"}
    assert string in "".join(page.text)
    assert string in next(found["alt"] or "" for tag, found in page.elements if tag == "img")


def test_nothing_is_fetched_and_nothing_runs(document: dict[str, Any]) -> None:
    page = leaderboard_html(document)
    for forbidden in ("http:", "https:", "//", "url(", "@import", "<script", "<link", "href"):
        assert forbidden not in _without_images(page)
    sources = [found["src"] or "" for tag, found in _Page(page).elements if tag == "img"]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,iVBORw0KGgo")
    assert "default-src 'none'" in page


def test_equal_documents_give_equal_pages(document: dict[str, Any]) -> None:
    assert leaderboard_html(document) == leaderboard_html(copy.deepcopy(document))


def test_the_picture_has_a_point_a_rate_and_open_markers_for_bounds(document: dict[str, Any]) -> None:
    figure = leaderboard_picture.switch_rates(document)
    axes = figure.axes[0]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    found = {float(line.get_xdata()[0]): (line.get_marker(), line.get_markerfacecolor()) for line in points}  # type: ignore[index]
    assert found == {
        81_234.5: (style.MARKERS[0], style.colour(0)),
        71.3: (style.MARKERS[2], style.colour(2)),
        0.0371: ("<", "white"),
    }
    assert axes.get_xscale() == "log"
    # A target without any rate has no line.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ising-8x8"]
    low, high = axes.get_xlim()
    assert low < 0.0371
    assert high > 81_234.5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("learned", "local", "tempering", "none seen, upper bound"),
    ]
    # Each kind on a height of its own, all within the line of the first target.
    heights = {float(line.get_ydata()[0]) for line in points}  # type: ignore[index]
    assert len(heights) == 3
    assert max(heights) < 0.5


def test_the_words_for_the_picture_are_its_facts(document: dict[str, Any]) -> None:
    words = leaderboard_picture.picture_words(document)
    rates = "default cycle (learned) 81,234, parallel tempering (tempering) 71.3, random walk (local) < 0.0371"
    assert words == f"Points of mode switches per million calls, by target. ising-8x8: {rates}."
    assert rates.replace("<", "&lt;") in leaderboard_html(document)


@pytest.mark.parametrize("name", [r"$\frac{$", "a\x00b", "\ud800", "名前", "x" * 300, ""])
def test_the_picture_takes_any_name_and_any_rate(document: dict[str, Any], name: str) -> None:
    for target in document["targets"]:
        target["name"] = name
    rows = document["targets"][0]["rows"]
    rows[0]["switches_per_million_calls"]["value"] = 0.0
    rows[2]["switches_per_million_calls"]["value"] = "inf"
    rows[3]["kind"] = "another"
    assert style.png(leaderboard_picture.switch_rates(document)).startswith(b"\x89PNG")
    assert "random walk (another) < 0.0371." in leaderboard_picture.picture_words(document)
    assert "default cycle" not in leaderboard_picture.picture_words(document)


def test_csv_round_trip(document: dict[str, Any]) -> None:
    records = _records(document)
    assert [record["sampler"] for record in records] == [
        *("default cycle", "Wolff", "parallel tempering", "random walk", "default cycle", "Gibbs"),
    ]
    for record, (target, row) in zip(records, _pairs(document), strict=True):
        for column, text in record.items():
            mapping = target if column.startswith("target.") else row
            assert text == _expected(_at(mapping, column.removeprefix("target.")))
    assert float(records[0]["switches_per_million_calls.value"]) == 81_234.5
    assert records[3]["switches_per_million_calls.is_bound"] == "true"
    assert records[0]["target.num_states"] == str(2**64)


def _pairs(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(target, row) for target in document["targets"] for row in target["rows"]]


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = (value or {}).get(key)
    return value


def _expected(value: Any) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)


def test_csv_has_every_figure_and_the_same_columns_for_every_document(document: dict[str, Any]) -> None:
    def leaves(value: Any, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path}
        return {leaf for key, item in value.items() for leaf in leaves(item, f"{path}.{key}" if path else key)}

    header = leaderboard_csv(document).splitlines()[0].split(",")
    row = {**_learned(), "round_trips_per_million_calls": 1.0}
    assert {column for column in header if not column.startswith("target.")} == leaves(row)
    document["targets"] = []
    assert leaderboard_csv(document).splitlines() == [",".join(header)]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r@", " +"])
def test_a_spreadsheet_reads_no_text_of_the_csv_as_a_formula(document: dict[str, Any], start: str) -> None:
    text = start + '1+cmd|"/C calc"!A1,\n'
    records = _records(_hostile(document, text))
    for record in records:
        for column in ("target.name", "sampler", "kind"):
            assert record[column] == f"'{text.strip()}"
    # A number below zero is no formula.
    assert records[0]["log_z_error"] == "-0.0042"


def test_csv_keeps_every_record_on_one_line(document: dict[str, Any]) -> None:
    document["targets"][0]["rows"][3]["reason"] = 'two\nlines, and "quotes"'
    document["targets"][0]["log_z"] = float("nan")
    assert len(leaderboard_csv(document).splitlines()) == 7
    record = _records(document)[3]
    assert record["reason"] == 'two lines, and "quotes"'
    assert record["target.log_z"] == ""


def test_the_terminal_table_fits_and_has_the_figures(document: dict[str, Any]) -> None:
    document["targets"][0]["rows"][0]["sampler"] = "multiple-try suffix resampling (8 tries), solved pair"
    drawn = _drawn(document)
    assert max(len(line) for line in drawn.splitlines()) <= 100
    assert "…" not in drawn
    for words in ("ising-8x8", "2 of 2", "81,234", "< 0.0371", "12,950", "2,408", "1.62", "not converged", "stuck"):
        assert words in drawn
    assert "not run: Wolff — needs a lattice" in drawn
    assert "not run: Gibbs\n" in re.sub(" +\n", "\n", _drawn(document, 1))


def test_names_are_not_markup_in_the_terminal(document: dict[str, Any]) -> None:
    document["targets"][0]["name"] = "[red]name[/]"
    document["targets"][0]["rows"][0]["sampler"] = "[bold]a[/bold]\x1b[31m"
    document["targets"][0]["rows"][1]["reason"] = "[/]"
    drawn = _drawn(document)
    for words in ("[red]name[/]", "[bold]a[/bold] [31m", "Wolff — [/]"):
        assert words in drawn
    assert "\x1b" not in drawn


@pytest.mark.parametrize("index", [-1, 2])
def test_a_target_that_is_not_there(document: dict[str, Any], index: int) -> None:
    with pytest.raises(OptionError, match=rf"no target {index}; it has 2"):
        leaderboard_table(document, index)


def test_three_files_are_saved_and_the_json_is_strict(document: dict[str, Any], tmp_path: Path) -> None:
    document["title"] = "a lone surrogate \ud800 and 名前"
    document["targets"][0]["log_z"] = float("nan")
    document["targets"][0]["prices"]["delta"] = float("inf")
    paths = save_leaderboard(document, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["leaderboard.html", "leaderboard.csv", "leaderboard.json"]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)
    page, table, data = (path.read_text(encoding="utf-8") for path in paths)
    assert page.startswith("<!doctype html>")
    assert "名前" in page
    assert table == leaderboard_csv(document)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(data, parse_constant=refuse)
    assert found["targets"][0]["log_z"] is None
    assert found["targets"][0]["prices"]["delta"] == "inf"
    assert found["targets"][0]["rows"] == document["targets"][0]["rows"]
    assert leaderboard_csv(found) == table


def test_a_document_of_another_schema_is_refused_and_nothing_is_written(
    document: dict[str, Any], tmp_path: Path
) -> None:
    other = {**document, "schema": "gfnmc.comparison/1"}
    for attempt in (leaderboard_html, leaderboard_csv, lambda it: leaderboard_table(it, 0)):
        with pytest.raises(OptionError, match=r"gfnmc\.comparison/1.*gfnmc\.leaderboard/1"):
            attempt(other)
    with pytest.raises(OptionError, match="no schema"):
        save_leaderboard({}, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError, match="choose another folder"):
        save_leaderboard(document, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
