"""Discrete Langevin: all sites at once, each drawn on its own by what a gradient says of it.

    q(x'|x) = prod over i of q_i(x'_i|x),    q_i(v|x)  proportional to  exp( d_{i,v} / 2 - [v != x_i] / (2 step_size) )

with d_{i,v} = g_{i,v} - g_{i,x_i}, g the gradient of the relaxed log-density at x, and beta d for d where the kernel is
tempered. The true log-density accepts or rejects, so the chain is exact for every step size and however poor the
gradient. Any value is at distance 1 from any other, so that distances do not depend on how values are written. For
spins -1 and +1, at squared distance 4, the paper's step size is 4 times that of here; for one-hot vectors, at 2, twice.

Reference: Zhang, Liu and Liu 2022 (2206.09914), "A Langevin-like sampler for discrete distributions".
"""

import copy
import math
import time
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Reach
from gfnmc.kernels.gibbs_with_gradients import SiteGradients, check_assignments
from gfnmc.kernels.informed import InformedKernel, Move
from gfnmc.targets.base import Target

STEP_SIZES = (0.01, 1000.0)
"""The range that step sizes are tuned in: at its ends a change costs 50 nats, and nothing."""


class DiscreteLangevin(InformedKernel):
    """Metropolis-adjusted Langevin steps on assignments of values to sites.

    A step costs one target call, a gradient call too, for value and gradient at the proposal; one more where the
    gradient at the current object is not known from the step before. A proposal to stay costs nothing, is accepted and
    counts as that, and no gradient is taken at impossible proposals and at inverse temperature 0.

    Args:
        environment: How objects are built.
        target: What to sample; it declares `values` and offers `log_prob_relaxed`.
        step_size: Larger proposes to change more sites; `tuned_step_size` finds one.

    Raises:
        CapabilityError: If the environment does not build every assignment of values to sites, the target declares no
            `values` or has no relaxed log-density, or it is noisy.
        OptionError: If the step size is not finite and positive.
    """

    name = "discrete Langevin"
    calls_per_step = 2

    def __init__(self, environment: DiscreteEnvironment, target: Target, step_size: float = 0.2) -> None:
        check_assignments(environment, self.name)
        self.surroundings: SiteGradients
        super().__init__(environment, target, SiteGradients(target))
        self.step_size = _checked_step_size(step_size)

    def with_step_size(self, step_size: float) -> "DiscreteLangevin":
        """Return the same kernel with another step size.

        Raises:
            OptionError: If it is not finite and positive.
        """
        changed = copy.copy(self)
        changed.step_size = _checked_step_size(step_size)
        return changed

    @property
    def reach(self) -> Reach:
        return Reach.EVERYWHERE

    @property
    def may_stay(self) -> bool:
        # Every site may draw the value that it has.
        return True

    def _draw(self, draws: Draws, position: Tensor, log_changes: Float64[Tensor, "chains changes"]) -> Move:
        law = self._law(position, log_changes)
        sites = self.surroundings.num_sites
        drawn = draws.role("value").repeated(sites).categorical(law.flatten(0, 1)).unflatten(0, (-1, sites))
        return Move(
            position=self.surroundings.values.to(position.device)[drawn].reshape(position.shape),
            log_forward=law.gather(2, drawn[:, :, None]).flatten(1).sum(1),
            is_lazy=torch.zeros(len(position), dtype=torch.bool, device=position.device),
        )

    def _log_back(
        self, position: Tensor, move: Move, log_changes: Float64[Tensor, "chains changes"]
    ) -> Float64[Tensor, " chains"]:
        present = self.surroundings.present(position)
        return self._law(move.position, log_changes).gather(2, present[:, :, None]).flatten(1).sum(1)

    def _law(
        self, position: Tensor, log_changes: Float64[Tensor, "chains changes"]
    ) -> Float64[Tensor, "chains sites values"]:
        """Return the law of each site's next value, nats."""
        price = self.surroundings.mask(position).to(torch.float64) * (0.5 / self.step_size)
        scores = 0.5 * self._tempered(log_changes) - price
        return scores.unflatten(1, (-1, self.surroundings.num_values)).log_softmax(2)


def tuned_step_size(
    kernel: DiscreteLangevin,
    *,
    target_acceptance: float = 0.574,
    num_chains: int = 16,
    num_steps: int = 300,
    seed: int = 0,
    init: Tensor | None = None,
) -> tuple[DiscreteLangevin, Cost]:
    """Find the step size whose mean acceptance rate is as wanted, within `STEP_SIZES`.

    After each step of some chains the logarithm of the step size moves up where they accepted more than wanted, down
    where less, by steps that shrink; the result is the mean over the second half. The kernel that is returned has that
    step size for good, so that its chains are exact. The default is the acceptance rate at which Langevin steps in many
    dimensions are most efficient.

    Args:
        kernel: What to tune; its step size is where the search begins.
        target_acceptance: Wanted mean of min(1, ratio), proposals to stay included, in (0, 1).
        num_chains: Chains side by side; as many as the kernel has inverse temperatures, where it has one a chain.
        num_steps: Steps of each, at least 2.
        seed: Names the run: the same seed gives the same step size.
        init: Objects to start from, `(num_chains, *event_shape)`; by default the kernel draws them.

    Returns:
        The tuned kernel, and what tuning cost.

    Raises:
        OptionError: If an option cannot work.
        ObjectError: If the chains cannot start where they should.

    References: Robbins and Monro 1951, "A stochastic approximation method"; Roberts and Rosenthal 1998, "Optimal
    scaling of discrete approximations to Langevin diffusions" (0.574).
    """
    if not 0.0 < target_acceptance < 1.0 or num_chains < 1 or num_steps < 2:
        raise OptionError(
            f"target_acceptance {target_acceptance} must lie between 0 and 1, num_chains {num_chains} and num_steps "
            f"{num_steps} be at least 1 and 2"
        )
    begun = time.perf_counter()
    draws = PhiloxDraws(seed, "tune", num_chains)
    state = kernel.init(kernel.start(draws.role("start")) if init is None else init.clone())
    cost = Cost(target_calls=len(state.position))
    lowest, highest = (math.log(end) for end in STEP_SIZES)
    log_step, path = math.log(kernel.step_size), []
    for step in range(num_steps):
        state, info = kernel.with_step_size(math.exp(log_step)).step(draws.at(step), state)
        cost += info.cost()
        excess = float(info.acceptance_rate.mean()) - target_acceptance
        log_step = min(max(log_step + 2.0 * excess / (step + 1) ** 0.6, lowest), highest)
        path.append(log_step)
    settled = path[num_steps // 2 :]
    tuned = kernel.with_step_size(math.exp(math.fsum(settled) / len(settled)))
    return tuned, replace(cost, seconds=time.perf_counter() - begun)


def _checked_step_size(step_size: float) -> float:
    if not 0.0 < step_size < math.inf:
        raise OptionError(f"a step size of {step_size}; it must be finite and positive")
    return float(step_size)
