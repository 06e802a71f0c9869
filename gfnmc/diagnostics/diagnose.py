"""Every diagnostic of a run in one call.

    diagnosis = gfnmc.diagnose(chains)
    diagnosis.status, diagnosis.verdict

R-hat and effective sizes see no more than the draws do: chains that all sit in one mode agree perfectly. So the modes
that a target knows are scalars like any other, each chain is asked whether it can leave where it is, and what needs
objects from elsewhere says whether it had some.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics.convergence import checked_superchains
from gfnmc.diagnostics.diagnosis import Diagnosis
from gfnmc.diagnostics.distance_figures import distance_figures
from gfnmc.diagnostics.estimates import Estimates, Reference, estimate, evidence_figures
from gfnmc.diagnostics.figures import cost_figures, json_number, mode_figures, worst_figure
from gfnmc.diagnostics.modes import count_round_trips, count_switches, mean_stays, mode_transitions
from gfnmc.diagnostics.modes import switches_per_thousand_steps as switch_rate
from gfnmc.diagnostics.movement import moves, stuck_chains, trapped_chains
from gfnmc.diagnostics.proposal import (
    acceptance_by_back_steps,
    acceptance_by_depth,
    acceptance_summary,
    count_reasons,
    jump_figures,
    log_ratio_figures,
)
from gfnmc.diagnostics.recycling import recycling_gains
from gfnmc.diagnostics.scalar_figures import scalar_figures
from gfnmc.diagnostics.status import Facts, status_of, warnings_of
from gfnmc.policies.pair import ProposalPair
from gfnmc.sampling.chains import Chains
from gfnmc.targets.base import ExactSolution, check_objects

Row = dict[str, Any]

_NUM_EXACT = 1_000


def diagnose(
    chains: Chains,
    *,
    reference: Shaped[Tensor, "n *event"] | None = None,
    reference_name: str = "the reference objects",
    pair: ProposalPair | None = None,
    superchains: Sequence[int] | None = None,
    num_draws: int = 2_048,
    seed: int = 0,
    num_threads: int | None = 1,
) -> Diagnosis:
    """Judge chains: whether they mixed, by what moves, and what they say of the target.

    Without a pair it asks the target for statistics and modes alone. With one it evaluates `num_draws` new objects,
    those of the reference, and every object of an environment of at most 8,192 states.

    Args:
        chains: What `gfnmc.sample` returned.
        reference: Independent objects of the target that neither the pair nor the chains made, to measure distances to
            and to vouch for log Z. By default, where the target can be drawn from exactly, 1,000 exact draws.
        reference_name: What to call them, in the plural.
        pair: The pair that proposed, to be judged, and to estimate log Z with; bound where it is conditional.
        superchains: The group of each chain, for nested R-hat of many short chains: those of a group started at one
            object. It then decides on convergence in the place of R-hat.
        num_draws: Independent draws of the pair.
        seed: Any integer; names these and the exact draws.
        num_threads: Torch threads during the work; None leaves torch's setting alone.

    Returns:
        The figures.

    Raises:
        OptionError: If there are fewer than two draws of the pair, or superchains do not fit.
        ObjectError: If objects of the reference are not the target's, or fewer than 2.
        EnergyError: If the target breaks its contract.
    """
    if num_draws < 2:
        raise OptionError(f"num_draws is {num_draws}; it must be at least 2")
    if superchains is not None:
        checked_superchains(superchains, chains.num_chains)
    exact = chains.target.exact()
    with thread_limit(num_threads), torch.no_grad():
        from_elsewhere = _reference(chains, exact, reference, reference_name, seed)
        modes = _modes(chains, exact)
        scalars = scalar_figures(chains, exact, from_elsewhere, modes, superchains)
        worst = worst_figure(chains, scalars)
        found = None
        if pair is not None:
            found = estimate(chains, pair, from_elsewhere, num_draws=num_draws, num_chain_draws=num_draws, seed=seed)
        distances = distance_figures(chains, exact, from_elsewhere, worst["ess_bulk"])
        proposal = _proposal(chains, pair)
    movement, facts = _movement(chains, scalars, worst, modes, superchains is not None)
    status, reason = status_of(facts)
    quality = None if found is None else _pair(found)
    evidence = _evidence(found, exact)
    notes = [] if found is None else found.notes
    return Diagnosis(
        status=status,
        verdict=(reason, *warnings_of(scalars, modes, quality, evidence, notes)),
        setup=_setup(chains),
        scalars=tuple(scalars),
        worst=worst,
        movement=movement,
        modes=tuple(modes),
        transitions=_transitions(chains),
        discovery=_discovery(modes),
        proposal=proposal,
        distances=tuple(distances),
        pair=quality,
        evidence=tuple(evidence),
        bounds=None if found is None else found.bounds,
        recycled=tuple(recycling_gains(chains)),
        cost={"training": cost_figures(chains.training_cost), "sampling": cost_figures(chains.sampling_cost)},
    )


def _reference(
    chains: Chains, exact: ExactSolution | None, objects: Tensor | None, name: str, seed: int
) -> Reference | None:
    if objects is not None:
        check_objects(chains.target, objects)
        if len(objects) < 2:
            raise OptionError(f"a reference of {len(objects)} objects says nothing; give more, or None")
        return Reference(objects, name)
    if exact is None or not exact.can_sample:
        return None
    return Reference(exact.sample(PhiloxDraws(seed, "diagnose/exact", _NUM_EXACT)), "exact draws")


def _setup(chains: Chains) -> Row:
    return {
        "target": chains.target.name,
        "kernel": chains.kernel_name,
        "num_chains": chains.num_chains,
        "num_samples": chains.num_samples,
        "num_warmup": chains.num_warmup,
        "thinning": chains.thinning,
        "seed": chains.seed,
    }


def _modes(chains: Chains, exact: ExactSolution | None) -> list[Row]:
    rows, ids = mode_figures(chains, exact), chains.mode_ids(chains.samples)
    if ids is None:
        return rows
    stays = mean_stays(ids, len(rows))
    return [
        {**row, "mean_stay": stays[mode], "chains": int((ids == mode).any(1).sum())} for mode, row in enumerate(rows)
    ]


def _movement(
    chains: Chains, scalars: Sequence[Row], worst: Row, modes: Sequence[Row], is_nested: bool
) -> tuple[Row, Facts]:
    has_moved, ids = moves(chains.x), chains.mode_ids(chains.samples)
    stuck = stuck_chains(has_moved)
    trapped = [] if ids is None else trapped_chains(ids, len(modes))
    facts = Facts(
        num_chains=chains.num_chains,
        num_samples=chains.num_samples,
        num_draws=chains.num_chains * chains.num_samples,
        scalars=scalars,
        worst=worst,
        modes=modes,
        stuck=stuck,
        trapped=trapped,
        superchains=is_nested,
    )
    figures = {
        "moved": has_moved.mean(1).tolist() if has_moved.shape[1] else [None] * chains.num_chains,
        "stuck": stuck,
        "trapped": [{"chain": trap.chain, "mode": modes[trap.mode]["name"]} for trap in trapped],
    }
    return figures, facts


def _transitions(chains: Chains) -> Row | None:
    ids, modes = chains.mode_ids(chains.samples), chains.target.modes()
    if ids is None or modes is None:
        return None
    return {
        "counts": mode_transitions(ids, len(modes)).tolist(),
        "switches": count_switches(ids),
        "switches_per_1000_steps": switch_rate(ids, chains.thinning),
        "round_trips": count_round_trips(ids),
    }


def _discovery(modes: Sequence[Row]) -> Row | None:
    """Return the discovery curve: calls and seconds at which the number of known modes grew."""
    if not modes:
        return None
    found = sorted(
        (row["found_after_calls"], row["found_after_seconds"]) for row in modes if row["found_after_calls"] is not None
    )
    return {
        "calls": [calls for calls, _ in found],
        "seconds": [seconds for _, seconds in found],
        "modes_found": list(range(1, len(found) + 1)),
    }


def _proposal(chains: Chains, pair: ProposalPair | None) -> Row:
    record = chains.samples
    by_depth = [] if pair is None else acceptance_by_depth(chains, pair.environment)
    return {
        "acceptance": acceptance_summary(record)
        | {"by_num_back_steps": acceptance_by_back_steps(record), "by_depth": by_depth},
        "reasons": count_reasons(record),
        "log_ratio": log_ratio_figures(record),
        "jumps": jump_figures(chains),
    }


def _pair(found: Estimates) -> Row:
    return {
        **found.quality.to_dict(),
        "importance_ess": found.quality.ess_fraction * found.num_draws,
        "num_draws": found.num_draws,
        "max_weight": json_number(found.max_weight),
    }


def _evidence(found: Estimates | None, exact: ExactSolution | None) -> list[Row]:
    if found is None:
        return []
    return [evidence_figures(one, None if exact is None else exact.log_z) for one in found.evidence]
