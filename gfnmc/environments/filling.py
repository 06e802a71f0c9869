"""In which order positions are filled with values, where that is no choice of the policy.

A state holds the index of the value at each position, and `blank` where there is none yet. The order is one for all
objects, so that each has a single path, or every open position is the next one with equal probability. Then the
backward law that fits leaves no choice, or is uniform over the positions that hold a value.

Whatever the values are, the positions can be drawn for a whole walk before its first value: `ahead`. A walk step by
step makes the same decisions of the same numbers (`next`).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Ahead, Draws


class Order(NamedTuple):
    """The positions of a walk, one after the other; anything beyond a row's last.

    Attributes:
        positions: Which position each action fills, or undoing it empties.
        log_probs: The log-probability of each of these choices, nats; 0 beyond a row's last.
    """

    positions: Int64[Tensor, "length batch"]
    log_probs: Float64[Tensor, "length batch"]


class Filling(ABC):
    """How positions follow each other.

    Attributes:
        num_decisions: Random decisions about the position that an action takes.

    Args:
        num_positions: Positions of an object.
        blank: What a state holds where no value is yet.
    """

    num_decisions: int

    def __init__(self, num_positions: int, blank: int) -> None:
        self.num_positions = num_positions
        self.blank = blank

    @abstractmethod
    def next(
        self, states: Shaped[Tensor, "batch positions"], draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """Return the position that is filled next, and the log-probability of that choice, nats."""

    @abstractmethod
    def ahead(
        self, states: Shaped[Tensor, "batch positions"], num_open: Int64[Tensor, " batch"], decisions: Ahead, every: int
    ) -> Order:
        """Return the order in which all open positions are filled.

        Args:
            states: Where the walks start.
            num_open: Their open positions.
            decisions: Where the decisions come from.
            every: The decisions about positions are 0, every, 2 every, ...
        """

    @abstractmethod
    def undone_ahead(self, num_steps: Int64[Tensor, " batch"], decisions: Ahead) -> Order:
        """Return the order in which finished objects lose their last `num_steps` values, under the law that fits."""

    @abstractmethod
    def log_choice(self, num_left: Int64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """Return the log-probability of a position that is filled or emptied as one of `num_left`, nats."""

    def num_open(self, states: Shaped[Tensor, "batch positions"]) -> Int64[Tensor, " batch"]:
        """Return the number of open positions of each state."""
        return (states == self.blank).sum(-1)


class FixedFilling(Filling):
    """One order for all objects.

    Args:
        site_order: The positions in that order.
        blank: What a state holds where no value is yet.
    """

    num_decisions = 0

    def __init__(self, site_order: Int64[Tensor, " positions"], blank: int) -> None:
        super().__init__(len(site_order), blank)
        self._order = site_order

    def next(self, states: Tensor, draws: Draws, active: Tensor) -> tuple[Tensor, Tensor]:
        depth = (self.num_positions - self.num_open(states)).clamp(max=self.num_positions - 1)
        return self._at(depth), torch.zeros(len(depth), dtype=torch.float64, device=states.device)

    def ahead(self, states: Tensor, num_open: Tensor, decisions: Ahead, every: int) -> Order:
        place = torch.arange(_longest(num_open), device=num_open.device)[:, None]
        return self._certain(self.num_positions - num_open + place)

    def undone_ahead(self, num_steps: Tensor, decisions: Ahead) -> Order:
        place = torch.arange(_longest(num_steps), device=num_steps.device)[:, None]
        return self._certain((self.num_positions - 1 - place).expand(-1, len(num_steps)))

    def log_choice(self, num_left: Tensor) -> Tensor:
        return torch.zeros(num_left.shape, dtype=torch.float64, device=num_left.device)

    def _certain(self, depth: Int64[Tensor, "length batch"]) -> Order:
        positions = self._at(depth.clamp(max=self.num_positions - 1))
        return Order(positions, torch.zeros(depth.shape, dtype=torch.float64, device=depth.device))

    def _at(self, depth: Int64[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
        return self._order.to(depth.device)[depth]


class UniformFilling(Filling):
    """Every open position is the next one with equal probability, and every filled one the next to be emptied.

    A decision is a number j below the number of positions to choose from, and chooses the j-th of them.
    """

    num_decisions = 1

    def next(self, states: Tensor, draws: Draws, active: Tensor) -> tuple[Tensor, Tensor]:
        is_open = states == self.blank
        count = is_open.cumsum(-1)
        num_open = count[:, -1]
        chosen = draws.integers(num_open.clamp(min=1), active)
        position = torch.searchsorted(count, chosen[:, None], right=True)[:, 0].clamp(max=self.num_positions - 1)
        return position, self.log_choice(num_open)

    def ahead(self, states: Tensor, num_open: Tensor, decisions: Ahead, every: int) -> Order:
        chosen, log_probs = self._choices(num_open, num_open, decisions, every)
        if len(chosen) == self.num_positions and bool((num_open == self.num_positions).all()):
            return Order(chosen, log_probs)
        position = (states == self.blank).nonzero()[:, 1]
        first = num_open.cumsum(0) - num_open
        # By rank among the open ones; a rank beyond a row's last may say anything.
        place = (first + chosen).clamp(max=max(len(position) - 1, 0))
        return Order(position[place] if len(position) else chosen, log_probs)

    def undone_ahead(self, num_steps: Tensor, decisions: Ahead) -> Order:
        return Order(*self._choices(num_steps, torch.full_like(num_steps, self.num_positions), decisions, 1))

    def log_choice(self, num_left: Tensor) -> Tensor:
        return -num_left.to(torch.float64).log()

    def _choices(
        self, num_steps: Int64[Tensor, " batch"], num_left: Int64[Tensor, " batch"], decisions: Ahead, every: int
    ) -> tuple[Int64[Tensor, "length batch"], Float64[Tensor, "length batch"]]:
        """Draw without replacement, and return the ranks among all that there were, and the choices' log-probabilities.

        Args:
            num_steps: Choices of each row.
            num_left: What there is to choose from at first.
            decisions: Where the decisions come from.
            every: They are 0, every, 2 every, ...
        """
        length = _longest(num_steps)
        place = torch.arange(length, device=num_steps.device)[:, None]
        highs = torch.where(place < num_steps, num_left - place, 0)
        ranks = _distinct(decisions.integers(range(0, every * length, every), highs))
        return ranks, torch.where(highs > 0, self.log_choice(highs), 0.0)


def _distinct(among_left: Int64[Tensor, "length batch"]) -> Int64[Tensor, "length batch"]:
    """Turn "the j-th of those that are left" into ranks among all: the inverse of a Lehmer code."""
    # NumPy starts an operation on a few numbers in a third of torch's time.
    ranks = among_left.to(torch.int32).cpu().numpy()
    for place in range(len(ranks) - 2, -1, -1):
        later = ranks[place + 1 :]
        later += later >= ranks[place]
    return torch.from_numpy(ranks).to(among_left)


def _longest(num_steps: Int64[Tensor, " batch"]) -> int:
    return int(num_steps.max()) if len(num_steps) else 0
