"""Walks step by step, in any environment.

Rows that are done leave the batch once they are many: what a row does never depends on its neighbours, nor do its
numbers, and the network then has fewer rows to look at.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.base import Cache, DiscretePolicy
from gfnmc.policies.path import Path, reversed_path

_SHARE_LEFT = 0.75
"""The rows that are done leave the batch where no larger share goes on."""


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
    visited, actions, lengths, log_forward = walk.record()
    return Path(visited, actions, lengths, environment.is_source(states), log_forward=log_forward)


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
        return may if num_steps is None else may & (walk.lengths < num_steps[walk.rows])

    walk.go_on(may_go_on())
    while walk.num_active:
        walk.step(walk.choose(), environment.unstep)
        walk.go_on(may_go_on())
    visited, actions, lengths, log_backward = walk.record()
    return reversed_path(visited, actions, lengths, environment.is_source(visited[:, -1]), log_backward)


class _Walk:
    """The rows that still walk, and what has been done.

    Attributes:
        rows: Which rows of the batch are still looked at.
        states: Where they stand.
        lengths: Actions they have done.
        num_active: How many of them go on.

    Args:
        policy: What chooses.
        states: Where the walks start.
        draws: Random decisions.
    """

    def __init__(self, policy: DiscretePolicy, states: Tensor, draws: Draws) -> None:
        self._policy = policy
        self._all_draws = self._draws = draws
        self._cache = policy.begin(states)
        self.rows = torch.arange(len(states), device=states.device)
        self.states = states
        self.lengths = torch.zeros_like(self.rows)
        self.num_active = len(states)
        self._log_prob = torch.zeros(len(states), dtype=torch.float64, device=states.device)
        self._active = torch.ones_like(self.rows, dtype=torch.bool)
        self._trail: list[tuple[Tensor, Tensor, Tensor]] = []
        # Of all rows, what those that have left had in the end.
        self._final = states.clone(), self.lengths.clone(), self._log_prob.clone()

    def choose(self) -> Int64[Tensor, " rows"]:
        """Draw an action for each row that is active."""
        actions, log_prob = self._policy.sample(self._cache, self.states, self._draws, self._active)
        self._log_prob = torch.where(self._active, self._log_prob + log_prob, self._log_prob)
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
        self._active = self._active & is_left
        self.num_active = int(self._active.sum())
        may_leave = self._cache is None or (isinstance(self._cache, Tensor) and len(self._cache) == len(self.rows))
        if may_leave and 0 < self.num_active <= _SHARE_LEFT * len(self.rows):
            self._write_final()
            left = self._active.nonzero()[:, 0]
            self.rows, self.states, self.lengths = self.rows[left], self.states[left], self.lengths[left]
            self._cache = None if self._cache is None else self._cache.index_select(0, left)
            self._log_prob, self._active, actions = self._log_prob[left], self._active[left], actions[left]
            self._draws = self._all_draws.for_rows(self.rows)
        return actions

    def step(self, actions: Int64[Tensor, " rows"], move: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Do the actions in the rows that are active."""
        if not self.num_active:
            return
        self._trail.append((self.rows, self.states, torch.where(self._active, actions, 0)))
        self._cache = self._policy.advance(self._cache, self.states, actions)
        moved = move(self.states, actions)
        all_move = self.num_active == len(self.rows)
        self.states = moved if all_move else where_rows(self._active, moved, self.states)
        self.lengths = self.lengths + self._active

    def record(
        self,
    ) -> tuple[
        Shaped[Tensor, "batch length_plus_1 *state"],
        Int64[Tensor, "batch length"],
        Int64[Tensor, " batch"],
        Float64[Tensor, " batch"],
    ]:
        """Return all states and actions, the lengths and the log-probabilities; after a row's end its state repeats."""
        self._write_final()
        ends, lengths, log_prob = self._final
        length = len(self._trail)
        visited = ends[:, None].repeat(1, length + 1, *[1] * (ends.dim() - 1))
        done = torch.zeros(len(ends), length, dtype=torch.int64, device=ends.device)
        if length:
            rows, states, actions = (torch.cat(parts) for parts in zip(*self._trail, strict=True))
            counts = torch.tensor([len(part) for part, _, _ in self._trail], device=ends.device)
            place = torch.arange(length, device=ends.device).repeat_interleave(counts)
            visited[rows, place] = states
            done[rows, place] = actions
        return visited, done, lengths, log_prob

    def _write_final(self) -> None:
        for final, now in zip(self._final, (self.states, self.lengths, self._log_prob), strict=True):
            final.index_copy_(0, self.rows, now)
