"""A row for every scalar that chains are judged by: statistics, the log-density, and whether they are in each mode."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from gfnmc.diagnostics.convergence import autocorrelation, convergence, nested_r_hat, quantile_ess
from gfnmc.diagnostics.estimates import Reference
from gfnmc.diagnostics.figures import convergence_figures, exact_mean, json_number
from gfnmc.sampling.chains import Chains
from gfnmc.targets.base import ExactSolution

Row = dict[str, Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Probabilities of the quantiles whose effective sizes are given."""

LAGS = (1, 2, 5, 10, 20, 50, 100)
"""Lags of the autocorrelations that are given, in kept draws, as far as the draws reach."""


def scalar_figures(
    chains: Chains,
    exact: ExactSolution | None,
    reference: Reference | None,
    modes: Sequence[Row],
    superchains: Sequence[int] | None,
) -> list[Row]:
    """Return a row for the log-density, each statistic and the indicator of each mode.

    Args:
        chains: The draws.
        exact: The truth, as far as it is known.
        reference: Independent objects, whose means stand in where the truth is not known.
        modes: A row a mode, as `mode_figures` makes them; empty where none are known.
        superchains: The group of each chain, for nested R-hat; None for none.
    """
    known = {} if reference is None else _reference_values(chains, reference)
    rows = []
    for name, values in chains.statistics.items():
        truth = None if exact is None else exact_mean(name, exact)
        behaviour = "constant" if np.ptp(values) == 0.0 else "moves"
        row = {"name": name, "kind": "statistic", "behaviour": behaviour, "exact": truth}
        rows.append(row | _scalar(values, superchains) | _deviation(values, truth, known.get(name)))
    ids = chains.mode_ids(chains.samples)
    for mode, found in enumerate(modes):
        assert ids is not None
        values, name, truth = (ids == mode).astype(np.float64), f"in {found['name']}", found["exact_mass"]
        behaviour = {0.0: "never visited", 1.0: "never left"}.get(found["mass"], "moves")
        row = {"name": name, "kind": "mode", "behaviour": behaviour, "exact": truth}
        rows.append(row | _scalar(values, superchains) | _deviation(values, truth, known.get(name)))
    return rows


def _scalar(values: Float64[np.ndarray, "chains draws"], superchains: Sequence[int] | None) -> Row:
    found = convergence(values)
    correlations = autocorrelation(values, min(max(LAGS), values.shape[1] // 2))
    lags = [] if correlations is None else [lag for lag in LAGS if lag < len(correlations)]
    nested = None if superchains is None else nested_r_hat(values, superchains)
    return {
        **convergence_figures(found),
        "ess_mean": found.ess_mean,
        "ess_quantiles": {f"{probability:g}": quantile_ess(values, probability) for probability in QUANTILES},
        "integrated_time": found.integrated_time,
        "lags": lags,
        "autocorrelation": [] if correlations is None else correlations[lags].tolist(),
        "r_hat_nested": json_number(nested),
    }


def _reference_values(chains: Chains, reference: Reference) -> dict[str, Float64[np.ndarray, " objects"]]:
    """Return the statistics and the modes' indicators of a reference, by the names of scalars."""
    target, modes = chains.target, chains.target.modes()
    named = {name: value.to(torch.float64).numpy() for name, value in target.statistics(reference.objects).items()}
    if modes is not None:
        ids = modes.assign(reference.objects).numpy()
        named |= {f"in {name}": (ids == mode).astype(np.float64) for mode, name in enumerate(modes.names)}
    return named


def _deviation(
    values: Float64[np.ndarray, "chains draws"],
    truth: float | None,
    of_reference: Float64[np.ndarray, " objects"] | None,
) -> Row:
    """Return by how many standard errors the mean is off the truth, or off the reference's mean; None if not known."""
    error, off, by = convergence(values).mcse, None, 0.0
    if truth is not None:
        off = abs(float(values.mean()) - truth)
    elif of_reference is not None:
        off = abs(float(values.mean() - of_reference.mean()))
        by = float(of_reference.std(ddof=1)) / math.sqrt(len(of_reference))
    if off is None or error is None:
        return {"deviation": None}
    # Rounding is no deviation, however small the error.
    whole = math.hypot(error, by, 1e-12 * (1.0 + abs(float(values.mean()))))
    return {"deviation": off / whole}
