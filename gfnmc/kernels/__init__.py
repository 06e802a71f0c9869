"""Markov kernels that leave a target invariant, one algorithm a file; each proved in tests/exact/."""

from typing import TYPE_CHECKING

from gfnmc.core.lazy import lazy_names
from gfnmc.kernels import branch
from gfnmc.kernels.adaptation import BranchTuning
from gfnmc.kernels.base import Adaptation, Info, Kernel, Reach, Reason, State
from gfnmc.kernels.composition import Cycle, Mixture
from gfnmc.kernels.recommended import recommended

if TYPE_CHECKING:
    from gfnmc.kernels.chromatic_metropolis import ChromaticMetropolis
    from gfnmc.kernels.delayed_acceptance import DelayedAcceptance
    from gfnmc.kernels.discrete_langevin import DiscreteLangevin, tuned_step_size
    from gfnmc.kernels.gibbs import Gibbs
    from gfnmc.kernels.gibbs_with_gradients import GibbsWithGradients
    from gfnmc.kernels.independence import IndependenceMH
    from gfnmc.kernels.ladder import TemperingLadder, tempering_ladder
    from gfnmc.kernels.locally_balanced import LocallyBalanced
    from gfnmc.kernels.multiple_try import MultipleTrySuffix
    from gfnmc.kernels.parallel_tempering import ParallelTempering
    from gfnmc.kernels.random_walk import RandomWalk
    from gfnmc.kernels.recycled import Recycled
    from gfnmc.kernels.replicas import Replicas
    from gfnmc.kernels.suffix import SuffixResampling
    from gfnmc.kernels.swendsen_wang import SwendsenWang
    from gfnmc.kernels.wolff import Wolff

_MODULES = {
    "ChromaticMetropolis": "gfnmc.kernels.chromatic_metropolis",
    "DelayedAcceptance": "gfnmc.kernels.delayed_acceptance",
    "DiscreteLangevin": "gfnmc.kernels.discrete_langevin",
    "tuned_step_size": "gfnmc.kernels.discrete_langevin",
    "Gibbs": "gfnmc.kernels.gibbs",
    "GibbsWithGradients": "gfnmc.kernels.gibbs_with_gradients",
    "IndependenceMH": "gfnmc.kernels.independence",
    "TemperingLadder": "gfnmc.kernels.ladder",
    "tempering_ladder": "gfnmc.kernels.ladder",
    "LocallyBalanced": "gfnmc.kernels.locally_balanced",
    "MultipleTrySuffix": "gfnmc.kernels.multiple_try",
    "ParallelTempering": "gfnmc.kernels.parallel_tempering",
    "RandomWalk": "gfnmc.kernels.random_walk",
    "Recycled": "gfnmc.kernels.recycled",
    "Replicas": "gfnmc.kernels.replicas",
    "SuffixResampling": "gfnmc.kernels.suffix",
    "SwendsenWang": "gfnmc.kernels.swendsen_wang",
    "Wolff": "gfnmc.kernels.wolff",
}

__all__ = [
    "Adaptation",
    "BranchTuning",
    "ChromaticMetropolis",
    "Cycle",
    "DelayedAcceptance",
    "DiscreteLangevin",
    "Gibbs",
    "GibbsWithGradients",
    "IndependenceMH",
    "Info",
    "Kernel",
    "LocallyBalanced",
    "Mixture",
    "MultipleTrySuffix",
    "ParallelTempering",
    "RandomWalk",
    "Reach",
    "Reason",
    "Recycled",
    "Replicas",
    "State",
    "SuffixResampling",
    "SwendsenWang",
    "TemperingLadder",
    "Wolff",
    "branch",
    "recommended",
    "tempering_ladder",
    "tuned_step_size",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES, __all__)
