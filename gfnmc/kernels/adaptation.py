"""Which branch to prefer: what moves of each kind bring for what they cost, measured in a warm-up.

A kind of move is a number of steps back, or a depth. With J_k the expected squared jump (or the probability of
another mode) of a move of kind k and C_k its counted cost, a law p of kinds brings, for each unit of cost,

    sum_k p_k J_k / sum_k p_k C_k

over p a linear-fractional programme: its maximum is at a corner of the simplex, a single kind. So it is where the new
law keeps a share f of the law p0 of the warm-up and is f p0 + (1 - f) p; the kind to take then has the largest

    (f J + (1 - f) J_k) / (f C + (1 - f) C_k),   J = sum_k p0_k J_k,   C = sum_k p0_k C_k

Jumps are weighted by the acceptance rate, not counted when accepted: the same mean, less noise. Costs are counted, not
timed, so that a seed repeats. Any law leaves the target invariant, so errors of the measurement cost speed only.

References: Pasarica and Gelman 2010, "Adaptively scaling the Metropolis algorithm using expected squared jumped
distance"; Charnes and Cooper 1962, "Programming with linear fractional functionals".
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.kernels.base import Adaptation, Info, Kernel, State
from gfnmc.targets.base import Target

Objective = Literal["squared_jump", "mode_switches"]


@dataclass(frozen=True)
class BranchTuning:
    """How a warm-up chooses a branch law.

    Attributes:
        objective: What to have most of for the cost. "squared_jump": the squared change of the target's statistics,
            each divided by its variance over the warm-up, and added; where the target has none, the number of sites
            that change. "mode_switches": moves from one of the target's modes into another.
        floor: Share of the original law that the new one keeps, so that it reaches whatever that reached.
        target_cost: What a target call costs.
        policy_cost: What an evaluation of P_F or P_B costs, in the same unit.
        min_tries: Moves of a kind, in all chains together, below which it is not chosen.

    Raises:
        OptionError: If a value cannot work.
    """

    objective: Objective = "squared_jump"
    floor: float = 0.2
    target_cost: float = 1.0
    policy_cost: float = 0.1
    min_tries: int = 30

    def __post_init__(self) -> None:
        if self.objective not in ("squared_jump", "mode_switches"):
            raise OptionError(f"objective is {self.objective!r}; choose 'squared_jump' or 'mode_switches'")
        if not 0.0 < self.floor < 1.0:
            raise OptionError(f"floor is {self.floor}; it must lie between 0 and 1, or the kernel may lose its reach")
        if not 0.0 < self.target_cost < float("inf") or not 0.0 <= self.policy_cost < float("inf"):
            raise OptionError(
                f"costs of {self.target_cost} a target call and {self.policy_cost} a policy call; the first must be "
                "positive, the second not negative, both finite"
            )
        if self.min_tries < 1:
            raise OptionError(f"min_tries is {self.min_tries}; it must be at least 1")


class JumpTally:
    """What moves of each kind brought and cost so far.

    Args:
        target: Says which jumps count.
        num_kinds: Kinds of moves, numbered from 0.
        tuning: What is wanted.

    Raises:
        CapabilityError: If mode switches are wanted of a target that knows no modes.
    """

    def __init__(self, target: Target, num_kinds: int, tuning: BranchTuning) -> None:
        if tuning.objective == "mode_switches" and target.modes() is None:
            raise CapabilityError(
                f"{target.name} knows no modes, so there are no switches to count; implement `modes`, or choose the "
                "objective 'squared_jump'"
            )
        self.tuning = tuning
        self._target = target
        self._tries = torch.zeros(num_kinds, dtype=torch.float64)
        self._cost = torch.zeros(num_kinds, dtype=torch.float64)
        # One row a quantity; there are as many as the first moves show.
        self._jump = torch.zeros(1, num_kinds, dtype=torch.float64)
        self._spread = _Spread()

    def add(self, kinds: Int64[Tensor, " chains"], before: Shaped[Tensor, "chains *event"], info: Info) -> None:
        """Count one move a chain.

        Args:
            kinds: Kind of each move.
            before: Objects before it.
            info: What happened.
        """
        tuning = self.tuning
        # An object that is never accepted may be one that statistics are not made for.
        rows = (info.acceptance_rate > 0.0).nonzero()[:, 0]
        jump = self._squared_jumps(before, rows, info.proposal[rows]) * info.acceptance_rate[rows]
        # In float64: a number times integers would be float32.
        target_calls, policy_calls = info.target_calls.to(torch.float64), info.policy_calls.to(torch.float64)
        cost = tuning.target_cost * target_calls + tuning.policy_cost * policy_calls
        self._jump = self._jump + self._jump.new_zeros(len(jump), len(self._tries)).index_add_(1, kinds[rows], jump)
        self._cost.index_add_(0, kinds, cost)
        self._tries.index_add_(0, kinds, torch.ones_like(info.acceptance_rate))

    def means(self) -> tuple[Float64[Tensor, " kinds"], Float64[Tensor, " kinds"]]:
        """Return the mean jump and the mean cost of moves of each kind; NaN where there were none."""
        return self._scaled_jump() / self._tries, self._cost / self._tries

    def best(self) -> int | None:
        """Return the kind to prefer, of equals the smallest; None where no move jumped, or too few were made."""
        floor = self.tuning.floor
        total, (jump, cost) = self._scaled_jump().sum(), self.means()
        known = (self._tries >= self.tuning.min_tries).nonzero()[:, 0].tolist()
        if not known or total == 0.0:
            return None
        num_moves = self._tries.sum()
        brings = floor * total / num_moves + (1.0 - floor) * jump
        costs = floor * self._cost.sum() / num_moves + (1.0 - floor) * cost
        return max(known, key=lambda kind: (float(brings[kind] / costs[kind]), -kind))

    def _scaled_jump(self) -> Float64[Tensor, " kinds"]:
        precision = self._spread.precision()[:, None]
        # A statistic that is not finite somewhere has no variance, and does not count.
        return torch.where(precision > 0.0, self._jump * precision, 0.0).sum(0)

    def _squared_jumps(self, before: Tensor, rows: Int64[Tensor, " some"], after: Tensor) -> Float64[Tensor, "q some"]:
        """Return the squared change of each quantity in some rows."""
        start = before[rows]
        if self.tuning.objective == "mode_switches":
            modes = self._target.modes()
            assert modes is not None
            old, new = modes.assign(start), modes.assign(after)
            return ((old != new) & (old >= 0) & (new >= 0)).to(torch.float64)[None]
        named = self._target.statistics(torch.cat([before, after]))
        if not named:
            return (start != after).flatten(1).sum(1).to(torch.float64)[None]
        values = torch.stack([value.to(torch.float64) for value in named.values()])
        here, there = values.split([len(before), len(after)], 1)
        self._spread.add(here)
        return (there - here[:, rows]).square()


class _Spread:
    """The variance of quantities so far, taken from the first value, so that it is exactly 0 of a constant."""

    def __init__(self) -> None:
        self._origin: Tensor | None = None
        self._count = 0
        self._sums = torch.zeros(2, 1, dtype=torch.float64)

    def add(self, values: Float64[Tensor, "quantities chains"]) -> None:
        if self._origin is None:
            self._origin = values[:, :1]
        shifted = values - self._origin
        self._sums = self._sums + torch.stack([shifted.sum(1), shifted.square().sum(1)])
        self._count += values.shape[1]

    def precision(self) -> Float64[Tensor, " quantities"]:
        """Return one over the variance, 0 for what did not vary; 1 where nothing was added."""
        if self._origin is None:
            return torch.ones(1, dtype=torch.float64)
        mean, square = self._sums / self._count
        variance = square - mean.square()
        return torch.where(variance > 0.0, 1.0 / variance, 0.0)


class Unadapted(Adaptation):
    """The warm-up of a kernel with nothing to tune, as a part of others that have.

    Args:
        kernel: What makes every step.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        return self.kernel.step(draws, state)

    def frozen(self) -> Kernel:
        return self.kernel
