"""What a trained proposal bought, when it pays back its training, and when not to trust the figures.

Two samplers cost a_1 + n c_1 and a_2 + n c_2 for n effective draws of their worst statistics, with a the cost of
training and c that of sampling one. The one with the dearer training breaks even at n = (a_1 - a_2) / (c_2 - c_1).
"""

from collections.abc import Iterator, Sequence
from typing import Any

Sampler = dict[str, Any]

_UNITS = {"target_calls": "target calls", "seconds": "seconds"}
_FEW_ACCEPTED = 0.01
_BAD_K_HAT = 0.7
_FEW_CHAINS = 4
_WORST_R_HAT = 1.1
_APART = 1.5


def cost_per_draw(sampler: Sampler, unit: str) -> float | None:
    """Return what one effective draw of the worst statistic cost in sampling; None where there is none.

    Args:
        sampler: Its figures.
        unit: "target_calls" or "seconds".
    """
    ess, spent = sampler["worst"]["ess_bulk"], sampler["cost"]["sampling"][unit]
    return spent / ess if ess and spent else None


def break_even(lead: Sampler, other: Sampler, unit: str) -> float | None:
    """Return from how many effective draws on the lead costs less than another sampler, training included.

    Returns:
        0 where it costs less from the start, None where it never does or a sampler has no effective draws.
    """
    ours, theirs = cost_per_draw(lead, unit), cost_per_draw(other, unit)
    if ours is None or theirs is None or ours >= theirs:
        return None
    ahead = lead["cost"]["training"][unit] - other["cost"]["training"][unit]
    return max(0.0, ahead / (theirs - ours))


def worth(samplers: Sequence[Sampler]) -> list[dict[str, Any]]:
    """Return, for each sampler beside the first, how many times its information per cost the first has.

    Returns:
        Plain data: "against", and under each unit "ratio" of effective draws per cost of sampling and "break_even" in
        effective draws. None where a sampler has no effective draws, or is stuck: its effective draws tell nothing of
        the modes that it missed.
    """
    return [{"against": other["name"], **_ratios(samplers[0], other)} for other in samplers[1:]]


def bought(samplers: Sequence[Sampler]) -> list[str]:
    """Say what the first sampler bought against each of the others."""
    return [_sentence(samplers[0], other, found) for other, found in zip(samplers[1:], worth(samplers), strict=True)]


def cautions(samplers: Sequence[Sampler], *, knows_modes: bool, knows_truth: bool, start: str) -> list[str]:
    """Say when not to trust a comparison.

    Args:
        samplers: The figures of the samplers, status included.
        knows_modes: Whether the target names its modes.
        knows_truth: Whether exact values of it are known.
        start: Where the chains started, in words.
    """
    lines = [line for sampler in samplers for line in _of_sampler(sampler)]
    if not knows_modes:
        lines.append(
            "The target names no modes. Chains that agree with each other may all have missed one, and neither R-hat "
            f"nor the effective size would tell; they started from: {start}."
        )
    if not knows_truth:
        lines.append("No exact value of this target is known, so nothing here was checked against the truth.")
    lines += _of_budgets(samplers)
    lines.append("Seconds are those of the machine that ran the chains; target calls are not.")
    return lines


def _is_counted(sampler: Sampler) -> bool:
    """Say whether effective draws are what they say: not of a part, nor of many chains that stay where they began."""
    r_hat = sampler["worst"]["r_hat"]
    return sampler["status"] != "stuck" and (r_hat is None or float(r_hat) <= _WORST_R_HAT)


def _ratios(lead: Sampler, other: Sampler) -> dict[str, dict[str, float | None]]:
    is_fair = _is_counted(lead) and _is_counted(other)
    found: dict[str, dict[str, float | None]] = {}
    for unit in _UNITS:
        ours, theirs = cost_per_draw(lead, unit), cost_per_draw(other, unit)
        has_both = is_fair and ours is not None and theirs is not None
        found[unit] = {
            "ratio": theirs / ours if has_both else None,  # type: ignore[operator]
            "break_even": break_even(lead, other, unit) if has_both else None,
        }
    return found


