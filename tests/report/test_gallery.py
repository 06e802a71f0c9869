"""The pictures of a page: those for which the document has something, each with words for who cannot see it."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.image import AxesImage

from gfnmc.report import cost_pictures, mixing_pictures, style
from gfnmc.report.gallery import drawable, pictures, transition_words


def test_every_picture_has_a_title_a_caption_and_words(document: dict[str, Any]) -> None:
    document["samplers"][1].update(status="unconverged")
    document["samplers"][1]["worst"].update(ess_bulk=12.0, r_hat=1.05)
    shown = pictures(document)
    assert [picture.title for picture in shown] == [
        "Mode discovery",
        "Mass of each mode",
        "Moves between modes",
        "Ranks of the statistic that mixed worst",
        "Independent information per cost",
        "Independent information per second",
        "Acceptance by number of steps taken back",
        "What was spent",
        "When training is paid back",
        "Log-density of a few chains",
    ]
    for picture in shown:
        assert picture.caption
        assert "hybrid" in picture.alternative
        assert not re.search(r"\b(None|nan|inf)\b", picture.alternative)


def test_documents_of_older_versions_have_fewer_pictures(document: dict[str, Any]) -> None:
    for sampler in document["samplers"]:
        del sampler["curves"]["mixing"]
    titles = {reading[0] for _, reading, _ in drawable(document)}
    assert not {"Moves between modes", "Ranks of the statistic that mixed worst"} & titles


def test_a_row_of_moves_is_the_share_of_departures(document: dict[str, Any]) -> None:
    figure = mixing_pictures.transitions(document)
    (image,) = (image for image in figure.axes[0].images if isinstance(image, AxesImage))
    share = np.ma.filled(image.get_array(), np.nan)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.nansum(share, axis=1), 1.0)
    assert np.isnan(np.diag(share)).all()


def test_a_mode_that_was_never_left_is_said_to_be(document: dict[str, Any]) -> None:
    document["samplers"][0]["curves"]["mixing"]["transitions"] = [[900, 12], [0, 300]]
    assert "hybrid 12 moves, none out of magnetised down" in transition_words(document)


def test_no_line_of_cost_for_a_sampler_that_is_stuck(document: dict[str, Any]) -> None:
    assert cost_pictures.priced_samplers(document) == (0,)
    document["samplers"][1].update(status="ok")
    document["samplers"][1]["worst"].update(ess_bulk=12.0, r_hat=1.2)
    assert cost_pictures.priced_samplers(document) == (0,)
    document["samplers"][1]["worst"]["r_hat"] = None
    assert cost_pictures.priced_samplers(document) == (0, 1)
    document["samplers"][1]["worst"]["ess_bulk"] = "inf"
    assert cost_pictures.priced_samplers(document) == (0,)


def test_lines_of_cost_begin_at_training_and_cross_where_it_is_paid_back(document: dict[str, Any]) -> None:
    first, second = document["samplers"]
    second.update(status="ok")
    second["worst"].update(ess_bulk=12.0, r_hat=1.0)
    calls, _ = cost_pictures.break_even(document).axes
    lines = [line for line in calls.lines if len(line.get_xdata()) > 1]  # type: ignore[arg-type]
    draws = np.asarray(lines[0].get_xdata())
    ours, theirs = (np.asarray(line.get_ydata()) for line in lines)
    training = first["cost"]["training"]["target_calls"]
    crossing = training / (2_604_544 / 12.0 - 1_400_320 / 3_877.0)
    assert ((ours < theirs) == (draws > crossing)).all()


def test_bars_per_second_are_those_per_call_on_another_scale(document: dict[str, Any]) -> None:
    per_call, per_second = cost_pictures.ess_rates(document), cost_pictures.ess_per_second(document)
    assert per_second.axes[0].get_xlabel() == "bulk ESS per second"
    assert len(per_call.axes[0].patches) == len(per_second.axes[0].patches)


@pytest.mark.parametrize("num_modes", [2, 7, 20])
@pytest.mark.parametrize("num_samplers", [1, 3])
def test_all_are_drawn_for_other_numbers_of_samplers_and_modes(
    document_of: Callable[[int, int], dict[str, Any]], num_samplers: int, num_modes: int
) -> None:
    document = document_of(num_samplers, num_modes)
    for draw in (mixing_pictures.transitions, mixing_pictures.ranks, cost_pictures.cost_split):
        assert style.png(draw(document)).startswith(b"\x89PNG")
