"""Pairs that the `gflownet` of Hernandez-Garcia and others trained (alexhernandezgarcia/gflownet), as proposals here.

    pair = from_gflownet(gflownet, env)
    target = gflownet_target(env, proxy)

Theirs is one environment object a trajectory, with tuples as actions and masks in which True is *invalid*. Here one
copy of the environment is set to the state of one row after the other, so a step costs Python time for each row; states
are written as rows of a tensor by `encode` and read by `decode`. Nothing of the package is imported.

Written against its interface as of August 2026, commit d01a4c0. `benchmarks/check_gflownet.py` proves kernels on the
package itself where it is installed; the tests of this file use a stand-in of the interface.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import CapabilityError, EnvironmentContractError, PolicyError
from gfnmc.integrations.functions import FunctionPair
from gfnmc.policies.sub_batches import SUB_BATCH, in_sub_batches
from gfnmc.targets.base import Target
from gfnmc.targets.function import BatchFunction, from_function

Encode = Callable[[Any], Tensor]
"""Takes a state as the environment holds it, returns a tensor of integers, of one shape for all states."""

Decode = Callable[[Tensor], Any]
"""Takes such a tensor, returns the state."""


def from_gflownet(
    gflownet: Any,
    env: Any = None,
    *,
    encode: Encode | None = None,
    decode: Decode | None = None,
    max_depth: int | None = None,
    training_cost: Cost | None = None,
    block_rows: int | None = SUB_BATCH,
) -> FunctionPair:
    """Return the pair of a trained model of theirs.

    The policies are copied, in evaluation mode: training on changes nothing here.

    Args:
        gflownet: What has `forward_policy` and `backward_policy`, called with states as `env.states2policy` makes them;
            without a backward policy P_B is uniform.
        env: A discrete environment; `gflownet.env` by default.
        encode: How a state becomes a tensor; needed where states are not lists, arrays or tensors of integers of one
            shape.
        decode: The way back.
        max_depth: Most actions of a path, the exit not counted; one less than `env.max_traj_length` by default, which
            environments may leave at 100.
        training_cost: What training cost, charged to whoever samples with the pair.
        block_rows: States that a network sees at a time.

    Raises:
        CapabilityError: If the environment is not discrete, its states do not become tensors, or two parents reach a
            state by one action.
        EnvironmentContractError: If the environment contradicts itself.
        PolicyError: If a policy does not fit the environment.
    """
    env = gflownet.env if env is None else env
    space = _Space(env, encode, decode)
    policies = copy.deepcopy(
        [getattr(gflownet, name, None) for name in ("forward_policy", "backward_policy")], {id(env): env}
    )
    forward, backward = (_frozen(policy) for policy in policies)
    return FunctionPair(
        log_pf=lambda states: space.scores(forward, states, is_backward=False),
        log_pb=lambda states: space.scores(backward, states, is_backward=True),
        step=space.step,
        unstep=space.unstep,
        is_source=space.is_source,
        exit=space.exit,
        source=space.source,
        max_depth=int(space.env.max_traj_length) - 1 if max_depth is None else max_depth,
        training_cost=training_cost,
        block_rows=block_rows,
    )


def gflownet_target(
    env: Any,
    proxy: Any,
    *,
    values: tuple[int, ...] | None = None,
    name: str | None = None,
    statistics: Mapping[str, BatchFunction] | None = None,
    encode: Encode | None = None,
    decode: Decode | None = None,
) -> Target:
    """Return the log-reward of a proxy, `proxy.rewards(env.states2proxy(states), log=True)`, as a target.

    Args:
        env: The environment of the states.
        proxy: What rewards them.
        values: The values of a site, where the objects are all assignments of them to sites.
        name: Short name for tables and files; the proxy's by default.
        statistics: Named functions of a batch of objects, each `(batch,)`, worth watching.
        encode: As in `from_gflownet`.
        decode: As in `from_gflownet`.

    Raises:
        CapabilityError: If the states do not become tensors.
    """
    space = _Space(env, encode, decode)

    def rewards(objects: Tensor) -> Tensor:
        with torch.no_grad():
            return proxy.rewards(space.env.states2proxy(space.decoded(objects)), log=True)

    return from_function(
        lambda objects: in_sub_batches(rewards, SUB_BATCH, objects),
        tuple(space.source.shape),
        values=values,
        dtype=space.source.dtype,
        name=name or type(proxy).__name__,
        statistics=statistics,
    )


class _Space:
    """One environment object, set to the state of one row after the other.

    Args:
        env: The environment; copied.
        encode: How a state becomes a tensor.
        decode: The way back.
    """

    def __init__(self, env: Any, encode: Encode | None, decode: Decode | None) -> None:
        _check_environment(env)
        self.env = env.copy()
        self._encode = _as_tensor if encode is None else encode
        self._decode = _decoder(env.source) if decode is None else decode
        self.source = self._encode(env.source)
        self.actions = [tuple(action) for action in env.action_space]
        self.exit = self.actions.index(tuple(env.eos))

    def decoded(self, states: Tensor) -> list[Any]:
        """Return states as the environment holds them."""
        return [self._decode(state) for state in states]

    def scores(self, policy: Any, states: Tensor, *, is_backward: bool) -> Tensor:
        """Return what a policy says of each action, -inf where the environment calls it invalid."""
        different, rows = states.unique(dim=0, return_inverse=True)
        decoded = self.decoded(different)
        mask = self.env.get_mask_invalid_actions_backward if is_backward else self.env.get_mask_invalid_actions_forward
        is_invalid = torch.tensor([mask(state, False) for state in decoded], dtype=torch.bool)[rows]
        if policy is None:
            return torch.where(is_invalid, -math.inf, 0.0).to(torch.float64)
        # The network sees all rows, in a batch of one size.
        found = policy(self.env.states2policy(decoded)[rows])
        if found.shape != is_invalid.shape:
            raise PolicyError(
                f"a policy returned shape {tuple(found.shape)} for {len(states)} states of {type(self.env).__name__}, "
                f"which has {len(self.actions)} actions; give the environment that it was trained on"
            )
        return torch.where(is_invalid, -math.inf, found)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the states after the actions."""
        return self._moved(self._stepped, states, actions)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the states before them."""
        return self._moved(self._parent, states, actions)

    def is_source(self, states: Tensor) -> Tensor:
        """Return True where a state is the empty one."""
        return (states == self.source).flatten(1).all(-1)

    def _moved(self, move: Callable[[Tensor, int], Tensor], states: Tensor, actions: Tensor) -> Tensor:
        """Make the same move of the same state once."""
        edges = torch.cat([states.flatten(1), actions[:, None]], 1)
        different, rows = edges.unique(dim=0, return_inverse=True)
        moved = [move(edge[:-1].reshape(self.source.shape), int(edge[-1])) for edge in different]
        return torch.stack(moved)[rows]

    def _stepped(self, state: Tensor, action: int) -> Tensor:
        env = self.env.reset(0)
        env.set_state(self._decode(state), done=False)
        after, _, is_valid = env.step(self.actions[action])
        if not is_valid or env.done:
            raise EnvironmentContractError(
                f"{type(env).__name__} did not take the action {self.actions[action]} in the state {state.tolist()}, "
                "which its mask allows"
            )
        return self._encode(after)

    def _parent(self, state: Tensor, action: int) -> Tensor:
        parents, led_here = self.env.get_parents(self._decode(state), False)
        wanted = [
            parent for parent, other in zip(parents, led_here, strict=True) if tuple(other) == self.actions[action]
        ]
        if len(wanted) != 1:
            raise CapabilityError(
                f"{len(wanted)} parents of the state {state.tolist()} lead there by the action {self.actions[action]}, "
                "so a backward action does not say where it goes; kernels need one parent an action"
            )
        return self._encode(wanted[0])


def _check_environment(env: Any) -> None:
    name = type(env).__name__
    if getattr(env, "continuous", False) or env.mask_dim != env.action_space_dim:
        raise CapabilityError(
            f"{name} is continuous, or its masks hold more than one entry an action, as those of composites do; only "
            "discrete environments can be adapted"
        )


def _as_tensor(state: Any) -> Tensor:
    try:
        encoded = torch.as_tensor(np.asarray(state))
    except (TypeError, ValueError):
        encoded = None
    if encoded is None or encoded.is_floating_point() or encoded.dim() == 0:
        raise CapabilityError(
            f"the state {state!r} is not a list, array or tensor of integers; say with `encode` and `decode` how "
            "states become tensors of integers of one shape, and back"
        )
    return encoded.to(torch.int64).clone()


def _decoder(source: Any) -> Decode:
    """Return what makes states of the kind that the source is."""
    if isinstance(source, Tensor):
        return lambda state: state.to(source.dtype).clone()
    if isinstance(source, np.ndarray):
        return lambda state: state.numpy().astype(source.dtype)
    return lambda state: state.tolist()


def _frozen(policy: Any) -> Any:
    model = getattr(policy, "model", None)
    if isinstance(model, torch.nn.Module):
        model.requires_grad_(False).eval()
    return policy
