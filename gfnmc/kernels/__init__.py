"""Markov kernels that leave a target invariant, one algorithm a file; each proved in tests/exact/."""

from gfnmc.kernels import branch
from gfnmc.kernels.base import Info, Kernel, Reach, Reason, State
from gfnmc.kernels.composition import Cycle, Mixture
from gfnmc.kernels.gibbs import Gibbs
from gfnmc.kernels.independence import IndependenceMH
from gfnmc.kernels.ladder import TemperingLadder, tempering_ladder
from gfnmc.kernels.parallel_tempering import ParallelTempering
from gfnmc.kernels.random_walk import RandomWalk
from gfnmc.kernels.replicas import Replicas
from gfnmc.kernels.suffix import SuffixResampling

__all__ = [
    "Cycle",
    "Gibbs",
    "IndependenceMH",
    "Info",
    "Kernel",
    "Mixture",
    "ParallelTempering",
    "RandomWalk",
    "Reach",
    "Reason",
    "Replicas",
    "State",
    "SuffixResampling",
    "TemperingLadder",
    "branch",
    "tempering_ladder",
]
