"""A pair as a move of emcee: `moves=[(GFlowNetMove(pair), 0.8), (another, 0.2)]`.

emcee adds the `factors` of a move to the change of the log-density, and they are log q(x' -> x) - log q(x -> x'). All
walkers move at once, in one batch. Random numbers come from the sampler's own generator, which a backend stores with
the walkers, so a run that is interrupted and goes on equals one that was not.

Reference: Foreman-Mackey et al. 2013 (1202.3665).
"""

from collections.abc import Sequence

import numpy as np
from emcee.moves import MHMove
from numpy.typing import NDArray

from gfnmc.integrations.proposals import HasBytes, PairProposals, seed_from
from gfnmc.kernels.branch import BranchLaw
from gfnmc.policies.pair import ProposalPair


class GFlowNetMove(MHMove):
    """Undo a part of each walker's object and rebuild it.

    emcee compares starting walkers as if their coordinates were real numbers and refuses discrete ones; run with
    `skip_initial_state_check=True`.

    Args:
        pair: P_F and P_B.
        branch: How much is undone; uniform over all legal numbers of actions by default.
        columns: The coordinates that are the pair's objects, flattened; all by default. The others stay as they are.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment.
    """

    def __init__(
        self, pair: ProposalPair, branch: BranchLaw | None = None, *, columns: Sequence[int] | None = None
    ) -> None:
        self.proposals = PairProposals(pair, branch)
        self.columns = None if columns is None else list(columns)
        # Not `self.propose`: emcee calls a method of that name for the whole step.
        super().__init__(self.proposal)

    def start(self, num_walkers: int, seed: int = 0) -> NDArray[np.float64]:
        """Return objects drawn by P_F for walkers to start from, `(walkers, numbers of an object)`."""
        return self.proposals.start_rows(num_walkers, seed)

    def proposal(self, coords: NDArray, random: HasBytes) -> tuple[NDArray, NDArray[np.float64]]:
        """Return where each walker should go, and the factors, nats.

        Args:
            coords: Walkers, `(walkers, coordinates)`.
            random: The sampler's generator.

        Raises:
            ObjectError: If a walker is no object of the pair: another move has left the space.
            PolicyError: If the probability of a proposal is NaN.
        """
        seed = seed_from(random)
        if self.columns is None:
            return self.proposals.propose_rows(coords, seed)
        proposed = coords.copy()
        proposed[:, self.columns], factors = self.proposals.propose_rows(coords[:, self.columns], seed)
        return proposed, factors
