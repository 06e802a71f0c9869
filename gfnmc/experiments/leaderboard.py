"""What the cells of a benchmark say together: rows of samplers by target, who wins, and when training has paid.

Rates of mode switches are those of the cells that start in one mode, taken together: a chain from a dispersed start
changes its mode while it settles and may never do so again. Where no switch was seen they are the upper 95 % bound of a
Poisson rate, 3.0 events in the calls or seconds spent.

Effective sample sizes are those of the worst mode indicator, or of the worst statistic where modes are not known. Where
chains disagree (R-hat above `MOST_R_HAT`) there are none: many chains that each stay where they began would otherwise
count as one effective sample each, and more than that from dispersed starts. Training has paid after

    N* = cost of training / (cost of an effective sample of the best local baseline - cost of one of the default cycle)

effective samples, in calls and in seconds apart. To a baseline without effective samples a mode switch counts as one,
which flatters it: of two modes with symmetric rates there are as many effective samples of the indicator as switches.
"""

import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from gfnmc.experiments.cell import ONE_MODE
from gfnmc.experiments.document import versions
from gfnmc.experiments.leaderboard_words import target_words, verdict
from gfnmc.experiments.samplers import DEFAULT

SCHEMA = "gfnmc.leaderboard/1"

MOST_R_HAT = 1.1
"""R-hat above which draws are not counted as effective ones."""

_POISSON_95 = -math.log(0.05)
_RANKS = {"ok": 0, "unconverged": 1, "stuck": 2}

Cell = Mapping[str, Any]
Row = dict[str, Any]


def leaderboard(
    cells: Sequence[Cell], *, suite: str, budget: str, num_chains: int, command: str | None, commit: str | None = None
) -> dict[str, Any]:
    """Return the leaderboard of a benchmark's cells as plain data.

    Args:
        cells: What `run_benchmark` returned.
        suite: Name of the suite.
        budget: What every sampler could spend, in words.
        num_chains: Chains of each sampler.
        command: How the benchmark was started.
        commit: Commit of the code that ran, where known.
    """
    names = list(dict.fromkeys(cell["target"] for cell in cells))
    targets = [_target([cell for cell in cells if cell["target"] == name]) for name in names]
    return {
        "schema": SCHEMA,
        "title": f"gfnmc benchmark, suite {suite}",
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "suite": {
            "name": suite,
            "seeds": sorted({cell["seed"] for cell in cells}),
            "starts": list(dict.fromkeys(cell["start"] for cell in cells)),
            "num_chains": num_chains,
            "budget": budget,
        },
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "commit": commit,
            "versions": versions(),
        },
        "verdict": verdict(targets),
        "targets": targets,
    }


def _target(cells: Sequence[Cell]) -> dict[str, Any]:
    names = list(dict.fromkeys(cell["sampler"] for cell in cells))
    rows = [_row([cell for cell in cells if cell["sampler"] == name]) for name in names]
    rows.sort(key=lambda row: -(row.get("ess_per_million_calls_with_training") or -math.inf))
    rows.sort(key=lambda row: row["status"] == "not run")
    first = cells[0]
    target = {
        "name": first["target"],
        "description": first["description"],
        **first["facts"],
        "prices": first["prices"],
        "break_even": {cost: _break_even(rows, cost) for cost in ("calls", "seconds")},
        "rows": rows,
    }
    return target | {"words": target_words(target)}


def _row(cells: Sequence[Cell]) -> Row:
    first, run = cells[0], [cell["result"] for cell in cells if cell["result"] is not None]
    head = {"sampler": first["sampler"], "kind": first["kind"], "num_cells": len(run)}
    if not run:
        return head | {"status": "not run", "reason": first["reason"]}
    figures = [result["figures"] for result in run]
    worst = max(figures, key=lambda sampler: _RANKS[sampler["status"]])
    found = [result["discovery"] for result in run]
    settled = [cell["result"] for cell in cells if cell["result"] is not None and cell["start"] == ONE_MODE] or run
    return head | {
        "status": worst["status"],
        "reason": worst["verdict"],
        "modes_found": min(sampler["modes_found"] for sampler in figures),
        "calls_to_all_modes": None if None in found else median(each["calls"] for each in found),
        "seconds_to_all_modes": None if None in found else median(each["seconds"] for each in found),
        "switches_per_million_calls": _rate(settled, "calls", 1e6),
        "switches_per_second": _rate(settled, "seconds", 1.0),
        "round_trips_per_million_calls": _round_trips(settled),
        "acceptance": median(sampler["acceptance"]["overall"] for sampler in figures),
        "worst_mode_ess": min(map(_worst_ess, figures)) or None,
        **_ess_per_cost(run),
        "total_variation": _total_variation(figures),
        "largest_error": _largest_error(figures),
        "log_z_error": _log_z_error(figures),
        "calls": _median_cost(run, "calls"),
        "seconds": _median_cost(run, "seconds"),
    }


def _worst_ess(sampler: Mapping[str, Any]) -> float:
    """Return the effective sample size of the worst mode indicator, or without modes of the worst statistic."""
    if sampler["modes"]:
        return min(_credible(mode["ess"], mode["r_hat"]) for mode in sampler["modes"])
    return _credible(sampler["worst"]["ess_bulk"], sampler["worst"]["r_hat"])


