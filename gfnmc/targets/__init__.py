"""The energies on finished objects. Targets know no actions."""

from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target
from gfnmc.targets.conditional import ConditionalTarget, TemperedFamily, conditional_from_function
from gfnmc.targets.edwards_anderson import EdwardsAnderson, overlap
from gfnmc.targets.function import from_function, from_numpy_function, noisy_from_function
from gfnmc.targets.hypergrid import HyperGrid
from gfnmc.targets.ising import Ising
from gfnmc.targets.noisy import NoisyCopy, NoisyTarget
from gfnmc.targets.potts import Potts
from gfnmc.targets.tf_binding import TFBinding

__all__ = [
    "ConditionalTarget",
    "EdwardsAnderson",
    "ExactSolution",
    "HyperGrid",
    "Ising",
    "ModeSet",
    "NoisyCopy",
    "NoisyTarget",
    "Potts",
    "Symmetry",
    "TFBinding",
    "Target",
    "TemperedFamily",
    "conditional_from_function",
    "from_function",
    "from_numpy_function",
    "noisy_from_function",
    "overlap",
]
