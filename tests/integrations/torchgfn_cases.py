"""Small torchgfn environments and untrained torchgfn models for them."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch
from gfn.estimators import ConditionalDiscretePolicyEstimator, DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import (
    DBGFlowNet,
    FMGFlowNet,
    LogPartitionVarianceGFlowNet,
    ModifiedDBGFlowNet,
    SubTBGFlowNet,
    TBGFlowNet,
)
from gfn.preprocessors import EnumPreprocessor, IdentityPreprocessor, KHotPreprocessor
from gfn.utils.modules import MLP, Tabular
from torch import Tensor

# Importing it sets the start method of processes, which is not its to set.
_start_method = multiprocessing.get_start_method(allow_none=True)
from gfn import gym  # noqa: E402
from gfn.gym.discrete_ebm import IsingModel  # noqa: E402

multiprocessing.set_start_method(_start_method, force=True)

MOTIFS = torch.tensor([[0, 0, 1], [1, 1, 0]])


def uneven(states: Tensor) -> Tensor:
    """A positive reward that no two objects share."""
    place = torch.arange(states.shape[1], dtype=torch.float32)
    return torch.exp(1.5 * torch.sin((states.float() * (1.0 + 2.3 * place)).sum(-1)))


def spins() -> Any:
    return gym.DiscreteEBM(2, IsingModel(torch.tensor([[0.3, 0.4], [0.4, -0.5]])), alpha=0.9)


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "grid": lambda: gym.HyperGrid(2, 3, validate_modes=False, store_all_states=True, calculate_partition=True),
    "spins": spins,
    "bits in order": lambda: gym.BitSequence(1, 3, n_modes=2, H=MOTIFS),
    "bits in any order": lambda: gym.NonAutoregressiveBitSequence(
        2, 4, n_modes=2, H=torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]])
    ),
    "sets": lambda: gym.SetAddition(3, 3, uneven),
    "small sets": lambda: gym.SetAddition(3, 2, uneven),
    "sets of two": lambda: gym.SetAddition(4, 2, uneven, fixed_length=True),
    "tree": lambda: gym.PerfectBinaryTree(lambda x: 1.0 + (x[:, 0] % 5).float(), depth=3),
}

TREES = {"bits in order", "tree"}


def estimator(env: Any, *, is_backward: bool = False, seed: int = 0) -> Any:
    """An untrained policy of an environment, far from uniform."""
    inputs = env.s0.numel()
    with torch.random.fork_rng():
        torch.manual_seed(2 * seed + is_backward)
        module = MLP(inputs, env.n_actions - is_backward, hidden_dim=16, n_hidden_layers=1)
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(1.5)
    return DiscretePolicyEstimator(
        module, env.n_actions, IdentityPreprocessor(output_dim=inputs, target_dtype=torch.float32), is_backward
    )


def flow(env: Any) -> Any:
    inputs = env.s0.numel()
    return ScalarEstimator(MLP(inputs, 1), IdentityPreprocessor(output_dim=inputs, target_dtype=torch.float32))


MODELS: dict[str, Callable[[Any], Any]] = {
    "trajectory balance": lambda env: TBGFlowNet(estimator(env), estimator(env, is_backward=True)),
    "no P_B": lambda env: TBGFlowNet(estimator(env), None, constant_pb=True),
    "uniform P_B": lambda env: TBGFlowNet(
        estimator(env), DiscretePolicyEstimator.uniform(env.n_actions, IdentityPreprocessor(env.s0.numel()))
    ),
    "detailed balance": lambda env: DBGFlowNet(estimator(env), estimator(env, is_backward=True), flow(env)),
    "modified detailed balance": lambda env: ModifiedDBGFlowNet(estimator(env), estimator(env, is_backward=True)),
    "sub-trajectory balance": lambda env: SubTBGFlowNet(estimator(env), estimator(env, is_backward=True), flow(env)),
    "log-partition variance": lambda env: LogPartitionVarianceGFlowNet(
        estimator(env), estimator(env, is_backward=True)
    ),
    "flow matching": lambda env: FMGFlowNet(estimator(env)),
}


def table(env: Any) -> Any:
    """A model that keeps a number for every state, found by the state's index."""
    index = EnumPreprocessor(env.get_states_indices)
    modules = [Tabular(env.n_states, env.n_actions - is_backward) for is_backward in (False, True)]
    for seed, module in enumerate(modules):
        generator = torch.Generator().manual_seed(seed)
        module.table.data.copy_(torch.randn(module.table.shape, generator=generator))
    forward, backward = modules
    return TBGFlowNet(
        DiscretePolicyEstimator(forward, env.n_actions, index),
        DiscretePolicyEstimator(backward, env.n_actions, index, is_backward=True),
    )


def conditional(env: Any) -> Any:
    """A model of a conditional grid."""

    def policy(*, is_backward: bool) -> Any:
        states = MLP(env.height * env.ndim, 8, hidden_dim=8, n_hidden_layers=1)
        conditions = MLP(1, 8, hidden_dim=8, n_hidden_layers=1)
        final = MLP(16, env.n_actions - is_backward, hidden_dim=16, n_hidden_layers=1)
        return ConditionalDiscretePolicyEstimator(
            states, conditions, final, env.n_actions, KHotPreprocessor(env.height, env.ndim), is_backward
        )

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return TBGFlowNet(policy(is_backward=False), policy(is_backward=True))
