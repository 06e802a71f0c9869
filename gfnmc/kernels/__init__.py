"""Markov kernels that leave a target invariant, one algorithm a file; each proved in tests/exact/."""

from gfnmc.kernels import branch
from gfnmc.kernels.base import Info, Kernel, Reach, Reason, State
from gfnmc.kernels.composition import Cycle, Mixture
from gfnmc.kernels.independence import IndependenceMH
from gfnmc.kernels.random_walk import RandomWalk
from gfnmc.kernels.suffix import SuffixResampling

__all__ = [
    "Cycle",
    "IndependenceMH",
    "Info",
    "Kernel",
    "Mixture",
    "RandomWalk",
    "Reach",
    "Reason",
    "State",
    "SuffixResampling",
    "branch",
]
