"""The figures of a comparison as plain data: what reports show, and nothing that they would have to compute."""

import datetime
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from gfnmc.core.cost import Cost
from gfnmc.diagnostics.convergence import Convergence, convergence
from gfnmc.diagnostics.distances import iid_total_variation, total_variation
from gfnmc.diagnostics.evidence import Evidence
from gfnmc.diagnostics.modes import discovery, switches_per_thousand_steps
from gfnmc.diagnostics.proposal import acceptance_by_back_steps, acceptance_summary
from gfnmc.experiments.mixing_figures import mixing_figures
from gfnmc.experiments.training_figures import training_figures
from gfnmc.experiments.verdict import sampler_verdict, verdict
from gfnmc.experiments.worth import bought, cautions, worth
from gfnmc.sampling.chains import Chains
from gfnmc.targets.base import ExactSolution, Target

SCHEMA = "gfnmc.comparison/1"
Document = dict[str, Any]

_TRACE_CHAINS, _TRACE_POINTS = 4, 300
_RASTER_CHAINS, _RASTER_POINTS = 12, 240
_CURVE_POINTS = 200


def comparison_document(
    target: Target,
    runs: Mapping[str, Chains],
    evidence: Mapping[str, Evidence],
    *,
    training: Mapping[str, Mapping[str, Any]],
    title: str,
    start: str,
    command: str | None,
    num_threads: int | None,
) -> Document:
    """Return every figure of a comparison.

    Args:
        target: What was sampled.
        runs: The chains of each sampler.
        evidence: Estimates of log Z, of the samplers that have one.
        training: What training recorded, of the samplers whose pair knows it.
        title: Title of the report.
        start: Where the chains started, in words.
        command: How the comparison was started.
        num_threads: Torch threads during the runs.
    """
    exact, modes = target.exact(), target.modes()
    masses = (None,) * len(modes or ()) if exact is None or exact.mode_masses is None else exact.mode_masses
    samplers = [
        sampler_figures(name, chains, exact, evidence.get(name), training.get(name)) for name, chains in runs.items()
    ]
    first = next(iter(runs.values()))
    known = {"knows_modes": modes is not None, "knows_truth": exact is not None, "start": start}
    return {
        "schema": SCHEMA,
        "title": title,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "target": {
            "name": target.name,
            "event_shape": list(target.event_shape),
            "log_z": None if exact is None else exact.log_z,
            "num_states": None if exact is None or exact.support is None else len(exact.support),
            "modes": [{"name": n, "mass": m} for n, m in zip(modes.names if modes else (), masses, strict=True)],
        },
        "setup": {
            "seed": first.seed,
            "num_chains": first.num_chains,
            "start": start,
            "num_threads": num_threads,
            "versions": versions(),
        },
        "verdict": verdict(samplers, [m for m in masses if m is not None]),
        "bought": bought(samplers),
        "cautions": cautions(samplers, **known),
        "worth": worth(samplers),
        "samplers": samplers,
    }


def sampler_figures(
    name: str,
    chains: Chains,
    exact: ExactSolution | None,
    evidence: Evidence | None = None,
    report: Mapping[str, Any] | None = None,
) -> Document:
    """Return every figure of one sampler, with its status and a sentence that says why.

    Args:
        name: What to call it.
        chains: Its chains.
        exact: The truth, as far as it is known.
        evidence: Its estimate of log Z, if it has one.
        report: What training its pair recorded.
    """
    calls, seconds = _clock(chains)
    modes = _modes(chains, exact, calls, seconds)
    statistics = _statistics(chains, exact)
    worst = _worst(chains, statistics + _indicators(modes))
    sampler: Document = {
        "name": name,
        "kernel": chains.kernel_name,
        "num_chains": chains.num_chains,
        "num_samples": chains.num_samples,
        "num_warmup": chains.num_warmup,
        "thinning": chains.thinning,
        "modes": modes,
        "modes_found": sum(mode["found_after_calls"] is not None for mode in modes),
        "switches_per_1000_steps": _switches(chains),
        "acceptance": acceptance_summary(chains.samples)
        | {"by_num_back_steps": acceptance_by_back_steps(chains.samples)},
        "statistics": statistics,
        "worst": worst,
        "total_variation": _total_variation(chains, exact, worst["ess_bulk"]),
        "log_z": _log_z(evidence, exact),
        "cost": {"training": _cost(chains.training_cost), "sampling": _cost(chains.sampling_cost)},
        "training": None if report is None else training_figures(report, chains.training_cost),
        "curves": _curves(chains, calls, seconds, modes) | {"mixing": mixing_figures(chains, worst["r_hat_statistic"])},
    }
    status, words = sampler_verdict(sampler)
    return sampler | {"status": status, "verdict": words}


def _clock(chains: Chains) -> tuple[np.ndarray, np.ndarray]:
    """Return target calls and seconds spent up to each draw, warm-up and training included."""
    phases = [record for record in (chains.warmup, chains.samples) if len(record.seconds)]
    calls = np.concatenate([record.stats["target_calls"].sum(0).numpy() for record in phases]).cumsum()
    seconds = np.concatenate([record.seconds.numpy() for record in phases])
    trained = chains.training_cost
    return calls + chains.num_chains + trained.target_calls, seconds + trained.seconds


def _all_mode_ids(chains: Chains) -> np.ndarray | None:
    found = [chains.mode_ids(record) for record in (chains.warmup, chains.samples) if len(record.seconds)]
    return None if found[0] is None else np.concatenate([ids for ids in found if ids is not None], axis=1)


