"""Walk a policy forward or backward, and score paths walked elsewhere.

Walks keep the whole batch to their end: a finished row stays as it is and draws nothing, so that what a row does
never depends on its neighbours. Scores of a path are one batched call, not a loop.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.path import Path, reversed_path


@torch.no_grad()
def walk_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, states: Tensor, draws: Draws) -> Path:
    """Build finished objects from `states` by P_F; the result has `log_forward`."""
    begun = environment.is_source(states)
    exit_action = environment.exit_action
    active = torch.ones_like(begun) if exit_action is not None else ~environment.is_terminal(states)
    lengths = torch.zeros(len(begun), dtype=torch.int64, device=begun.device)
    log_forward = torch.zeros(len(begun), dtype=torch.float64, device=begun.device)
    visited, taken = [states], []
    cache = policy.begin(states)
    while active.any():
        actions, log_prob = policy.sample(cache, states, draws, active)
        log_forward = torch.where(active, log_forward + log_prob, log_forward)
        moving = active if exit_action is None else active & (actions != exit_action)
        if not moving.any():
            break
        cache = policy.advance(cache, states, actions)
        states = where_rows(moving, environment.step(states, actions), states)
        lengths = lengths + moving
        visited.append(states)
        taken.append(torch.where(moving, actions, 0))
        active = moving if exit_action is not None else ~environment.is_terminal(states)
    return Path(torch.stack(visited, 1), _stack_actions(taken, lengths), lengths, begun, log_forward=log_forward)


@torch.no_grad()
def walk_backward(
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
        states: Finished states. Undoing their exit is free.
        num_steps: Actions to undo, a row; the walk ends at the source all the same. None goes to the source.
        draws: Random decisions.
    """
    at_source = environment.is_source(states)
    lengths = torch.zeros(len(at_source), dtype=torch.int64, device=at_source.device)
    log_backward = torch.zeros(len(at_source), dtype=torch.float64, device=at_source.device)
    visited, undone = [states], []
    cache = policy.begin(states)
    while True:
        active = ~at_source if num_steps is None else ~at_source & (lengths < num_steps)
        if not active.any():
            break
        actions, log_prob = policy.sample(cache, states, draws, active)
        log_backward = torch.where(active, log_backward + log_prob, log_backward)
        cache = policy.advance(cache, states, actions)
        states = where_rows(active, environment.unstep(states, actions), states)
        lengths = lengths + active
        visited.append(states)
        undone.append(actions)
        at_source = environment.is_source(states)
    return reversed_path(torch.stack(visited, 1), _stack_actions(undone, lengths), lengths, at_source, log_backward)


def score_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path) -> Float64[Tensor, " batch"]:
    """Return log P_F of building each path's object from its start, the exit included, nats."""
    return _in_order(_forward_scores_by_state(policy, environment, path))


def score_backward(policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path) -> Float64[Tensor, " batch"]:
    """Return log P_B of taking each path's object apart down to its start, nats."""
    return _in_order(_backward_scores_by_state(policy, path))


def forward_scores(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch transitions"]:
    """Return log P_F of each transition of each path, nats; 0 in the padding.

    Transition t leaves the t-th state of the path. Where there is an exit action the exit is a row's last
    transition. Added up, they are `score_forward`.
    """
    scores = _forward_scores_by_state(policy, environment, path)
    return scores if environment.exit_action is not None else scores[:, :-1]


def backward_scores(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch transitions"]:
    """Return log P_B of undoing each transition of each path, nats; 0 in the padding and for the exit.

    The transitions are those of `forward_scores`. Added up, they are `score_backward`.
    """
    scores = _backward_scores_by_state(policy, path)[:, 1:]
    return scores if environment.exit_action is None else torch.nn.functional.pad(scores, (0, 1))


def exit_scores(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch transitions"]:
    """Return log P_F of leaving by the exit from each state of each path, nats; 0 in the padding.

    Raises:
        CapabilityError: If the environment has no exit action.
    """
    if environment.exit_action is None:
        raise CapabilityError(
            f"{type(environment).__name__} has no exit action; its states are finished only where no action is left"
        )
    leaves = torch.full((len(path.lengths), path.states.shape[1]), environment.exit_action, device=path.lengths.device)
    place = torch.arange(path.states.shape[1], device=path.lengths.device)
    return _scores_by_state(policy, path, place <= path.lengths[:, None], leaves)


def num_transitions(environment: DiscreteEnvironment, path: Path) -> Int64[Tensor, " batch"]:
    """Return the transitions of each path: its actions, and the exit where there is an exit action."""
    return path.lengths if environment.exit_action is None else path.lengths + 1


def evaluate_along(
    environment: DiscreteEnvironment, path: Path, function: Callable[[Tensor, Int64[Tensor, " states"]], Tensor]
) -> Float64[Tensor, "batch transitions"]:
    """Return a function's value at the state that each transition of each path leaves; 0 in the padding.

    Args:
        environment: Where the path was walked.
        path: The paths.
        function: Given states, and for each the row of the path that it is on, returns `(states,)` float64.
    """
    width = path.states.shape[1] - (environment.exit_action is None)
    place = torch.arange(width, device=path.lengths.device)
    select = place < num_transitions(environment, path)[:, None]
    rows = select.nonzero()[:, 0]
    return scattered(select, function(path.states[:, :width][select], rows))


def scattered(select: Bool[Tensor, "batch n"], scores: Float64[Tensor, " selected"]) -> Float64[Tensor, "batch n"]:
    """Return the scores, one after the other, where `select` is True, and 0 elsewhere."""
    return torch.zeros(select.shape, dtype=torch.float64, device=scores.device).masked_scatter(select, scores)


def _forward_scores_by_state(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch length_plus_1"]:
    place = torch.arange(path.states.shape[1], device=path.lengths.device)
    if environment.exit_action is None:
        return _scores_by_state(policy, path, place < path.lengths[:, None], path.actions)
    leaves = torch.full_like(path.lengths, environment.exit_action)[:, None]
    actions = torch.where(path.is_action, path.actions, environment.exit_action)
    return _scores_by_state(policy, path, place <= path.lengths[:, None], torch.cat([actions, leaves], 1))


def _backward_scores_by_state(policy: DiscretePolicy, path: Path) -> Float64[Tensor, "batch length_plus_1"]:
    place = torch.arange(path.states.shape[1], device=path.lengths.device)
    select = (place > 0) & (place <= path.lengths[:, None])
    return _scores_by_state(policy, path, select, path.actions)


def _scores_by_state(
    policy: DiscretePolicy, path: Path, select: Bool[Tensor, "batch length_plus_1"], actions: Tensor
) -> Float64[Tensor, "batch length_plus_1"]:
    """Score the selected states, 0 elsewhere; the i-th selected state of a row meets its i-th action."""
    count = select.sum(1)
    decided = torch.arange(actions.shape[1], device=count.device) < count[:, None]
    cache = policy.along(path.states, path.actions, select)
    return scattered(select, policy.score(cache, path.states[select], actions[decided]))


def _in_order(scores: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
    # Added one after the other: `sum` pairs terms by the row's padding, which the longest row of the batch decides.
    return scores.cumsum(1)[:, -1]


def _stack_actions(actions: list[Tensor], lengths: Tensor) -> Int64[Tensor, "batch length"]:
    return torch.stack(actions, 1) if actions else lengths.new_zeros(len(lengths), 0)
