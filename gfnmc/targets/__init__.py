"""The energies on finished objects. Targets know no actions."""

from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target
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
