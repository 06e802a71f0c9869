"""A quick walk that catches an environment which contradicts itself.

Not a proof: it follows a few dozen random paths up and down. `enumerate_states` checks every edge of a small
environment.
"""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnvironmentContractError
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import MOST_NUMBERED, DiscreteEnvironment

_MAX_STEPS = 10_000
_MAX_CHECKED = 256
_MAX_MASKED = 2**23
"""Entries of masks that all paths together look at, where the environment is large."""


def check_environment(environment: DiscreteEnvironment, *, num_paths: int = 32) -> None:
    """Build objects by random allowed actions and hold their steps to the contract.

    Args:
        environment: What to check.
        num_paths: Objects to build; fewer, but two at least, where the environment has many and long paths. Of a path
            with more than some hundred steps those are checked that stand at equal distances.

    Raises:
        EnvironmentContractError: At the first contradiction, with the state and the action that show it.
    """
    limit = _MAX_STEPS if environment.max_depth is None else environment.max_depth
    if environment.max_depth is not None:
        num_paths = min(num_paths, max(2, _MAX_MASKED // (environment.num_actions * max(limit, 1))))
    states = environment.source(num_paths)
    name = type(environment).__name__
    _require(environment.is_source(states).all(), f"{name}: is_source denies the states that source() returns")
    _check_mask(environment, environment.backward_mask(states), "backward_mask", states)
    _require(not environment.backward_mask(states).any(), f"{name}: backward_mask allows an action at the source")
    draws = PhiloxDraws(0, "check_environment", num_paths)
    done = torch.zeros(num_paths, dtype=torch.bool)
    every = 1 if environment.max_depth is None else -(-max(limit, 1) // _MAX_CHECKED)
    for depth in range(limit + 1):
        mask = environment.forward_mask(states)
        _check_mask(environment, mask, "forward_mask", states)
        done = done | environment.is_terminal(states) & ~_can_continue(environment, mask)
        _require_rows(done | mask.any(-1), states, f"{name}: no action is allowed, but the state is not terminal")
        if done.all():
            _check_objects(environment, states)
            if environment.number_steps is not None and environment.num_numbers <= MOST_NUMBERED:
                _check_numbers(environment, environment.number_steps)
            return
        actions = _any_allowed(mask, draws, ~done)
        if environment.exit_action is not None:
            done = done | (actions == environment.exit_action)
        before = states.clone()
        children = environment.step(states, actions)
        _require(torch.equal(states, before), f"{name}: step changes the states it is given; return new ones")
        if depth % every == 0 or depth == limit - 1:
            _check_step(environment, states, actions, children, ~done)
        states = where_rows(done, states, children)
        if environment.is_graded:
            deep = environment.depth(states) == depth + 1
            _require_rows(deep | done, states, f"{name}: is_graded, but depth is not {depth + 1} after as many steps")
    _require(
        environment.max_depth is None,
        f"{name}: a path of more than {limit} actions has not ended; correct max_depth or the masks",
    )


def _any_allowed(
    mask: Bool[Tensor, "paths actions"], draws: Draws, active: Bool[Tensor, " paths"]
) -> Int64[Tensor, " paths"]:
    count = mask.cumsum(-1)
    chosen = draws.integers(count[:, -1].clamp(min=1), active)
    return torch.searchsorted(count, chosen[:, None], right=True)[:, 0].clamp(max=mask.shape[1] - 1)


def _can_continue(environment: DiscreteEnvironment, mask: Tensor) -> Tensor:
    """Return which rows allow an action other than the exit."""
    exits = 0 if environment.exit_action is None else mask[:, environment.exit_action].to(torch.int64)
    return mask.sum(-1) - exits > 0


def _check_mask(environment: DiscreteEnvironment, mask: Tensor, which: str, states: Tensor) -> None:
    expected = (states.shape[0], environment.num_actions)
    _require(
        mask.dtype == torch.bool and tuple(mask.shape) == expected,
        f"{type(environment).__name__}.{which} returned {mask.dtype} of shape {tuple(mask.shape)}; "
        f"return torch.bool of shape {expected}, one column an action",
    )


def _check_step(
    environment: DiscreteEnvironment, states: Tensor, actions: Tensor, children: Tensor, active: Tensor
) -> None:
    name = type(environment).__name__
    _require(
        children.shape == states.shape and children.dtype == states.dtype,
        f"{name}.step returned {children.dtype} of shape {tuple(children.shape)} for states that are {states.dtype} "
        f"of shape {tuple(states.shape)}",
    )
    back = environment.backward_mask(children)
    _check_mask(environment, back, "backward_mask", children)
    allowed = back.gather(1, actions[:, None])[:, 0]
    _require_rows(allowed | ~active, children, f"{name}: backward_mask forbids undoing the action that was just taken")
    if not environment.parents_share_actions:
        returned = (environment.unstep(children, actions) == states).flatten(1).all(-1)
        _require_rows(returned | ~active, children, f"{name}: unstep does not return to the state that step left")
    _check_tokens(environment, states, actions, children, active)
    _require_rows(
        ~environment.is_source(children) | ~active, children, f"{name}: is_source calls a state after a step the source"
    )


def _check_numbers(environment: DiscreteEnvironment, number_steps: Int64[Tensor, " actions"]) -> None:
    """Hold the numbers of states to `step`, at every state: a law that is looked up must be that of the state."""
    name = type(environment).__name__
    states, numbers = environment.numbered_states(), torch.arange(environment.num_numbers)
    _require(len(states) == len(numbers), f"{name}: numbered_states returns {len(states)} states, not num_numbers")
    same = environment.state_numbers(states) == numbers
    _require_rows(same, states, f"{name}: state_numbers is not the place of a state among numbered_states")
    allowed = environment.forward_mask(states)
    for action in range(environment.num_actions):
        rows = allowed[:, action].nonzero()[:, 0]
        if action == environment.exit_action or not len(rows):
            continue
        children = environment.step(states[rows], torch.full_like(rows, action))
        agree = environment.state_numbers(children) == rows + number_steps[action]
        _require_rows(agree, states[rows], f"{name}: action {action} does not add number_steps[{action}] to the number")


def _check_objects(environment: DiscreteEnvironment, states: Tensor) -> None:
    again = environment.states(environment.objects(states))
    same = (again == states).flatten(1).all(-1) if again.shape == states.shape else torch.zeros(len(states)) > 0
    _require_rows(same, states, f"{type(environment).__name__}: states(objects(state)) is not the state")


def _check_tokens(
    environment: DiscreteEnvironment, states: Tensor, actions: Tensor, children: Tensor, active: Tensor
) -> None:
    """Hold `changed_tokens` to `tokens`: what a network adds up step by step must be what it would read afresh."""
    try:
        before, after = environment.tokens(states), environment.tokens(children)
    except CapabilityError:
        return
    name = type(environment).__name__
    removed, added = environment.changed_tokens(states, actions)
    _require(removed.shape == added.shape, f"{name}: changed_tokens must remove as many tokens as it adds")
    agree = (torch.cat([before, added], 1).sort(1).values == torch.cat([after, removed], 1).sort(1).values).all(-1)
    _require_rows(agree | ~active, states, f"{name}: changed_tokens is not the difference that step makes to tokens")
    inside = ((after >= 0) & (after < environment.vocabulary)).all(-1)
    _require_rows(inside | ~active, children, f"{name}: a token is outside the vocabulary of {environment.vocabulary}")


def _require(holds: Tensor | bool, message: str) -> None:
    if not bool(holds):
        raise EnvironmentContractError(message)


def _require_rows(holds: Tensor, states: Tensor, message: str) -> None:
    if not bool(holds.all()):
        row = int((~holds).nonzero()[0, 0])
        raise EnvironmentContractError(f"{message} (state {states[row].tolist()})")
