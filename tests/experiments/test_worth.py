"""What a proposal bought: ratios, break-even, and the sentences that say when not to trust them."""

from typing import Any

import pytest

from gfnmc.experiments.worth import bought, break_even, cautions, worth


def _sampler(name: str, ess: float | None, training: int = 0, sampling: int = 1_000, **changes: Any) -> dict[str, Any]:
    sampler: dict[str, Any] = {
        "name": name,
        "status": "ok",
        "num_chains": 8,
        "modes": [{"found_after_calls": 5}, {"found_after_calls": 9}],
        "worst": {"ess_bulk": ess, "r_hat": 1.004},
        "acceptance": {"overall": 0.4},
        "log_z": None,
        "cost": {
            "training": {"target_calls": training, "seconds": training / 100.0},
            "sampling": {"target_calls": sampling, "seconds": sampling / 100.0},
        },
    }
    return sampler | changes


def _cautions(*samplers: dict[str, Any], **known: Any) -> str:
    facts: dict[str, Any] = {"knows_modes": True, "knows_truth": True, "start": "one object"} | known
    return "\n".join(cautions(samplers, **facts))


def test_two_lines_of_cost_cross_where_training_is_paid_back() -> None:
    lead, other = _sampler("lead", 500.0, training=9_000), _sampler("other", 100.0)
    draws = break_even(lead, other, "target_calls")
    assert draws is not None
    # 2 calls a draw against 10.
    assert 9_000 + 2.0 * draws == pytest.approx(10.0 * draws)
    assert break_even(_sampler("lead", 500.0), other, "target_calls") == 0.0
    assert break_even(other, lead, "target_calls") is None
    assert break_even(_sampler("lead", None), other, "target_calls") is None


def test_the_ratio_is_of_information_per_cost_of_sampling() -> None:
    lead, other = _sampler("lead", 500.0, training=9_000), _sampler("other", 100.0)
    (found,) = worth([lead, other])
    assert found["against"] == "other"
    assert found["target_calls"] == {"ratio": pytest.approx(5.0), "break_even": pytest.approx(1_125.0)}
    (said,) = bought([lead, other])
    assert said.startswith("lead against other: 5 times the effective draws per target call, 5 times per second")
    assert "in target calls after 1,125 effective draws (11,250 target calls)" in said


def test_a_slower_sampler_never_pays_back() -> None:
    (said,) = bought([_sampler("lead", 50.0, training=9_000), _sampler("other", 100.0)])
    assert "0.5 times" in said
    assert "never in target calls and never in seconds" in said


def test_without_training_there_is_nothing_to_pay_back() -> None:
    (said,) = bought([_sampler("lead", 500.0), _sampler("other", 100.0)])
    assert said.endswith("There is no training to pay back.")


def test_no_ratio_is_given_against_a_sampler_that_is_stuck() -> None:
    stuck = _sampler("walk", 900.0, status="stuck", modes=[{"found_after_calls": 5}, {"found_after_calls": None}])
    (found,), (said,) = worth([_sampler("lead", 500.0), stuck]), bought([_sampler("lead", 500.0), stuck])
    assert found["target_calls"] == found["seconds"] == {"ratio": None, "break_even": None}
    assert "1 of 2 modes that walk missed" in said
    assert "times the effective draws" not in said
    assert "nothing that can be measured" in bought([stuck, _sampler("other", 100.0)])[0]
    still = _sampler("walk", 900.0, status="stuck")
    assert "changes of mode, in 1,000 target calls" in bought([_sampler("lead", 500.0), still])[0]


def test_a_statistic_that_did_not_move_gives_no_ratio() -> None:
    (said,) = bought([_sampler("lead", 500.0), _sampler("other", None, status="unconverged")])
    assert "did not move" in said


@pytest.mark.parametrize("r_hat", [1.2, "inf"])
def test_no_ratio_is_given_where_chains_disagree(r_hat: float | str) -> None:
    apart = _sampler("walk", 900.0, status="unconverged", worst={"ess_bulk": 900.0, "r_hat": r_hat})
    (found,), (said,) = worth([_sampler("lead", 500.0), apart]), bought([_sampler("lead", 500.0), apart])
    assert found["seconds"]["ratio"] is None
    assert f"no ratio, for after 1,000 target calls R-hat of walk is {float(r_hat):.2f}" in said


def test_one_sampler_alone_bought_nothing() -> None:
    assert bought([_sampler("lead", 500.0)]) == worth([_sampler("lead", 500.0)]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "stuck"}, "Use no average of lead: it is stuck."),
        ({"status": "unconverged"}, "Use no average of lead: it is not converged."),
        ({"num_chains": 2}, "lead has 2 chains"),
        ({"acceptance": {"overall": 0.002}, "training": 100}, "0.20% are accepted"),
        ({"log_z": {"k_hat": 0.93}}, "Pareto k-hat 0.93"),
        ({"sampling": 50_000}, "different amounts, 1,000 to 50,000 target calls"),
    ],
)
def test_what_is_doubtful_is_said_and_what_is_not_is_not(changes: dict[str, Any], words: str) -> None:
    other = _sampler("other", 100.0)
    assert words in _cautions(_sampler("lead", 500.0, **changes), other)
    assert words not in _cautions(_sampler("lead", 500.0, log_z={"k_hat": 0.2}), other)


def test_a_target_of_unknown_modes_or_truth_is_said_to_be() -> None:
    lead = _sampler("lead", 500.0)
    assert "names no modes" in _cautions(lead, knows_modes=False)
    assert "started from: one object" in _cautions(lead, knows_modes=False)
    assert "No exact value" in _cautions(lead, knows_truth=False)
    assert "modes" not in _cautions(lead)
    assert "exact" not in _cautions(lead)
