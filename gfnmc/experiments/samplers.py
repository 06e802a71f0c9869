"""The samplers of a benchmark by name: the learned ones, and baselines on the same encoding, tuned before they run.

What tuning costs (a ladder of temperatures, a step size) is charged to the sampler as training is. A sampler that does
not apply to a target says why, and its cell is left out with that reason.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gfnmc.core.cost import Cost
from gfnmc.core.errors import OptionError
from gfnmc.environments import DiscreteEnvironment
from gfnmc.kernels import (
    Cycle,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    IndependenceMH,
    Kernel,
    LocallyBalanced,
    MultipleTrySuffix,
    ParallelTempering,
    RandomWalk,
    SuffixResampling,
    SwendsenWang,
    Wolff,
    recommended,
    tempering_ladder,
    tuned_step_size,
)
from gfnmc.kernels.branch import BranchLaw
from gfnmc.policies import GFlowNet
from gfnmc.targets import Target

Kind = Literal["learned", "local", "tempering", "cluster"]

DEFAULT = "default cycle"
"""The recommended kernel, which sets the budget of the others."""

_LADDER_CHAINS = 256


@dataclass(frozen=True)
class Setting:
    """What a sampler is made from.

    Attributes:
        environment: How objects are built.
        target: What to sample.
        trained: A trained pair; None for samplers that learn nothing.
        branch: The branch law of kernels that have one.
        seed: Names the tuning runs.
    """

    environment: DiscreteEnvironment
    target: Target
    trained: GFlowNet | None
    branch: BranchLaw | None
    seed: int

    @property
    def pair(self) -> GFlowNet:
        """The trained pair."""
        assert self.trained is not None
        return self.trained


@dataclass(frozen=True)
class Sampler:
    """A sampler of the benchmark.

    Attributes:
        name: Its name in tables and on the command line.
        kind: "learned", "local", "tempering" or "cluster".
        make: Makes the kernel; raises a `CapabilityError` where it does not apply.
    """

    name: str
    kind: Kind
    make: Callable[[Setting], Kernel]


def _suffix(setting: Setting) -> Kernel:
    return SuffixResampling(setting.pair, setting.target, setting.branch)


def _multiple_try(setting: Setting) -> Kernel:
    many = MultipleTrySuffix(setting.pair, setting.target, setting.branch, num_tries=4)
    return Cycle([many, RandomWalk(setting.environment, setting.target)])


def _langevin(setting: Setting) -> Kernel:
    kernel, cost = tuned_step_size(DiscreteLangevin(setting.environment, setting.target), seed=setting.seed)
    return _charged(kernel, cost)


def _tempered(local: Callable[[Setting], Kernel]) -> Callable[[Setting], Kernel]:
    def make(setting: Setting) -> Kernel:
        kernel = local(setting)
        ladder = tempering_ladder(kernel, num_chains=_LADDER_CHAINS, seed=setting.seed)
        # What tuning the local kernel cost is charged to the tempered one by itself.
        return _charged(ParallelTempering(kernel, ladder.inverse_temperatures), ladder.cost)

    return make


def _charged(kernel: Kernel, cost: Cost) -> Kernel:
    kernel.training_cost = kernel.training_cost + cost
    return kernel


def _random_walk(setting: Setting) -> Kernel:
    return RandomWalk(setting.environment, setting.target)


def _gibbs(setting: Setting) -> Kernel:
    return Gibbs(setting.environment, setting.target)


def _locally_balanced(setting: Setting) -> Kernel:
    return LocallyBalanced(setting.environment, setting.target)


def _gibbs_with_gradients(setting: Setting) -> Kernel:
    return GibbsWithGradients(setting.environment, setting.target)


SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Sampler(DEFAULT, "learned", lambda at: recommended(at.pair, at.target, at.branch)),
        Sampler("suffix resampling", "learned", _suffix),
        Sampler("multiple-try cycle", "learned", _multiple_try),
        Sampler("independence MH", "learned", lambda at: IndependenceMH(at.pair, at.target)),
        Sampler("random walk", "local", _random_walk),
        Sampler("Gibbs", "local", _gibbs),
        Sampler("Gibbs, systematic", "local", lambda at: Gibbs(at.environment, at.target, "systematic")),
        Sampler("locally balanced", "local", _locally_balanced),
        Sampler("Gibbs with gradients", "local", _gibbs_with_gradients),
        Sampler("discrete Langevin", "local", _langevin),
        Sampler("tempered random walk", "tempering", _tempered(_random_walk)),
        Sampler("tempered Gibbs", "tempering", _tempered(_gibbs)),
        Sampler("tempered locally balanced", "tempering", _tempered(_locally_balanced)),
        Sampler("tempered Gibbs with gradients", "tempering", _tempered(_gibbs_with_gradients)),
        Sampler("tempered discrete Langevin", "tempering", _tempered(_langevin)),
        Sampler("Wolff", "cluster", lambda at: Wolff(at.environment, at.target)),
        Sampler("Swendsen-Wang", "cluster", lambda at: SwendsenWang(at.environment, at.target)),
    )
}


def find_sampler(name: str) -> Sampler:
    """Return a sampler by its name, whatever the case.

    Raises:
        OptionError: If there is none, with the nearest name.
    """
    by_name = {known.lower(): sampler for known, sampler in SAMPLERS.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_name, n=1)
    hint = f"did you mean {by_name[near[0]].name}? " if near else ""
    raise OptionError(f"there is no sampler {name!r}; {hint}the samplers are {', '.join(SAMPLERS)}")
