"""Proposals of a pair for samplers that hold the density themselves.

Frameworks want one thing of a proposal: where to go, and

    log_ratio = log q(x' -> x) - log q(x -> x'),

to be added to the change of their log-density. Here it is the ratio of suffix resampling, on the extended space of
objects and paths, and it fits every framework that asks for a ratio. One that asks for the density q(x'|x) itself can
not be served: a path has a probability, the move from x to x' over all paths has none that could be computed.

Frameworks keep objects as rows of numbers, often floats, and random numbers in generators of their own. A row that is
no object is refused, never rounded. Each proposal is made by `PhiloxDraws` of a seed that the framework's generator
names, so the framework's own seed repeats a run.

Torch works on one thread while proposals are made. Small networks are fastest so, and a process that was forked after
torch had used its threads hangs as soon as it uses them again.

Reference: Hastings 1970, "Monte Carlo sampling methods using Markov chains and their applications".
"""

import builtins
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError
from gfnmc.core.threads import thread_limit
from gfnmc.kernels.branch import BranchLaw
from gfnmc.kernels.suffix import SuffixResampling
from gfnmc.policies.pair import ProposalPair
from gfnmc.targets.base import Target


@runtime_checkable
class HasBytes(Protocol):
    """A source of random bytes, such as a generator of NumPy, of the old kind or the new."""

    def bytes(self, length: int, /) -> builtins.bytes: ...


class PairProposals:
    """Proposals by undoing a part of an object and rebuilding it.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        branch: How much is undone; uniform over all legal numbers of actions by default.

    Attributes:
        event_shape: Shape of an object.
        dtype: Its dtype.
        num_entries: Numbers in a row.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need.
        OptionError: If the law does not fit the environment.
    """

    def __init__(self, pair: ProposalPair, branch: BranchLaw | None = None) -> None:
        self._kernel = SuffixResampling(pair, _HeldElsewhere(), branch)
        example = self.start(1, seed=0)
        self.event_shape = tuple(example.shape[1:])
        self.dtype = example.dtype
        self.num_entries = math.prod(self.event_shape)

    def draws(self, seed: int, num_rows: int) -> Draws:
        """Return the decisions of one proposal of each row."""
        return PhiloxDraws(seed, "proposal", num_rows)

    @torch.no_grad()
    def start(self, num_rows: int, seed: int) -> Shaped[Tensor, "rows *event"]:
        """Return objects drawn by P_F, to start chains from."""
        with thread_limit(1):
            return self._kernel.start(self.draws(seed, num_rows).role("start"))

    def start_rows(self, num_rows: int, seed: int) -> NDArray[np.float64]:
        """Return objects drawn by P_F as rows of numbers, `(rows, num_entries)`."""
        return self.start(num_rows, seed).flatten(1).numpy().astype(np.float64)

    def propose(
        self, objects: Shaped[Tensor, "rows *event"], draws: Draws
    ) -> tuple[Shaped[Tensor, "rows *event"], Float64[Tensor, " rows"]]:
        """Return where to go, and log q(x' -> x) - log q(x -> x') in nats; -inf where there is no way back.

        Args:
            objects: Where the chains are.
            draws: A row of decisions for each.

        Raises:
            ObjectError: If an object is not the environment's.
            PolicyError: If the probability of a proposal is NaN.
        """
        with thread_limit(1):
            return self._kernel.propose(objects, draws)

    def propose_rows(self, rows: NDArray, seed: int) -> tuple[NDArray, NDArray[np.float64]]:
        """Return `propose` for rows of numbers.

        Args:
            rows: Objects, `(rows, num_entries)`, of any dtype.
            seed: Names the decisions; another one for each proposal.

        Returns:
            The proposed rows, in the dtype of `rows`, and the log ratio of each, nats.

        Raises:
            ObjectError: If a row is no object.
            PolicyError: If the probability of a proposal is NaN.
        """
        position, log_ratio = self.propose(self.objects(rows), self.draws(seed, len(rows)))
        return position.flatten(1).numpy().astype(rows.dtype), log_ratio.numpy()

    def objects(self, rows: NDArray) -> Shaped[Tensor, "rows *event"]:
        """Return the objects that rows of numbers stand for.

        Raises:
            ObjectError: If a row has the wrong length, or holds a number that objects can not hold.
        """
        if rows.ndim != 2 or rows.shape[1] != self.num_entries:
            raise ObjectError(
                f"the pair's objects are rows of {self.num_entries} numbers and the array has shape {rows.shape}; give "
                "(rows, numbers), and leave out columns that are not the pair's"
            )
        objects = torch.from_numpy(np.ascontiguousarray(rows)).to(self.dtype)
        wrong = (objects.numpy() != rows).any(1)
        if wrong.any():
            row = int(wrong.nonzero()[0][0])
            raise ObjectError(
                f"row {row} is {rows[row].tolist()}, which is no object of the pair; another move has left the space, "
                "so let the other moves change other columns, or only by allowed amounts"
            )
        return objects.reshape(-1, *self.event_shape)


