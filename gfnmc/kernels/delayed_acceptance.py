"""Delayed acceptance: ask a cheap surrogate first, and the target only where the surrogate would have gone.

With a surrogate R~ that is positive wherever the target R is, a proposal is accepted in two stages:

    1.  min(1, A~),    log A~ = log R~(x') - log R~(x) + log q(x' -> x) - log q(x -> x')
    2.  min(1, R(x') R~(x) / (R(x) R~(x')))

R is evaluated only after the first. The first stage alone is Metropolis-Hastings for R~; the second has the same form
with that kernel as its proposal, so the chain is exact and reversible whatever the surrogate, and at best accepts as
often as without it. To the power beta of R, the surrogate is taken to the power beta too. The surrogate is evaluated
anew at the current object in each step, so that other kernels may move the chain in between.

Reference: Christen and Fox 2005, "Markov chain Monte Carlo using an approximation".
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.tempering import InverseTemperature, tempered_change
from gfnmc.kernels.base import Info, Reach, Reason, State
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal, decide
from gfnmc.targets.base import Target, checked_log_prob


class DelayedAcceptance(MetropolisKernel):
    """Another kernel's proposals, accepted in two stages.

    In `Info`, `log_ratio` is that of the target where it was evaluated and else that of the surrogate, and
    `acceptance_rate` that of the second stage, 0 where the first rejected: its mean is the share that both accept.
    `Info.extras` holds "surrogate_calls", log-densities asked of the surrogate, and "passed_surrogate", 1 where the
    first stage accepted.

    Attributes:
        kernel: What makes the proposals.
        surrogate: What judges them first.

    Args:
        kernel: What makes the proposals, such as `RandomWalk` or `SuffixResampling`.
        surrogate: A cheap target on the same objects, positive wherever the kernel's target is.

    Raises:
        CapabilityError: If the kernel has an accept step of its own, or the surrogate is noisy.
        OptionError: If the surrogate's objects are not the target's.
    """

    def __init__(self, kernel: MetropolisKernel, surrogate: Target) -> None:
        if type(kernel).step is not MetropolisKernel.step:
            raise CapabilityError(
                f"{kernel.name} accepts in a way of its own, which two stages would replace; give a kernel with the "
                "ordinary accept step, such as RandomWalk, SuffixResampling or IndependenceMH"
            )
        if surrogate.is_noisy:
            raise CapabilityError(f"the surrogate {surrogate.name} is noisy; give one that is a function of the object")
        mine, theirs = ((t.event_shape, t.dtype) for t in (surrogate, kernel.target))
        if mine != theirs:
            raise OptionError(
                f"the surrogate {surrogate.name} is defined on objects of shape and dtype {mine}, {kernel.target.name} "
                f"on {theirs}; they must be the same"
            )
        self.kernel = kernel
        self.surrogate = surrogate
        self.target = kernel.target
        self.environment = kernel.environment
        self.training_cost = kernel.training_cost
        self.inverse_temperature = kernel.inverse_temperature
        self.name = f"{kernel.name}, delayed acceptance"

    def start(self, draws: Draws) -> Tensor:
        return self.kernel.start(draws)

    @property
    def reach(self) -> Reach:
        return self.kernel.reach

    @property
    def may_stay(self) -> bool:
        return self.kernel.may_stay

    def tempered(self, inverse_temperature: InverseTemperature) -> "DelayedAcceptance":
        tempered = super().tempered(inverse_temperature)
        tempered.kernel = self.kernel.tempered(inverse_temperature)
        return tempered

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        proposal = self._checked_proposal(draws, state.position)
        has_return = proposal.log_hastings > -torch.inf
        screened = has_return & ~proposal.is_lazy
        surrogate = self._surrogate_change(proposal.position, state.position, screened)
        log_first = torch.where(screened, surrogate + proposal.log_hastings, -torch.inf)
        has_passed = draws.role("surrogate").bernoulli(log_first.clamp(max=0.0), screened)

        log_prob = torch.full_like(state.log_prob, -torch.inf)
        log_prob[has_passed] = self._evaluate(proposal.position, has_passed, draws.role("estimate"))
        log_hastings = torch.where(has_passed, log_second_hastings(surrogate), -torch.inf)
        screened_proposal = proposal._replace(log_hastings=log_hastings)
        state, info = decide(draws, state, screened_proposal, log_prob, self.inverse_temperature)
        stopped = screened & ~has_passed
        log_ratio = torch.where(proposal.is_lazy, 0.0, log_first)
        return state, info._replace(
            log_ratio=torch.where(has_passed, log_first + info.log_ratio, log_ratio),
            reason=info.reason.masked_fill(stopped, Reason.REJECTED),
            extras={"surrogate_calls": 2 * screened, "passed_surrogate": has_passed.to(torch.int8)},
        )

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        return self.kernel._propose(draws, position)

    def _surrogate_change(
        self, proposed: Tensor, current: Tensor, rows: Bool[Tensor, " chains"]
    ) -> Float64[Tensor, " chains"]:
        """Return log R~(x')^beta - log R~(x)^beta of some rows, nats; 0 in the others."""
        chain = rows.nonzero()[:, 0]
        change = torch.zeros(len(rows), dtype=torch.float64)
        if len(chain) == 0:
            return change
        both = torch.cat([proposed[chain], current[chain]])
        new, old = checked_log_prob(self.surrogate, both, rows=chain.repeat(2)).split(len(chain))
        power = self.inverse_temperature
        power = power[chain] if isinstance(power, Tensor) else power
        self._check_positive(old, chain, torch.as_tensor(power) > 0.0, current)
        return change.index_copy_(0, chain, tempered_change(power, new, old))

    def _check_positive(
        self, log_surrogate: Float64[Tensor, " some"], chain: Int64[Tensor, " some"], matters: Tensor, current: Tensor
    ) -> None:
        is_impossible = (log_surrogate == -torch.inf) & matters
        if is_impossible.any():
            row = int(chain[is_impossible][0])
            raise ObjectError(
                f"chain {row} is at {current[row].tolist()}, where the surrogate {self.surrogate.name} has density "
                f"zero and {self.target.name} has not; the chain could not come back once it had left, so give a "
                "surrogate that is positive wherever the target is"
            )


def log_second_hastings(surrogate_change: Float64[Tensor, " chains"]) -> Float64[Tensor, " chains"]:
    """Return log q(x' -> x) - log q(x -> x') of the moves that the first stage accepts, nats.

    They are those of a kernel that is reversible under the surrogate, so that it is log R~(x) - log R~(x').
    """
    return -surrogate_change
