"""What is kept of each step while chains run: the draws of one phase that are not yet in a file."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.kernels.base import Info, Kernel, State
from gfnmc.sampling.chains import Record


class Mark(NamedTuple):
    """Where a run stood when a draw was kept: what the steps after it begin with.

    Attributes:
        state: Of the kernel.
        step: Steps made.
        cost: What they cost, with the seconds so far.
        kernel: What makes the next step; None in a warm-up that adapts, which can only begin again.
    """

    state: State
    step: int
    cost: Cost
    kernel: Kernel | None


class _Draw(NamedTuple):
    """One draw of every chain; in one piece, so that an interruption never keeps a part of it."""

    position: Shaped[Tensor, "chains *event"]
    log_prob: Tensor
    stats: dict[str, Tensor]
    seconds: float


class _Held(NamedTuple):
    """The draws that are here, and how many come before them; in one piece for the same reason."""

    first: int
    draws: list[_Draw]


class Recorder:
    """Collects the draws of one phase.

    Args:
        num_chains: Chains.
        first: Draws of the phase that are kept elsewhere.
    """

    def __init__(self, num_chains: int, first: int = 0) -> None:
        self._num_chains = num_chains
        self._held = _Held(first, [])
        self._counts: dict[str, Tensor] = {}
        # With the number of draws that it stands after.
        self._marked: tuple[int, Mark | None] = (first, None)

    @property
    def first(self) -> int:
        """Draws a chain that are kept elsewhere; those that are here come after them."""
        return self._held.first

    @property
    def num_here(self) -> int:
        """Draws a chain that are kept here."""
        return len(self._held.draws)

    @property
    def num_draws(self) -> int:
        """Draws a chain, those kept elsewhere included."""
        return self.first + self.num_here

    @property
    def mark(self) -> Mark | None:
        """Where the run stood at the last draw; None before the first that was made here."""
        return self._marked[1]

    def count(self, info: Info, others: Mapping[str, Int64[Tensor, " chains"]]) -> None:
        """Add up what is counted over the steps since the draw before: the calls, and others by name."""
        counted = {"target_calls": info.target_calls, "policy_calls": info.policy_calls, **others}
        zero = torch.zeros(self._num_chains, dtype=torch.int64)
        self._counts = {name: self._counts.get(name, zero) + value for name, value in counted.items()}

    def keep(self, info: Info, mark: Mark) -> None:
        """Keep where the chains are."""
        stats = _stats(info) | self._counts
        self._held.draws.append(_Draw(mark.state.position, mark.state.log_prob, stats, mark.cost.seconds))
        self._marked = (self.num_draws, mark)
        self._counts = {}

    def settle(self) -> None:
        """After an interruption: keep the draws whose mark was set as well."""
        del self._held.draws[self._marked[0] - self.first :]

    def take_back(self, record: Record) -> None:
        """Begin with draws that were kept before."""
        for draw in range(record.log_prob.shape[1]):
            stats = {name: value[:, draw] for name, value in record.stats.items()}
            seconds = float(record.seconds[draw])
            self._held.draws.append(_Draw(record.position[:, draw], record.log_prob[:, draw], stats, seconds))
        self._marked = (self.num_draws, None)

    def clear(self) -> None:
        """Forget the draws, which are kept elsewhere now."""
        self._held = _Held(self.num_draws, [])

    def record(self, empty: Tensor) -> Record:
        """Return the draws that are kept here; `empty` gives the shape and dtype of a draw where there is none."""
        draws = self._held.draws
        if not draws:
            nothing = torch.empty(self._num_chains, 0, dtype=torch.float64)
            return Record(empty[:, None][:, :0], nothing, {}, torch.empty(0, dtype=torch.float64))
        stats = {name: torch.stack([draw.stats[name] for draw in draws], 1) for name in draws[0].stats}
        return Record(
            torch.stack([draw.position for draw in draws], 1),
            torch.stack([draw.log_prob for draw in draws], 1),
            stats,
            torch.tensor([draw.seconds for draw in draws], dtype=torch.float64),
        )


def _stats(info: Info) -> dict[str, Any]:
    """Return what is kept of a step, under the names that ArviZ users expect."""
    stats = {
        "accepted": info.is_accepted,
        "acceptance_rate": info.acceptance_rate,
        "log_ratio": info.log_ratio,
        "num_back_steps": info.num_back_steps.to(torch.int32),
        "num_forward_steps": info.num_forward_steps.to(torch.int32),
        "reason": info.reason,
    }
    for name, part in info.parts.items():
        stats[f"acceptance_rate[{name}]"] = part.acceptance_rate
        stats[f"reason[{name}]"] = part.reason
    return stats | dict(info.extras)
