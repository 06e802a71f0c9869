"""Say in words whether chains can be believed, and what to be careful about."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gfnmc.diagnostics.evidence import CONDITIONAL
from gfnmc.diagnostics.figures import is_settled
from gfnmc.diagnostics.movement import Trap, describe_chains

MAX_R_HAT = 1.01
MIN_ESS = 400.0
MAX_K_HAT = 0.7
MAX_DEVIATION = 5.0
"""Standard errors that a mean may be off what is known; chance exceeds them once in two million."""

Row = dict[str, Any]


class Facts(NamedTuple):
    """What a status is decided by.

    Attributes:
        num_chains: Chains.
        num_samples: Kept draws of each.
        num_draws: Kept draws, all together.
        scalars: Rows of the scalars, of modes too.
        worst: The worst of them.
        modes: Rows of the modes.
        stuck: Chains that never moved though they should have.
        trapped: Chains that stayed in a mode though they should have left.
        superchains: Whether nested R-hat stands in for R-hat.
    """

    num_chains: int
    num_samples: int
    num_draws: int
    scalars: Sequence[Row]
    worst: Row
    modes: Sequence[Row]
    stuck: Sequence[int]
    trapped: Sequence[Trap]
    superchains: bool


def status_of(facts: Facts) -> tuple[str, str]:
    """Return the status and the sentence that gives its reason."""
    if facts.num_samples < 4:
        return "too short", f"too short: {facts.num_samples} draws a chain say nothing of how well they mix."
    moving = [row for row in facts.scalars if not is_settled(row, facts.num_draws)]
    if not moving:
        return "ok", "nothing moved, and nothing should: draws of the exact law would not be expected to differ."
    return _stuck(facts) or _trapped(facts) or _not_converged(facts) or _converged(facts)


def warnings_of(
    scalars: Sequence[Row], modes: Sequence[Row], pair: Row | None, evidence: Sequence[Row], notes: Sequence[str]
) -> list[str]:
    """Return what to be careful about, a sentence each.

    Args:
        scalars: Rows of the scalars.
        modes: Rows of the modes.
        pair: Figures of the pair.
        evidence: Rows of the estimates of log Z.
        notes: What could not be estimated.
    """
    lines = [f"'{m['name']}' was never visited: its mass is not known, which is not 0." for m in modes if not m["mass"]]
    constant = [row["name"] for row in scalars if row["kind"] == "statistic" and row["behaviour"] == "constant"]
    if constant:
        lines.append(f"constant throughout, so without an error or an effective size: {_listed(constant)}.")
    lines += _pair_warnings(pair)
    labels = sorted({row["label"] for row in evidence})
    if labels == [CONDITIONAL]:
        lines.append(f"log Z is {CONDITIONAL}: no objects from outside pair and chains vouch for it.")
    elif CONDITIONAL in labels:
        by = _listed([row["method"] for row in evidence if row["label"] == CONDITIONAL])
        lines.append(f"log Z by {by} is {CONDITIONAL}, for the chains miss some that the reference has.")
    return lines + [f"{note.rstrip('.')}." for note in notes]


def _stuck(facts: Facts) -> tuple[str, str] | None:
    if not facts.stuck:
        return None
    if len(facts.stuck) == facts.num_chains:
        return "stuck", (
            f"stuck: in {facts.num_samples:,} draws none of {facts.num_chains} chains moved at all; what they agree on "
            "is where they started."
        )
    return "stuck", (
        f"stuck: {describe_chains(facts.stuck, facts.num_chains)} never moved in {facts.num_samples:,} draws, while "
        "the others did; averages give the object that it stands at too much weight."
    )


def _trapped(facts: Facts) -> tuple[str, str] | None:
    if facts.trapped:
        chains = describe_chains([trap.chain for trap in facts.trapped], facts.num_chains)
        places = [facts.modes[mode]["name"] for mode in dict.fromkeys(trap.mode for trap in facts.trapped)]
        return "trapped", (
            f"trapped: {chains} stayed in {_listed(places)} for all {facts.num_samples:,} draws; the weights of the "
            "modes are those of the starts."
        )
    missed = [mode for mode in facts.modes if not mode["mass"] and _counts(mode["exact_mass"], facts.num_draws)]
    if not missed:
        return None
    masses = [mode["exact_mass"] for mode in missed]
    lost = "" if None in masses else f", {sum(masses):.1%} of the mass"
    return "trapped", (
        f"trapped: no kept draw of {facts.num_chains} chains is in {_listed([mode['name'] for mode in missed])}{lost}, "
        "and nothing in the draws themselves would tell."
    )


def _counts(mass: float | None, num_draws: int) -> bool:
    """Say whether a mode should have been visited; one of unknown mass should."""
    return mass is None or mass * num_draws >= 1.0


def _not_converged(facts: Facts) -> tuple[str, str] | None:
    worst = facts.worst
    if worst["ess_bulk"] is None:
        return "not converged", f"not converged: '{worst['statistic']}' never moved."
    name, r_hat, kind = worst["r_hat_statistic"], worst["r_hat"], "R-hat"
    if facts.superchains:
        rated = [row for row in facts.scalars if row["r_hat_nested"] is not None]
        largest = max(rated, key=lambda row: float(row["r_hat_nested"]))
        name, r_hat, kind = largest["name"], largest["r_hat_nested"], "nested R-hat"
    if r_hat is not None and float(r_hat) > MAX_R_HAT:
        return "not converged", f"not converged: {kind} of '{name}' is {float(r_hat):.3f}."
    if worst["ess_bulk"] < MIN_ESS:
        return "not converged", (
            f"not converged: '{worst['statistic']}' has {worst['ess_bulk']:.0f} effective draws, fewer than "
            f"{MIN_ESS:.0f}."
        )
    known = [row for row in facts.scalars if row["deviation"] is not None]
    off = max(known, key=lambda row: row["deviation"], default=None)
    if off is not None and off["deviation"] > MAX_DEVIATION:
        return "not converged", (
            f"not converged: R-hat and effective draws are fine, but the mean of '{off['name']}', {off['mean']:.4g}, "
            f"is {off['deviation']:.0f} standard errors off what is known of it; the chains have hardly seen a part of "
            "the target."
        )
    return None


def _converged(facts: Facts) -> tuple[str, str]:
    found = f"all {len(facts.modes)} modes were visited, and " if len(facts.modes) > 1 else ""
    if any(not mode["mass"] for mode in facts.modes):
        found = "all modes that count were visited, and "
    worst = facts.worst
    return "ok", (
        f"mixed: {found}the worst scalar, '{worst['statistic']}', has {worst['ess_bulk']:,.0f} effective draws."
    )


def _pair_warnings(pair: Row | None) -> list[str]:
    if pair is None:
        return []
    lines = [] if pair["warning"] is None else [f"{pair['warning'].rstrip('.')}."]
    if pair["k_hat"] is not None and pair["k_hat"] > MAX_K_HAT:
        lines.append(
            f"Pareto k-hat of the pair's weights is {pair['k_hat']:.2f}, above {MAX_K_HAT}: a few of them decide, and "
            "the error of log Z by importance sampling is not to be believed."
        )
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
