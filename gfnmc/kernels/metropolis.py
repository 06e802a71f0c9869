"""The accept step that every proposal shares.

    accept x' with probability min(1, A),   log A = log R(x') - log R(x) + log q(x' -> x) - log q(x -> x')

with R^beta for R where the kernel is tempered. A noisy target is estimated once for each proposal, and the state keeps
the estimate that its object was accepted with. Where the estimate is R(x) w with E[w] = 1 given x, the chain samples
the pair (x, w) from R(x) w p(w|x), and that has the marginal R(x): pseudo-marginal, and exact.

References: Hastings 1970, "Monte Carlo sampling methods using Markov chains and their applications"; Andrieu and
Roberts 2009, "The pseudo-marginal approach for efficient Monte Carlo computations".
"""

import copy
from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, PolicyError
from gfnmc.core.numerics import where_rows
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature, tempered_change
from gfnmc.kernels.base import Info, Kernel, KernelType, Reason, State
from gfnmc.targets.base import checked_estimate


class Proposal(NamedTuple):
    """Where a proposal wants each chain to go.

    Attributes:
        position: Proposed objects; the current ones where `is_lazy`.
        log_hastings: log q(x' -> x) - log q(x -> x'), nats; -inf where there is no way back, 0 where `is_lazy`.
        is_lazy: Rows that propose nothing and stay.
        num_back_steps: Actions undone.
        num_forward_steps: Actions taken to rebuild.
        policy_calls: Evaluations of P_F or P_B.
    """

    position: Shaped[Tensor, "chains *event"]
    log_hastings: Float64[Tensor, " chains"]
    is_lazy: Bool[Tensor, " chains"]
    num_back_steps: Int64[Tensor, " chains"]
    num_forward_steps: Int64[Tensor, " chains"]
    policy_calls: Int64[Tensor, " chains"]


class MetropolisKernel(Kernel):
    """A kernel made of a proposal and the accept step."""

    @abstractmethod
    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        """Propose a move for every chain."""

    def tempered(self: KernelType, inverse_temperature: InverseTemperature) -> KernelType:
        if self.target.is_noisy:
            raise CapabilityError(
                f"{self.target.name} is noisy, and a power of an unbiased estimate is a biased one, so {self.name} "
                "cannot be tempered; sample the target itself"
            )
        tempered = copy.copy(self)
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        return tempered

    @torch.no_grad()
    def propose(self, x: Tensor, draws: Draws) -> tuple[Tensor, Float64[Tensor, " chains"]]:
        """Return proposals as other frameworks want them.

        Returns:
            The proposed objects and log q(x_new -> x) - log q(x -> x_new), nats, to be added to the change of the
            log-density; the caller accepts or rejects.

        Raises:
            PolicyError: If the probability of a proposal is NaN.
        """
        proposal = self._checked_proposal(draws, x)
        return proposal.position, proposal.log_hastings

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        proposal = self._checked_proposal(draws, state.position)
        has_return = proposal.log_hastings > -torch.inf
        evaluated = has_return & ~proposal.is_lazy
        log_prob = torch.full_like(state.log_prob, -torch.inf)
        log_prob[evaluated] = self._evaluate(proposal.position, evaluated, draws.role("estimate"))
        return decide(draws, state, proposal, log_prob, self.inverse_temperature)

    def _checked_proposal(self, draws: Draws, position: Tensor) -> Proposal:
        proposal = self._propose(draws, position)
        unknown = proposal.log_hastings.isnan()
        if unknown.any():
            raise PolicyError(
                f"chain {int(unknown.nonzero()[0, 0])}: the probability of a proposed path is NaN; the weights of P_F "
                "or P_B are not finite, so train the pair again or load an earlier checkpoint"
            )
        return proposal

    def _evaluate(self, position: Tensor, rows: Bool[Tensor, " chains"], draws: Draws) -> Float64[Tensor, " rows"]:
        """Return the log-density of the rows that need one; an error names the chain, not the row of the subset."""
        if rows.all():
            return checked_estimate(self.target, position, draws)
        if not rows.any():
            return position.new_zeros(0, dtype=torch.float64)
        return checked_estimate(self.target, position[rows], draws, rows=rows.nonzero()[:, 0])


def decide(
    draws: Draws,
    state: State,
    proposal: Proposal,
    log_prob: Float64[Tensor, " chains"],
    inverse_temperature: InverseTemperature,
) -> tuple[State, Info]:
    """Accept or reject proposals.

    Args:
        draws: The step's draws.
        state: Where the chains are.
        proposal: Where they may go.
        log_prob: Log-densities of the proposed objects, nats; anything where a row is lazy or has no way back.
        inverse_temperature: The power of the target.

    Returns:
        The next state, with the cache of the last, and the report, which counts one target call for each row that is
        neither lazy nor without a way back.
    """
    has_return = proposal.log_hastings > -torch.inf
    evaluated = has_return & ~proposal.is_lazy
    change = tempered_change(inverse_temperature, log_prob, state.log_prob)
    log_ratio = torch.where(has_return, change + proposal.log_hastings, -torch.inf)
    log_ratio = torch.where(proposal.is_lazy, 0.0, log_ratio)
    is_accepted = draws.role("accept").bernoulli(log_ratio.clamp(max=0.0), evaluated)
    zero = torch.zeros_like(proposal.num_back_steps)
    reason = torch.where(is_accepted, zero + Reason.ACCEPTED, zero + Reason.REJECTED)
    reason = torch.where(has_return, reason, zero + Reason.NO_REVERSE_MOVE)
    reason = torch.where(proposal.is_lazy, zero + Reason.LAZY, reason)
    info = Info(
        proposal=proposal.position,
        is_accepted=is_accepted,
        log_ratio=log_ratio,
        acceptance_rate=torch.where(proposal.is_lazy, 0.0, log_ratio.clamp(max=0.0).exp()),
        num_back_steps=proposal.num_back_steps,
        num_forward_steps=proposal.num_forward_steps,
        target_calls=evaluated.to(torch.int64),
        policy_calls=proposal.policy_calls,
        reason=reason.to(torch.int8),
    )
    position = where_rows(is_accepted, proposal.position, state.position)
    return State(position, torch.where(is_accepted, log_prob, state.log_prob), state.cache), info
