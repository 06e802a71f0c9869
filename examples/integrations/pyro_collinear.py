"""Pyro: which covariates does a regression need? A pair for the indicators, NUTS for the noise.

    python examples/integrations/pyro_collinear.py

Every covariate has a twin that says the same, so each is needed exactly as often as its twin. Pyro's kernels refuse the
model: NUTS takes no discrete sites, and there is no other to put beside it.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

import gfnmc
from gfnmc.integrations.pyro import GFlowNetKernel, train_block

NUM_TWINS = 4


def regression(covariates, outcome):
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    needed = pyro.sample("needed", dist.Bernoulli(0.5 * torch.ones(2 * NUM_TWINS)).to_event(1))
    pyro.sample("outcome", dist.Normal(covariates @ needed, noise).to_event(1), obs=outcome)


def data():
    half = torch.randn(30, NUM_TWINS)
    return torch.hstack([half, half]), half.sum(1) + 0.5 * torch.randn(30)


if __name__ == "__main__":
    pyro.set_rng_seed(0)
    covariates, outcome = data()
    config = gfnmc.TrainingConfig(num_steps=100, hidden_size=32)
    held = {"noise": torch.tensor(0.5)}
    pair = train_block(regression, args=(covariates, outcome), held=held, config=config, seed=0).pair
    kernel = GFlowNetKernel(regression, pair=pair, continuous=partial(NUTS, max_tree_depth=4))
    mcmc = MCMC(kernel, num_samples=400, warmup_steps=100, disable_progbar=True)
    mcmc.run(covariates, outcome)
    included = mcmc.get_samples()["needed"].mean(0).reshape(2, NUM_TWINS)
    print(f"twins differ, with the pair: {(included[0] - included[1]).abs().max():.3f}")
    print("twins differ, exact: 0.000")
    print(f"noise: {mcmc.get_samples()['noise'].mean():.2f}")
    print(f"acceptance rate of the pair: {mcmc.diagnostics()['acceptance rate']['chain 0']:.2f}")
