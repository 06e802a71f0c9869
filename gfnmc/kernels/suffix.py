"""Suffix resampling: take an object partly apart with P_B, rebuild it with P_F, accept so that the chain is exact.

From x: undo actions by P_B down to a branch state s (path tau_-), build x' from s by P_F (path tau_+), accept with
probability min(1, A),

    A = [ R(x') P_B(tau_+|x') b(s|x') P_F(tau_-|s) ] / [ R(x) P_B(tau_-|x) b(s|x) P_F(tau_+|s) ]

with b the branch law. With a fully trained pair and a prefix law, or fixed length, A = 1 always. Derivation, and why
b cannot be left out: docs/explanation/branch-laws.md. Proof by enumeration: tests/exact/.

Reference: Zhang et al. 2022 (2202.01361), the back-and-forth proposal.
"""

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.numerics import where_rows
from gfnmc.kernels.base import Reach
from gfnmc.kernels.branch import BranchLaw, PrefixLaw, SuffixLaw, Uniform, log_branch_probability
from gfnmc.kernels.metropolis import Proposal
from gfnmc.kernels.pair_kernel import PairKernel
from gfnmc.policies.pair import ProposalPair
from gfnmc.policies.path import Path
from gfnmc.targets.base import Target


class SuffixResampling(PairKernel):
    """The project's kernel.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        target: What to sample.
        branch: Branch law; uniform over all legal numbers of steps back by default.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment.
    """

    name = "suffix resampling"

    def __init__(self, pair: ProposalPair, target: Target, branch: BranchLaw | None = None) -> None:
        super().__init__(pair, target)
        self.branch = Uniform() if branch is None else branch
        max_depth = self.environment.max_depth
        if max_depth is None:
            raise CapabilityError(
                f"{type(self.environment).__name__} has no max_depth; declare the longest path, a bound will do"
            )
        self._max_depth = max_depth
        # Where an object can be extended, undoing nothing and building on is a move of its own.
        self._fewest = 1 if self.environment.exit_action is None else 0
        if isinstance(self.branch, SuffixLaw):
            self._log_pmf = self.branch.log_pmf(self._fewest, max_depth)
        else:
            self._log_pmf = self.branch.log_pmf(max_depth)

    @property
    def reach(self) -> Reach:
        if not self.pair.is_positive:
            return Reach.PARTIAL
        law = self._log_pmf > -torch.inf
        source = -1 if isinstance(self.branch, SuffixLaw) else 0
        if law[source]:
            return Reach.EVERYWHERE
        enough = self.environment.rebuild_connects
        if enough is None or not self.environment.is_fixed_length:
            return Reach.PARTIAL
        deep = law[enough:] if isinstance(self.branch, SuffixLaw) else law[: self._max_depth - enough + 1]
        return Reach.CONNECTED if deep.any() else Reach.PARTIAL

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        states = self.environment.states(position)
        if isinstance(self.branch, PrefixLaw):
            down, is_lazy, undoing_calls = self._prefix_branch(states, draws)
        else:
            down, is_lazy = self._suffix_branch(states, draws), torch.zeros(len(states), dtype=torch.bool)
            undoing_calls = down.lengths
        up = self.pair.sample_forward(down.start, draws.role("forward"))
        assert down.log_backward is not None and up.log_forward is not None
        log_hastings = log_hastings_ratio(
            log_backward_new=self.pair.log_backward(up),
            log_backward_old=down.log_backward,
            log_branch_new=self._log_branch(up),
            log_branch_old=self._log_branch(down),
            log_forward_new=up.log_forward,
            log_forward_old=self.pair.log_forward(down),
        )
        objects = self.environment.objects(up.end)
        exits = 0 if self.environment.exit_action is None else 2
        return Proposal(
            position=where_rows(is_lazy, position, objects),
            log_hastings=torch.where(is_lazy, 0.0, log_hastings),
            is_lazy=is_lazy,
            num_back_steps=torch.where(is_lazy, 0, down.lengths),
            num_forward_steps=torch.where(is_lazy, 0, up.lengths),
            policy_calls=undoing_calls + down.lengths + 2 * up.lengths + exits,
        )

    def _suffix_branch(self, states: Tensor, draws: Draws) -> Path:
        num_steps = draws.role("branch").categorical(self._log_pmf)
        return self.pair.sample_backward(states, num_steps, draws.role("backward"))

    def _prefix_branch(self, states: Tensor, draws: Draws) -> tuple[Path, Tensor, Tensor]:
        """Return the paths below the branch states, the rows whose path is too short, and the calls of P_B it took."""
        depth = draws.role("branch").categorical(self._log_pmf)
        if self.environment.is_graded:
            num_steps = self.environment.depth(states) - depth
            down = self.pair.sample_backward(states, num_steps.clamp(min=0), draws.role("backward"))
            return down, num_steps < self._fewest, down.lengths
        whole = self.pair.sample_backward(states, None, draws.role("backward"))
        down = whole.after(depth)
        down = replace(down, log_backward=self.pair.log_backward(down))
        return down, whole.lengths - depth < self._fewest, whole.lengths + down.lengths

    def _log_branch(self, path: Path) -> Float64[Tensor, " batch"]:
        """Return log b of a path's start, nats; a prefix law cancels and counts as 0."""
        if isinstance(self.branch, PrefixLaw):
            return torch.zeros(len(path.lengths), dtype=torch.float64)
        return log_branch_probability(self._log_pmf, path.lengths, path.reached_source)


def log_hastings_ratio(
    *,
    log_backward_new: Float64[Tensor, " batch"],
    log_backward_old: Float64[Tensor, " batch"],
    log_branch_new: Float64[Tensor, " batch"],
    log_branch_old: Float64[Tensor, " batch"],
    log_forward_new: Float64[Tensor, " batch"],
    log_forward_old: Float64[Tensor, " batch"],
) -> Float64[Tensor, " batch"]:
    """Return log q(x' -> x) - log q(x -> x') on the extended space of objects and paths, nats.

    The move there undoes the old path and builds the new one; the move back undoes the new one and builds the old.

    Args:
        log_backward_new: log P_B(tau_+|x').
        log_backward_old: log P_B(tau_-|x).
        log_branch_new: log b(s|x'), -inf where the law would not have branched there.
        log_branch_old: log b(s|x).
        log_forward_new: log P_F(tau_+|s).
        log_forward_old: log P_F(tau_-|s).
    """
    back = log_backward_new + log_branch_new + log_forward_old
    there = log_backward_old + log_branch_old + log_forward_new
    return back - there
