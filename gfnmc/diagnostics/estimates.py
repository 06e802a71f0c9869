"""What a pair and chains say of log Z together, and who vouches for it.

Importance sampling, the bridge and the two bounds are made of the same log-weights: those of P_F's own draws, those of
the chains' draws, and those of objects from elsewhere. A mode that both the pair and the chains miss changes none of
their figures. So each is "conditional on the modes visited", unless objects from elsewhere vouch for it: P_F makes them
as often as it should, and the chains have been in all their modes.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError
from gfnmc.diagnostics.bridge import bridge_evidence, chain_weights
from gfnmc.diagnostics.convergence import convergence
from gfnmc.diagnostics.evidence import CONDITIONAL, Evidence, importance_evidence
from gfnmc.diagnostics.quality import (
    LOST_SHARE,
    PairQuality,
    check_given,
    describe_modes,
    draw_weights,
    judged,
    weights_of,
)
from gfnmc.diagnostics.terminal import max_weight
from gfnmc.policies.pair import ProposalPair
from gfnmc.sampling.chains import Chains

Row = dict[str, Any]


class Reference(NamedTuple):
    """Objects that neither the pair nor the chains made.

    Attributes:
        objects: Spread as the target, independent.
        name: What to call them.
    """

    objects: Shaped[Tensor, "n *event"]
    name: str


class Estimates(NamedTuple):
    """What was found.

    Attributes:
        quality: Figures of the pair.
        evidence: Estimates of log Z, the one by importance sampling first.
        bounds: The bounds on log Z with their errors.
        max_weight: max pi / P_F where the environment is small enough to list; None elsewhere.
        num_draws: Draws of P_F that all this is made of.
        notes: What could not be estimated, in words.
    """

    quality: PairQuality
    evidence: list[Evidence]
    bounds: Row
    max_weight: float | None
    num_draws: int
    notes: list[str]


def estimate(
    chains: Chains,
    pair: ProposalPair,
    reference: Reference | None,
    *,
    num_draws: int,
    num_chain_draws: int,
    seed: int,
) -> Estimates:
    """Judge a pair, and estimate log Z from it and chains.

    It costs a target call for each draw of the pair and each object of the reference.

    Args:
        chains: Draws of the target.
        pair: The pair, bound where it is conditional.
        reference: Objects from elsewhere; None where there are none.
        num_draws: Paths drawn by P_F.
        num_chain_draws: Kept draws of the chains that are used, evenly spaced.
        seed: Any integer.

    Raises:
        ObjectError: If objects of the reference are not the target's, or have density zero.
        EnergyError: If the target breaks its contract.
    """
    target, notes = chains.target, []
    own = draw_weights(pair, target, PhiloxDraws(seed, "diagnose/own", num_draws))
    given, modes = None, ""
    if reference is not None and not target.is_noisy:
        check_given(target, reference.objects)
        draws = PhiloxDraws(seed, "diagnose/reference", len(reference.objects))
        given = weights_of(pair, target, reference.objects, draws)
        modes = describe_modes(target, own.objects, reference.objects)
    quality = judged(own.log_weights, given, "" if reference is None else reference.name, modes=modes)
    by_pair, by_both = _labels(chains, quality, reference)
    evidence, of_chain = [replace(importance_evidence(own.log_weights), label=by_pair)], None
    try:
        if chains.num_samples >= 4:
            of_chain = chain_weights(chains, pair, num_chain_draws, seed)
            evidence.append(replace(bridge_evidence(own.log_weights, of_chain), label=by_both))
    except CapabilityError as error:
        notes.append(f"no bridge: {error}")
    return Estimates(
        quality,
        evidence,
        _bounds(own.log_weights, given, of_chain, by_pair if given is not None else by_both),
        max_weight(pair, target),
        num_draws,
        notes,
    )


def evidence_figures(found: Evidence, exact_log_z: float | None) -> Row:
    """Return an estimate of log Z as plain data, None where a number is not finite."""
    low, high = found.interval
    numbers = {
        "log_z": found.log_z,
        "standard_error": found.standard_error,
        "low": low,
        "high": high,
        "exact": exact_log_z,
        "k_hat": found.k_hat,
        "chain_ess": found.chain_ess,
    }
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}
    return {"method": found.method, **finite, "num_draws": found.num_draws, "label": found.label}


def missed_modes(chains: Chains, objects: Shaped[Tensor, "n *event"]) -> list[str]:
    """Return the modes that some of the objects are in and no kept draw of the chains is; none where none are known."""
    modes, ids = chains.target.modes(), chains.mode_ids(chains.samples)
    if modes is None or ids is None:
        return []
    wanted = torch.bincount(modes.assign(objects) + 1, minlength=len(modes) + 1)[1:]
    return [name for mode, name in enumerate(modes.names) if wanted[mode] > 0 and not (ids == mode).any()]


def _labels(chains: Chains, quality: PairQuality, reference: Reference | None) -> tuple[str, str]:
    """Return what vouches for estimates by the pair alone, and for those by pair and chains."""
    if reference is None or quality.lost is None or quality.lost > LOST_SHARE:
        return CONDITIONAL, CONDITIONAL
    vouched = f"{reference.name} cover the modes"
    return vouched, CONDITIONAL if missed_modes(chains, reference.objects) else vouched


def _bounds(
    own: Float64[Tensor, " n"],
    given: Float64[Tensor, " m"] | None,
    of_chain: Float64[Tensor, "chains draws paths"] | None,
    label: str,
) -> Row:
    """Return ELBO and EUBO with their errors: the upper one by objects from elsewhere, or else by the chains' draws."""
    lower = _independent_mean(own)
    upper: tuple[float | None, float | None] = (None, None)
    if given is not None:
        upper = _independent_mean(given)
    elif of_chain is not None and of_chain.isfinite().all():
        judged_by_chain = convergence(of_chain.mean(-1).numpy())
        upper = judged_by_chain.mean, judged_by_chain.mcse
    gap = None if lower[0] is None or upper[0] is None else upper[0] - lower[0]
    return {
        "elbo": lower[0],
        "elbo_error": lower[1],
        "eubo": upper[0],
        "eubo_error": upper[1],
        "eubo_from": "the reference" if given is not None else "the chains",
        "gap": gap,
        "label": label,
    }


def _independent_mean(values: Float64[Tensor, " n"]) -> tuple[float | None, float | None]:
    """Return the mean of independent numbers and its error; None where one is not finite."""
    if not values.isfinite().all():
        return None, None
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))
