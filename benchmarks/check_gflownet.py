"""Prove kernels on environments of alexhernandezgarcia/gflownet itself, with untrained policies, where it is installed.

    python benchmarks/check_gflownet.py

gfnmc's tests run the adapter on a stand-in of that package's interface, which is on no registry. This program makes the
same proofs with the package: every decision of a step followed, the largest change of the law R/Z, and that of a kernel
whose Hastings term is inverted. It exits with 1 unless the first is rounding and the second is not.
"""

import sys
from types import SimpleNamespace
from typing import Any

import torch
from gflownet.envs.grid import Grid
from gflownet.envs.ising import Ising
from gflownet.policy.base import Policy
from gflownet.proxy.base import Proxy
from omegaconf import OmegaConf
from torch import Tensor

from gfnmc.environments import enumerate_states
from gfnmc.integrations.hernandez_garcia import from_gflownet, gflownet_target
from gfnmc.kernels import SuffixResampling, suffix
from gfnmc.testing import transition_matrix

BOUND = 1e-10


class Uneven(Proxy):
    """A reward that no two objects share."""

    def __call__(self, states: Any) -> Tensor:
        flat = torch.as_tensor(states).flatten(1).float()
        return torch.exp(1.5 * torch.sin((flat * (1.0 + 2.3 * torch.arange(flat.shape[1]))).sum(1)))


def model_of(env: Any) -> Any:
    """Return untrained policies as a model of theirs holds them."""
    config = OmegaConf.create({"type": "mlp", "n_hid": 16, "n_layers": 2})
    policies = [Policy(config, env, env.device, env.float) for _ in range(2)]
    return SimpleNamespace(env=env, forward_policy=policies[0], backward_policy=policies[1])


def error_of(kernel: Any, objects: Tensor) -> float:
    """Return the largest change of the target's law in one step."""
    law = kernel.target.log_prob(objects).softmax(0)
    return float((law @ transition_matrix(kernel, objects) - law).abs().max())


def main() -> int:
    torch.manual_seed(0)
    right = suffix.log_hastings_ratio
    is_right = True
    for env in (Grid(n_dim=2, length=3), Ising(n_dim=1, length=2)):
        pair = from_gflownet(model_of(env))
        target = gflownet_target(env, Uneven(device="cpu", float_precision=32))
        kernel, objects = SuffixResampling(pair, target), enumerate_states(pair.environment).objects
        error = error_of(kernel, objects)
        suffix.log_hastings_ratio = lambda **terms: -right(**terms)
        wrong = error_of(kernel, objects)
        suffix.log_hastings_ratio = right
        is_right &= error < BOUND < wrong
        print(f"{type(env).__name__}: {len(objects)} objects, error {error:.0e}; Hastings term inverted {wrong:.0e}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
