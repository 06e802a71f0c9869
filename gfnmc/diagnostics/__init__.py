"""Judge chains: convergence, modes, distances to the truth, acceptance, evidence; `diagnose` does all of it."""

from gfnmc.diagnostics.bridge import bridge_log_z
from gfnmc.diagnostics.convergence import Convergence, autocorrelation, convergence, nested_r_hat, quantile_ess
from gfnmc.diagnostics.diagnose import diagnose
from gfnmc.diagnostics.diagnosis import Diagnosis
from gfnmc.diagnostics.distances import (
    iid_jensen_shannon,
    iid_total_variation,
    jensen_shannon,
    total_variation,
)
from gfnmc.diagnostics.evidence import Evidence, importance_log_z
from gfnmc.diagnostics.modes import (
    Discovery,
    count_round_trips,
    count_switches,
    discovery,
    mean_stays,
    mode_transitions,
    switches_per_thousand_steps,
)
from gfnmc.diagnostics.movement import Trap, stuck_chains, trapped_chains
from gfnmc.diagnostics.proposal import (
    acceptance_by_back_steps,
    acceptance_by_depth,
    acceptance_summary,
    count_reasons,
    jump_figures,
    log_ratio_figures,
)
from gfnmc.diagnostics.quality import PairQuality, pair_quality
from gfnmc.diagnostics.recycling import recycled_means, recycling_gains
from gfnmc.diagnostics.terminal import log_terminal_law, max_weight
from gfnmc.diagnostics.two_samples import Distance, energy_distance, maximum_mean_discrepancy, sliced_wasserstein

__all__ = [
    "Convergence",
    "Diagnosis",
    "Discovery",
    "Distance",
    "Evidence",
    "PairQuality",
    "Trap",
    "acceptance_by_back_steps",
    "acceptance_by_depth",
    "acceptance_summary",
    "autocorrelation",
    "bridge_log_z",
    "convergence",
    "count_reasons",
    "count_round_trips",
    "count_switches",
    "diagnose",
    "discovery",
    "energy_distance",
    "iid_jensen_shannon",
    "iid_total_variation",
    "importance_log_z",
    "jensen_shannon",
    "jump_figures",
    "log_ratio_figures",
    "log_terminal_law",
    "max_weight",
    "maximum_mean_discrepancy",
    "mean_stays",
    "mode_transitions",
    "nested_r_hat",
    "pair_quality",
    "quantile_ess",
    "recycled_means",
    "recycling_gains",
    "sliced_wasserstein",
    "stuck_chains",
    "switches_per_thousand_steps",
    "total_variation",
    "trapped_chains",
]
