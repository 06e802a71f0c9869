"""gfnmc: trained GFlowNet pairs as exact, large-step Metropolis-Hastings proposals.

target = gfnmc.targets.Ising((8, 8), coupling=0.5)
environment = gfnmc.environments.Lattice.for_target(target)
trained = gfnmc.train(environment, target, seed=0)
kernel = gfnmc.kernels.SuffixResampling(trained.pair, target)
chains = gfnmc.sample(kernel, num_chains=64, num_samples=1_000, seed=0)
chains.to_arviz()
"""

from typing import TYPE_CHECKING

from gfnmc import environments, kernels, objectives, policies, targets
from gfnmc.core import errors
from gfnmc.core.cost import Cost
from gfnmc.core.errors import GfnmcError
from gfnmc.core.lazy import lazy_names
from gfnmc.sampling import Budget, Chains, Store, resume, sample

if TYPE_CHECKING:
    from gfnmc.diagnostics import Diagnosis, diagnose
    from gfnmc.experiments import Comparison, compare, load_run
    from gfnmc.training import TrainingConfig, TrainingResult, load_pair, resume_training, save_pair, train

# Loaded when first used: they need libraries that are slow to import.
_MODULES = {
    "Comparison": "gfnmc.experiments",
    "Diagnosis": "gfnmc.diagnostics",
    "compare": "gfnmc.experiments",
    "diagnose": "gfnmc.diagnostics",
    "load_run": "gfnmc.experiments.runs",
    "TrainingConfig": "gfnmc.training",
    "TrainingResult": "gfnmc.training",
    "load_pair": "gfnmc.training",
    "resume_training": "gfnmc.training",
    "save_pair": "gfnmc.training",
    "train": "gfnmc.training",
}

__all__ = [
    "Budget",
    "Chains",
    "Comparison",
    "Cost",
    "Diagnosis",
    "GfnmcError",
    "Store",
    "TrainingConfig",
    "TrainingResult",
    "compare",
    "diagnose",
    "environments",
    "errors",
    "kernels",
    "load_pair",
    "load_run",
    "objectives",
    "policies",
    "resume",
    "resume_training",
    "sample",
    "save_pair",
    "targets",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES, __all__)
