"""The figures of a comparison as plain data: what reports show, and nothing that they would have to compute."""

import datetime
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from gfnmc.diagnostics.distances import iid_total_variation, total_variation
from gfnmc.diagnostics.evidence import Evidence
from gfnmc.diagnostics.figures import (
    all_mode_ids,
    cost_figures,
    indicator_figures,
    mode_figures,
    spent_by_draw,
    statistic_figures,
    switches,
    worst_figure,
)
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
    modes = mode_figures(chains, exact)
    statistics = statistic_figures(chains, exact)
    worst = worst_figure(chains, statistics + indicator_figures(modes))
    sampler: Document = {
        "name": name,
        "kernel": chains.kernel_name,
        "num_chains": chains.num_chains,
        "num_samples": chains.num_samples,
        "num_warmup": chains.num_warmup,
        "thinning": chains.thinning,
        "modes": modes,
        "modes_found": sum(mode["found_after_calls"] is not None for mode in modes),
        "switches_per_1000_steps": switches(chains),
        "acceptance": acceptance_summary(chains.samples)
        | {"by_num_back_steps": acceptance_by_back_steps(chains.samples)},
        "statistics": statistics,
        "worst": worst,
        "total_variation": _total_variation(chains, exact, worst["ess_bulk"]),
        "log_z": _log_z(evidence, exact),
        "cost": {"training": cost_figures(chains.training_cost), "sampling": cost_figures(chains.sampling_cost)},
        "training": None if report is None else training_figures(report, chains.training_cost),
        "curves": _curves(chains, modes) | {"mixing": mixing_figures(chains, worst["r_hat_statistic"])},
    }
    status, words = sampler_verdict(sampler)
    return sampler | {"status": status, "verdict": words}


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


def _curves(chains: Chains, modes: list[Document]) -> Document:
    calls, seconds = spent_by_draw(chains)
    thin = _places(len(calls), _CURVE_POINTS)
    firsts = [int(np.searchsorted(calls, m["found_after_calls"])) for m in modes if m["found_after_calls"] is not None]
    thin = np.unique(np.concatenate([thin, np.array(firsts, dtype=int)]))
    found = (np.array(firsts, dtype=int)[None, :] <= thin[:, None]).sum(1)
    draws = _places(chains.num_samples, _TRACE_POINTS)
    trace = chains.samples.log_prob[:_TRACE_CHAINS].numpy()[:, draws]
    all_ids = all_mode_ids(chains)
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


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in ("gfnmc", "torch", "numpy", "arviz", "arviz-stats"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"torch": torch.__version__}
