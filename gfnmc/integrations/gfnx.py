"""Pairs that gfnx trained (d-tiapkin/gfnx 0.0, JAX), as proposals here.

    pair = from_gfnx(env, env_params, forward=lambda obs: policy(None, obs, weights)[0])
    target = gfnx_target(env, env_params)

Their state is a record of arrays, what is built and some flags; here it is one row of integers, the arrays side by side
(`gfnx_field` takes one out again). In their masks True is *invalid*, and a backward action has a number of its own, so
that of each edge is asked for: all edges into a state in one call. Functions run under `jax.jit`, on
batches of one size, so that nothing is compiled twice; this file imports nothing of theirs.

Written against version 0.0.1. `benchmarks/check_gfnx.py` proves kernels on the package itself where it is installed;
the tests of this file use a stand-in of its interface.
"""

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import CapabilityError
from gfnmc.integrations.functions import FunctionPair
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches
from gfnmc.targets.base import Target
from gfnmc.targets.function import BatchFunction, from_function

Logits = Callable[[Any], Any]
"""Takes observations as `env.get_obs` makes them, returns a number for each action, a row a state."""


def from_gfnx(
    env: Any,
    env_params: Any,
    *,
    forward: Logits,
    backward: Logits | None = None,
    exit: int | None = None,
    max_depth: int | None = None,
    is_fixed_length: bool = False,
    training_cost: Cost | None = None,
) -> FunctionPair:
    """Return the pair of two functions of observations.

    Args:
        env: The environment.
        env_params: Its parameters, from `env.init`.
        forward: Logits of the forward actions, unmasked, as gfnx's policies give them.
        backward: Logits of the backward actions, in their own numbers; by default P_B is uniform.
        exit: The action that ends a path without a change of the object; `env.stop_action` by default. Where there is
            none, states say themselves that they are finished.
        max_depth: Most actions of a path, the exit not counted; `env.max_steps_in_episode` by default.
        is_fixed_length: Whether every complete path has `max_depth` actions.
        training_cost: What training cost, charged to whoever samples with the pair.

    Raises:
        CapabilityError: If states hold numbers that are not integers, or two parents reach a state by one action.
        EnvironmentContractError: If the environment contradicts itself.
        PolicyError: If the logits do not fit the environment.
    """
    space = _Space(env, env_params)
    laws = _Laws(space, forward, backward)
    exit = getattr(env, "stop_action", None) if exit is None else exit
    return FunctionPair(
        log_pf=laws.log_pf,
        log_pb=laws.log_pb,
        step=space.step,
        unstep=space.unstep,
        is_source=lambda states: (states == space.source).all(1),
        exit=space.is_terminal if exit is None else int(exit),
        source=space.source,
        max_depth=int(env.max_steps_in_episode) if max_depth is None else max_depth,
        is_fixed_length=is_fixed_length,
        training_cost=training_cost,
    )


def gfnx_target(
    env: Any,
    env_params: Any,
    *,
    name: str | None = None,
    statistics: Mapping[str, BatchFunction] | None = None,
) -> Target:
    """Return `env.reward_module.log_reward` as a target on rows of finished states.

    Args:
        env: The environment.
        env_params: Its parameters.
        name: Short name for tables and files; the environment's by default.
        statistics: Named functions of a batch of rows, each `(batch,)`, worth watching.

    Raises:
        CapabilityError: If states hold numbers that are not integers.
    """
    space = _Space(env, env_params)
    reward = space.compiled(lambda state: env.reward_module.log_reward(state, env_params))

    def log_reward(rows: Tensor) -> Tensor:
        return _tensor(reward(space.states(rows, is_terminal=True)))

    return from_function(
        lambda rows: in_sub_batches(log_reward, SUB_BATCH, rows),
        tuple(space.source.shape),
        name=name or str(env.name),
        statistics=statistics,
    )


def gfnx_field(env: Any, rows: Int64[Tensor, "batch row"], name: str) -> Shaped[Tensor, "batch *field"]:
    """Return one of the arrays that rows are made of, such as "state".

    Args:
        env: The environment.
        rows: States or objects.
        name: Of the field.
    """
    return torch.from_numpy(_fields_of(env.get_init_state(1), rows.numpy())[name])


