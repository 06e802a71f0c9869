"""The kernel to begin with: large steps of a pair between the modes, then one small step within them.

    Cycle([SuffixResampling(pair, target, half_restarts(environment)), RandomWalk(environment, target)])

Each part leaves the target invariant, so the cycle does. What the parts are good for, in figures:
docs/explanation/branch-laws.md.
"""

from gfnmc.core.errors import CapabilityError
from gfnmc.kernels.base import Kernel, Reach
from gfnmc.kernels.branch import BranchLaw, half_restarts
from gfnmc.kernels.composition import Cycle
from gfnmc.kernels.random_walk import RandomWalk
from gfnmc.kernels.suffix import SuffixResampling
from gfnmc.policies.pair import ProposalPair
from gfnmc.targets.base import Target


def recommended(pair: ProposalPair, target: Target, branch: BranchLaw | None = None) -> Cycle:
    """Return suffix resampling followed by a random walk.

    The cycle reaches every object because suffix resampling restarts from the source now and then, by policies that are
    positive everywhere: whatever the other part does, a step leads anywhere. Under a law that never restarts it is the
    random walk that leads everywhere, one single change after the other, on a space that single changes connect; that
    takes a first part that may stay where it is, as it may with policies that are positive everywhere. A random walk
    itself is no such part, since on a flat target it always moves.

    Where the environment has no single changes there is no random walk, and suffix resampling is all of the cycle.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        target: What to sample.
        branch: Branch law; by default `half_restarts`, which restarts in half of the moves.

    Raises:
        CapabilityError: If the environment has no `max_depth`; or if it has no single changes, and suffix resampling
            alone is not known to reach everything.
        OptionError: If the law does not fit the environment.
    """
    environment = pair.environment
    large = SuffixResampling(pair, target, half_restarts(environment) if branch is None else branch)
    parts: list[Kernel] = [large]
    try:
        parts.append(RandomWalk(environment, target))
    except CapabilityError as error:
        if large.reach is Reach.PARTIAL:
            error.add_note(f"{large.name} alone is not known to reach every object under {large.branch}")
            raise
    return Cycle(parts)
