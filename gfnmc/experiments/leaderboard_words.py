"""Say in words who wins a benchmark, on each target and overall, also where it is a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from gfnmc.experiments.samplers import DEFAULT

Row = Mapping[str, Any]

LARGE_LOG_Z_ERROR = 0.5
"""Nats; a pair that has lost no part of the target estimates log Z far better from some thousand draws."""

_COSTS = (("calls", "ess_per_million_calls_with_training"), ("second", "ess_per_second_with_training"))


def target_words(target: Mapping[str, Any]) -> list[str]:
    """Return what the rows of one target show, a sentence each."""
    rows = [row for row in target["rows"] if row["status"] != "not run"]
    lead = _lead(rows)
    lines = [_winner(rows, lead, unit, key) for unit, key in _COSTS]
    if lead is not None:
        lines += _movement(rows, lead)
        lines += [_break_even(target["break_even"][cost], cost, lead) for cost in ("calls", "seconds")]
        lines.append(_lost(lead))
    stuck = [row["sampler"] for row in rows if row["status"] == "stuck"]
    if stuck:
        lines.append(f"Stuck, with modes missed or never left in some run: {', '.join(stuck)}.")
    return [line for line in lines if line]


def verdict(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return on which targets the default cycle, another learned sampler or a baseline wins."""
    lines = []
    for unit, key in _COSTS:
        winners: dict[str, list[str]] = {}
        for target in targets:
            best = _best([row for row in target["rows"] if row["status"] != "not run"], key)
            if best is not None:
                winners.setdefault(best["sampler"], []).append(target["name"])
        per = "target call" if unit == "calls" else unit
        for name, won in sorted(winners.items(), key=lambda item: (item[0] != DEFAULT, -len(item[1]))):
            lines.append(f"Most effective samples per {per}, training included: {name} on {', '.join(won)}.")
    return lines


def _lead(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row["sampler"] == DEFAULT), None)


def _best(rows: Sequence[Row], key: str) -> Row | None:
    """Return the row with the most effective samples for its cost, of those that are not stuck."""
    moved = [row for row in rows if row[key] is not None and row["status"] != "stuck"]
    return max(moved, key=lambda row: row[key]) if moved else None


def _winner(rows: Sequence[Row], lead: Row | None, unit: str, key: str) -> str:
    per = "million target calls" if unit == "calls" else "second"
    best = _best(rows, key)
    if best is None:
        return f"No sampler mixed, so none has effective samples per {per} to compare."
    head = f"{best['sampler']} has the most effective samples per {per}, training included: {_number(best[key])}"
    if lead is None or best is lead:
        others = [row for row in rows if row is not best and row["kind"] != "learned"]
        next_best = _best(others, key)
        if next_best is None:
            return f"{head}; every baseline is stuck."
        return f"{head}; the best baseline, {next_best['sampler']}, has {_number(next_best[key])}."
    own = "none" if lead[key] is None else _number(lead[key])
    advice = "" if best["kind"] == "learned" else "; here the baseline wins, and training is not worth its cost"
    return f"{head}; the {DEFAULT} has {own}{advice}."


def _movement(rows: Sequence[Row], lead: Row) -> list[str]:
    """Compare the default cycle's mode switches with those of the best local baseline, sampling cost alone."""
    local = [row for row in rows if row["kind"] == "local"]
    lines = []
    for key, per in (("switches_per_million_calls", "target call"), ("switches_per_second", "second")):
        rated = [row for row in local if row[key] is not None]
        if lead[key] is None or not rated:
            continue
        best = max(rated, key=lambda row: row[key]["value"])
        ratio = lead[key]["value"] / best[key]["value"]
        than = f"those of {best['sampler']}, the best local baseline"
        # A baseline that never moved may be as fast as its bound, so it can be the best one.
        least = "at least " if best[key]["is_bound"] else ""
        lines.append(f"Mode switches per {per}, sampling alone: {least}{_number(ratio)} times {than}.")
    return lines


def _break_even(found: Mapping[str, Any] | None, cost: str, lead: Row) -> str:
    if lead["ess_per_second"] is None:
        return ""
    if found is None:
        return f"In {cost}, training never pays against the best local baseline."
    most = "at most " if found["is_bound"] else ""
    return (
        f"In {cost}, training has paid after {most}{_number(found['samples'])} effective samples ({found['against']})."
    )


def _lost(lead: Row) -> str:
    """Warn where the pair's own draws miss so much of the target that its log Z is off."""
    error = lead["log_z_error"]
    if error is None or error < LARGE_LOG_Z_ERROR:
        return ""
    return (
        f"The pair's estimate of log Z is {_number(error)} nats off: P_F has lost a part of the target, and the "
        f"{DEFAULT} moves there by its local part alone."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"
