"""What became of proposals: acceptance overall, by kernel and by size of the move; jumps; the ratios behind it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Reason
from gfnmc.sampling.chains import Chains, Record

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Probabilities of the quantiles that a distribution is described by."""


def acceptance_by_back_steps(record: Record) -> list[dict[str, int | float]]:
    """Return, for each number of steps taken back, how many proposals there were and how many were accepted.

    Lazy steps propose nothing and are left out. Empty for a kernel that takes nothing apart.
    """
    back = record.stats["num_back_steps"].numpy()
    if not back[_is_proposed(record)].any():
        return []
    return _acceptance_by("num_back_steps", back, record)


def acceptance_by_depth(chains: Chains, environment: DiscreteEnvironment) -> list[dict[str, int | float]]:
    """Return, for each depth that objects were taken apart to, the number of proposals and their acceptance.

    The depth is that of the branch state: 0 is a rebuild from the source. It takes the object that each step began at,
    so the first kept draw is left out where there was no warm-up.

    Args:
        chains: Draws of a kernel that takes objects apart, or of a cycle that begins with one.
        environment: How its objects are built.

    Returns:
        Empty for a kernel that takes nothing apart, where the environment is not graded, so that a state has no one
        depth, or where draws are thinned and objects differ in length, so that nobody knows where a step began.
    """
    record = chains.samples
    back = record.stats["num_back_steps"].to(torch.int64)
    if not environment.is_graded or not back.numpy()[_is_proposed(record)].any():
        return []
    before = _began_at(chains)
    if environment.is_fixed_length:
        depth = environment.depth(environment.states(record.position[:, 0])).max().expand_as(back)
    elif chains.thinning == 1 and before is not None:
        missing = back.shape[1] - before.shape[1]
        known = environment.depth(environment.states(before.flatten(0, 1))).reshape(before.shape[:2])
        depth = torch.nn.functional.pad(known, (missing, 0), value=-1)
    else:
        return []
    reached = torch.where(depth < 0, -1, depth - back)
    return _acceptance_by("depth", reached.numpy(), record)


def _began_at(chains: Chains) -> Tensor | None:
    """Return the object that each kept step began at, all but the first one where there was no warm-up."""
    position = chains.samples.position
    if chains.num_warmup:
        return torch.cat([chains.warmup.position[:, -1:], position[:, :-1]], 1)
    return position[:, :-1] if position.shape[1] > 1 else None


def _acceptance_by(name: str, values: Int[np.ndarray, "chains draws"], record: Record) -> list[dict[str, int | float]]:
    """Return proposals and acceptance by a number of each step; those below 0 are left out."""
    proposed = _is_proposed(record) & (values >= 0)
    rate = record.stats["acceptance_rate"].numpy()
    rows = []
    for value in np.unique(values[proposed]).tolist():
        of_these = proposed & (values == value)
        count = int(of_these.sum())
        rows.append({name: value, "proposals": count, "acceptance": float(rate[of_these].mean())})
    return rows


def _is_proposed(record: Record) -> Bool[np.ndarray, "chains draws"]:
    return record.stats["reason"].numpy() != Reason.LAZY


def count_reasons(record: Record) -> dict[str, int]:
    """Return how many of the recorded steps were accepted, rejected, lazy, or had no reverse move."""
    reason = record.stats["reason"].numpy()
    return {kind.name.lower(): int((reason == kind).sum()) for kind in Reason}


def log_ratio_figures(record: Record) -> dict[str, Any]:
    """Return the distribution of the logarithm of the Metropolis-Hastings ratio, over what was proposed.

    Returns:
        `quantiles` by probability, nats, of the finite ones; `mean` of them; `impossible`, the share that is -inf, of
        objects that cannot be or that there was no way back from; `proposals`, how many there were. None for the first
        two where no ratio is finite.
    """
    values = record.stats["log_ratio"].numpy()[_is_proposed(record)]
    finite = values[np.isfinite(values)]
    return {
        "proposals": len(values),
        "impossible": float((values == -np.inf).mean()) if len(values) else 0.0,
        "mean": float(finite.mean()) if len(finite) else None,
        "quantiles": _named_quantiles(finite, QUANTILES) if len(finite) else None,
    }


def jump_figures(chains: Chains) -> dict[str, Any]:
    """Return how far chains go from one kept draw to the next, rejected steps included as no jump at all.

    Returns:
        `moved`, the share of steps that changed the object; `squared_distance`, the mean of |x' - x|^2 over the
        coordinates of objects; `coordinates`, the mean number of coordinates that changed; and `statistics`, for each
        statistic the mean of (f' - f)^2 over twice its variance: 1 for independent draws, 1 minus the autocorrelation
        at lag 1, None for a constant. None throughout where there is a single draw.
    """
    position = chains.x.flatten(2)
    num_steps = position.shape[0] * (position.shape[1] - 1)
    if num_steps == 0:
        names = dict.fromkeys(chains.statistics)
        return {"moved": None, "squared_distance": None, "coordinates": None, "statistics": names}
    totals = torch.zeros(3, dtype=torch.float64)
    # Chain by chain: all changes at once would take several times the memory of the draws.
    for draws in position:
        change = draws[1:].to(torch.float64) - draws[:-1].to(torch.float64)
        is_changed = change != 0.0
        totals += torch.stack([is_changed.any(-1).sum(), change.square().sum(), is_changed.sum()])
    moved, squared, changed = (totals / num_steps).tolist()
    return {
        "moved": moved,
        "squared_distance": squared,
        "coordinates": changed,
        "statistics": {name: _relative_jump(values) for name, values in chains.statistics.items()},
    }


def _relative_jump(values: Float64[np.ndarray, "chains draws"]) -> float | None:
    variance = float(values.var())
    return float(np.square(np.diff(values, axis=1)).mean()) / (2.0 * variance) if variance > 0.0 else None


def _named_quantiles(values: Float64[np.ndarray, " n"], probabilities: Sequence[float]) -> dict[str, float]:
    return {
        f"{probability:g}": float(found)
        for probability, found in zip(probabilities, np.quantile(values, probabilities), strict=True)
    }


def acceptance_summary(record: Record) -> dict[str, float | dict[str, float]]:
    """Return the mean acceptance of what was proposed, overall and by kernel, and the shares of other outcomes.

    Returns:
        `overall` (of the first kernel of a cycle), `parts` by kernel name, and as shares of all steps `lazy` and
        `no_reverse_move`.
    """
    reason = record.stats["reason"].numpy()
    parts = [name.removeprefix("reason[").removesuffix("]") for name in record.stats if name.startswith("reason[")]
    return {
        "overall": _mean_acceptance(record, ""),
        "parts": {part: _mean_acceptance(record, f"[{part}]") for part in parts},
        "lazy": float((reason == Reason.LAZY).mean()),
        "no_reverse_move": float((reason == Reason.NO_REVERSE_MOVE).mean()),
    }


def _mean_acceptance(record: Record, part: str) -> float:
    proposed = record.stats[f"reason{part}"].numpy() != Reason.LAZY
    rate = record.stats[f"acceptance_rate{part}"].numpy()
    return float(rate[proposed].mean()) if proposed.any() else 0.0
