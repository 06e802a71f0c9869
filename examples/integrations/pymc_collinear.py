"""PyMC: which covariates does a regression need? A pair for the indicators, NUTS for the noise.

    python examples/integrations/pymc_collinear.py

Every covariate has a twin that says the same, so each is needed with probability 1/2 at least, and exactly as often as
its twin. To change from one twin to the other, two indicators have to change together.
"""

import numpy as np
import pymc as pm

import gfnmc
from gfnmc.integrations.pymc import GFlowNetStep, train_block

NUM_TWINS = 4


def model_of(seed):
    random = np.random.default_rng(seed)
    half = random.normal(size=(30, NUM_TWINS))
    outcome = half.sum(1) + random.normal(scale=0.5, size=30)
    with pm.Model() as model:
        noise = pm.HalfNormal("noise", 1.0)
        needed = pm.Bernoulli("needed", 0.5, shape=2 * NUM_TWINS)
        pm.Normal("outcome", pm.math.dot(np.hstack([half, half]), needed), noise, observed=outcome)
    return model


def difference(model, **options):
    """Sample, and return how far apart the inclusion probabilities of twins are, at worst."""
    options |= {"chains": 2, "cores": 1, "random_seed": 0, "progressbar": False, "compute_convergence_checks": False}
    with model:
        found = pm.sample(draws=500, tune=100, **options)
    included = found.posterior["needed"].to_numpy().mean((0, 1)).reshape(2, NUM_TWINS)
    return abs(included[0] - included[1]).max()


if __name__ == "__main__":
    model = model_of(0)
    config = gfnmc.TrainingConfig(num_steps=100, hidden_size=32)
    pair = train_block([model["needed"]], held={"noise": 0.5}, model=model, config=config, seed=0).pair
    with model:
        step = GFlowNetStep([model["needed"]], pair=pair)
    print(f"twins differ, with the pair: {difference(model, step=[step]):.3f}")
    print(f"twins differ, PyMC's own choice of steps: {difference(model):.3f}")
    print("twins differ, exact: 0.000")
