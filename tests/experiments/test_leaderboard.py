"""The leaderboard: pooled rates, bounds, errors, break-even and words, on cells made by hand."""

import copy
import json
import math
from typing import Any

import pytest

from gfnmc.experiments.leaderboard import leaderboard
from gfnmc.experiments.samplers import DEFAULT


def figures(
    *,
    ess: tuple[float | None, ...] = (500.0, 400.0),
    status: str = "ok",
    mass: float = 0.5,
    r_hat: float | str = 1.0,
) -> dict[str, Any]:
    """What a comparison shows of a sampler, as far as a leaderboard reads it."""
    masses = (mass, 1.0 - mass)
    modes = [
        {
            "name": f"mode {place}",
            "ess": each,
            "r_hat": None if each is None else r_hat,
            "mass": masses[place],
            "mass_error": None if each is None else 0.01,
            "exact_mass": 0.5,
            "found_after_calls": None if each is None else 10,
            "found_after_seconds": None if each is None else 0.1,
        }
        for place, each in enumerate(ess)
    ]
    return {
        "modes": modes,
        "modes_found": sum(each is not None for each in ess),
        "status": status,
        "verdict": f"{status} it is.",
        "acceptance": {"overall": 0.5},
        "worst": {"ess_bulk": None if None in ess else min(each for each in ess if each is not None), "r_hat": r_hat},
        "statistics": [{"name": "energy", "exact": 1.0, "mean": 1.02, "mcse": 0.02}],
        "total_variation": {"value": 0.05, "iid_floor_at_worst_ess": 0.04},
        "log_z": None,
    }


