"""The status, in words: each case by hand, and the order in which they count."""

from typing import Any

import pytest

from gfnmc.diagnostics.evidence import CONDITIONAL
from gfnmc.diagnostics.movement import Trap
from gfnmc.diagnostics.status import Facts, status_of, warnings_of

Row = dict[str, Any]


def scalar(name: str = "energy", **changes: Any) -> Row:
    row = {
        "name": name,
        "kind": "statistic",
        "behaviour": "moves",
        "exact": None,
        "mean": 0.5,
        "ess_bulk": 900.0,
        "r_hat": 1.001,
        "r_hat_nested": None,
        "deviation": None,
    }
    return row | changes


def mode(name: str, mass: float = 0.5, exact: float | None = None) -> Row:
    return {"name": name, "mass": mass, "exact_mass": exact}


def facts(**changes: Any) -> Facts:
    worst = {"statistic": "energy", "ess_bulk": 900.0, "r_hat": 1.001, "r_hat_statistic": "energy"}
    given = {
        "num_chains": 4,
        "num_samples": 500,
        "num_draws": 2_000,
        "scalars": [scalar()],
        "worst": worst | changes.pop("worst", {}),
        "modes": [mode("up"), mode("down")],
        "stuck": [],
        "trapped": [],
        "superchains": False,
    }
    return Facts(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", "mixed: all 2 modes were visited, and the worst scalar, 'energy', has 900 effective draws."),
        ({"modes": []}, "ok", "mixed: the worst scalar"),
        ({"stuck": [0, 1, 2, 3]}, "stuck", "none of 4 chains moved at all"),
        ({"stuck": [2]}, "stuck", "chain 2 of 4 never moved in 500 draws"),
        ({"trapped": [Trap(1, 0)]}, "trapped", "chain 1 of 4 stayed in 'up' for all 500 draws"),
        ({"trapped": [Trap(1, 0), Trap(2, 1)]}, "trapped", "2 of 4 chains stayed in 'up', 'down'"),
        ({"modes": [mode("up", 1.0), mode("down", 0.0)]}, "trapped", "no kept draw of 4 chains is in 'down', and"),
        ({"modes": [mode("up", 1.0, 0.7), mode("down", 0.0, 0.3)]}, "trapped", "'down', 30.0% of the mass"),
        ({"modes": [mode("up", 1.0, 0.9999), mode("down", 0.0, 1e-4)]}, "ok", "all modes that count were visited"),
        ({"num_samples": 3}, "too short", "3 draws a chain"),
        ({"worst": {"ess_bulk": None}}, "not converged", "'energy' never moved"),
        ({"worst": {"r_hat": 1.02}}, "not converged", "R-hat of 'energy' is 1.020"),
        ({"worst": {"r_hat": "inf"}}, "not converged", "R-hat of 'energy' is inf"),
        ({"worst": {"ess_bulk": 399.0}}, "not converged", "'energy' has 399 effective draws"),
        ({"scalars": [scalar(deviation=4.9)]}, "ok", "mixed"),
        ({"scalars": [scalar(), scalar("up", deviation=51.2)]}, "not converged", "mean of 'up', 0.5, is 51 standard"),
        ({"stuck": [2], "trapped": [Trap(1, 0)], "worst": {"r_hat": 2.0}}, "stuck", "never moved"),
        ({"trapped": [Trap(1, 0)], "worst": {"r_hat": 2.0}}, "trapped", "stayed in"),
    ],
)
def test_each_case_has_its_words(changes: dict, status: str, words: str) -> None:
    found, reason = status_of(facts(**changes))
    assert found == status
    assert words in reason


def test_nested_r_hat_decides_where_there_are_superchains() -> None:
    rows = [scalar(r_hat=1.5, r_hat_nested=1.002), scalar("size", r_hat=1.5, r_hat_nested=None)]
    short = facts(scalars=rows, worst={"r_hat": 1.5}, superchains=True)
    assert status_of(short)[0] == "ok"
    assert status_of(short._replace(superchains=False))[0] == "not converged"
    rows[0]["r_hat_nested"] = 1.2
    assert status_of(short) == ("not converged", "not converged: nested R-hat of 'energy' is 1.200.")


def test_what_should_not_move_is_no_trouble() -> None:
    settled = scalar(ess_bulk=None, exact=0.5, behaviour="constant")
    assert status_of(facts(scalars=[settled], stuck=[0, 1, 2, 3]))[0] == "ok"
    # Negative control: where the truth is another, it should have.
    assert status_of(facts(scalars=[settled | {"exact": 0.6}], stuck=[0, 1, 2, 3]))[0] == "stuck"


def evidence(method: str, label: str) -> Row:
    return {"method": method, "label": label}


def test_warnings_say_what_to_be_careful_about() -> None:
    assert warnings_of([scalar()], [mode("up")], None, [], []) == []
    constant = scalar("size", behaviour="constant")
    found = warnings_of([scalar(), constant], [mode("up"), mode("down", 0.0)], None, [], ["no bridge: far apart."])
    assert found == [
        "'down' was never visited: its mass is not known, which is not 0.",
        "constant throughout, so without an error or an effective size: 'size'.",
        "no bridge: far apart.",
    ]


def test_warnings_of_the_pair() -> None:
    pair = {"warning": "the pair has collapsed", "k_hat": 0.9}
    collapsed, heavy = warnings_of([], [], pair, [], [])
    assert collapsed == "the pair has collapsed."
    assert "k-hat of the pair's weights is 0.90, above 0.7" in heavy
    assert warnings_of([], [], {"warning": None, "k_hat": 0.6}, [], []) == []
    assert warnings_of([], [], {"warning": None, "k_hat": None}, [], []) == []


def test_the_label_of_log_z_is_said() -> None:
    both = [evidence("importance sampling", CONDITIONAL), evidence("bridge sampling", CONDITIONAL)]
    (line,) = warnings_of([], [], None, both, [])
    assert line.startswith("log Z is conditional on the modes visited: no objects from outside")
    both[0]["label"] = "exact draws cover the modes"
    (line,) = warnings_of([], [], None, both, [])
    assert line.startswith("log Z by 'bridge sampling' is conditional on the modes visited")
    both[1]["label"] = both[0]["label"]
    assert warnings_of([], [], None, both, []) == []


def test_many_names_are_shortened() -> None:
    modes = [mode("up", 1.0), *(mode(f"mode {place}", 0.0) for place in range(5))]
    assert "'mode 0', 'mode 1', 'mode 2' and 2 more" in status_of(facts(modes=modes))[1]