class RowStep(NamedTuple):
    """A Metropolis-Hastings step of one chain.

    Attributes:
        row: Where the chain is afterwards, `(num_entries,)`.
        is_accepted: Whether it moved to the proposal.
        acceptance_rate: min(1, ratio).
        log_ratio: Logarithm of the Metropolis-Hastings ratio, nats.
    """

    row: NDArray
    is_accepted: bool
    acceptance_rate: float
    log_ratio: float


def step_row(
    proposals: PairProposals, row: NDArray, log_prob: Callable[[NDArray], float], generator: HasBytes
) -> RowStep:
    """Move one chain of a sampler that leaves acceptance to its moves.

    The density of the current row is evaluated again, because other moves may have changed what it depends on.

    Args:
        proposals: What proposes.
        row: Where the chain is, `(num_entries,)`.
        log_prob: Log-density of a row given everything else, nats; called once or twice.
        generator: Names the decisions.

    Raises:
        ObjectError: If the row is no object, or has density zero.
        NonFiniteEnergyError: If a log-density is NaN or +inf.
    """
    draws = proposals.draws(seed_from(generator), 1)
    position, log_hastings = proposals.propose(proposals.objects(row[None]), draws)
    proposed = position.flatten().numpy().astype(row.dtype)
    log_ratio = log_hastings
    if log_hastings > -math.inf:
        log_ratio = log_hastings + (_checked(log_prob(proposed), proposed) - _checked_possible(log_prob(row), row))
    with thread_limit(1):
        is_accepted = bool(draws.role("accept").bernoulli(log_ratio.clamp(max=0.0)))
    rate = min(1.0, math.exp(min(0.0, float(log_ratio))))
    return RowStep(proposed if is_accepted else row, is_accepted, rate, float(log_ratio))


def seed_from(generator: HasBytes) -> int:
    """Return a seed of 128 bits from a framework's generator."""
    return int.from_bytes(generator.bytes(16), "little")


def _checked(log_prob: float, row: NDArray) -> float:
    if math.isnan(log_prob) or log_prob == math.inf:
        raise NonFiniteEnergyError(
            f"the model's log-density of {row.tolist()} is {log_prob}; it must be finite, or -inf for the impossible",
            row=0,
            value=log_prob,
        )
    return log_prob


def _checked_possible(log_prob: float, row: NDArray) -> float:
    if log_prob == -math.inf:
        raise ObjectError(f"the chain stands at {row.tolist()}, where the model has density zero; start it elsewhere")
    return _checked(log_prob, row)


class _HeldElsewhere(Target):
    """The density of a framework: nobody asks for it here."""

    name = "a framework's density"
    event_shape = ()
    dtype = torch.int64

    def log_prob(self, x: Tensor) -> Tensor:
        raise CapabilityError("the framework knows the density; here proposals are made and nothing else")
