"""The verdict: which figures make a sampler stuck, unconverged or ok, and what is said of it."""

from typing import Any

import pytest

from gfnmc.experiments.verdict import sampler_verdict, verdict


def _mode(name: str, **changes: Any) -> dict[str, Any]:
    mode = {"name": name, "found_after_calls": 10, "exact_mass": 0.5, "mass": 0.5, "mass_error": 0.01}
    return mode | changes


def _sampler(**changes: Any) -> dict[str, Any]:
    """The figures of a sampler that mixed, as far as verdicts look at them."""
    sampler = {
        "name": "hybrid",
        "num_chains": 4,
        "num_samples": 100,
        "num_warmup": 10,
        "thinning": 2,
        "modes": [_mode("left"), _mode("right")],
        "switches_per_1000_steps": 12.0,
        "worst": {"statistic": "energy", "ess_bulk": 5_000.0, "r_hat": 1.002, "r_hat_statistic": "spin"},
        "total_variation": {"value": 0.0123, "iid_floor_at_worst_ess": 0.0117},
        "cost": {
            "training": {"target_calls": 12_000, "seconds": 3.2},
            "sampling": {"target_calls": 4_000, "seconds": 1.4},
        },
    }
    return sampler | changes


def _worst(**changes: Any) -> dict[str, Any]:
    return _sampler()["worst"] | changes


def test_a_sampler_that_mixed_is_ok() -> None:
    status, words = sampler_verdict(_sampler())
    assert status == "ok"
    assert words == "mixed: found all 2 modes and has 5,000 effective draws of its worst statistic, 'energy'."


def test_a_missed_mode_is_stuck_whatever_else_the_figures_say() -> None:
    modes = [_mode("left"), _mode("right", found_after_calls=None, mass=0.0, exact_mass=0.25)]
    status, words = sampler_verdict(_sampler(modes=modes))
    assert status == "stuck"
    assert "in 210 steps none of 4 chains reached right" in words
    assert "1 of 2 modes and missed 25.0% of the mass" in words


def test_a_missed_mode_of_unknown_mass_has_no_share() -> None:
    modes = [_mode("left", exact_mass=None), _mode("right", found_after_calls=None, exact_mass=None)]
    status, words = sampler_verdict(_sampler(modes=modes))
    assert status == "stuck"
    assert "%" not in words


def test_many_missed_modes_are_not_all_named() -> None:
    modes = [_mode("start"), *[_mode(f"mode {i}", found_after_calls=None) for i in range(5)]]
    _, words = sampler_verdict(_sampler(modes=modes))
    assert "mode 0, mode 1, mode 2 and 2 more modes" in words


def test_modes_that_no_chain_changes_between_are_stuck() -> None:
    status, words = sampler_verdict(_sampler(switches_per_1000_steps=0.0))
    assert status == "stuck"
    assert "no chain ever changed" in words


def test_one_mode_needs_no_changes() -> None:
    assert sampler_verdict(_sampler(modes=[_mode("only")], switches_per_1000_steps=0.0))[0] == "ok"


def test_without_modes_only_convergence_counts() -> None:
    status, words = sampler_verdict(_sampler(modes=[], switches_per_1000_steps=None))
    assert status == "ok"
    assert "modes" not in words


@pytest.mark.parametrize(
    ("worst", "status", "word"),
    [
        (_worst(ess_bulk=None), "unconverged", "'energy' never moved"),
        (_worst(r_hat=1.0101), "unconverged", "R-hat of 'spin' is 1.010"),
        (_worst(r_hat=1.01), "ok", "mixed"),
        (_worst(r_hat="inf"), "unconverged", "R-hat of 'spin' is inf"),
        (_worst(r_hat=None), "ok", "mixed"),
        (_worst(ess_bulk=399.0), "unconverged", "399 effective draws"),
        (_worst(ess_bulk=400.0), "ok", "mixed"),
    ],
)
def test_convergence_is_judged_by_the_worst_statistic(worst: dict[str, Any], status: str, word: str) -> None:
    found, words = sampler_verdict(_sampler(worst=worst))
    assert found == status
    assert word in words


def _lines(*samplers: dict[str, Any], masses: list[float]) -> list[str]:
    return verdict([{**sampler, "verdict": "said."} for sampler in samplers], masses)


def test_the_comparison_says_each_verdict_then_accuracy_and_cost() -> None:
    lines = _lines(_sampler(), _sampler(name="walk"), masses=[0.5, 0.5])
    assert lines == [
        "hybrid: said.",
        "walk: said.",
        "hybrid: every mode's mass is within 3 standard errors of the exact one.",
        "hybrid: total variation to the exact law is 0.0123; as many independent draws as its worst statistic is worth "
        "would have 0.0117.",
        "Training cost 3 s and 12,000 target calls, sampling 1 s and 4,000.",
    ]


def test_a_warning_of_training_follows_the_verdicts_once_for_a_shared_pair() -> None:
    def trained(name: str, warning: str | None) -> dict[str, Any]:
        return _sampler(name=name, training={"quality": {"warning": warning}})

    lines = _lines(trained("a", "lost"), trained("b", "lost"), trained("c", None), _sampler(name="d"), masses=[])
    assert lines[4] == "a, b: training ended with a warning: lost."
    assert sum("warning" in line for line in lines) == 1
    assert not any("warning" in line for line in _lines(trained("c", None), _sampler(training=None), masses=[]))


@pytest.mark.parametrize(
    ("mode", "is_off"),
    [
        (_mode("left", mass=0.529), False),
        (_mode("left", mass=0.531), True),
        (_mode("left", mass=0.469), True),
        (_mode("left", mass=0.5, mass_error=None), True),
    ],
)
def test_masses_are_held_to_three_standard_errors(mode: dict[str, Any], is_off: bool) -> None:
    text = " ".join(_lines(_sampler(modes=[mode, _mode("right")]), masses=[0.5, 0.5]))
    assert ("mass of left is more than 3 standard errors" in text) == is_off


def test_what_is_not_known_is_not_said() -> None:
    untrained = {"training": {"target_calls": 0, "seconds": 0.0}, "sampling": {"target_calls": 4, "seconds": 1.0}}
    lines = _lines(_sampler(modes=[], total_variation=None, cost=untrained), masses=[])
    assert lines == ["hybrid: said."]
