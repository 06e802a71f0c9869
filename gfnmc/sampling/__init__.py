"""Run kernels: chains, their costs, run directories, and the way to ArviZ."""

from gfnmc.sampling.chains import Chains, Record
from gfnmc.sampling.load import open_run
from gfnmc.sampling.plan import Budget, Store
from gfnmc.sampling.resuming import resume
from gfnmc.sampling.sampler import sample

__all__ = ["Budget", "Chains", "Record", "Store", "open_run", "resume", "sample"]
