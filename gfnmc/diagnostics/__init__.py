"""Judge chains: convergence, modes, distances to the truth, acceptance, evidence."""

from gfnmc.diagnostics.convergence import Convergence, convergence
from gfnmc.diagnostics.distances import iid_total_variation, total_variation
from gfnmc.diagnostics.evidence import Evidence, importance_log_z
from gfnmc.diagnostics.modes import (
    Discovery,
    count_round_trips,
    count_switches,
    discovery,
    switches_per_thousand_steps,
)
from gfnmc.diagnostics.proposal import acceptance_by_back_steps, acceptance_summary
from gfnmc.diagnostics.quality import PairQuality, pair_quality
from gfnmc.diagnostics.recycling import recycled_means

__all__ = [
    "Convergence",
    "Discovery",
    "Evidence",
    "PairQuality",
    "acceptance_by_back_steps",
    "acceptance_summary",
    "convergence",
    "count_round_trips",
    "count_switches",
    "discovery",
    "iid_total_variation",
    "importance_log_z",
    "pair_quality",
    "recycled_means",
    "switches_per_thousand_steps",
    "total_variation",
]
