"""A stand-in: the interface of alexhernandezgarcia/gflownet, as documented there, in two environments and a model.

The package itself is on no registry and pins its own versions, so it is not installed where these tests run;
`benchmarks/check_gflownet.py` makes the same proofs with it. What is copied is the contract alone: one object a
trajectory with a state and a done flag, tuples as actions with the end of the sequence last, True for *invalid* in
masks, parents and the actions from them, `step` that says whether an action was valid, and policies that are called
with `states2policy` and whose outputs others may overwrite.
"""

import copy
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnmc.core.draws import normal


class StandInEnv:
    """What both environments share."""

    continuous = False

    def __init__(self) -> None:
        self.action_space = self.get_action_space()
        self.action_space_dim = self.mask_dim = len(self.action_space)
        self.reset()

    def reset(self, env_id: Any = None) -> "StandInEnv":
        self.state, self.done, self.n_actions = copy.copy(self.source), False, 0
        return self

    def set_state(self, state: Any, done: bool = False) -> "StandInEnv":
        self.state, self.done = copy.copy(state), done
        return self

    def copy(self) -> "StandInEnv":
        return copy.deepcopy(self)

    def get_mask_invalid_actions_backward(self, state: Any = None, done: Any = None) -> list[bool]:
        _, led_here = self.get_parents(state, done)
        return [action not in led_here for action in self.action_space]


class StandInGrid(StandInEnv):
    """Cells of a grid, from the origin up, with the end of the sequence anywhere; states are lists."""

    def __init__(self, length: int = 2) -> None:
        self.length, self.source, self.eos = length, [0, 0], (0, 0)
        self.max_traj_length = 2 * length + 1
        super().__init__()

    def get_action_space(self) -> list[tuple[int, ...]]:
        return [(0, 1), (1, 0), self.eos]

    def get_mask_invalid_actions_forward(self, state: Any = None, done: Any = None) -> list[bool]:
        state, done = self.state if state is None else state, self.done if done is None else done
        if done:
            return [True] * 3
        return [state[1] + 1 >= self.length, state[0] + 1 >= self.length, False]

    def get_parents(self, state: Any = None, done: Any = None) -> tuple[list[Any], list[Any]]:
        state, done = self.state if state is None else state, self.done if done is None else done
        if done:
            return [state], [self.eos]
        below = [([state[0] - a, state[1] - b], (a, b)) for a, b in ((0, 1), (1, 0))]
        found = [(parent, action) for parent, action in below if min(parent) >= 0]
        return [parent for parent, _ in found], [action for _, action in found]

    def step(self, action: tuple[int, ...]) -> tuple[Any, Any, bool]:
        if self.done or self.get_mask_invalid_actions_forward()[self.action_space.index(action)]:
            return self.state, action, False
        self.n_actions += 1
        if action == self.eos:
            self.done = True
        else:
            self.state = [old + more for old, more in zip(self.state, action, strict=True)]
        return self.state, action, True

    def states2policy(self, states: list[Any]) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(states), self.length).flatten(1).float()

    def states2proxy(self, states: list[Any]) -> Tensor:
        return torch.tensor(states).float()


class StandInSpins(StandInEnv):
    """Spins of +-1: a site is selected (3), given a spin (+-2) and let go (+-1), so a path has three actions a site."""

    def __init__(self, sites: int = 2) -> None:
        self.source, self.eos = np.zeros(sites, dtype=int), (-1, -1)
        self.max_traj_length = 3 * sites + 1
        super().__init__()

    def get_action_space(self) -> list[tuple[int, int]]:
        return [*((0, site) for site in range(len(self.source))), (1, -1), (1, 1), self.eos]

    def get_mask_invalid_actions_forward(self, state: Any = None, done: Any = None) -> list[bool]:
        state, done = self.state if state is None else state, self.done if done is None else done
        allowed = set() if done else self._allowed(state)
        return [action not in allowed for action in self.action_space]

    def get_parents(self, state: Any = None, done: Any = None) -> tuple[list[Any], list[Any]]:
        state, done = self.state if state is None else state, self.done if done is None else done
        if done:
            return [state], [self.eos]
        held = np.flatnonzero(np.abs(state) > 1)
        if len(held):
            site, value = held[0], state[held[0]]
            before, action = (0, (0, site)) if value == 3 else (3, (1, value // 2))
            return [self._with(state, site, before)], [action]
        filled = np.flatnonzero(state != 0)
        return [self._with(state, site, 2 * state[site]) for site in filled], [(0, site) for site in filled]

    def step(self, action: tuple[int, int]) -> tuple[Any, Any, bool]:
        if self.done or action not in self._allowed(self.state):
            return self.state, action, False
        self.n_actions += 1
        kind, value = action
        if action == self.eos:
            self.done = True
        elif kind == 1:
            self.state[self.state == 3] = 2 * value
        else:
            # In place, as theirs.
            self.state[value] = {0: 3, 2: 1, -2: -1}[int(self.state[value])]
        return self.state, action, True

    def states2policy(self, states: list[Any]) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(np.array(states)) + 2, 6).flatten(1).float()

    def states2proxy(self, states: list[Any]) -> Tensor:
        return torch.tensor(np.array(states)).float()

    def _allowed(self, state: Any) -> set[tuple[int, int]]:
        if (state == 3).any():
            return {(1, -1), (1, 1)}
        for sites in (np.flatnonzero(np.abs(state) == 2), np.flatnonzero(state == 0)):
            if len(sites):
                return {(0, int(site)) for site in sites}
        return {self.eos}

    @staticmethod
    def _with(state: Any, site: int, value: int) -> Any:
        changed = state.copy()
        changed[site] = value
        return changed


class StandInPolicy:
    """A policy as theirs: not a module, but it has one, and its outputs are nobody's to keep."""

    def __init__(self, env: Any, seed: int) -> None:
        inputs = env.states2policy([env.source]).shape[1]
        first = torch.nn.Linear(inputs, 16, bias=False)
        second = torch.nn.Linear(16, env.action_space_dim, bias=False)
        with torch.no_grad():
            first.weight.copy_(normal(seed, "first", (16, inputs), torch.float32))
            second.weight.copy_(0.5 * normal(seed, "second", (env.action_space_dim, 16), torch.float32))
        self.model = torch.nn.Sequential(first, torch.nn.Tanh(), second)

    def __call__(self, states: Tensor) -> Tensor:
        return self.model(states)


class StandInModel:
    """What holds the policies and the environment."""

    def __init__(self, env: Any, *, has_backward: bool = True) -> None:
        self.env = env
        self.forward_policy = StandInPolicy(env, 1)
        self.backward_policy = StandInPolicy(env, 2) if has_backward else None


class StandInProxy:
    """Rewards of finished states."""

    def rewards(self, states: Tensor, log: bool = False) -> Tensor:
        place = torch.arange(states.shape[1], dtype=torch.float32)
        log_rewards = 1.5 * torch.sin((states * (1.0 + 2.3 * place)).sum(1))
        return log_rewards if log else log_rewards.exp()


def all_objects(env: Any) -> Tensor:
    """Every finished state of one of the two."""
    values = range(env.length) if isinstance(env, StandInGrid) else (-1, 1)
    return torch.tensor(list(itertools.product(values, repeat=len(env.source))))
