"""What training recorded of a pair, as a comparison shows it."""

from collections.abc import Mapping
from typing import Any

from gfnmc.core.cost import Cost

_BY_LOOK = ("step", "elbo", "eubo", "acceptance")
_BY_STEP = ("step", "loss")


def training_figures(report: Mapping[str, Any], cost: Cost) -> dict[str, Any]:
    """Return the figures of the run that made a pair.

    Args:
        report: `GFlowNet.training_report`.
        cost: What training cost, earlier runs of the same pair included.

    Returns:
        Steps and cost, the last figures under "quality", and under "curves" those of each look and the loss. Plain data
        of its own, which later changes of the report leave alone.
    """
    looks, history = report["qualities"], report["history"]
    return {
        "target": report["target"],
        "seed": report["seed"],
        "num_steps": report["num_steps"],
        "max_steps": report["config"]["num_steps"],
        "is_stopped_early": report["is_stopped_early"],
        "seconds": cost.seconds,
        "target_calls": cost.target_calls,
        "quality": dict(report["quality"]),
        "curves": {
            "quality": {name: [look[name] for look in looks] for name in _BY_LOOK},
            "loss": {name: list(history[name]) for name in _BY_STEP},
        },
        "config": dict(report["config"]),
    }
