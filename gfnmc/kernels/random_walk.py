"""Random-walk Metropolis: one natural single change of the object, drawn uniformly from those that apply.

With n(x) changes applying to x, log q(x' -> x) - log q(x -> x') = log n(x) - log n(x').

Reference: Metropolis et al. 1953, "Equation of state calculations by fast computing machines".
"""

import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import DiscreteEnvironment, uniform_log_probs
from gfnmc.kernels.base import Reach
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal
from gfnmc.policies.uniform import uniformly_built
from gfnmc.targets.base import Target


class RandomWalk(MetropolisKernel):
    """The baseline, and the local part of the recommended cycle.

    Where objects assign values to sites, and the target says which sites interact, `ChromaticMetropolis` changes all of
    them in a step, at a fraction of the time.

    Args:
        environment: Says what a single change is.
        target: What to sample.

    Raises:
        CapabilityError: If the environment has no single changes.
    """

    name = "random walk"

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        self.environment = environment
        self.target = target
        self.num_changes = environment.num_changes

    def start(self, draws: Draws) -> Tensor:
        return uniformly_built(self.environment, draws)

    @property
    def reach(self) -> Reach:
        return Reach.CONNECTED if self.environment.changes_connect else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        # On a flat target every move is accepted.
        return False

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        mask = self.environment.change_mask(position)
        has_change = mask.any(-1)
        changes = draws.role("change").categorical(uniform_log_probs(mask), has_change)
        changed = self.environment.change(position, changes)
        num_back = self.environment.change_mask(changed).sum(-1).to(torch.float64)
        log_hastings = mask.sum(-1).to(torch.float64).log() - num_back.log()
        zero = torch.zeros_like(changes)
        return Proposal(
            position=where_rows(has_change, changed, position),
            log_hastings=torch.where(has_change, log_hastings, 0.0),
            is_lazy=~has_change,
            num_back_steps=zero,
            num_forward_steps=zero,
            policy_calls=zero,
        )
