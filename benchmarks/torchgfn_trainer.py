"""Train a pair by torchgfn's own means on a problem that benchmarks/training.py describes, and score it.

    python -m venv torchgfn-venv
    torchgfn-venv/bin/pip install torch==2.13.0 torchgfn==2.4.1
    python benchmarks/training.py --torchgfn-python torchgfn-venv/bin/python

torchgfn wants numpy < 2 and so an interpreter of its own; nothing here imports gfnmc. What runs is the loop of its
tutorial `train_hypergrid_simple.py`: trajectory balance on paths of its own, a network of two layers of 256, Adam with
1e-3 for the policies and 1e-1 for log Z, gradients clipped to norm 1. Hypergrids are torchgfn's environment with its
learned P_B. Lattices are filled site by site in row-major order, as gfnmc fills them here: a tree, so P_B is 1.

Objects are rows of indices of values, int64. Rewards are those of the problem, checked on objects before training.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gfn.actions import Actions
from gfn.env import DiscreteEnv
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import HyperGrid
from gfn.preprocessors import KHotPreprocessor
from gfn.samplers import Sampler
from gfn.states import DiscreteStates, States
from gfn.utils.common import set_seed
from gfn.utils.modules import MLP
from gfn.utils.prob_calculations import get_trajectory_pbs, get_trajectory_pfs

LEARNING_RATE, LOG_Z_LEARNING_RATE, MAX_GRAD_NORM = 1e-3, 1e-1, 1.0
CHUNK = 512

Arrays = dict[str, np.ndarray]


class TableEnergy:
    """log R of every object, in the order of a product space whose last site changes fastest."""

    def __init__(self, arrays: Arrays, num_sites: int, num_values: int) -> None:
        self._log_prob = torch.from_numpy(arrays["log_prob"])
        self._place = num_values ** torch.arange(num_sites - 1, -1, -1)

    def __call__(self, objects: torch.Tensor) -> torch.Tensor:
        return self._log_prob[(objects * self._place).sum(-1)]


class BondEnergy:
    """log R as a sum over bonds of coupling times a number that the two values decide."""

    def __init__(self, arrays: Arrays) -> None:
        self._bonds = torch.from_numpy(arrays["bonds"])
        self._coupling = torch.from_numpy(arrays["coupling"])
        self._on_bond = torch.from_numpy(arrays["on_bond"])

    def __call__(self, objects: torch.Tensor) -> torch.Tensor:
        first, second = objects[..., self._bonds[:, 0]], objects[..., self._bonds[:, 1]]
        return self._on_bond[first, second] @ self._coupling


class Grid(HyperGrid):
    """torchgfn's hypergrid with the reward of the problem."""

    def __init__(self, num_sites: int, num_values: int, energy: Any) -> None:
        self.energy = energy
        super().__init__(num_sites, num_values, validate_modes=False)

    def log_reward(self, final_states: DiscreteStates) -> torch.Tensor:
        return self.energy(final_states.tensor).to(torch.get_default_dtype())


class Tree(DiscreteEnv):
    """Assignments of values to sites, in a fixed order; action v puts value v on the next site, the last one exits."""

    def __init__(self, num_sites: int, num_values: int, energy: Any) -> None:
        self.energy = energy
        self.num_values = num_values
        blank = torch.full((num_sites,), num_values)
        super().__init__(n_actions=num_values + 1, s0=blank, state_shape=(num_sites,))

    def make_states_class(self) -> type[DiscreteStates]:
        env = self

        class TreeStates(DiscreteStates):
            state_shape = env.state_shape
            s0 = env.s0
            sf = env.sf
            make_random_states = env.make_random_states
            n_actions = env.n_actions

            def _compute_forward_masks(self) -> torch.Tensor:
                is_complete = (self.tensor != env.num_values).all(-1, keepdim=True)
                return torch.cat([(~is_complete).expand(*self.batch_shape, env.num_values), is_complete], -1)

            def _compute_backward_masks(self) -> torch.Tensor:
                last = (self.tensor != env.num_values).sum(-1, keepdim=True) - 1
                value = self.tensor.gather(-1, last.clamp(min=0))
                return (torch.arange(env.num_values) == value) & (last >= 0)

        return TreeStates

    def step(self, states: States, actions: Actions) -> States:
        place = (states.tensor != self.num_values).sum(-1, keepdim=True)
        return self.States(states.tensor.scatter(-1, place, actions.tensor))

    def backward_step(self, states: States, actions: Actions) -> States:
        last = (states.tensor != self.num_values).sum(-1, keepdim=True) - 1
        return self.States(states.tensor.scatter(-1, last, self.num_values))

    def log_reward(self, final_states: DiscreteStates) -> torch.Tensor:
        return self.energy(final_states.tensor).to(torch.get_default_dtype())


def build_environment(problem: dict[str, Any], arrays: Arrays) -> DiscreteEnv:
    """Return the environment, after the reward has been compared with the problem's."""
    num_sites, num_values = problem["num_sites"], problem["num_values"]
    energy = TableEnergy(arrays, num_sites, num_values) if problem["energy"] == "table" else BondEnergy(arrays)
    env = (Grid if problem["kind"] == "grid" else Tree)(num_sites, num_values, energy)
    wanted = torch.from_numpy(arrays["test_log_prob"])
    found = env.log_reward(env.states_from_tensor(torch.from_numpy(arrays["test_objects"])))
    # torchgfn's rewards are float32.
    worst = float(((found - wanted).abs() / wanted.abs().clamp(min=1.0)).max())
    if not worst <= 1e-5:
        raise SystemExit(f"the rewards differ by up to {worst:.2g}; the two trainers would not learn the same law")
    return env


