"""What informed proposals share: they look at the surroundings of an object before they choose where to go.

A proposal q(x'|x) that knows how the log-density changes around x must be corrected by what is seen around x':

    log A = log R(x') - log R(x) + log q(x|x') - log q(x'|x)

so a step looks round twice, and that is right whatever was seen, also where it is an approximation such as a gradient.
What was seen around the object where the chain then stands is kept in `State.cache`, and the next step looks once. It
is kept untempered and with its object, so that it is used for that object alone, and serves every inverse temperature.
At inverse temperature 0 nothing is looked at: all changes weigh the same, those into impossible objects included.

Reference: Zanella 2020 (1711.07424), "Informed proposals for local MCMC in discrete spaces".
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.numerics import masked_log_softmax, where_rows
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Info, State
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal, decide
from gfnmc.policies.uniform import uniformly_built
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.relaxed import object_weights


class Surroundings(ABC):
    """The single changes of an object, and how each changes the log-density.

    Attributes:
        num_changes: Most changes that an object may have.
        is_exact: Whether `look` tells the change itself, not an approximation.
        counted_as: The field of `Info` that counts the calls of `look` beside `target_calls`; None for no other.
    """

    num_changes: int
    is_exact: bool
    counted_as: str | None = None

    @abstractmethod
    def mask(self, x: Shaped[Tensor, "batch *event"]) -> Bool[Tensor, "batch changes"]:
        """Return True where a change applies."""

    @abstractmethod
    def changed(self, x: Shaped[Tensor, "batch *event"], changes: Int64[Tensor, " batch"]) -> Tensor:
        """Return the objects after one change each."""

    @abstractmethod
    def num_calls(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        """Return the target calls that looking round each object takes."""

    @abstractmethod
    def look(
        self, x: Shaped[Tensor, "batch *event"], log_prob: Float64[Tensor, " batch"], rows: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch changes"]:
        """Return how each change changes the log-density, nats; anything where it does not apply.

        Args:
            x: Objects that are possible.
            log_prob: Their log-densities, nats.
            rows: What to call the rows in an error.
        """


class SiteChanges(Surroundings):
    """Another value at one site of an assignment of values to sites; change `site * num_values + index of the value`.

    Args:
        target: What to ask; it declares `values`.

    Raises:
        CapabilityError: If it does not.
    """

    def __init__(self, target: Target) -> None:
        if target.values is None:
            raise CapabilityError(f"{target.name} declares no `values` of a site, so there is nothing to change one to")
        self.target = target
        self.num_sites = math.prod(target.event_shape)
        self.num_values = len(target.values)
        self.num_changes = self.num_sites * self.num_values
        self.values = torch.tensor(target.values, dtype=target.dtype)

    def mask(self, x: Tensor) -> Bool[Tensor, "batch changes"]:
        return object_weights(self.target, x).flatten(1) == 0.0

    def present(self, x: Tensor) -> Int64[Tensor, "batch sites"]:
        """Return the index of each site's value."""
        return object_weights(self.target, x).argmax(-1).flatten(1)

    def changed(self, x: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        site, value = changes // self.num_values, self.values.to(x.device)[changes % self.num_values]
        return x.flatten(1).scatter(1, site[:, None], value[:, None]).reshape(x.shape)


class View(NamedTuple):
    """What an informed kernel keeps in `State.cache`.

    Attributes:
        seen_by: What looked; to another it says nothing.
        position: The objects that were looked round.
        log_changes: How each change changes the log-density, nats, not tempered; 0 in rows that were not looked at.
        is_seen: Rows that were.
    """

    seen_by: Surroundings
    position: Shaped[Tensor, "chains *event"]
    log_changes: Float64[Tensor, "chains changes"]
    is_seen: Bool[Tensor, " chains"]


class Move(NamedTuple):
    """Where an informed proposal goes.

    Attributes:
        position: Proposed objects; the current ones where `is_lazy`.
        log_forward: log q(x'|x), nats.
        is_lazy: Rows where no change is possible.
        log_change: log R(x') - log R(x), nats, in rows that were looked round exactly; None if it is to be evaluated.
        changes: The change that was chosen, where it is one.
    """

    position: Shaped[Tensor, "chains *event"]
    log_forward: Float64[Tensor, " chains"]
    is_lazy: Bool[Tensor, " chains"]
    log_change: Float64[Tensor, " chains"] | None = None
    changes: Int64[Tensor, " chains"] | None = None


class _Attempt(NamedTuple):
    """A proposal, and what was seen and asked on the way to it."""

    proposal: Proposal
    log_prob: Float64[Tensor, " chains"]
    here: View
    there: View
    calls: dict[str, Int64[Tensor, " chains"]]


class InformedKernel(MetropolisKernel):
    """A kernel whose proposal looks at the surroundings of the object.

    Args:
        environment: How objects are built.
        target: What to sample.
        surroundings: What the proposal looks at.

    Raises:
        CapabilityError: If the target is noisy.
    """

    keeps_cache = True

    def __init__(self, environment: DiscreteEnvironment, target: Target, surroundings: Surroundings) -> None:
        if target.is_noisy:
            raise CapabilityError(
                f"{target.name} is noisy, and {self.name} needs the densities around an object, not estimates of them; "
                "use RandomWalk"
            )
        self.environment = environment
        self.target = target
        self.surroundings = surroundings

    @abstractmethod
    def _draw(self, draws: Draws, position: Tensor, log_changes: Float64[Tensor, "chains changes"]) -> Move:
        """Draw a proposal; `log_changes` are not tempered."""

    @abstractmethod
    def _log_back(
        self, position: Tensor, move: Move, log_changes: Float64[Tensor, "chains changes"]
    ) -> Float64[Tensor, " chains"]:
        """Return log q(x|x'), nats, given where the chain stands and what was seen around the proposal."""

    def start(self, draws: Draws) -> Tensor:
        return uniformly_built(self.environment, draws)

    def cache_tensors(self, cache: Any) -> dict[str, Tensor]:
        if not isinstance(cache, View) or cache.seen_by is not self.surroundings:
            return {}
        return {name: value for name, value in cache._asdict().items() if name != "seen_by"}

    def cache_from(self, tensors: Mapping[str, Tensor]) -> View | None:
        return View(self.surroundings, **tensors) if tensors else None

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        attempt = self._attempt(draws, state)
        after, info = decide(draws, state, attempt.proposal, attempt.log_prob, self.inverse_temperature)
        here, there = attempt.here, attempt.there
        has_moved = info.is_accepted & _differs(here.position, there.position)
        view = here._replace(
            position=after.position,
            log_changes=where_rows(has_moved, there.log_changes, here.log_changes),
            is_seen=torch.where(has_moved, there.is_seen, here.is_seen),
        )
        return after._replace(cache=view), info._replace(**attempt.calls)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        return self._attempt(draws, State(position, checked_log_prob(self.target, position))).proposal

    def _attempt(self, draws: Draws, state: State) -> _Attempt:
        is_warm = self._power(state.log_prob).expand(len(state.log_prob), 1)[:, 0] > 0.0
        known = self._known(state)
        asked_here = is_warm & ~known.is_seen
        here = self._looked(known, state.log_prob, asked_here)
        move = self._draw(draws, state.position, here.log_changes)
        leaves = _differs(state.position, move.position)
        log_prob = state.log_prob if move.log_change is None else state.log_prob + move.log_change
        evaluated = leaves if move.log_change is None else leaves & ~is_warm
        log_prob = log_prob.masked_scatter(evaluated, self._evaluate(move.position, evaluated, draws))
        asked_there = leaves & is_warm & (log_prob > -torch.inf)
        there = self._looked(self._unseen(move.position), log_prob, asked_there)
        change = self._log_back(state.position, move, there.log_changes) - move.log_forward
        zero = torch.zeros_like(evaluated, dtype=torch.int64)
        # A proposal to stay where the chain is needs no correction, and was not looked round.
        proposal = Proposal(move.position, torch.where(leaves, change, 0.0), move.is_lazy, zero, zero, zero)
        calls_here = torch.where(asked_here, self.surroundings.num_calls(state.position), 0)
        calls_there = torch.where(asked_there, self.surroundings.num_calls(move.position), 0)
        # Where the value was asked for as well as the surroundings, one call gave both.
        calls = {"target_calls": calls_here + torch.where(asked_there, calls_there, evaluated.to(torch.int64))}
        if self.surroundings.counted_as is not None:
            calls[self.surroundings.counted_as] = calls_here + calls_there
        return _Attempt(proposal, log_prob, here, there, calls)

    def _known(self, state: State) -> View:
        """Return what is known of the surroundings of where the chains stand."""
        view = state.cache
        is_mine = isinstance(view, View) and view.seen_by is self.surroundings
        if not is_mine or view.position.shape != state.position.shape:
            return self._unseen(state.position)
        # Another kernel may have moved some chains since.
        is_seen = view.is_seen & ~_differs(view.position, state.position)
        return View(self.surroundings, state.position, torch.where(is_seen[:, None], view.log_changes, 0.0), is_seen)

    def _unseen(self, position: Tensor) -> View:
        nothing = torch.zeros(len(position), self.surroundings.num_changes, dtype=torch.float64, device=position.device)
        return View(self.surroundings, position, nothing, torch.zeros_like(nothing[:, 0], dtype=torch.bool))

    def _looked(self, view: View, log_prob: Float64[Tensor, " chains"], asked: Bool[Tensor, " chains"]) -> View:
        """Look round some more of the objects."""
        rows = asked.nonzero()[:, 0]
        if len(rows) == 0:
            return view
        seen = self.surroundings.look(view.position[rows], log_prob[rows], rows)
        log_changes = view.log_changes.index_copy(0, rows, seen)
        return view._replace(log_changes=log_changes, is_seen=view.is_seen | asked)

    def _tempered(self, log_changes: Float64[Tensor, "chains changes"]) -> Float64[Tensor, "chains changes"]:
        power = self._power(log_changes)
        # 0 times -inf is not a number.
        return torch.where(power == 0.0, 0.0, power * log_changes)

    def _power(self, like: Tensor) -> Float64[Tensor, "rows 1"]:
        """Return the inverse temperatures, one a chain or one for all."""
        return torch.as_tensor(self.inverse_temperature, dtype=torch.float64, device=like.device).reshape(-1, 1)


def draw_change(
    draws: Draws, surroundings: Surroundings, position: Tensor, log_weights: Float64[Tensor, "chains changes"]
) -> Move:
    """Draw one change of each object with probability proportional to its weight.

    Args:
        draws: The step's draws.
        surroundings: Says which changes apply.
        position: Objects.
        log_weights: Of each change, nats; -inf for one that is not to be made.
    """
    law = masked_log_softmax(log_weights, surroundings.mask(position))
    has_change = (law > -torch.inf).any(-1)
    changes = draws.role("change").categorical(law, has_change)
    return Move(
        position=where_rows(has_change, surroundings.changed(position, changes), position),
        log_forward=torch.where(has_change, chosen(law, changes), 0.0),
        is_lazy=~has_change,
        changes=changes,
    )


def chosen(table: Float64[Tensor, "rows columns"], columns: Int64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
    """Return the entry of each row in one column."""
    return table.gather(1, columns[:, None])[:, 0]


def _differs(one: Tensor, other: Tensor) -> Bool[Tensor, " chains"]:
    return (one != other).flatten(1).any(1)
