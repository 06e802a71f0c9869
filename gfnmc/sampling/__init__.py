"""Run kernels: chains, their costs, and their way to ArviZ."""

from gfnmc.sampling.chains import Chains, Record
from gfnmc.sampling.loop import Budget, sample

__all__ = ["Budget", "Chains", "Record", "sample"]
