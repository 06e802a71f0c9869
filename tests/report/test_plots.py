"""The pictures draw whatever a document holds, and change nothing outside themselves."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.image
import pytest
from matplotlib.figure import Figure

from gfnmc.report import cost_pictures, mixing_pictures, plots, style

PICTURES = (
    plots.discovery,
    plots.masses,
    plots.traces,
    plots.acceptance,
    cost_pictures.ess_rates,
    plots.hero,
)
# They share their parts with the pictures above, so that fewer cases will do.
OTHERS = (
    cost_pictures.cost_split,
    cost_pictures.break_even,
    mixing_pictures.transitions,
    mixing_pictures.ranks,
)


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_modes", [1, 2, 7, 20])
@pytest.mark.parametrize("num_samplers", [1, 2, 3])
def test_every_picture_draws(
    document_of: Callable[[int, int], dict[str, Any]], num_samplers: int, num_modes: int
) -> None:
    document = document_of(num_samplers, num_modes)
    for picture in PICTURES:
        assert style.png(picture(document)).startswith(b"\x89PNG")


def test_ten_samplers_with_long_names_leave_room_for_the_picture(document: dict[str, Any]) -> None:
    document["samplers"] = [{**document["samplers"][0], "name": f"sampler {i} " + "long " * 9} for i in range(10)]
    for picture in (*PICTURES, *OTHERS):
        figure = picture(document)
        style.png(figure)
        assert min(axes.get_position().height for axes in figure.axes) * figure.get_figheight() > 0.5


@pytest.mark.parametrize("picture", [*PICTURES, *OTHERS])
def test_pictures_draw_without_modes_curves_and_exact_values(
    document: dict[str, Any], picture: Callable[[Any], Figure]
) -> None:
    document["target"].update(modes=[], log_z=None)
    for sampler in document["samplers"]:
        sampler.update(modes=[], statistics=[])
        sampler["curves"] = {
            "discovery": {"calls": [], "seconds": [], "modes_found": []},
            "trace": {"draw": [], "log_prob": []},
            "mode_raster": {"step": [], "mode": []},
        }
        sampler["acceptance"]["by_num_back_steps"] = []
    style.png(picture(document))


def test_unknown_masses_and_odd_values_draw(document: dict[str, Any]) -> None:
    document["target"]["modes"][0]["mass"] = None
    for sampler in document["samplers"]:
        sampler["modes"][0].update(mass_error=None, exact_mass=None)
        sampler["curves"]["trace"]["log_prob"][0][:3] = [None, "-inf", float("nan")]
    document["samplers"][1]["cost"]["sampling"]["target_calls"] = 0
    document["samplers"][1]["statistics"][0]["ess_bulk"] = "inf"
    for picture in PICTURES:
        style.png(picture(document))


def test_a_statistic_that_never_moved_has_words_and_no_bar(document: dict[str, Any]) -> None:
    axes = cost_pictures.ess_rates(document).axes[0]
    assert [text.get_text() for text in axes.texts] == ["did not move"]
    assert len(axes.patches) == 5


def test_training_is_marked_once_and_its_calls_are_in_the_line(document: dict[str, Any]) -> None:
    axes = plots.discovery(document).axes[0]
    training = document["samplers"][0]["cost"]["training"]["target_calls"]
    vertical = [line for line in axes.lines if set(line.get_xdata()) == {training}]  # type: ignore[arg-type]
    assert [line.get_linestyle() for line in vertical] == [":"]
    assert axes.get_xscale() == "log"


def test_a_mass_that_is_far_off_does_not_squash_the_others(
    document_of: Callable[[int, int], dict[str, Any]],
) -> None:
    axes = plots.masses(document_of(2, 20)).axes[0]
    assert axes.get_ylim()[1] < 0.1
    assert [text.get_text() for text in axes.texts] == ["0.991 ↑"]


def test_acceptance_leaves_out_lengths_never_proposed_and_samplers_without_them(document: dict[str, Any]) -> None:
    rates = plots.acceptance_rates(document)
    assert list(rates) == [0]
    assert 62 in rates[0]
    assert 63 not in rates[0]


@pytest.mark.parametrize("name", [r"$\frac{$", "$x$ $y$", "a\x00b", "\ud800", "名前", "_^{\\", "x" * 300, ""])
def test_names_are_words_and_not_mathematics(document: dict[str, Any], name: str) -> None:
    document["title"] = name
    for sampler in document["samplers"]:
        sampler["name"] = name
        sampler["statistics"][0]["name"] = name
    for mode in document["target"]["modes"]:
        mode["name"] = name
    for picture in PICTURES:
        style.png(picture(document))


@pytest.mark.parametrize("picture", OTHERS)
def test_no_name_is_mathematics_in_the_other_pictures(
    document: dict[str, Any], picture: Callable[[Any], Figure]
) -> None:
    for sampler in document["samplers"]:
        sampler["name"] = r"$\frac{$"
        sampler["curves"]["mixing"]["ranks"]["statistic"] = "_^{$"
    for mode in document["target"]["modes"]:
        mode["name"] = "a\x00b$"
    style.png(picture(document))


def test_dollars_are_drawn_as_they_are(document: dict[str, Any]) -> None:
    document["samplers"][0]["name"] = "$x$"
    assert r"\$x\$" in _words(plots.masses(document))


def test_images_are_sharp_and_repeat(document: dict[str, Any]) -> None:
    first, second = style.png(plots.masses(document)), style.png(plots.masses(document))
    assert first == second
    width = int.from_bytes(first[16:20], "big")
    assert width >= 1000


def test_no_global_matplotlib_state_changes(document: dict[str, Any]) -> None:
    # Values of our own, because another test may already have left what a faulty picture would leave.
    with matplotlib.rc_context({"font.size": 31, "axes.spines.top": True, "lines.linewidth": 7}):
        before = dict(matplotlib.rcParams)
        for picture in PICTURES:
            style.png(picture(document))
        assert dict(matplotlib.rcParams) == before


def test_the_users_style_does_not_show(document: dict[str, Any]) -> None:
    expected = style.png(plots.discovery(document))
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        assert style.png(plots.discovery(document)) == expected


def test_pyplot_is_never_imported_and_the_package_is_cheap_to_import() -> None:
    code = (
        "import sys, gfnmc.report\n"
        "assert not {'matplotlib', 'jinja2', 'rich'} & set(sys.modules)\n"
        "import gfnmc.report.plots\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)  # noqa: S603 - our own interpreter
