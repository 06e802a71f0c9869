"""emcee on a discrete space: a trained pair and single flips in one weighted mixture.

    python examples/integrations/emcee_mixture.py

Twelve switches, of which nearly all are off, or, more often, nearly all are on. Walkers that flip one switch at a time
stay where they start, all off.
"""

import math

import emcee
import numpy as np
import torch

import gfnmc
from gfnmc.integrations.emcee import GFlowNetMove

NUM_SWITCHES, NUM_WALKERS = 12, 32


def log_density(x):
    """Takes (batch, 12) of 0 and 1, returns (batch,) nats."""
    on = x.double().sum(-1)
    off = NUM_SWITCHES - on
    few = math.log(0.3) + on * math.log(0.05) + off * math.log(0.95)
    many = math.log(0.7) + on * math.log(0.95) + off * math.log(0.05)
    return torch.logaddexp(few, many)


def log_prob(coords):
    """What emcee samples: all walkers at once."""
    return log_density(torch.from_numpy(coords)).numpy()


def flip(coords, random):
    """Propose to turn one switch of each walker."""
    proposed = coords.copy()
    rows, columns = np.arange(len(coords)), random.randint(NUM_SWITCHES, size=len(coords))
    proposed[rows, columns] = 1 - proposed[rows, columns]
    return proposed, np.zeros(len(coords))


def mass_on(moves):
    sampler = emcee.EnsembleSampler(NUM_WALKERS, NUM_SWITCHES, log_prob, moves=moves, vectorize=True)
    sampler.random_state = np.random.RandomState(0).get_state()
    sampler.run_mcmc(np.zeros((NUM_WALKERS, NUM_SWITCHES)), nsteps=550, skip_initial_state_check=True)
    return (sampler.get_chain()[-500:].sum(-1) > NUM_SWITCHES / 2).mean()


if __name__ == "__main__":
    target = gfnmc.targets.from_function(log_density, (NUM_SWITCHES,), values=(0, 1))
    environment = gfnmc.environments.Lattice.for_target(target)
    config = gfnmc.TrainingConfig(num_steps=100, hidden_size=32)
    pair = gfnmc.train(environment, target, config=config, seed=0, progress_bar=False).pair
    flips = emcee.moves.MHMove(flip)
    print(f"mostly on, with the pair: {mass_on([(GFlowNetMove(pair), 0.5), (flips, 0.5)]):.3f}")
    print(f"mostly on, flips alone: {mass_on(flips):.3f}")
    print("mostly on, exact: 0.700")
