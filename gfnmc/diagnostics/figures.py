"""Figures of chains as plain data: by statistic, by mode, and the worst of them.

What comparisons show of a sampler and what `diagnose` says of chains are made here, once. A row is a dict that JSON can
hold: what is not known, or makes no sense for a constant, is None, and an infinite R-hat is the word "inf".
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from gfnmc.core.cost import Cost
from gfnmc.diagnostics.convergence import Convergence, convergence
from gfnmc.diagnostics.modes import discovery, switches_per_thousand_steps
from gfnmc.sampling.chains import Chains, Record
from gfnmc.targets.base import ExactSolution

Row = dict[str, Any]


def spent_by_draw(chains: Chains) -> tuple[Int64[np.ndarray, " draws"], Float64[np.ndarray, " draws"]]:
    """Return target calls and seconds spent up to each draw by all chains, warm-up, starts and training included."""
    calls = np.concatenate([record.stats["target_calls"].sum(0).numpy() for record in _phases(chains)]).cumsum()
    seconds = np.concatenate([record.seconds.numpy() for record in _phases(chains)])
    trained = chains.training_cost
    return calls + chains.num_chains + trained.target_calls, seconds + trained.seconds


def all_mode_ids(chains: Chains) -> Int64[np.ndarray, "chains draws"] | None:
    """Return the mode of each draw, warm-up first; None where the target knows no modes."""
    found = [chains.mode_ids(record) for record in _phases(chains)]
    known = [ids for ids in found if ids is not None]
    return np.concatenate(known, axis=1) if known else None


def mode_figures(chains: Chains, exact: ExactSolution | None) -> list[Row]:
    """Return a row a mode: when it was found, its share of the draws with its error, and the exact one."""
    modes, ids, all_ids = chains.target.modes(), chains.mode_ids(chains.samples), all_mode_ids(chains)
    if modes is None or ids is None or all_ids is None:
        return []
    found = discovery(all_ids, *spent_by_draw(chains), len(modes))
    rows = []
    for mode, name in enumerate(modes.names):
        occupied = convergence(ids == mode)
        rows.append(
            {
                "name": name,
                "found_after_calls": found.target_calls[mode],
                "found_after_seconds": found.seconds[mode],
                "mass": occupied.mean,
                "mass_error": occupied.mcse,
                "exact_mass": None if exact is None or exact.mode_masses is None else exact.mode_masses[mode],
                "ess": occupied.ess_bulk,
                "ess_tail": occupied.ess_tail,
                "r_hat": json_number(occupied.r_hat),
            }
        )
    return rows


def statistic_figures(chains: Chains, exact: ExactSolution | None) -> list[Row]:
    """Return a row for the log-density and for each statistic of the target: its mean with its error, and the truth."""
    rows = []
    for name, values in chains.statistics.items():
        judged = convergence(values)
        truth = None if exact is None else exact_mean(name, exact)
        rows.append({"name": name, "exact": truth, **convergence_figures(judged)})
    return rows


def convergence_figures(judged: Convergence) -> Row:
    """Return what a comparison shows of a scalar's convergence."""
    return {
        "mean": judged.mean,
        "mcse": judged.mcse,
        "ess_bulk": judged.ess_bulk,
        "ess_tail": judged.ess_tail,
        "r_hat": json_number(judged.r_hat),
    }


def exact_mean(name: str, exact: ExactSolution) -> float | None:
    """Return the exact mean of a statistic, or of the log-density; None where it is not known."""
    if name == "log_prob" and exact.log_pmf is not None:
        # Impossible objects have no part in the mean; 0 times -inf would be NaN.
        possible = exact.log_pmf[exact.log_pmf > -math.inf]
        return float(possible.exp() @ possible) + exact.log_z
    value = exact.expectations.get(name)
    # A sum that is zero by symmetry comes out as rounding noise.
    return 0.0 if value is not None and abs(value) < 1e-12 else value


def indicator_figures(modes: Sequence[Row]) -> list[Row]:
    """Return the convergence of each mode's indicator, as of a statistic."""
    return [
        {"name": f"in {m['name']}", "ess_bulk": m["ess"], "ess_tail": m["ess_tail"], "r_hat": m["r_hat"]} for m in modes
    ]


def worst_figure(chains: Chains, rows: Sequence[Row]) -> Row:
    """Return the scalar with the smallest bulk ESS; one that never moved is worse than any, unless it should not."""
    num_draws = chains.num_chains * chains.num_samples
    rows = [row for row in rows if not is_settled(row, num_draws)] or list(rows)
    slowest = min(rows, key=lambda row: -math.inf if row["ess_bulk"] is None else row["ess_bulk"])
    rated = [row for row in rows if row["r_hat"] is not None]
    disagreeing = max(rated, key=lambda row: float(row["r_hat"])) if rated else slowest
    ess = slowest["ess_bulk"]
    sampling, total = chains.sampling_cost, chains.cost
    return {
        "statistic": slowest["name"],
        "ess_bulk": ess,
        "ess_tail": slowest["ess_tail"],
        "r_hat": disagreeing["r_hat"],
        "r_hat_statistic": disagreeing["name"],
        "ess_bulk_per_second": None if ess is None else ess / sampling.seconds,
        "ess_bulk_per_1000_calls": None if ess is None else 1_000 * ess / sampling.target_calls,
        "ess_bulk_per_second_with_training": None if ess is None else ess / total.seconds,
        "ess_bulk_per_1000_calls_with_training": None if ess is None else 1_000 * ess / total.target_calls,
    }


def is_settled(row: Row, num_draws: int) -> bool:
    """Say whether a scalar never moved and is right so: draws of the exact law would not be expected to differ."""
    exact = row.get("exact")
    return row["ess_bulk"] is None and exact is not None and abs(row["mean"] - exact) * num_draws < 1.0


def switches(chains: Chains) -> float | None:
    """Return mode switches per 1,000 steps of a chain; None where the target knows no modes."""
    ids = chains.mode_ids(chains.samples)
    return None if ids is None else switches_per_thousand_steps(ids, chains.thinning)


def cost_figures(cost: Cost) -> Row:
    """Return a cost as plain data."""
    return {"target_calls": cost.target_calls, "policy_calls": cost.policy_calls, "seconds": cost.seconds}


def json_number(value: float | None) -> float | str | None:
    """Return a number as JSON holds it, which has no infinity."""
    return "inf" if value == math.inf else value


def _phases(chains: Chains) -> Iterator[Record]:
    return (record for record in (chains.warmup, chains.samples) if len(record.seconds))
