"""Walk a policy forward or backward, and score paths walked elsewhere.

Where an environment draws the positions that a policy fills, whole walks are made at once (`filled`); everything else
goes step by step (`steps`). Scores of a path are one batched call, not a loop.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.base import Cache, DiscretePolicy
from gfnmc.policies.filled import empty, fill, score_empty, score_fill
from gfnmc.policies.path import Path
from gfnmc.policies.steps import StepScores, step_backward, step_forward


@torch.no_grad()
def walk_forward(
    policy: DiscretePolicy, environment: DiscreteEnvironment, states: Tensor, draws: Draws, cache: Cache = None
) -> Path:
    """Build finished objects from `states` by P_F; the result has `log_forward`.

    Args:
        policy: P_F.
        environment: Where it acts.
        states: Where to start.
        draws: Random decisions.
        cache: The policy's cache at `states`, where it is known.
    """
    filler = policy.filler()
    if filler is None:
        return step_forward(policy, environment, states, draws)
    return fill(filler, environment, states, policy.begin(states) if cache is None else cache, draws)


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
    if policy.empties_as_filled:
        return empty(environment, states, num_steps, draws)
    return step_backward(policy, environment, states, num_steps, draws)


def score_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path) -> Float64[Tensor, " batch"]:
    """Return log P_F of building each path's object from its start, the exit included, nats."""
    return _in_order(forward_scores(policy, environment, path))


def score_backward(policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path) -> Float64[Tensor, " batch"]:
    """Return log P_B of taking each path's object apart down to its start, nats."""
    return _in_order(backward_scores(policy, environment, path))


def forward_scores(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch transitions"]:
    """Return log P_F of each transition of each path, nats; 0 in the padding.

    Transition t leaves the t-th state of the path. Where there is an exit action the exit is a row's last
    transition. Added up, they are `score_forward`.
    """
    scorer = policy.scorer()
    if scorer is not None:
        cache = policy.begin(path.start) if path.start_cache is None else path.start_cache
        return score_fill(scorer, environment, path, cache)
    scores = _forward_scores_by_state(policy, environment, path)
    return scores if environment.exit_action is not None else scores[:, :-1]


def backward_scores(
    policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path
) -> Float64[Tensor, "batch transitions"]:
    """Return log P_B of undoing each transition of each path, nats; 0 in the padding and for the exit.

    The transitions are those of `forward_scores`. Added up, they are `score_backward`.
    """
    if policy.empties_as_filled:
        return score_empty(environment, path)
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
    known = path.walked_with.known(policy) if isinstance(path.walked_with, StepScores) else None
    if environment.exit_action is None:
        return _scores_by_state(policy, path, place < path.lengths[:, None], path.actions, known)
    leaves = torch.full_like(path.lengths, environment.exit_action)[:, None]
    actions = torch.where(path.is_action, path.actions, environment.exit_action)
    return _scores_by_state(policy, path, place <= path.lengths[:, None], torch.cat([actions, leaves], 1), known)


def _backward_scores_by_state(policy: DiscretePolicy, path: Path) -> Float64[Tensor, "batch length_plus_1"]:
    place = torch.arange(path.states.shape[1], device=path.lengths.device)
    select = (place > 0) & (place <= path.lengths[:, None])
    return _scores_by_state(policy, path, select, path.actions)


def _scores_by_state(
    policy: DiscretePolicy,
    path: Path,
    select: Bool[Tensor, "batch length_plus_1"],
    actions: Tensor,
    known: Float64[Tensor, "batch decisions"] | None = None,
) -> Float64[Tensor, "batch length_plus_1"]:
    """Score the selected states, 0 elsewhere; the i-th selected state of a row meets its i-th action."""
    count = select.sum(1)
    decided = torch.arange(actions.shape[1], device=count.device) < count[:, None]
    known = None if known is None else known[select[:, : known.shape[1]]]
    return scattered(select, policy.score_along(path.states, path.actions, select, actions[decided], known))


def _in_order(scores: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
    # Added one after the other: `sum` pairs terms by the row's padding, which the longest row of the batch decides.
    return scores.cumsum(1)[:, -1] if scores.shape[1] else scores.sum(1)