def _modes(chains: Chains, exact: ExactSolution | None, calls: np.ndarray, seconds: np.ndarray) -> list[Document]:
    modes, ids, all_ids = chains.target.modes(), chains.mode_ids(chains.samples), _all_mode_ids(chains)
    if modes is None or ids is None or all_ids is None:
        return []
    found = discovery(all_ids, calls, seconds, len(modes))
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
                "r_hat": _json_number(occupied.r_hat),
            }
        )
    return rows


def _statistics(chains: Chains, exact: ExactSolution | None) -> list[Document]:
    rows = []
    for name, values in chains.statistics.items():
        judged = convergence(values)
        truth = None if exact is None else _expectation(name, exact)
        rows.append({"name": name, "exact": truth, **_convergence(judged)})
    return rows


def _expectation(name: str, exact: ExactSolution) -> float | None:
    if name == "log_prob" and exact.log_pmf is not None:
        # Impossible objects have no part in the mean; 0 times -inf would be NaN.
        possible = exact.log_pmf[exact.log_pmf > -math.inf]
        return float(possible.exp() @ possible) + exact.log_z
    value = exact.expectations.get(name)
    # A sum that is zero by symmetry comes out as rounding noise.
    return 0.0 if value is not None and abs(value) < 1e-12 else value


def _convergence(judged: Convergence) -> Document:
    return {
        "mean": judged.mean,
        "mcse": judged.mcse,
        "ess_bulk": judged.ess_bulk,
        "ess_tail": judged.ess_tail,
        "r_hat": _json_number(judged.r_hat),
    }


def _indicators(modes: list[Document]) -> list[Document]:
    return [
        {"name": f"in {m['name']}", "ess_bulk": m["ess"], "ess_tail": m["ess_tail"], "r_hat": m["r_hat"]} for m in modes
    ]


def _worst(chains: Chains, rows: list[Document]) -> Document:
    """Return the statistic with the smallest bulk ESS; one that never moved is worse than any, unless it should not."""
    rows = [row for row in rows if not _is_settled(row, chains.num_chains * chains.num_samples)] or rows
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


def _is_settled(row: Document, num_draws: int) -> bool:
    """Say whether a statistic never moved and is right so: draws of the exact law would not be expected to differ."""
    exact = row.get("exact")
    return row["ess_bulk"] is None and exact is not None and abs(row["mean"] - exact) * num_draws < 1.0


def _switches(chains: Chains) -> float | None:
    ids = chains.mode_ids(chains.samples)
    return None if ids is None else switches_per_thousand_steps(ids, chains.thinning)


def _total_variation(chains: Chains, exact: ExactSolution | None, worst_ess: float | None) -> Document | None:
    if exact is None or exact.log_pmf is None:
        return None
    index = exact.index(chains.x.flatten(0, 1))
    return {
        "value": total_variation(index, exact.log_pmf),
        "num_draws": len(index),
        "iid_floor": iid_total_variation(exact.log_pmf, len(index)),
        "iid_floor_at_worst_ess": None if worst_ess is None else iid_total_variation(exact.log_pmf, worst_ess),
    }


def _log_z(evidence: Evidence | None, exact: ExactSolution | None) -> Document | None:
    if evidence is None:
        return None
    return {
        "estimate": evidence.log_z,
        "standard_error": evidence.standard_error,
        "exact": None if exact is None else exact.log_z,
        "k_hat": evidence.k_hat,
        "label": evidence.label,
        "target_calls": evidence.num_draws,
    }


def _cost(cost: Cost) -> Document:
    return {"target_calls": cost.target_calls, "policy_calls": cost.policy_calls, "seconds": cost.seconds}


def _curves(chains: Chains, calls: np.ndarray, seconds: np.ndarray, modes: list[Document]) -> Document:
    thin = _places(len(calls), _CURVE_POINTS)
    firsts = [int(np.searchsorted(calls, m["found_after_calls"])) for m in modes if m["found_after_calls"] is not None]
    thin = np.unique(np.concatenate([thin, np.array(firsts, dtype=int)]))
    found = (np.array(firsts, dtype=int)[None, :] <= thin[:, None]).sum(1)
    draws = _places(chains.num_samples, _TRACE_POINTS)
    trace = chains.samples.log_prob[:_TRACE_CHAINS].numpy()[:, draws]
    all_ids = _all_mode_ids(chains)
    steps = _places(len(calls), _RASTER_POINTS)
    raster = np.zeros((0, len(steps)), dtype=int) if all_ids is None else all_ids[:_RASTER_CHAINS][:, steps]
    return {
        "discovery": {
            "calls": calls[thin].tolist(),
            "seconds": seconds[thin].tolist(),
            "modes_found": found.tolist(),
        },
        "trace": {"draw": draws.tolist(), "log_prob": trace.tolist()},
        "mode_raster": {"step": _steps(chains)[steps].tolist(), "mode": raster.tolist()},
    }


def _steps(chains: Chains) -> np.ndarray:
    """Return the step of each draw, counted from the first warm-up step."""
    kept = chains.num_warmup + chains.thinning * np.arange(1, chains.num_samples + 1)
    return np.concatenate([np.arange(1, chains.num_warmup + 1), kept])


def _places(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _json_number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "inf" if value == math.inf else value


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in ("gfnmc", "torch", "numpy", "arviz", "arviz-stats"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"torch": torch.__version__}
