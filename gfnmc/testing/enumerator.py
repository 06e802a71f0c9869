"""Follow every random decision of a production kernel to its end, and write down its transition matrix.

`ScriptedDraws` takes the place of random numbers. Each row of the batch follows a script, the list of its outcomes so
far. A row that outruns its script reports the probabilities that it met; then its script is extended by each
outcome of positive probability, and the same production code runs again, until every script is complete. That takes
about as many runs as a step has decisions, and no line of the kernel is written twice.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, ObjectError
from gfnmc.core.lookup import RowIndex
from gfnmc.kernels.base import Kernel

MAX_ROWS = 2**21
"""Most sequences of decisions that are followed side by side, unless told otherwise."""


class TooManyDecisionsError(CapabilityError):
    """A step has more sequences of decisions than can be followed."""


class _SharedDecisionNeeded(Exception):
    """A decision for all rows together has outrun the shared script."""

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__()
        self.log_probs = log_probs


class ScriptedDraws(Draws):
    """Draws that follow scripts instead of numbers.

    Args:
        scripts: Outcomes a row, `(rows, longest)` int64.
        lengths: How many of them each row has.
        shared: Outcomes of the decisions that all rows share.
    """

    def __init__(self, scripts: Int64[Tensor, "rows longest"], lengths: Int64[Tensor, " rows"], shared: list[int]):
        self._scripts = scripts
        self._lengths = lengths
        self._shared = shared
        self._shared_used = 0
        self._used = torch.zeros_like(lengths)
        self.log_weight = torch.zeros(len(lengths), dtype=torch.float64)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._has_outrun = torch.zeros(len(lengths), dtype=torch.bool)

    @property
    def num_rows(self) -> int:
        return len(self._lengths)

    def role(self, name: str) -> "ScriptedDraws":
        return self

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        if log_probs.dim() == 1:
            log_probs = log_probs.expand(self.num_rows, -1)
        if active is None:
            active = torch.ones(self.num_rows, dtype=torch.bool)
        scripted = active & (self._used < self._lengths)
        outruns = (active & ~scripted & ~self._has_outrun).nonzero()[:, 0]
        if len(outruns):
            self._pending.append((outruns, log_probs[outruns]))
        self._has_outrun |= active & ~scripted
        # A row that has outrun its script goes on with any possible outcome; the run only measures the decision.
        place = self._used.clamp(max=self._scripts.shape[1] - 1)
        outcome = torch.where(scripted, self._scripts.gather(1, place[:, None])[:, 0], log_probs.argmax(-1))
        chosen = log_probs.gather(1, outcome[:, None])[:, 0]
        self.log_weight = torch.where(scripted, self.log_weight + chosen, self.log_weight)
        self._used = self._used + scripted.to(torch.int64)
        return torch.where(active, outcome, 0)

    def pending(self) -> tuple[Int64[Tensor, " pending"], Float64[Tensor, "pending outcomes"]]:
        """Return the rows that have outrun their scripts, and the log-probabilities that each met there, in nats."""
        if not self._pending:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.float64)
        width = max(laws.shape[1] for _, laws in self._pending)
        padded = [
            torch.nn.functional.pad(laws, (0, width - laws.shape[1]), value=-torch.inf) for _, laws in self._pending
        ]
        rows, order = torch.cat([rows for rows, _ in self._pending]).sort()
        return rows, torch.cat(padded)[order]

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self.categorical(torch.stack([torch.log1p(-log_probs.exp()), log_probs], -1), active) == 1

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        both = torch.stack([-logits, logits], -1).to(torch.float64)
        return self.categorical(torch.nn.functional.logsigmoid(both), active) == 1

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        allowed = torch.arange(int(highs.max())) < highs[:, None]
        return self.categorical(torch.where(allowed, -highs.to(torch.float64).log()[:, None], -torch.inf), active)

    def permutation(self, length: int) -> Tensor:
        orders = torch.tensor(list(itertools.permutations(range(length))), dtype=torch.int64)
        uniform = torch.full((len(orders),), -float(torch.tensor(float(len(orders))).log()), dtype=torch.float64)
        return orders[self.categorical(uniform)]

    def shared_categorical(self, log_probs: Tensor) -> int:
        if self._shared_used == len(self._shared):
            raise _SharedDecisionNeeded(log_probs)
        outcome = self._shared[self._shared_used]
        self._shared_used += 1
        self.log_weight = self.log_weight + log_probs[outcome]
        return outcome


@dataclass(frozen=True)
class Enumeration:
    """Every way a batch of rows may go.

    Attributes:
        row: Which row of the question each outcome belongs to.
        weight: Its probability.
        result: What the function returned for it, row by row.
    """

    row: Int64[Tensor, " outcomes"]
    weight: Float64[Tensor, " outcomes"]
    result: Tensor


def enumerate_decisions(
    fn: Callable[[Draws, Int64[Tensor, " rows"]], Tensor], num_rows: int, *, max_rows: int = MAX_ROWS
) -> Enumeration:
    """Run a function under every sequence of its random decisions.

    Args:
        fn: Called with draws and, for each of their rows, the row of the question it stands for; returns a tensor
            with the answers, row by row. It must decide by these draws only.
        num_rows: Rows of the question.
        max_rows: Most sequences to follow side by side.

    Raises:
        TooManyDecisionsError: If there are more sequences than `max_rows`; it is a CapabilityError.
    """
    outcomes = [piece for shared in _shared_scripts(fn) for piece in _follow(fn, num_rows, shared, max_rows)]
    rows, weights, results = zip(*outcomes, strict=True)
    return Enumeration(torch.cat(rows), torch.cat(weights), torch.cat(results))


def transition_matrix(
    kernel: Kernel, objects: Tensor, *, max_rows: int = MAX_ROWS
) -> Float64[Tensor, "objects objects"]:
    """Return the probability of going from each object to each other in one production step of a kernel.

    Args:
        kernel: Any kernel of a small space, whose next step depends on the object alone.
        objects: Every object with positive density, once.
        max_rows: Most sequences of decisions to follow side by side.

    Raises:
        TooManyDecisionsError: If there are more sequences of decisions than `max_rows`.
        CapabilityError: If the target is noisy, so that the next step depends on the estimate too; enumerate both
            with `move_matrix`.
    """

    def end_positions(draws: Draws, rows: Tensor) -> Tensor:
        state, _ = kernel.step(draws, kernel.init(objects[rows]))
        return state.position

    return move_matrix(end_positions, objects, max_rows=max_rows)


def move_matrix(
    move: Callable[[Draws, Int64[Tensor, " rows"]], Tensor],
    points: Shaped[Tensor, "points *point"],
    *,
    max_rows: int = MAX_ROWS,
) -> Float64[Tensor, "points points"]:
    """Return the probability of going from each point to each other by any move, such as a step of joint replicas.

    Args:
        move: Called with draws and, for each of their rows, the place in `points` that it starts from; returns where
            the rows end, as points. It must decide by these draws only.
        points: Every point of the space, once, as rows of integers.
        max_rows: Most sequences of decisions to follow side by side.

    Raises:
        TooManyDecisionsError: If there are more sequences of decisions than `max_rows`.
        ObjectError: If a move ends outside the points.
    """
    found = enumerate_decisions(move, len(points), max_rows=max_rows)
    place = RowIndex(points).find(found.result)
    if (place < 0).any():
        raise ObjectError(f"a move ends at {found.result[place < 0][0].tolist()}, which is not among the points")
    matrix = torch.zeros(len(points), len(points), dtype=torch.float64)
    matrix.index_put_((found.row, place), found.weight, accumulate=True)
    return matrix


def _shared_scripts(fn: Callable[[Draws, Tensor], Tensor]) -> Iterator[list[int]]:
    """Yield every script of the decisions that all rows share, found by running a single row."""
    open_scripts: list[list[int]] = [[]]
    while open_scripts:
        shared = open_scripts.pop()
        probe = ScriptedDraws(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), shared)
        try:
            fn(probe, torch.zeros(1, dtype=torch.int64))
        except _SharedDecisionNeeded as needed:
            open_scripts += [[*shared, int(outcome)] for outcome in (needed.log_probs > -torch.inf).nonzero()[:, 0]]
        else:
            yield shared


def _follow(
    fn: Callable[[Draws, Tensor], Tensor], num_rows: int, shared: list[int], max_rows: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the completed rows of each run."""
    rows = torch.arange(num_rows)
    scripts = torch.zeros(num_rows, 1, dtype=torch.int64)
    lengths = torch.zeros(num_rows, dtype=torch.int64)
    while len(rows):
        if len(rows) > max_rows:
            raise TooManyDecisionsError(f"more than {max_rows} sequences of decisions; enumerate a smaller environment")
        draws = ScriptedDraws(scripts, lengths, shared)
        result = fn(draws, rows)
        pending, laws = draws.pending()
        complete = torch.ones(len(rows), dtype=torch.bool)
        complete[pending] = False
        yield rows[complete], draws.log_weight[complete].exp(), result[complete]
        if not len(pending):
            return
        which, outcome = (laws > -torch.inf).nonzero(as_tuple=True)
        parents = pending[which]
        rows, lengths = rows[parents], lengths[parents] + 1
        scripts = torch.nn.functional.pad(scripts[parents], (0, 1))
        scripts.scatter_(1, lengths[:, None] - 1, outcome[:, None])