def _sentence(lead: Sampler, other: Sampler, found: dict[str, Any]) -> str:
    pair = f"{lead['name']} against {other['name']}:"
    if lead["status"] == "stuck":
        return f"{pair} nothing that can be measured, for {lead['name']} is stuck itself."
    if other["status"] == "stuck":
        missed = sum(mode["found_after_calls"] is None for mode in other["modes"])
        what = f"{missed} of {len(other['modes'])} modes that {other['name']} missed" if missed else "changes of mode"
        calls = other["cost"]["sampling"]["target_calls"]
        return f"{pair} {what}, in {calls:,} target calls. A ratio of effective draws would count a part as the whole."
    calls, seconds = found["target_calls"], found["seconds"]
    for sampler in (lead, other):
        if not _is_counted(sampler):
            spent = sampler["cost"]["sampling"]["target_calls"]
            return (
                f"{pair} no ratio, for after {spent:,} target calls R-hat of {sampler['name']} is "
                f"{float(sampler['worst']['r_hat']):.2f}: its chains disagree, and each counts as draws of its own."
            )
    if calls["ratio"] is None or seconds["ratio"] is None:
        return f"{pair} a ratio needs effective draws of both, and a worst statistic did not move."
    words = (
        f"{pair} {_times(calls['ratio'])} the effective draws per target call, {_times(seconds['ratio'])} per second, "
        "training not counted"
    )
    return f"{words}. {_paid_back(lead, other, found)}"


def _paid_back(lead: Sampler, other: Sampler, found: dict[str, Any]) -> str:
    if lead["cost"]["training"]["target_calls"] <= other["cost"]["training"]["target_calls"]:
        return "There is no training to pay back."
    parts = []
    for unit, words in _UNITS.items():
        draws = found[unit]["break_even"]
        if draws is None:
            parts.append(f"never in {words}")
        else:
            spent = lead["cost"]["training"][unit] + draws * (cost_per_draw(lead, unit) or 0.0)
            parts.append(f"in {words} after {draws:,.0f} effective draws ({spent:,.0f} {words})")
    return f"Training is paid back {' and '.join(parts)}."


def _of_sampler(sampler: Sampler) -> Iterator[str]:
    name = sampler["name"]
    if sampler["status"] != "ok":
        yield f"Use no average of {name}: it is {'stuck' if sampler['status'] == 'stuck' else 'not converged'}."
    if sampler["num_chains"] < _FEW_CHAINS:
        yield f"{name} has {sampler['num_chains']} chains; R-hat compares chains and needs at least {_FEW_CHAINS}."
    if sampler["acceptance"]["overall"] < _FEW_ACCEPTED and sampler["cost"]["training"]["target_calls"]:
        yield (
            f"Of the large steps of {name} {sampler['acceptance']['overall']:.2%} are accepted: the pair is bad where "
            "the chains are, and what moves is the rest of the kernel."
        )
    log_z = sampler["log_z"]
    if log_z is not None and log_z["k_hat"] is not None and log_z["k_hat"] > _BAD_K_HAT:
        yield f"The log Z of {name} rests on a few weights (Pareto k-hat {log_z['k_hat']:.2f}); its error is too small."


def _of_budgets(samplers: Sequence[Sampler]) -> Iterator[str]:
    """Say that samplers spent different amounts, which totals and first visits depend on and rates do not."""
    spent = [sum(sampler["cost"][part]["target_calls"] for part in ("training", "sampling")) for sampler in samplers]
    if len(spent) > 1 and max(spent) > _APART * max(1, min(spent)):
        yield (
            f"The samplers spent different amounts, {min(spent):,} to {max(spent):,} target calls, training included: "
            "compare rates, not totals."
        )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10.0 else f"{ratio:.2g} times"
