"""Walks step by step, in any environment.

Rows that are done leave the batch: what a row does never depends on its neighbours, nor do its numbers, and the network
then has fewer rows to look at.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.path import Path, reversed_path


def step_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, states: Tensor, draws: Draws) -> Path:
    """Build finished objects from `states` by P_F; the result has `log_forward`."""
    exit_action = environment.exit_action
    walk = _Walk(policy, states, draws)
    if exit_action is None:
        walk.go_on(~environment.is_terminal(states))
    while walk.num_active:
        actions = walk.choose()
        if exit_action is not None:
            actions = walk.go_on(actions != exit_action, actions)
        walk.step(actions, environment.step)
        if exit_action is None:
            walk.go_on(~environment.is_terminal(walk.states))
    visited, actions, lengths, scores = walk.record()
    at_source = environment.is_source(states)
    return Path(visited, actions, lengths, at_source, log_forward=scores.total(), walked_with=scores)


def step_backward(
    policy: DiscretePolicy,
    environment: DiscreteEnvironment,
    states: Tensor,
    num_steps: Int64[Tensor, " batch"] | None,
    draws: Draws,
) -> Path:
    """Take finished states apart by P_B; the result has `log_backward`.

    Args:
        policy: The backward policy.
        environment: Where it acts.
        states: Finished states.
        num_steps: Actions to undo, a row; the walk ends at the source all the same. None goes to the source.
        draws: Random decisions.
    """
    walk = _Walk(policy, states, draws)

    def may_go_on() -> Bool[Tensor, " rows"]:
        may = ~environment.is_source(walk.states)
        return may if num_steps is None else may & (num_steps[walk.rows] > walk.num_steps)

    walk.go_on(may_go_on())
    while walk.num_active:
        walk.step(walk.choose(), environment.unstep)
        walk.go_on(may_go_on())
    visited, actions, lengths, scores = walk.record()
    return reversed_path(visited, actions, lengths, environment.is_source(visited[:, -1]), scores.total())


class StepScores(NamedTuple):
    """The log-probability of every decision of some walks.

    Attributes:
        law_key: That of the policy that made them.
        log_probs: In nats; 0 where a walk has ended.
    """

    law_key: tuple[Any, ...] | None
    log_probs: Float64[Tensor, "batch decisions"]

    def known(self, policy: DiscretePolicy) -> Float64[Tensor, "batch decisions"] | None:
        """Return them if they are those of this policy too."""
        return self.log_probs if self.law_key is not None and self.law_key == policy.law_key else None

    def total(self) -> Float64[Tensor, " batch"]:
        """Return their sums."""
        # Added one after the other, as scores of paths are.
        return self.log_probs.cumsum(1)[:, -1]


class _Walk:
    """The rows that still walk, and what has been done.

    Attributes:
        rows: Which rows of the batch are still looked at.
        states: Where they stand.
        num_active: How many of them go on.
        num_steps: Actions that they have done.

    Args:
        policy: What chooses.
        states: Where the walks start.
        draws: Random decisions.
    """

    def __init__(self, policy: DiscretePolicy, states: Tensor, draws: Draws) -> None:
        self._policy = policy.for_walk()
        self._law_key = policy.law_key
        self._all_draws = self._draws = draws
        self._cache = self._policy.begin(states)
        self._start = states
        self.rows = torch.arange(len(states), device=states.device)
        self.states = states
        self.num_active = len(states)
        self.num_steps = 0
        self._active = self._everyone = torch.ones_like(self.rows, dtype=torch.bool)
        self._chosen: list[tuple[Tensor, ...]] = []
        self._done: list[tuple[Tensor, ...]] = []

    def choose(self) -> Int64[Tensor, " rows"]:
        """Draw an action for each row that is active."""
        actions, log_prob = self._policy.sample(self._cache, self.states, self._draws, self._active)
        self._chosen.append(self._of_active(self.rows, log_prob))
        return actions

    def go_on(
        self, is_left: Bool[Tensor, " rows"], actions: Int64[Tensor, " rows"] | None = None
    ) -> Int64[Tensor, " left"]:
        """Say which rows go on; others may leave.

        Args:
            is_left: Those that have not ended now.
            actions: What they will do, if it is known.

        Returns:
            The actions of the rows that are still there.
        """
        actions = self.rows if actions is None else actions
        active = is_left if self._all_are_active else self._active & is_left
        self.num_active, self._active = int(active.sum()), active
        if self._all_are_active or self.num_active == 0 or not self._may_leave:
            return actions
        left = active.nonzero()[:, 0]
        self.rows, self.states, actions = (values.index_select(0, left) for values in (self.rows, self.states, actions))
        self._active = self._everyone[: self.num_active]
        self._cache = None if self._cache is None else self._cache.index_select(0, left)
        self._draws = self._all_draws.for_rows(self.rows)
        return actions

    def step(self, actions: Int64[Tensor, " rows"], move: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Do the actions in the rows that are active."""
        if not self.num_active:
            return
        moved = move(self.states, actions)
        self._done.append(self._of_active(self.rows, actions, moved))
        self._cache = self._policy.advance(self._cache, self.states, actions)
        self.states = moved if self._all_are_active else where_rows(self._active, moved, self.states)
        self.num_steps += 1

    def record(
        self,
    ) -> tuple[
        Shaped[Tensor, "batch length_plus_1 *state"],
        Int64[Tensor, "batch length"],
        Int64[Tensor, " batch"],
        StepScores,
    ]:
        """Return states (after a row's end its last one repeats), actions, lengths, and the decisions' scores."""
        start, device = self._start, self._start.device
        visited = start[:, None].repeat(1, self.num_steps + 1, *[1] * (start.dim() - 1))
        actions = torch.zeros(len(start), self.num_steps, dtype=torch.int64, device=device)
        lengths = torch.zeros(len(start), dtype=torch.int64, device=device)
        log_probs = torch.zeros(len(start), max(len(self._chosen), 1), dtype=torch.float64, device=device)
        if self._chosen:
            rows, chosen = (torch.cat(parts) for parts in zip(*self._chosen, strict=True))
            log_probs[rows, _places([some for some, *_ in self._chosen])] = chosen
        if self._done:
            rows, done, moved = (torch.cat(parts) for parts in zip(*self._done, strict=True))
            place = _places([some for some, *_ in self._done])
            actions[rows, place] = done
            visited[rows, place + 1] = moved
            lengths = torch.bincount(rows, minlength=len(start))
            last = torch.minimum(torch.arange(self.num_steps + 1, device=device), lengths[:, None])
            visited = visited[torch.arange(len(start), device=device)[:, None], last]
        return visited, actions, lengths, StepScores(self._law_key, log_probs)

    @property
    def _all_are_active(self) -> bool:
        return self.num_active == len(self.rows)

    @property
    def _may_leave(self) -> bool:
        """Whether a part of the cache is known to be the cache of a part of the rows."""
        cache = self._cache
        return cache is None or (isinstance(cache, Tensor) and cache.dim() > 0 and len(cache) == len(self.rows))

    def _of_active(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values if self._all_are_active else tuple(value[self._active] for value in values)


def _places(rows: list[Tensor]) -> Int64[Tensor, " all"]:
    """Return for each row of each list its place among the lists."""
    counts = torch.tensor([len(some) for some in rows], device=rows[0].device)
    return torch.arange(len(rows), device=counts.device).repeat_interleave(counts)
