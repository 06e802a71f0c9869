"""Suffix resampling: take an object partly apart with P_B, rebuild it with P_F, accept so that the chain is exact.

From x: undo actions by P_B down to a branch state s (path tau_-), build x' from s by P_F (path tau_+), accept with
probability min(1, A),

    A = [ R(x') P_B(tau_+|x') b(s|x') P_F(tau_-|s) ] / [ R(x) P_B(tau_-|x) b(s|x) P_F(tau_+|s) ]

with b the branch law. With a fully trained pair and a prefix law, or fixed length, A = 1 always. Derivation, and why
b cannot be left out: docs/explanation/branch-laws.md. Proof by enumeration: tests/exact/.

A batch of chains may share one decision of how far to undo only where each decision alone leaves the target invariant:
then the shared number is ancillary, and given it the chains are independent. That is so where b cancels: under a prefix
law, or fixed length. For a suffix law on objects of different length b is that of the mixture over K, which alone keeps
the target.

Reference: Zhang et al. 2022 (2202.01361), the back-and-forth proposal.
"""

import copy
from dataclasses import replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.numerics import where_rows
from gfnmc.kernels.adaptation import BranchTuning, JumpTally
from gfnmc.kernels.base import Adaptation, Info, Kernel, Reach, State
from gfnmc.kernels.branch import (
    BranchLaw,
    PrefixLaw,
    SuffixLaw,
    Uniform,
    checked_max_depth,
    log_branch_probability,
    preferring,
)
from gfnmc.kernels.metropolis import Proposal
from gfnmc.kernels.pair_kernel import PairKernel
from gfnmc.kernels.pair_memory import PairMemory
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.path import Path
from gfnmc.targets.base import Target

Branching = Literal["independent", "shared"]
SuffixType = TypeVar("SuffixType", bound="SuffixResampling")


class SuffixResampling(PairKernel):
    """The project's kernel.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        target: What to sample.
        branch: Branch law; uniform over all legal numbers of steps back by default.
        branching: "independent": each chain draws from the branch law; "shared": one draw for the whole batch, in which
            then no chain waits for another that undoes more. Legal under a prefix law or fixed length only.

    Attributes:
        tuning: How a warm-up tunes the branch law; `adapting` chooses another way.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need, or a shared decision would not
            leave the target invariant.
        OptionError: If the law does not fit the environment, or `branching` is neither.
    """

    name = "suffix resampling"

    def __init__(
        self,
        pair: ProposalPair,
        target: Target,
        branch: BranchLaw | None = None,
        *,
        branching: Branching = "independent",
    ) -> None:
        super().__init__(pair, target)
        self._max_depth = checked_max_depth(self.environment)
        # Where an object can be extended, undoing nothing and building on is a move of its own.
        self._fewest = 1 if self.environment.exit_action is None else 0
        self.branch = Uniform() if branch is None else branch
        self._log_pmf = self._log_pmf_of(self.branch)
        self.branching = branching
        self._check_branching()
        self.tuning = BranchTuning()
        self._memory = PairMemory()

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

    def adapting(self: SuffixType, tuning: BranchTuning) -> SuffixType:
        """Return the same kernel, to be tuned another way where a warm-up adapts it.

        Raises:
            CapabilityError: If mode switches are wanted and the target knows no modes.
        """
        adapting = copy.copy(self)
        adapting.tuning = tuning
        adapting.adaptation()
        return adapting

    def adaptation(self) -> "BranchAdaptation":
        """Return a warm-up that measures which number of steps back, or depth, moves furthest for its cost."""
        return BranchAdaptation(self)

    def preferring(self: SuffixType, place: int) -> SuffixType:
        """Return the same kernel with a law that mostly takes one number of steps back, or depth.

        The rest, `tuning.floor`, is the law of this kernel, so that the new one reaches whatever this one does.
        """
        made = copy.copy(self)
        made.branch = preferring(self.branch, self._log_pmf, place, self.tuning.floor)
        made._log_pmf = self._log_pmf_of(made.branch)
        return made

    @property
    def num_places(self) -> int:
        """Numbers of steps back, or depths, that a law knows: 0 ... the longest path."""
        return self._max_depth + 1

    def branch_decisions(self, draws: Draws) -> Int64[Tensor, " chains"]:
        """Return the number of steps back, or the depth, that each chain decides on in the step with these draws."""
        draws = draws.role("branch")
        if self.branching == "shared":
            return torch.full((draws.num_rows,), draws.shared_categorical(self._log_pmf))
        return draws.categorical(self._log_pmf)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        states = self.environment.states(position)
        if isinstance(self.branch, PrefixLaw):
            down, is_lazy, undoing_calls = self._prefix_branch(states, draws)
        else:
            down, is_lazy = self._suffix_branch(states, draws), torch.zeros(len(states), dtype=torch.bool)
            undoing_calls = down.lengths
        down = self._memory.with_caches(self.pair, down)
        up = self._rebuilt(down, draws.role("forward"))
        self._memory.keep(self.pair, down, up)
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

    def _rebuilt(self, down: Path, draws: Draws) -> Path:
        if down.start_cache is None:
            return self.pair.sample_forward(down.start, draws)
        assert isinstance(self.pair, GFlowNet)
        return self.pair.sample_forward(down.start, draws, down.start_cache)

    def _suffix_branch(self, states: Tensor, draws: Draws) -> Path:
        return self.pair.sample_backward(states, self.branch_decisions(draws), draws.role("backward"))

    def _prefix_branch(self, states: Tensor, draws: Draws) -> tuple[Path, Tensor, Tensor]:
        """Return the paths below the branch states, the rows whose path is too short, and the calls of P_B it took."""
        depth = self.branch_decisions(draws)
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

    def _log_pmf_of(self, law: BranchLaw) -> Float64[Tensor, " depths"]:
        if isinstance(law, SuffixLaw):
            return law.log_pmf(self._fewest, self._max_depth)
        return law.log_pmf(self._max_depth)

    def _check_branching(self) -> None:
        if self.branching not in ("independent", "shared"):
            raise OptionError(f"branching is {self.branching!r}; choose 'independent' or 'shared'")
        if self.branching == "shared" and isinstance(self.branch, SuffixLaw) and not self.environment.is_fixed_length:
            raise CapabilityError(
                f"the objects of {type(self.environment).__name__} differ in length, and then no single number of "
                "steps back of a suffix law leaves the target invariant, only all of them together, and chains with a "
                "shared decision would be correlated; let each chain decide (branching='independent'), or use a prefix "
                "law"
            )


class BranchAdaptation(Adaptation):
    """Steps of suffix resampling under its own law, each a measurement of what its decision was worth.

    Where a suffix law meets objects of different length, what it is worth to undo k actions depends on the rest of the
    law, through b, so there the choice is a good guess and no optimum.

    Args:
        kernel: What to tune, as its `tuning` says.

    Raises:
        CapabilityError: If mode switches are wanted and the target knows no modes.
    """

    def __init__(self, kernel: SuffixResampling) -> None:
        self.kernel = kernel
        self.tally = JumpTally(kernel.target, kernel.num_places, kernel.tuning)
        self._suffix = kernel

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        moved, info = self._suffix.step(draws, state)
        # A role begins anew each time it is asked for, so these are the decisions that the step made.
        self.tally.add(self._suffix.branch_decisions(draws), state.position, info)
        return moved, info

    def frozen(self) -> Kernel:
        place = self.tally.best()
        return self._suffix if place is None else self._suffix.preferring(place)


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
