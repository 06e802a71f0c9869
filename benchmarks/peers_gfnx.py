"""The work of gfnx in benchmarks/peers.py: sampling and training by its own means; it has no chain.

As in gfnx's baselines, one equinox MLP has a head for P_F and one for P_B, and everything is compiled. Sampling has the
head of P_F alone, and hands on nothing that is not asked for, so that the compiler can drop it.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import equinox as eqx
import gfnx
import jax
import jax.numpy as jnp
import optax
from peers_worker import COUPLING, FLATTENED, GRID_REWARD, HIDDEN_SIZE, LEARNING_RATE, Facts, Task, Work, serve

SEED = 0

Policy = Callable[[Any, jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]


def main() -> None:
    """Serve benchmarks/peers.py."""
    serve(make, log_reward, lambda: {name: version(name) for name in ("gfnx", "jax", "numpy")})


def make(task: Task) -> Work:
    """Return the work of a task."""
    return {"sampling": sampling, "training": training}[task["kind"]](task)


def sampling(task: Task) -> Work:
    """Objects built by P_F."""
    env, params = environment(task["space"])
    weights, static = network(env, task, env.action_space.n)
    keys = _Keys()

    def policy(key: Any, observed: jax.Array, weights: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return _logits(weights, static, observed), {}

    def rollout(key: Any, weights: Any) -> tuple[Any, jax.Array]:
        _, seen = gfnx.utils.forward_rollout(key, task["batch"], policy, weights, env, params)
        return seen["final_env_state"].state, seen["trajectory_length"]

    compiled = jax.jit(rollout).lower(keys.next(), weights).compile()
    lengths = jnp.zeros(1)

    def run() -> None:
        nonlocal lengths
        _, lengths = jax.block_until_ready(compiled(keys.next(), weights))

    return Work(run, lambda: _facts(task, lengths), is_warm=True)


def training(task: Task) -> Work:
    """Optimiser steps of on-policy trajectory balance, one compiled function."""
    env, params = environment(task["space"])
    num_forward = env.action_space.n
    network_weights, static = network(env, task, num_forward + env.backward_action_space.n)
    optimizer = optax.adam(LEARNING_RATE)
    weights = {"network": network_weights, "log_z": jnp.zeros(())}
    state = optimizer.init(weights)
    keys = _Keys()

    def policy(key: Any, observed: jax.Array, weights: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return _logits(weights, static, observed)[:, :num_forward], {}

    def balance(weights: Any, paths: Any, log_rewards: jax.Array) -> jax.Array:
        batch, length = paths.pad.shape
        logits = _logits(weights["network"], static, paths.obs.reshape(batch * length, -1))
        forward, backward = jnp.split(logits.reshape(batch, length, -1), [num_forward], axis=-1)
        scored = paths.replace(info={"forward_logits": forward, "backward_logits": backward})
        log_forward, log_backward = gfnx.utils.forward_trajectory_log_probs(env, scored, params)
        return jnp.mean((weights["log_z"] + log_forward - log_backward - log_rewards) ** 2)

    def step(key: Any, weights: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        paths, seen = gfnx.utils.forward_rollout(key, task["batch"], policy, weights["network"], env, params)
        gradient = jax.grad(balance)(weights, paths, seen["log_gfn_reward"])
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, seen["trajectory_length"]

    compiled = jax.jit(step).lower(keys.next(), weights, state).compile()
    lengths = jnp.zeros(1)

    def run() -> None:
        nonlocal weights, state, lengths
        weights, state, lengths = jax.block_until_ready(compiled(keys.next(), weights, state))

    return Work(run, lambda: _facts(task, lengths), is_warm=True)


def environment(space: Task) -> tuple[Any, Any]:
    """Return the environment of a space and its parameters, with gfnmc's reward."""
    key = jax.random.PRNGKey(SEED)
    if space["kind"] == "grid":
        reward = gfnx.GeneralHypergridRewardModule(*GRID_REWARD)
        env = gfnx.environment.HypergridEnvironment(reward, dim=space["num_dims"], side=space["side"])
        return env, env.init(key)
    side = space["side"]
    env = gfnx.environment.IsingEnvironment(gfnx.IsingRewardModule(), dim=side**2)
    site = jnp.arange(side**2)
    joined = jnp.zeros((side**2, side**2))
    for axis in (0, 1):
        joined = joined.at[site, jnp.roll(site.reshape(side, side), -1, axis).flatten()].set(1.0)
    params = env.init(key)
    # gfnx counts every bond twice.
    couplings = (joined + joined.T) * COUPLING / 2
    return env, params.replace(reward_params=params.reward_params.replace(J=couplings))


def network(env: Any, task: Task, num_logits: int) -> tuple[Any, Any]:
    """Return the weights of a network that has learned nothing, but how likely it is to exit, and the rest of it."""
    num_inputs = env.get_obs(env.get_init_state(1), None).shape[-1]
    mlp = eqx.nn.MLP(num_inputs, num_logits, HIDDEN_SIZE, 2, key=jax.random.PRNGKey(SEED))
    last = mlp.layers[-1]
    bias = (last.bias * FLATTENED).at[env.action_space.n - 1].add(task.get("exit_bias", 0.0))
    mlp = eqx.tree_at(lambda it: (it.layers[-1].weight, it.layers[-1].bias), mlp, (last.weight * FLATTENED, bias))
    return eqx.partition(mlp, eqx.is_array)


def log_reward(space: Task, objects: list[list[int]]) -> list[float]:
    """Return log R of objects."""
    env, params = environment(space)
    states = env.get_init_state(len(objects)).replace(state=jnp.array(objects))
    return env.reward_module.log_reward(states, params).tolist()


class _Keys:
    """Random keys, one after the other."""

    def __init__(self) -> None:
        self._key = jax.random.PRNGKey(SEED)

    def next(self) -> Any:
        self._key, key = jax.random.split(self._key)
        return key


def _facts(task: Task, lengths: jax.Array) -> Facts:
    # On grids it counts the exit.
    return {"steps_forward": float(lengths.mean()) - (task["space"]["kind"] == "grid")}


def _logits(weights: Any, static: Any, observed: jax.Array) -> jax.Array:
    return jax.vmap(eqx.combine(weights, static))(observed.astype(jnp.float32))


if __name__ == "__main__":
    main()
