"""Prove kernels on environments of gfnx itself, with untrained policies, where it is installed.

    python benchmarks/check_gfnx.py

gfnx pins a NumPy below 2 and an older JAX, so gfnmc's tests run the adapter on a stand-in of its interface. This
program makes the same proofs with the package: every decision of a step followed, the largest change of the law R/Z,
and that of a kernel whose Hastings term is inverted. It exits with 1 unless the first is rounding and the second not.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gfnx import HypergridEnvironment, IsingEnvironment
from gfnx.reward.hypergrid import EasyHypergridRewardModule
from gfnx.reward.ising import IsingRewardModule, IsingRewardParams
from torch import Tensor

from gfnmc.environments import enumerate_states
from gfnmc.integrations.gfnx import from_gfnx, gfnx_target
from gfnmc.kernels import SuffixResampling, suffix
from gfnmc.testing import transition_matrix

BOUND = 1e-10


def cases() -> Iterator[tuple[str, Any, Any, bool]]:
    """Yield a name, an environment, its parameters, and whether all its objects have the same length."""
    grid = HypergridEnvironment(EasyHypergridRewardModule(), dim=2, side=3)
    yield "hypergrid", grid, grid.init(jax.random.PRNGKey(0)), False
    ising = IsingEnvironment(IsingRewardModule(), dim=2)
    couplings = jnp.array([[0.3, 0.4], [0.4, -0.5]])
    parameters = replace(ising.init(jax.random.PRNGKey(0)), reward_params=IsingRewardParams(J=couplings))
    yield "Ising", ising, parameters, True


def untrained(env: Any, parameters: Any, num_actions: int, seed: int) -> Any:
    """Return a random network of one layer."""
    width = int(np.prod(env.get_obs(env.get_init_state(1), parameters).shape))
    weights = jax.random.normal(jax.random.PRNGKey(seed), (width, num_actions))
    return lambda obs: obs.reshape(len(obs), -1).astype(jnp.float32) @ weights


def error_of(kernel: Any, objects: Tensor) -> float:
    """Return the largest change of the target's law in one step."""
    law = kernel.target.log_prob(objects).softmax(0)
    return float((law @ transition_matrix(kernel, objects) - law).abs().max())


def main() -> int:
    right = suffix.log_hastings_ratio
    is_right = True
    for name, env, parameters, is_fixed_length in cases():
        laws = [
            untrained(env, parameters, int(space.n), seed)
            for seed, space in enumerate((env.action_space, env.backward_action_space))
        ]
        pair = from_gfnx(env, parameters, forward=laws[0], backward=laws[1], is_fixed_length=is_fixed_length)
        kernel = SuffixResampling(pair, gfnx_target(env, parameters))
        objects = enumerate_states(pair.environment).objects
        error = error_of(kernel, objects)
        suffix.log_hastings_ratio = lambda **terms: -right(**terms)
        wrong = error_of(kernel, objects)
        suffix.log_hastings_ratio = right
        is_right &= error < BOUND < wrong
        print(f"{name}: {len(objects)} objects, error {error:.0e}; Hastings term inverted {wrong:.0e}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
