"""What became of proposals: acceptance overall, by kernel, and by how far the object was taken apart."""

import numpy as np

from gfnmc.kernels.base import Reason
from gfnmc.sampling.chains import Record


def acceptance_by_back_steps(record: Record) -> list[dict[str, int | float]]:
    """Return, for each number of steps taken back, how many proposals there were and how many were accepted.

    Lazy steps propose nothing and are left out. Empty for a kernel that takes nothing apart.
    """
    back = record.stats["num_back_steps"].numpy()
    proposed = record.stats["reason"].numpy() != Reason.LAZY
    if not back[proposed].any():
        return []
    rate = record.stats["acceptance_rate"].numpy()
    rows = []
    for steps in np.unique(back[proposed]).tolist():
        of_these = proposed & (back == steps)
        count = int(of_these.sum())
        rows.append({"num_back_steps": steps, "proposals": count, "acceptance": float(rate[of_these].mean())})
    return rows


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