def _credible(ess: float | None, r_hat: float | str | None) -> float:
    """Return an effective sample size, 0 where the scalar never moved or the chains disagree."""
    return ess if ess is not None and r_hat is not None and float(r_hat) <= MOST_R_HAT else 0.0


def _ess_per_cost(run: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return effective samples per million calls and per second, sampling alone and with training, medians of cells."""
    values: dict[str, float | None] = {}
    for cost, unit, name in (("calls", 1e6, "ess_per_million_calls"), ("seconds", 1.0, "ess_per_second")):
        alone = median(unit * _worst_ess(result["figures"]) / result[cost]["sampling"] for result in run)
        paid = median(unit * _worst_ess(result["figures"]) / sum(result[cost].values()) for result in run)
        values |= {name: alone or None, f"{name}_with_training": paid or None}
    return values


def _rate(run: Sequence[Mapping[str, Any]], cost: str, unit: float) -> dict[str, Any] | None:
    moved = [result["movement"] for result in run]
    if None in moved:
        return None
    switches, spent = sum(each["switches"] for each in moved), sum(each[cost] for each in moved)
    return {"value": unit * (switches or _POISSON_95) / spent, "is_bound": switches == 0}


def _round_trips(run: Sequence[Mapping[str, Any]]) -> float | None:
    moved = [result["movement"] for result in run]
    if None in moved:
        return None
    return 1e6 * sum(each["round_trips"] for each in moved) / sum(each["round_trip_calls"] for each in moved)


def _total_variation(figures: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the distance and its floor of the cell where they are furthest apart."""
    found = [
        {"value": distance["value"], "iid_floor": distance["iid_floor_at_worst_ess"]}
        for distance in (sampler["total_variation"] for sampler in figures)
        if distance is not None and distance["iid_floor_at_worst_ess"] is not None
    ]
    return max(found, key=lambda each: each["value"] / each["iid_floor"]) if len(found) == len(figures) else None


def _largest_error(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the statistic that is most standard errors from its exact mean, cells taken together.

    Only statistics that moved in every cell have a standard error.
    """
    errors = {}
    for name, cells in _by_statistic(figures).items():
        known = [error for _, error in cells if error]
        if len(known) == len(figures):
            off = math.fsum(deviation for deviation, _ in cells)
            errors[name] = abs(off) / math.sqrt(math.fsum(error**2 for error in known))
    if not errors:
        return None
    worst = max(errors, key=lambda name: errors[name])
    return {"statistic": worst, "standard_errors": errors[worst]}


def _by_statistic(figures: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float | None]]]:
    """Return deviations from the exact mean, with standard errors, of every statistic and mode that has one."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for sampler in figures:
        for row in sampler["statistics"]:
            if row["exact"] is not None:
                found.setdefault(row["name"], []).append((row["mean"] - row["exact"], row["mcse"]))
        for mode in sampler["modes"]:
            if mode["exact_mass"] is not None:
                name = f"mass of {mode['name']}"
                found.setdefault(name, []).append((mode["mass"] - mode["exact_mass"], mode["mass_error"]))
    return found


def _log_z_error(figures: Sequence[Mapping[str, Any]]) -> float | None:
    errors = [
        abs(sampler["log_z"]["estimate"] - sampler["log_z"]["exact"])
        for sampler in figures
        if sampler["log_z"] is not None and sampler["log_z"]["exact"] is not None
    ]
    return median(errors) if errors else None


def _median_cost(run: Sequence[Mapping[str, Any]], cost: str) -> dict[str, float]:
    return {part: median(result[cost][part] for result in run) for part in ("training", "sampling")}


def _break_even(rows: Sequence[Row], cost: str) -> dict[str, Any] | None:
    """Return the effective samples after which training has paid; None where it never does, or it is not known."""
    lead = next((row for row in rows if row["sampler"] == DEFAULT and row["status"] != "not run"), None)
    own = None if lead is None else _cost_of_a_sample(lead, cost)
    local = [row for row in rows if row["kind"] == "local" and row["status"] != "not run"]
    known = [(price, row) for row in local if (price := _cost_of_a_sample(row, cost)) is not None]
    if lead is None or own is None or not known:
        return None
    (dearer, is_bound), best = min(known, key=lambda each: each[0][0])
    saved = dearer - own[0]
    if saved <= 0.0:
        return None
    return {"samples": lead[cost]["training"] / saved, "against": best["sampler"], "is_bound": is_bound}


def _cost_of_a_sample(row: Row, cost: str) -> tuple[float, bool] | None:
    """Return what an effective sample costs, training aside, and whether that is only a lower bound."""
    ess, switches, unit = ("ess_per_second", "switches_per_second", 1.0)
    if cost == "calls":
        ess, switches, unit = ("ess_per_million_calls", "switches_per_million_calls", 1e6)
    if row[ess] is not None:
        return unit / row[ess], False
    if row[switches] is None:
        return None
    return unit / row[switches]["value"], row[switches]["is_bound"]
