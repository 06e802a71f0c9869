"""Walks and scores in as few lines as they take: one action of the whole batch after the other, nothing skipped.

What the package does faster has to come out the same, to the bit.
"""

import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.numerics import where_rows
from gfnmc.environments import DiscreteEnvironment
from gfnmc.policies import DiscretePolicy, Path
from gfnmc.policies.path import reversed_path


@torch.no_grad()
def plain_walk_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, states: Tensor, draws: Draws) -> Path:
    exit_action = environment.exit_action
    active = torch.ones(len(states), dtype=torch.bool) if exit_action is not None else ~environment.is_terminal(states)
    visited, taken, log_forward = [states], [], torch.zeros(len(states), dtype=torch.float64)
    lengths = torch.zeros(len(states), dtype=torch.int64)
    while active.any():
        actions, log_prob = policy.sample(policy.begin(states), states, draws, active)
        log_forward = torch.where(active, log_forward + log_prob, log_forward)
        active = active if exit_action is None else active & (actions != exit_action)
        if active.any():
            states = where_rows(active, environment.step(states, actions), states)
            visited.append(states)
            taken.append(torch.where(active, actions, 0))
            lengths = lengths + active
        if exit_action is None:
            active = ~environment.is_terminal(states)
    begun = environment.is_source(visited[0])
    return Path(torch.stack(visited, 1), stacked(taken, lengths), lengths, begun, log_forward=log_forward)


@torch.no_grad()
def plain_walk_backward(
    policy: DiscretePolicy, environment: DiscreteEnvironment, states: Tensor, num_steps: Tensor | None, draws: Draws
) -> Path:
    visited, undone, log_backward = [states], [], torch.zeros(len(states), dtype=torch.float64)
    lengths = torch.zeros(len(states), dtype=torch.int64)
    while True:
        active = ~environment.is_source(states)
        active = active if num_steps is None else active & (lengths < num_steps)
        if not active.any():
            break
        actions, log_prob = policy.sample(policy.begin(states), states, draws, active)
        log_backward = torch.where(active, log_backward + log_prob, log_backward)
        states = where_rows(active, environment.unstep(states, actions), states)
        visited.append(states)
        undone.append(actions)
        lengths = lengths + active
    at_source = environment.is_source(states)
    return reversed_path(torch.stack(visited, 1), stacked(undone, lengths), lengths, at_source, log_backward)


@torch.no_grad()
def plain_score_forward(policy: DiscretePolicy, environment: DiscreteEnvironment, path: Path) -> Tensor:
    """log P_F of paths, each action scored at the state that it leaves."""
    total = torch.zeros(len(path.lengths), dtype=torch.float64)
    for place in range(path.actions.shape[1]):
        states, actions = path.states[:, place], path.actions[:, place]
        score = policy.score(policy.begin(states), states, actions)
        total = torch.where(path.is_action[:, place], total + score, total)
    if environment.exit_action is None:
        return total
    leaves = torch.full_like(path.lengths, environment.exit_action)
    return total + policy.score(policy.begin(path.end), path.end, leaves)


@torch.no_grad()
def plain_score_backward(policy: DiscretePolicy, path: Path) -> Tensor:
    """log P_B of paths, each action scored at the state that it entered."""
    total = torch.zeros(len(path.lengths), dtype=torch.float64)
    for place in range(path.actions.shape[1]):
        states, actions = path.states[:, place + 1], path.actions[:, place]
        score = policy.score(policy.begin(states), states, actions)
        total = torch.where(path.is_action[:, place], total + score, total)
    return total


def stacked(actions: list[Tensor], lengths: Tensor) -> Tensor:
    return torch.stack(actions, 1) if actions else lengths.new_zeros(len(lengths), 0)