def cell(
    sampler: str,
    kind: str,
    *,
    seed: int = 0,
    training: float = 0.0,
    switches: int = 100,
    start: str = "one mode",
    result: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """A cell of a target with two modes: 10,000 calls of sampling in 2 s."""
    seen = figures(**options)
    made = {
        "figures": seen,
        "calls": {"training": training, "sampling": 10_000.0},
        "seconds": {"training": training / 1_000.0, "sampling": 2.0},
        "movement": {
            "switches": switches,
            "round_trips": switches // 2,
            "calls": 8_000.0,
            "seconds": 1.6,
            "round_trip_calls": 8_000.0,
        },
        "discovery": None if seen["modes_found"] < 2 else {"calls": training + 10.0, "seconds": 0.1},
        "ended_by": "calls",
    }
    return {
        "target": "twins",
        "description": "two modes",
        "sampler": sampler,
        "kind": kind,
        "start": start,
        "seed": seed,
        "prices": {"full_microseconds": 1.0, "delta": 0.5, "gradient": None},
        "facts": {"log_z": 0.0, "num_states": 4, "num_modes": 2},
        "result": made if result else None,
        "reason": None if result else "it offers no gradients",
    }


STUCK = {"ess": (None, None), "switches": 0, "status": "stuck"}


def board(*cells: dict[str, Any]) -> dict[str, Any]:
    """The leaderboard of some cells."""
    document = leaderboard(cells, suite="test", budget="enough", num_chains=2, command=None)
    return json.loads(json.dumps(document, allow_nan=False))


def row(document: dict[str, Any], sampler: str) -> dict[str, Any]:
    """The row of a sampler."""
    (found,) = [each for each in document["targets"][0]["rows"] if each["sampler"] == sampler]
    return found


def test_rates_are_pooled_over_cells_and_bounded_where_nothing_was_seen() -> None:
    document = board(
        cell(DEFAULT, "learned", switches=300),
        cell(DEFAULT, "learned", switches=100, seed=1),
        cell("random walk", "local", **STUCK),
        cell("random walk", "local", seed=1, **STUCK),
    )
    lead, walk = row(document, DEFAULT), row(document, "random walk")
    assert lead["switches_per_million_calls"] == {"value": pytest.approx(1e6 * 400 / 16_000), "is_bound": False}
    assert lead["round_trips_per_million_calls"] == pytest.approx(1e6 * 200 / 16_000)
    # e^-3 is 5 %: with so many events expected, none is seen one time in twenty.
    assert walk["switches_per_million_calls"] == {
        "value": pytest.approx(1e6 * math.log(20.0) / 16_000),
        "is_bound": True,
    }
    assert walk["switches_per_second"]["value"] == pytest.approx(math.log(20.0) / 3.2)
    words = " ".join(document["targets"][0]["words"])
    ratio = 400 / 16_000 / (math.log(20.0) / 16_000)
    assert f"per target call, sampling alone: at least {ratio:,.0f} times those of random walk" in words
    assert "Stuck, with modes missed or never left in some run: random walk." in words


def test_a_row_is_as_good_as_its_worst_cell() -> None:
    cells = [
        cell(DEFAULT, "learned"),
        cell(DEFAULT, "learned", seed=1, ess=(90.0, 80.0), status="unconverged"),
    ]
    lead = row(board(*cells), DEFAULT)
    assert lead["status"] == "unconverged" and lead["reason"] == "unconverged it is."
    assert lead["worst_mode_ess"] == 80.0
    assert lead["num_cells"] == 2
    assert lead["ess_per_million_calls"] == pytest.approx(1e6 * (400.0 + 80.0) / 2 / 10_000)


def test_errors_of_cells_are_taken_together() -> None:
    document = board(
        cell(DEFAULT, "learned", mass=0.53),
        cell(DEFAULT, "learned", seed=1, mass=0.53),
    )
    # Twice 0.03 off, with standard errors of 0.01 each: 0.06 / (0.01 sqrt 2).
    error = row(document, DEFAULT)["largest_error"]
    assert error["standard_errors"] == pytest.approx(0.06 / (0.01 * math.sqrt(2.0)))
    assert error["statistic"].startswith("mass of mode")
    opposite = board(
        cell(DEFAULT, "learned", mass=0.53),
        cell(DEFAULT, "learned", seed=1, mass=0.47),
    )
    assert row(opposite, DEFAULT)["largest_error"]["statistic"] == "energy"


def test_training_pays_when_what_it_saves_adds_up_to_its_cost() -> None:
    document = board(
        cell(DEFAULT, "learned", training=50_000.0, ess=(1_000.0, 1_000.0)),
        cell("random walk", "local", ess=(100.0, 100.0)),
        cell("locally balanced", "local", ess=(200.0, 200.0)),
        cell("tempered Gibbs", "tempering", ess=(900.0, 900.0)),
    )
    found = document["targets"][0]["break_even"]
    # The better local baseline pays 50 calls for an effective sample, the default cycle 10.
    assert found["calls"] == {
        "samples": pytest.approx(50_000.0 / (50.0 - 10.0)),
        "against": "locally balanced",
        "is_bound": False,
    }
    assert found["seconds"]["samples"] == pytest.approx(50.0 / (0.01 - 0.002))


def test_training_never_pays_where_a_local_baseline_is_cheaper() -> None:
    document = board(
        cell(DEFAULT, "learned", training=50_000.0, ess=(100.0, 100.0)),
        cell("random walk", "local", ess=(300.0, 300.0)),
    )
    assert document["targets"][0]["break_even"] == {"calls": None, "seconds": None}
    words = " ".join(document["targets"][0]["words"])
    assert "random walk has the most effective samples per million target calls" in words
    assert "here the baseline wins" in words
    assert "In calls, training never pays against the best local baseline." in words
    assert document["verdict"] == [
        "Most effective samples per target call, training included: random walk on twins.",
        "Most effective samples per second, training included: random walk on twins.",
    ]


def test_a_stuck_baseline_bounds_the_break_even_and_wins_nothing() -> None:
    stuck = cell("random walk", "local", **STUCK)
    document = board(cell(DEFAULT, "learned", training=50_000.0), stuck)
    found = document["targets"][0]["break_even"]["calls"]
    # It may switch 3.0 times in the 8,000 calls in which none was seen, and a switch counts as an effective sample.
    bound = 50_000.0 / (8_000.0 / math.log(20.0) - 25.0)
    assert found == {"samples": pytest.approx(bound), "against": "random walk", "is_bound": True}
    assert "every baseline is stuck" in " ".join(document["targets"][0]["words"])
    # A stuck chain with a large effective sample size of the modes that it saw does not win either.
    flattered = copy.deepcopy(stuck)
    flattered["result"]["figures"] = figures(ess=(9_000.0, 9_000.0), status="stuck")
    document = board(cell(DEFAULT, "learned", training=50_000.0), flattered)
    assert document["verdict"][0] == f"Most effective samples per target call, training included: {DEFAULT} on twins."


def test_chains_that_disagree_have_no_effective_samples_and_are_charged_by_their_switches() -> None:
    for r_hat in (1.2, "inf"):
        document = board(
            cell(DEFAULT, "learned", training=50_000.0),
            cell("random walk", "local", switches=16, ess=(250.0, 250.0), status="unconverged", r_hat=r_hat),
        )
        walk = row(document, "random walk")
        assert walk["worst_mode_ess"] is None and walk["ess_per_million_calls"] is None
        found = document["targets"][0]["break_even"]["calls"]
        # 16 switches in 8,000 calls: 500 calls each, against 25 of the default cycle for an effective sample.
        assert found == {
            "samples": pytest.approx(50_000.0 / (500.0 - 25.0)),
            "against": "random walk",
            "is_bound": False,
        }
    agreed = board(cell("random walk", "local", ess=(250.0, 250.0), status="unconverged", r_hat=1.09))
    assert row(agreed, "random walk")["worst_mode_ess"] == 250.0


def test_switches_of_chains_that_settle_from_dispersed_starts_do_not_count() -> None:
    document = board(
        cell("random walk", "local", **STUCK),
        cell("random walk", "local", start="dispersed", switches=500),
    )
    assert row(document, "random walk")["switches_per_million_calls"]["is_bound"]
    # Without a start in one mode there is nothing else to count.
    alone = board(cell("random walk", "local", start="dispersed", switches=500))
    assert row(alone, "random walk")["switches_per_million_calls"]["value"] == pytest.approx(1e6 * 500 / 8_000)


@pytest.mark.parametrize(("estimate", "is_said"), [(0.0, False), (-0.4, False), (-9.0, True)])
def test_a_pair_whose_log_z_is_off_has_lost_something(estimate: float, is_said: bool) -> None:
    lead = cell(DEFAULT, "learned")
    lead["result"]["figures"]["log_z"] = {"estimate": estimate, "exact": 0.0}
    words = " ".join(board(lead)["targets"][0]["words"])
    assert ("is 9 nats off: P_F has lost a part of the target" in words) == is_said


def test_a_sampler_that_does_not_apply_says_why_and_comes_last() -> None:
    document = board(cell("Gibbs with gradients", "local", result=False), cell(DEFAULT, "learned"))
    rows = document["targets"][0]["rows"]
    assert [each["sampler"] for each in rows] == [DEFAULT, "Gibbs with gradients"]
    assert rows[1] == {
        "sampler": "Gibbs with gradients",
        "kind": "local",
        "num_cells": 0,
        "status": "not run",
        "reason": "it offers no gradients",
    }


def test_rows_stand_in_the_order_of_what_they_bring_with_training() -> None:
    document = board(
        cell("random walk", "local", **STUCK),
        cell(DEFAULT, "learned", training=90_000.0),
        cell("tempered Gibbs", "tempering", ess=(100.0, 100.0)),
    )
    names = [each["sampler"] for each in document["targets"][0]["rows"]]
    assert names == ["tempered Gibbs", DEFAULT, "random walk"]
