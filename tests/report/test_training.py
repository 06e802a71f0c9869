"""The section on training: a pair's figures, and a warning that nobody can miss."""

import copy
import html
import re
from typing import Any

import pytest

from gfnmc.report import render, style
from gfnmc.report.training import exact_log_z, training_table, warnings
from gfnmc.report.training_picture import training_curves

WARNING = "the pair has collapsed: P_F makes 50% of the held-out tempered objects hardly ever"


def _cells(document: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {row.label: row.cells for group in training_table(document).groups for row in group.rows}


def _section(page: str) -> str:
    """Return the text of the page's section on training, '' where it has none."""
    found = re.search(r"<h2>Training</h2>(.*?)</section>", page, re.DOTALL)
    return "" if found is None else html.unescape(re.sub(r"<[^>]*>", " ", found[1]))


def test_the_section_has_the_figures_of_the_last_look(trained_document: dict[str, Any]) -> None:
    cells = _cells(trained_document)
    assert cells["acceptance of a full restart"] == ("47.1 %", "")
    assert cells["log Z, importance estimate"] == ("71.6174", "72.3104")
    assert cells["lower bound (ELBO)"][0] == "71.5821"
    assert cells["upper bound (EUBO)"][0] == "84.2177"
    assert cells["objects lost"][0] == "49.8 %"
    assert cells["steps"][0] == "700 of 1,000\nstopped early"
    assert cells["objective"][0] == "trajectory balance"
    assert cells["basis"][0] == "judged by the held-out tempered objects"
    section = _section(render(trained_document))
    for figure in ("71.5821", "84.2177", "47.1 %", "1.2 M calls", "700 of 1,000", "stopped early"):
        assert figure in section


def test_a_collapsed_pair_is_warned_of_before_its_table(trained_document: dict[str, Any]) -> None:
    page = render(trained_document)
    assert f'<p class="warning">hybrid: {WARNING}</p>' in page
    section = _section(page)
    assert section.index(WARNING) < section.index("acceptance of a full restart")
    assert warnings(trained_document) == [f"hybrid: {WARNING}"]


def test_a_good_pair_has_a_section_without_a_warning(trained_document: dict[str, Any]) -> None:
    trained_document["samplers"][0]["training"]["quality"]["warning"] = None
    assert 'class="warning"' not in render(trained_document)
    assert warnings(trained_document) == []
    assert _section(render(trained_document))


@pytest.mark.parametrize("has_key", [True, False])
def test_a_pair_that_knows_no_training_has_no_section(document: dict[str, Any], has_key: bool) -> None:
    if has_key:
        for sampler in document["samplers"]:
            sampler["training"] = None
    page = render(document)
    assert "<h2>Training</h2>" not in page
    assert "Quality during training" not in page
    assert training_table(document).groups == ()


def test_bounds_of_another_target_are_not_held_to_the_exact_value(trained_document: dict[str, Any]) -> None:
    assert exact_log_z(trained_document) == 72.31042
    trained_document["samplers"][0]["training"]["target"] = "another"
    assert exact_log_z(trained_document) is None
    table = training_table(trained_document)
    assert table.columns == ("hybrid",)
    assert _cells(trained_document)["trained for"] == ("another",)


def test_figures_that_are_not_known_are_dashes(trained_document: dict[str, Any]) -> None:
    training = trained_document["samplers"][0]["training"]
    training["quality"].update(elbo=None, eubo=None, log_z=None, k_hat=None, lost=None, warning=None)
    training["is_stopped_early"] = False
    cells = _cells(trained_document)
    assert cells["upper bound (EUBO)"][0] == cells["Pareto k-hat"][0] == cells["objects lost"][0] == "—"
    assert cells["steps"][0] == "700"
    assert not re.search(r"\b(None|nan|inf)\b", _section(render(trained_document)))


def test_a_warning_cannot_carry_markup(trained_document: dict[str, Any]) -> None:
    training = trained_document["samplers"][0]["training"]
    training["quality"].update(warning="<script>alert(1)</script>", label="<b>judged</b>")
    training.update(target="<i>x</i>")
    training["config"]["objective"] = "<u>tb</u>"
    page = render(trained_document)
    for tag in ("<script", "<b>", "<i>", "<u>"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_picture_shows_bounds_exact_value_and_acceptance(trained_document: dict[str, Any]) -> None:
    figure = training_curves(trained_document)
    bounds, acceptance = figure.axes
    exact = trained_document["target"]["log_z"]
    assert any(set(line.get_ydata()) == {exact} for line in bounds.lines)  # type: ignore[arg-type]
    low, high = bounds.get_ylim()
    # The second half of the looks is inside, however far apart the bounds began.
    assert low < 70.7
    assert 93.0 < high < 120.0
    assert list(acceptance.lines[0].get_ydata()) == [0.0, 0.02, 0.11, 0.31, 0.42, 0.46, 0.4712]  # type: ignore[arg-type]
    assert style.png(figure).startswith(b"\x89PNG")


def test_the_picture_draws_whatever_was_recorded(trained_document: dict[str, Any]) -> None:
    training = trained_document["samplers"][0]["training"]
    curve = training["curves"]["quality"]
    several = copy.deepcopy(trained_document)
    several["samplers"][1]["training"] = copy.deepcopy(training)
    style.png(training_curves(several))
    assert training_table(several).columns == ("hybrid", "random walk", "exact")
    trained_document["target"]["log_z"] = None
    for changes in (
        {"eubo": [None] * 7},
        {"elbo": [None] * 7, "eubo": [None] * 7},
        {"elbo": [71.0] * 7, "eubo": [71.0] * 7},
        {name: values[:1] for name, values in curve.items()},
        {name: [] for name in curve},
    ):
        training["curves"]["quality"] = curve | changes
        style.png(training_curves(trained_document))
