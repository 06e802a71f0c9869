"""Metropolis sweeps: every site proposes another value, all sites of a colour at once, each accepted for itself.

    accept a value at a site with probability  (1 - laziness) min(1, R(x with it)^beta / R(x)^beta)

Another value is drawn uniformly, so the proposal is symmetric. Without laziness a value that does not lower the density
is always taken: on a flat target of two values every site flips in every sweep, for ever, and no chain converges. With
it a site may take any possible value and may keep its own, so a sweep may go from everywhere to everywhere.

References: Metropolis et al. 1953, "Equation of state calculations by fast computing machines"; `sweep.py` for sites
updated at once.
"""

import copy
import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Info, Kernel, Reach, State
from gfnmc.kernels.gibbs import uniform_assignments
from gfnmc.kernels.site_rules import SiteRule, report
from gfnmc.kernels.sweep import ChromaticSweep
from gfnmc.targets.base import Target


class ChromaticMetropolis(Kernel):
    """The random walk on assignments of values to sites, as a sweep over all of them.

    A step visits every site once and decides each for itself, and what comes out is kept. So `Info` says accepted, with
    log ratio 0 and the chain's new place for a proposal; `acceptance_rate` is the fraction of the sites that changed,
    lazy sites counted as those that did not. A visit counts as one target call for each other value, a delta call too
    where the target offers `log_prob_delta`; at inverse temperature 0 no changes are needed, and a step costs one. Of
    spins whose bonds have one strength, and no field, the satisfied bonds of every site are counted at any
    temperature, and that is what a step says it cost.

    Args:
        environment: How objects are built.
        target: What to sample; it declares `values`, and which sites interact.
        laziness: Probability that a site proposes nothing, in [0, 1). At 0 a sweep is not known to reach
            everything, and is sampled only in a `Cycle` or `Mixture` with a kernel that does.

    Raises:
        CapabilityError: If the target declares no two `values` or does not say which sites interact, or is noisy.
        EnergyError: If the pairs of sites that interact are none.
        OptionError: If `laziness` is out of range.
    """

    name = "chromatic Metropolis"

    def __init__(self, environment: DiscreteEnvironment, target: Target, laziness: float = 0.1) -> None:
        if target.values is None or len(target.values) < 2:
            raise CapabilityError(
                f"{target.name} declares no two `values` of a site, so there is no other one to propose; use RandomWalk"
            )
        if target.is_noisy:
            raise CapabilityError(
                f"{target.name} is noisy, and a sweep needs the changes of its density, not estimates of them; use "
                "RandomWalk"
            )
        if not 0.0 <= laziness < 1.0:
            raise OptionError(f"laziness is {laziness}; it must be at least 0 and below 1")
        self.environment = environment
        self.target = target
        self.laziness = float(laziness)
        self._sweep = ChromaticSweep(target, _Metropolis(self.laziness))
        self._num_sites = math.prod(target.event_shape)
        self.calls_per_step = self._num_sites * (len(target.values) - 1)

    def start(self, draws: Draws) -> Tensor:
        """Return objects with every site drawn uniformly: exact draws of the law at inverse temperature 0."""
        return uniform_assignments(self.target, draws)

    @property
    def reach(self) -> Reach:
        # Whether sites that always take what is no worse reach everything depends on the target.
        return Reach.EVERYWHERE if self.may_stay else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        # A laziness too small for a number beside 1 is none.
        return math.exp(math.log1p(-self.laziness)) < 1.0

    def tempered(self, inverse_temperature: InverseTemperature) -> "ChromaticMetropolis":
        tempered = copy.copy(self)
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        return tempered

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        moved = self._sweep(draws, state, self.inverse_temperature)
        assert moved.num_changed is not None
        acceptance_rate = torch.from_numpy(moved.num_changed / self._num_sites)
        info = report(moved, acceptance_rate, self.calls_per_step, offers_delta=self.target.offers_delta)
        return State(moved.position, moved.log_prob, state.cache), info


class _Metropolis(SiteRule):
    role = "change"
    counts_changes = True

    def __init__(self, laziness: float) -> None:
        self._log_busy = math.log1p(-laziness)

    def log_flip(self, change: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        return change.clamp(max=0.0) + self._log_busy

    def choose(
        self, draws: Draws, change: Float64[Tensor, "rows values"], present: Int64[Tensor, " rows"]
    ) -> Int64[Tensor, " rows"]:
        num_values = change.shape[1]
        further = draws.role("other").integers(torch.full_like(present, num_values - 1))
        other = (present + 1 + further) % num_values
        log_accept = self.log_flip(change.gather(1, other[:, None])[:, 0])
        return torch.where(draws.role(self.role).bernoulli(log_accept), other, present)
