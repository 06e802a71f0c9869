"""A stand-in: the interface of gfnx 0.0.1, as its base class documents it, in two environments and in NumPy.

The package pins a NumPy below 2 and an older JAX, so it is not installed where these tests run;
`benchmarks/check_gfnx.py` makes the same proofs with it. What is copied is the contract alone: a state is a record of
arrays with flags, True in a mask is *invalid*, backward actions have numbers of their own, a stop action finishes an
object in one environment, and in the other it is finished when nothing is left to do.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class StandInState:
    """What is built, when, and the flags."""

    state: np.ndarray
    time: np.ndarray
    is_terminal: np.ndarray
    is_initial: np.ndarray
    is_pad: np.ndarray

    def replace(self, **changes: Any) -> "StandInState":
        return dataclasses.replace(self, **changes)


class StandInEnv:
    """What both environments share. A bit more of an object at a time; `time` counts its parts."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.reward_module = self

    def init(self) -> Any:
        return SimpleNamespace(scale=1.5)

    def get_init_state(self, num_envs: int) -> StandInState:
        flags = np.zeros(num_envs, bool)
        empty = np.full((num_envs, self.dim), self.empty, np.int8)
        return StandInState(empty, np.zeros(num_envs, np.int32), flags, ~flags, flags)

    def get_obs(self, state: StandInState, env_params: Any) -> np.ndarray:
        return state.state.astype(np.float32)

    def log_reward(self, state: StandInState, env_params: Any) -> np.ndarray:
        assert state.is_terminal.all()
        place = np.arange(self.dim, dtype=np.float32)
        return env_params.scale * np.sin((state.state * (1.0 + 2.3 * place)).sum(1))

    def _made(self, built: np.ndarray) -> StandInState:
        time = self.parts(built).astype(np.int32)
        flags = np.zeros(len(built), bool)
        return StandInState(built, time, self.is_full(built), time == 0, flags)


class StandInIsing(StandInEnv):
    """Sites of 0 and 1, in any order: action i sets site i to 0, action dim + i to 1; a backward action is a site."""

    name, empty = "stand-in spins", -1

    @property
    def action_space(self) -> Any:
        return SimpleNamespace(n=2 * self.dim)

    @property
    def backward_action_space(self) -> Any:
        return SimpleNamespace(n=self.dim)

    @property
    def max_steps_in_episode(self) -> int:
        return self.dim

    def parts(self, built: np.ndarray) -> np.ndarray:
        return (built != -1).sum(1)

    def is_full(self, built: np.ndarray) -> np.ndarray:
        return (built != -1).all(1)

    def transition(self, state: StandInState, action: np.ndarray, env_params: Any) -> tuple[StandInState, Any, Any]:
        built = state.state.copy()
        built[np.arange(len(built)), action % self.dim] = action // self.dim
        return self._made(built), None, {}

    def backward_transition(self, state: StandInState, action: np.ndarray, params: Any) -> tuple[Any, Any, Any]:
        built = state.state.copy()
        built[np.arange(len(built)), action] = -1
        return self._made(built), None, {}

    def get_forward_action(self, state: StandInState, action: np.ndarray, before: Any, params: Any) -> np.ndarray:
        return action + self.dim * state.state[np.arange(len(action)), action]

    def get_invalid_mask(self, state: StandInState, env_params: Any) -> np.ndarray:
        return np.concatenate([state.state != -1] * 2, 1)

    def get_invalid_backward_mask(self, state: StandInState, env_params: Any) -> np.ndarray:
        return state.state == -1


class StandInGrid(StandInEnv):
    """Cells of a grid with sides of three, and a stop action; backward actions count from the last coordinate."""

    name, empty, side = "stand-in grid", 0, 3

    @property
    def stop_action(self) -> int:
        return self.dim

    @property
    def action_space(self) -> Any:
        return SimpleNamespace(n=self.dim + 1)

    @property
    def backward_action_space(self) -> Any:
        return SimpleNamespace(n=self.dim)

    @property
    def max_steps_in_episode(self) -> int:
        return self.dim * self.side

    def parts(self, built: np.ndarray) -> np.ndarray:
        return built.sum(1)

    def is_full(self, built: np.ndarray) -> np.ndarray:
        return np.zeros(len(built), bool)

    def transition(self, state: StandInState, action: np.ndarray, env_params: Any) -> tuple[StandInState, Any, Any]:
        built = state.state.copy()
        built[np.arange(len(built)), action] += 1
        return self._made(built), None, {}

    def backward_transition(self, state: StandInState, action: np.ndarray, params: Any) -> tuple[Any, Any, Any]:
        built = state.state.copy()
        built[np.arange(len(built)), self.dim - 1 - action] -= 1
        return self._made(built), None, {}

    def get_forward_action(self, state: StandInState, action: np.ndarray, before: Any, params: Any) -> np.ndarray:
        return self.dim - 1 - action

    def get_invalid_mask(self, state: StandInState, env_params: Any) -> np.ndarray:
        return np.concatenate([state.state == self.side - 1, np.zeros((len(state.state), 1), bool)], 1)

    def get_invalid_backward_mask(self, state: StandInState, env_params: Any) -> np.ndarray:
        return (state.state == 0)[:, ::-1]
