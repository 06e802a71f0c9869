"""The energies on finished objects. Targets know no actions."""

from typing import TYPE_CHECKING

from gfnmc.core.lazy import lazy_names
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target

if TYPE_CHECKING:
    from gfnmc.targets.bge import bge_local_scores, bge_log_marginals
    from gfnmc.targets.bit_sequences import BitSequences
    from gfnmc.targets.change_points import ChangePoints
    from gfnmc.targets.conditional import ConditionalTarget, TemperedFamily, conditional_from_function
    from gfnmc.targets.dag_posterior import DAGPosterior, LinearGaussianData, simulate_linear_gaussian
    from gfnmc.targets.edwards_anderson import EdwardsAnderson, overlap
    from gfnmc.targets.function import from_function, from_numpy_function, noisy_from_function
    from gfnmc.targets.hypergrid import HyperGrid
    from gfnmc.targets.ising import Ising
    from gfnmc.targets.kaufman import kaufman_log_z
    from gfnmc.targets.noisy import NoisyCopy, NoisyTarget
    from gfnmc.targets.potts import Potts
    from gfnmc.targets.tf_binding import TFBinding
    from gfnmc.targets.variable_selection import VariableSelection

_MODULES = {
    "bge_local_scores": "gfnmc.targets.bge",
    "bge_log_marginals": "gfnmc.targets.bge",
    "BitSequences": "gfnmc.targets.bit_sequences",
    "ChangePoints": "gfnmc.targets.change_points",
    "ConditionalTarget": "gfnmc.targets.conditional",
    "TemperedFamily": "gfnmc.targets.conditional",
    "conditional_from_function": "gfnmc.targets.conditional",
    "DAGPosterior": "gfnmc.targets.dag_posterior",
    "LinearGaussianData": "gfnmc.targets.dag_posterior",
    "simulate_linear_gaussian": "gfnmc.targets.dag_posterior",
    "EdwardsAnderson": "gfnmc.targets.edwards_anderson",
    "overlap": "gfnmc.targets.edwards_anderson",
    "from_function": "gfnmc.targets.function",
    "from_numpy_function": "gfnmc.targets.function",
    "noisy_from_function": "gfnmc.targets.function",
    "HyperGrid": "gfnmc.targets.hypergrid",
    "Ising": "gfnmc.targets.ising",
    "kaufman_log_z": "gfnmc.targets.kaufman",
    "NoisyCopy": "gfnmc.targets.noisy",
    "NoisyTarget": "gfnmc.targets.noisy",
    "Potts": "gfnmc.targets.potts",
    "TFBinding": "gfnmc.targets.tf_binding",
    "VariableSelection": "gfnmc.targets.variable_selection",
}

__all__ = [
    "BitSequences",
    "ChangePoints",
    "ConditionalTarget",
    "DAGPosterior",
    "EdwardsAnderson",
    "ExactSolution",
    "HyperGrid",
    "Ising",
    "LinearGaussianData",
    "ModeSet",
    "NoisyCopy",
    "NoisyTarget",
    "Potts",
    "Symmetry",
    "TFBinding",
    "Target",
    "TemperedFamily",
    "VariableSelection",
    "bge_local_scores",
    "bge_log_marginals",
    "conditional_from_function",
    "from_function",
    "from_numpy_function",
    "kaufman_log_z",
    "noisy_from_function",
    "overlap",
    "simulate_linear_gaussian",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES, __all__)
