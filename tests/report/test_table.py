"""The terminal table and the words above it."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import rich.console

from gfnmc.core.errors import OptionError
from gfnmc.report import comparison_table, verdict_lines
from gfnmc.report import table as tables


def _drawn(document: dict[str, Any], width: int = 100) -> str:
    console = rich.console.Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(document))
    return capture.get()


def _cells(document: dict[str, Any], label: str) -> tuple[str, ...]:
    rows = (row for group in tables.comparison(document).groups for row in group.rows)
    return next(row.cells for row in rows if row.label == label)


def test_two_samplers_fit_a_hundred_columns_and_no_figure_is_broken(document: dict[str, Any]) -> None:
    drawn = _drawn(document)
    assert max(len(line) for line in drawn.splitlines()) <= 100
    assert "…" not in drawn
    figures = ("0.4967 ± 0.0021", "not within 2.6 M calls", "1.21 M calls", "3 min 33 s", "72.3104", "did not move")
    for figure in figures:
        assert figure in drawn


def test_rows_come_in_the_order_in_which_they_are_read(document: dict[str, Any]) -> None:
    labels = [row.label for group in tables.comparison(document).groups for row in group.rows]
    wanted = ("modes found", "every mode after", "magnetised up", "mode switches per 1,000 steps", "acceptance")
    wanted += ("SuffixResampling", "worst statistic", "bulk ESS", "tail ESS", "worst R-hat", "total variation", "log Z")
    wanted += ("training", "sampling", "status")
    places = [labels.index(label) for label in wanted]
    assert places == sorted(places)


def test_figures(document: dict[str, Any]) -> None:
    assert _cells(document, "modes found") == ("2 of 2", "1 of 2", "")
    assert _cells(document, "magnetised up") == ("0.4967 ± 0.0021", "0.99080 ± 0.00040", "0.4955")
    assert _cells(document, "SuffixResampling") == ("28.7 %", "—", "")
    assert _cells(document, "bulk ESS") == ("3,877", "did not move", "")
    assert _cells(document, "worst R-hat")[1] == "∞\nmagnetisation"
    assert _cells(document, "total variation")[1] == "0.505\ni.i.d. floor 0.00980\nat worst ESS —"
    assert _cells(document, "log Z")[1:] == ("—", "72.3104")
    assert _cells(document, "training") == ("1.2 M calls\n3 min 32 s", "none", "")


def test_nulls_leave_out_what_nobody_has(document: dict[str, Any]) -> None:
    document["target"].update(log_z=None, modes=[], num_states=None)
    for sampler in document["samplers"]:
        sampler.update(modes=[], modes_found=0, total_variation=None, log_z=None, switches_per_1000_steps=None)
    content = tables.comparison(document)
    assert content.columns == ("hybrid", "random walk")
    labels = [row.label for group in content.groups for row in group.rows]
    assert not {"modes found", "total variation", "log Z"} & set(labels)
    assert _cells(document, "mode switches per 1,000 steps") == ("—", "—")
    assert "hybrid" in _drawn(document)


def test_many_modes_are_summed_in_the_main_table(document_of: Callable[[int, int], dict[str, Any]]) -> None:
    document = document_of(1, 20)
    assert _cells(document, "13 more, together") == ("0.6423", "0.6435")
    assert len(tables.mode_table(document).groups) == 20


@pytest.mark.parametrize("num_samplers", [1, 2, 3])
def test_every_row_has_a_cell_for_every_column(
    document_of: Callable[[int, int], dict[str, Any]], num_samplers: int
) -> None:
    document = document_of(num_samplers, 3)
    makers = (tables.comparison, tables.mode_table, tables.statistics_table, tables.cost_table)
    for content in (make(document) for make in makers):
        assert len(content.columns) == len(content.column_samplers)
        assert {len(row.cells) for group in content.groups for row in group.rows} == {len(content.columns)}


def test_names_are_not_markup_and_hold_no_escape_codes(document: dict[str, Any]) -> None:
    document["samplers"][0]["name"] = "[red]x[/nope]\x1b[2J"
    document["target"]["modes"][0]["name"] = "[link=x]m"
    drawn = _drawn(document)
    assert "[red]x[/nope]" in drawn
    assert "[link=x]m" in drawn
    assert "\x1b" not in drawn


def test_verdict_says_the_comparison_first_then_each_sampler(document: dict[str, Any]) -> None:
    lines = verdict_lines(document)
    assert lines[: len(document["verdict"])] == document["verdict"]
    assert lines[2].startswith("hybrid: Found every mode")
    document["samplers"][0]["verdict"] = "not converged"
    document["verdict"] = ["hybrid: not converged."]
    assert verdict_lines(document)[:2] == ["hybrid: not converged.", lines[3]]
    document["verdict"] = ["a\x1b[31mb\nc"]
    assert verdict_lines(document)[0] == "a [31mb c"


@pytest.mark.parametrize("schema", ["gfnmc.comparison/2", None])
def test_another_schema_is_refused_with_advice(document: dict[str, Any], schema: str | None) -> None:
    document["schema"] = schema
    with pytest.raises(OptionError, match="same version"):
        comparison_table(document)
