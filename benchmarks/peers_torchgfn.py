"""The work of torchgfn in benchmarks/peers.py: local search, sampling and training by its own means.

P_F and P_B are two heads on one trunk of two layers, as in torchgfn's tutorials, or P_B is torchgfn's uniform one. What
a user could switch off is off: checks of distributions, gradients of the couplings, gradients where none are needed.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import torch
from gfn.containers import Trajectories
from gfn.env import DiscreteEnv
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import DiscreteEBM, HyperGrid
from gfn.gym.discrete_ebm import IsingModel
from gfn.preprocessors import IdentityPreprocessor, KHotPreprocessor
from gfn.samplers import LocalSearchSampler, Sampler
from gfn.utils.modules import MLP, DiscreteUniform
from peers_worker import COUPLING, FLATTENED, GRID_REWARD, HIDDEN_SIZE, LEARNING_RATE, Facts, Task, Work, serve
from torch import Tensor

SEED = 0

Estimators = tuple[DiscretePolicyEstimator, DiscretePolicyEstimator]


def main() -> None:
    """Serve benchmarks/peers.py."""
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    serve(make, log_reward, lambda: {name: version(name) for name in ("torchgfn", "torch", "numpy")})


def make(task: Task) -> Work:
    """Return the work of a task."""
    torch.manual_seed(SEED)
    makers: dict[str, Callable[[Task], Work]] = {"chain": chain, "sampling": sampling, "training": training}
    return makers[task["kind"]](task)


def chain(task: Task) -> Work:
    """One round of local search with its Metropolis-Hastings test, from objects drawn uniformly.

    Each run starts from the same objects: the chain of local search leads to another law than the target, where
    objects have another length. Picking the accepted ones is left out.
    """
    env = environment(task["space"])
    pf, pb = estimators(env, task)
    search = LocalSearchSampler(pf, pb)
    started = uniform_trajectories(env, task, pb)

    @torch.no_grad()
    def run() -> None:
        search.local_search(env, started, back_ratio=task["back_ratio"], use_metropolis_hastings=True)

    def facts() -> Facts:
        _, up = _walks(run)
        back = _depth(env, started.terminating_states.tensor) - _depth(env, up.states[0].tensor)
        return {"steps_back": _mean(back), "steps_forward": _mean(up.terminating_idx - 1)}

    return Work(run, facts)


def sampling(task: Task) -> Work:
    """Trajectories of P_F."""
    env = environment(task["space"])
    pf, _ = estimators(env, task)
    sampler = Sampler(pf)

    lengths = torch.empty(0)

    @torch.no_grad()
    def run() -> None:
        nonlocal lengths
        # It counts the exit.
        lengths = sampler.sample_trajectories(env, n=task["batch"]).terminating_idx - 1

    return Work(run, lambda: {"steps_forward": _mean(lengths)})


def training(task: Task) -> Work:
    """Optimiser steps of on-policy trajectory balance, with log P_F kept from sampling or computed again."""
    env = environment(task["space"])
    gflownet = TBGFlowNet(*estimators(env, task), init_logZ=0.0)
    optimizer = torch.optim.Adam(gflownet.parameters(), lr=LEARNING_RATE)
    sampler = Sampler(gflownet.pf)
    keeps, lengths = task["keeps_log_probs"], torch.empty(0)

    def run() -> None:
        nonlocal lengths
        trajectories = sampler.sample_trajectories(env, n=task["batch"], save_logprobs=keeps)
        optimizer.zero_grad()
        gflownet.loss(env, trajectories, recalculate_all_logprobs=not keeps).backward()
        optimizer.step()
        lengths = trajectories.terminating_idx - 1

    return Work(run, lambda: {"steps_forward": _mean(lengths)})


def environment(space: Task) -> DiscreteEnv:
    """Return the environment of a space, with gfnmc's reward."""
    if space["kind"] == "grid":
        rewards = dict(zip(("R0", "R1", "R2"), GRID_REWARD, strict=True))
        return HyperGrid(space["num_dims"], space["side"], reward_fn_kwargs=rewards, validate_modes=False)
    side = space["side"]
    site = torch.arange(side**2)
    grid = site.reshape(side, side)
    joined = torch.zeros(side**2, side**2)
    for axis in (0, 1):
        joined[site, grid.roll(-1, axis).flatten()] = 1.0
    # torchgfn counts every bond twice.
    energy = IsingModel((joined + joined.T) * COUPLING / 2).requires_grad_(False)
    return DiscreteEBM(side**2, energy=energy)


def estimators(env: DiscreteEnv, task: Task) -> Estimators:
    """Return P_F and P_B that have learned nothing, but how likely it is to exit."""
    if isinstance(env, HyperGrid):
        preprocessor: Any = KHotPreprocessor(env.height, env.ndim)
    else:
        preprocessor = IdentityPreprocessor(env.ndim)
    forward = MLP(preprocessor.output_dim, env.n_actions, hidden_dim=HIDDEN_SIZE, n_hidden_layers=2)
    if task.get("backward") == "uniform":
        backward: Any = DiscreteUniform(env.n_actions - 1)
    else:
        backward = MLP(preprocessor.output_dim, env.n_actions - 1, trunk=forward.trunk)
    with torch.no_grad():
        forward.last_layer.weight *= FLATTENED
        forward.last_layer.bias *= FLATTENED
        forward.last_layer.bias[-1] += task.get("exit_bias", 0.0)
    return (
        DiscretePolicyEstimator(forward, env.n_actions, preprocessor),
        DiscretePolicyEstimator(backward, env.n_actions, preprocessor, is_backward=True),
    )


@torch.no_grad()
def uniform_trajectories(env: DiscreteEnv, task: Task, pb: DiscretePolicyEstimator) -> Trajectories:
    """Return trajectories to objects drawn uniformly."""
    num_values = env.height if isinstance(env, HyperGrid) else 2
    objects = env.states_from_tensor(torch.randint(num_values, (task["batch"], env.ndim)))
    return Sampler(pb).sample_trajectories(env, states=objects).reverse_backward_trajectories()


def log_reward(space: Task, objects: list[list[int]]) -> list[float]:
    """Return log R of objects."""
    env = environment(space)
    return env.log_reward(env.states_from_tensor(torch.tensor(objects))).tolist()


def _walks(run: Callable[[], object]) -> list[Trajectories]:
    """Return the trajectories that a run samples on its way."""
    walks: list[Trajectories] = []
    sample = Sampler.sample_trajectories

    def kept(*arguments: Any, **options: Any) -> Trajectories:
        walks.append(sample(*arguments, **options))
        return walks[-1]

    with patch.object(Sampler, "sample_trajectories", kept):
        run()
    return walks


def _depth(env: DiscreteEnv, states: Tensor) -> Tensor:
    return states.sum(-1) if isinstance(env, HyperGrid) else (states != -1).sum(-1)


def _mean(figures: Tensor) -> float:
    return float(figures.to(torch.float64).mean())


if __name__ == "__main__":
    main()
