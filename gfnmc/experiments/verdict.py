"""Say in words what the figures mean."""

from collections.abc import Sequence
from typing import Any

_MAX_R_HAT = 1.01
_MIN_ESS = 400.0


def sampler_verdict(sampler: dict[str, Any]) -> tuple[str, str]:
    """Return the status of a sampler and a sentence that gives the reason.

    Args:
        sampler: Its figures, as in a comparison document.

    Returns:
        "stuck" (modes were missed, or no chain changed between modes), "unconverged" (R-hat above 1.01, or fewer than
        400 effective draws of the worst statistic) or "ok"; and the sentence.
    """
    modes, worst = sampler["modes"], sampler["worst"]
    missed = [mode for mode in modes if mode["found_after_calls"] is None]
    steps = sampler["num_warmup"] + sampler["num_samples"] * sampler["thinning"]
    if missed:
        weights = [mode["exact_mass"] for mode in missed]
        lost = f" and missed {sum(weights):.1%} of the mass" if None not in weights else ""
        return "stuck", (
            f"stuck: in {steps:,} steps none of {sampler['num_chains']} chains reached {_names(missed)}; "
            f"its averages describe {len(modes) - len(missed)} of {len(modes)} modes{lost}, and nothing in the draws "
            "themselves would tell."
        )
    if len(modes) > 1 and sampler["switches_per_1000_steps"] == 0.0:
        return (
            "stuck",
            "stuck: no chain ever changed between modes, so the weights of the modes are those of the starts.",
        )
    if worst["ess_bulk"] is None:
        return "unconverged", f"not converged: '{worst['statistic']}' never moved."
    if worst["r_hat"] is not None and float(worst["r_hat"]) > _MAX_R_HAT:
        return "unconverged", f"not converged: R-hat of '{worst['r_hat_statistic']}' is {float(worst['r_hat']):.3f}."
    if worst["ess_bulk"] < _MIN_ESS:
        return "unconverged", f"not converged: '{worst['statistic']}' has {worst['ess_bulk']:.0f} effective draws."
    found = f"found all {len(modes)} modes and " if len(modes) > 1 else ""
    return (
        "ok",
        f"mixed: {found}has {worst['ess_bulk']:,.0f} effective draws of its worst statistic, '{worst['statistic']}'.",
    )


def verdict(samplers: Sequence[dict[str, Any]], exact_masses: Sequence[float]) -> list[str]:
    """Return what a comparison shows, a sentence each.

    Args:
        samplers: The figures of the samplers, verdicts included.
        exact_masses: Exact masses of the modes, where known.
    """
    lines = [f"{sampler['name']}: {sampler['verdict']}" for sampler in samplers]
    lines += _training_warnings(samplers)
    lead = samplers[0]
    if exact_masses and lead["modes"]:
        lines.append(_mass_check(lead))
    distance = lead["total_variation"]
    if distance is not None and distance["iid_floor_at_worst_ess"] is not None:
        lines.append(
            f"{lead['name']}: total variation to the exact law is {distance['value']:.4f}; as many independent draws "
            f"as its worst statistic is worth would have {distance['iid_floor_at_worst_ess']:.4f}."
        )
    training, sampling = lead["cost"]["training"], lead["cost"]["sampling"]
    if training["target_calls"]:
        lines.append(
            f"Training cost {training['seconds']:.0f} s and {training['target_calls']:,} target calls, sampling "
            f"{sampling['seconds']:.0f} s and {sampling['target_calls']:,}."
        )
    return lines


def _training_warnings(samplers: Sequence[dict[str, Any]]) -> list[str]:
    """Return what training warned of, once for samplers that share a pair."""
    names: dict[str, list[str]] = {}
    for sampler in samplers:
        training = sampler.get("training")
        if training is not None and training["quality"]["warning"] is not None:
            names.setdefault(training["quality"]["warning"], []).append(sampler["name"])
    return [
        f"{', '.join(found)}: training ended with a warning: {warning.rstrip('.')}." for warning, found in names.items()
    ]


def _mass_check(sampler: dict[str, Any]) -> str:
    off = [
        mode
        for mode in sampler["modes"]
        if mode["mass_error"] is None or abs(mode["mass"] - mode["exact_mass"]) > 3.0 * mode["mass_error"]
    ]
    if not off:
        return f"{sampler['name']}: every mode's mass is within 3 standard errors of the exact one."
    return f"{sampler['name']}: the mass of {_names(off)} is more than 3 standard errors from the exact one."


def _names(modes: Sequence[dict[str, Any]]) -> str:
    shown = ", ".join(mode["name"] for mode in modes[:3])
    return shown if len(modes) <= 3 else f"{shown} and {len(modes) - 3} more modes"
