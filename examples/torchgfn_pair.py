"""A pair that torchgfn trained, its bias, and the exact chain that it makes as a proposal.

    pip install "gfnmc[torchgfn]" && pip install --no-deps "torchgfn==2.4.*"
    python examples/torchgfn_pair.py

Trains torchgfn's trajectory balance on its 8x8 grid of four modes, compares its exact chain with a random walk at equal
budgets, and writes grid.html.
"""

import time

import torch
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import HyperGrid
from gfn.preprocessors import KHotPreprocessor
from gfn.utils.modules import MLP

import gfnmc
from gfnmc.diagnostics import total_variation
from gfnmc.environments import Lattice
from gfnmc.integrations.torchgfn import from_torchgfn, torchgfn_target
from gfnmc.kernels import Cycle, RandomWalk, SuffixResampling

BATCH, STEPS = 16, 150


def train(env):
    """Train a model as torchgfn's own tutorials do, and say what it cost."""
    began, inputs = time.perf_counter(), KHotPreprocessor(env.height, env.ndim)
    nets = [MLP(inputs.output_dim, env.n_actions - is_backward, hidden_dim=64) for is_backward in (0, 1)]
    pf = DiscretePolicyEstimator(nets[0], env.n_actions, inputs)
    pb = DiscretePolicyEstimator(nets[1], env.n_actions, inputs, is_backward=True)
    model = TBGFlowNet(pf, pb)
    rates = [{"params": model.pf_pb_parameters(), "lr": 1e-3}, {"params": model.logz_parameters(), "lr": 1e-1}]
    optimizer = torch.optim.Adam(rates)
    for _ in range(STEPS):
        trajectories = model.sample_trajectories(env, n=BATCH, epsilon=0.1)
        optimizer.zero_grad()
        model.loss(env, trajectories, recalculate_all_logprobs=True).backward()
        optimizer.step()
    return model, gfnmc.Cost(target_calls=BATCH * STEPS, seconds=time.perf_counter() - began)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    env = HyperGrid(2, 8)
    model, cost = train(env)
    target, pair = torchgfn_target(env), from_torchgfn(model, env, training_cost=cost)
    walk = RandomWalk(Lattice.for_target(target), target)
    kernels = {"hybrid": Cycle([SuffixResampling(pair, target), walk]), "random walk": walk}
    comparison = gfnmc.compare(kernels, target, num_chains=64, num_samples=60, num_warmup=20, seed=0)
    print(*comparison.document["verdict"], sep="\n")
    exact = target.exact()
    drawn = {"torchgfn alone": model.sample_terminating_states(env, 3_840).tensor}
    drawn["its exact chain"] = comparison.chains["hybrid"].x.flatten(0, 1)
    for name, x in drawn.items():
        print(f"total variation of {name}: {total_variation(exact.index(x), exact.log_pmf):.3f}")
    comparison.save("grid.html")