class _Space:
    """The moves and masks of an environment on rows of integers."""

    def __init__(self, env: Any, env_params: Any) -> None:
        self.env, self._params = env, env_params
        self._template = env.get_init_state(1)
        for field in dataclasses.fields(self._template):
            if np.asarray(getattr(self._template, field.name)).dtype.kind not in "biu":
                raise CapabilityError(f"the {field.name!r} of a state of {env.name} is not made of integers or flags")
        self.source = self._rows(self._template)[0]
        self.num_actions = int(env.action_space.n)
        self._num_back = int(env.backward_action_space.n)
        self.compiled = functools.partial(_compiled, self._template)
        self._transition = self.compiled(lambda state, actions: env.transition(state, actions, env_params)[0])
        self._backward_transition = self.compiled(
            lambda state, actions: env.backward_transition(state, actions, env_params)[0]
        )
        self._edges = self.compiled(self._edges_into)
        self.forward_mask = self.compiled(lambda state: env.get_invalid_mask(state, env_params))
        self.observed = lambda state: env.get_obs(state, env_params)

    def states(self, rows: Tensor, **flags: bool) -> Any:
        """Return rows as the environment wants them, with some flags set."""
        fields = _fields_of(self._template, rows.numpy())
        changed = {name: np.full_like(fields[name], flag) for name, flag in flags.items()}
        return self._template.replace(**fields | changed)

    def step(self, rows: Tensor, actions: Int64[Tensor, " batch"]) -> Tensor:
        """Return the states after the actions."""
        return in_sub_batches(self._stepped, SUB_BATCH, rows, actions)

    def unstep(self, rows: Tensor, actions: Int64[Tensor, " batch"]) -> Tensor:
        """Return the states before them."""
        return in_sub_batches(self._unstepped, SUB_BATCH, rows, actions)

    def is_terminal(self, rows: Tensor) -> Tensor:
        """Return True where a state says that it is finished."""
        return torch.from_numpy(_fields_of(self._template, rows.numpy())["is_terminal"].astype(bool))

    def edges_into(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each backward action the forward action that it undoes, and whether it may be taken.

        Raises:
            CapabilityError: If two of those that may be taken undo the same forward action.
        """
        found, is_invalid = self._edges(self.states(rows))
        actions, allowed = _tensor(found).to(torch.int64), ~_tensor(is_invalid).to(torch.bool)
        apart = torch.where(allowed, actions, self.num_actions + torch.arange(self._num_back)).sort(1).values
        if bool((apart[:, 1:] == apart[:, :-1]).any()):
            raise CapabilityError(
                f"two parents reach a state of {self.env.name} by the same action, so an action does not say where to "
                "go back to; kernels need one parent an action"
            )
        return actions, allowed

    def _edges_into(self, state: Any) -> tuple[Any, Any]:
        is_invalid = self.env.get_invalid_backward_mask(state, self._params)
        batch = len(is_invalid)
        every = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        repeated = state.replace(**{name: values.repeat(self._num_back, axis=0) for name, values in every.items()})
        back = np.tile(np.arange(self._num_back), batch)
        before = self.env.backward_transition(repeated, back, self._params)[0]
        actions = self.env.get_forward_action(repeated, back, before, self._params)
        return actions.reshape(batch, self._num_back), is_invalid

    def _stepped(self, rows: Tensor, actions: Tensor) -> Tensor:
        return self._rows(self._transition(self.states(rows), actions.numpy()))

    def _unstepped(self, rows: Tensor, actions: Tensor) -> Tensor:
        undone, allowed = self.edges_into(rows)
        back = ((undone == actions[:, None]) & allowed).to(torch.int64).argmax(1)
        return self._rows(self._backward_transition(self.states(rows), back.numpy()))

    def _rows(self, state: Any) -> Tensor:
        arrays = [np.asarray(getattr(state, field.name)) for field in dataclasses.fields(state)]
        return torch.from_numpy(np.concatenate([a.reshape(len(a), -1).astype(np.int64) for a in arrays], 1))


class _Laws:
    """What the functions say of rows, -inf where the environment calls an action invalid."""

    def __init__(self, space: _Space, forward: Logits, backward: Logits | None) -> None:
        self._space = space
        self._forward = space.compiled(lambda state: forward(space.observed(state)))
        self._backward = None if backward is None else space.compiled(lambda state: backward(space.observed(state)))

    def log_pf(self, rows: Tensor) -> Tensor:
        """Return the scores of P_F."""
        state = self._space.states(rows)
        is_invalid = _tensor(self._space.forward_mask(state)).to(torch.bool)
        return torch.where(is_invalid, -math.inf, _tensor(self._forward(state)))

    def log_pb(self, rows: Tensor) -> Tensor:
        """Return the scores of P_B, by the numbers of the forward actions."""
        actions, allowed = self._space.edges_into(rows)
        if self._backward is None:
            logits = torch.zeros(actions.shape, dtype=torch.float64)
        else:
            logits = _tensor(self._backward(self._space.states(rows)))
        table = torch.full((len(rows), self._space.num_actions), -math.inf, dtype=logits.dtype)
        row, place = allowed.nonzero(as_tuple=True)
        table[row, actions[row, place]] = logits[row, place]
        return table


def _fields_of(template: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays that rows are made of, with the dtypes of a state."""
    fields, first = {}, 0
    for field in dataclasses.fields(template):
        like = np.asarray(getattr(template, field.name))
        width = math.prod(like.shape[1:])
        fields[field.name] = rows[:, first : first + width].reshape(-1, *like.shape[1:]).astype(like.dtype)
        first += width
    return fields


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values))


def _compiled(template: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function under `jax.jit`, where states are made of JAX's arrays."""
    first = getattr(template, dataclasses.fields(template)[0].name)
    if type(first).__module__.partition(".")[0] not in ("jax", "jaxlib"):
        return function
    return importlib.import_module("jax").jit(function)
