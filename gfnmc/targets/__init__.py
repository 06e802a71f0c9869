"""The energies on finished objects. Targets know no actions."""

from gfnmc.targets.base import ExactSolution, ModeSet, Target
from gfnmc.targets.function import from_function, from_numpy_function
from gfnmc.targets.hypergrid import HyperGrid
from gfnmc.targets.ising import Ising
from gfnmc.targets.tf_binding import TFBinding

__all__ = [
    "ExactSolution",
    "HyperGrid",
    "Ising",
    "ModeSet",
    "TFBinding",
    "Target",
    "from_function",
    "from_numpy_function",
]