def build_gflownet(env: DiscreteEnv, problem: dict[str, Any]) -> TBGFlowNet:
    num_values = problem["num_values"] + (problem["kind"] == "tree")
    preprocessor = KHotPreprocessor(num_values, problem["num_sites"])
    preprocessor.target_dtype = torch.get_default_dtype()
    forward = MLP(preprocessor.output_dim, env.n_actions)
    pf = DiscretePolicyEstimator(forward, env.n_actions, preprocessor)
    if problem["kind"] == "tree":
        return TBGFlowNet(pf, None, init_logZ=0.0, constant_pb=True)
    backward = MLP(preprocessor.output_dim, env.n_actions - 1, trunk=forward.trunk)
    pb = DiscretePolicyEstimator(backward, env.n_actions, preprocessor, is_backward=True)
    return TBGFlowNet(pf, pb, init_logZ=0.0)


def train(env: DiscreteEnv, gflownet: TBGFlowNet, problem: dict[str, Any]) -> tuple[float, int]:
    """Train until the seconds, the target calls or the steps are used up; return seconds and target calls."""
    begun = time.perf_counter()
    optimizer = torch.optim.Adam(gflownet.pf_pb_parameters(), lr=LEARNING_RATE)
    optimizer.add_param_group({"params": gflownet.logz_parameters(), "lr": LOG_Z_LEARNING_RATE})
    sampler = Sampler(gflownet.pf)
    batch, calls = problem["batch_size"], 0
    most_calls = min(problem["target_calls"], batch * (problem["num_steps"] or problem["target_calls"]))
    while calls + batch <= most_calls and time.perf_counter() - begun < problem["seconds"]:
        trajectories = sampler.sample_trajectories(env, n=batch, save_logprobs=True)
        optimizer.zero_grad()
        loss = gflownet.loss_from_trajectories(env, trajectories, recalculate_all_logprobs=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gflownet.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        calls += batch
    return time.perf_counter() - begun, calls


@torch.no_grad()
def own_paths(env: DiscreteEnv, gflownet: TBGFlowNet, num_draws: int) -> Arrays:
    """Return objects that P_F draws, with log P_F and log P_B of the paths that made them."""
    parts = []
    for begin in range(0, num_draws, CHUNK):
        drawn = Sampler(gflownet.pf).sample_trajectories(env, n=min(CHUNK, num_draws - begin))
        log_forward = get_trajectory_pfs(gflownet.pf, drawn).double().sum(0)
        log_backward = torch.zeros_like(log_forward)
        if gflownet.pb is not None:
            log_backward = get_trajectory_pbs(gflownet.pb, drawn).double().sum(0)
        parts.append((drawn.terminating_states.tensor, log_forward, log_backward))
    objects, log_forward, log_backward = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return {"own_objects": objects, "own_log_forward": log_forward, "own_log_backward": log_backward}


@torch.no_grad()
def given_paths(env: DiscreteEnv, gflownet: TBGFlowNet, objects: np.ndarray) -> Arrays:
    """Take objects apart by P_B; return log P_F and log P_B of the paths."""
    pf, pb = gflownet.pf, gflownet.pb
    states = env.states_from_tensor(torch.from_numpy(objects))
    exits = torch.full((len(objects), 1), env.n_actions - 1)
    log_forward = _law(pf, states).log_prob(exits).double()
    log_backward = torch.zeros_like(log_forward)
    while not states.is_initial_state.all():
        rows = (~states.is_initial_state).nonzero()[:, 0]
        now = states[rows]
        if pb is None:
            actions = now.backward_masks.long().argmax(-1, keepdim=True)
        else:
            law = _law(pb, now)
            actions = law.sample()
            log_backward[rows] += law.log_prob(actions).double()
        before = env._backward_step(now, env.actions_from_tensor(actions))
        log_forward[rows] += _law(pf, before).log_prob(actions).double()
        tensor = states.tensor.clone()
        tensor[rows] = before.tensor
        states = env.states_from_tensor(tensor)
    return {"given_log_forward": log_forward.numpy(), "given_log_backward": log_backward.numpy()}


def _law(estimator: DiscretePolicyEstimator, states: DiscreteStates) -> Any:
    return estimator.to_probability_distribution(states, estimator(states))


def main() -> None:
    """Read a problem (.npz), train, and write what was found (.npz)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, help="file that benchmarks/training.py wrote")
    parser.add_argument("result", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.problem, allow_pickle=False) as archive:
        arrays = dict(archive)
    problem = json.loads(str(arrays.pop("description")))
    set_seed(problem["seed"])
    env = build_environment(problem, arrays)
    gflownet = build_gflownet(env, problem)
    seconds, target_calls = train(env, gflownet, problem)
    np.savez(
        options.result,
        seconds=seconds,
        target_calls=target_calls,
        log_z=gflownet.logZ.item(),
        **own_paths(env, gflownet, problem["num_own_draws"]),
        **given_paths(env, gflownet, arrays["given_objects"]),
    )


if __name__ == "__main__":
    main()
