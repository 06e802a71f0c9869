"""An energy of one's own: a Hopfield network that remembers two patterns of 12 spins, and so has four peaks.

    python examples/custom_target.py

Trains a pair, compares its exact chain with a random walk at equal budgets, and writes hopfield.html.
"""

import torch

import gfnmc
from gfnmc.kernels import Cycle, RandomWalk, SuffixResampling, branch

ROW = [1, -1]
PATTERNS = torch.tensor([ROW * 6, ROW * 3 + ROW[::-1] * 3])


def overlaps(x):
    """How much each object looks like each pattern, from -1 to 1, (batch, patterns)."""
    return (x.double() @ PATTERNS.T.double()) / 12


def log_prob(x):
    """Takes (batch, 12) spins of -1 and +1, returns (batch,) nats; a normalising constant is not needed."""
    return 14.0 * overlaps(x).square().sum(-1)


def main():
    target = gfnmc.targets.from_function(
        log_prob,
        event_shape=(12,),
        values=(-1, 1),
        name="Hopfield network",
        statistics={"first pattern": lambda x: overlaps(x)[:, 0], "second pattern": lambda x: overlaps(x)[:, 1]},
    )
    environment = gfnmc.environments.Lattice.for_target(target, order="fixed")
    config = gfnmc.TrainingConfig(num_steps=300, hidden_size=64)
    pair = gfnmc.train(environment, target, config=config, seed=0).pair

    walk = RandomWalk(environment, target)
    # One move in two rebuilds everything, which is how chains change between peaks; the others mend 3 or 6 spins.
    hybrid = Cycle([SuffixResampling(pair, target, branch.Table({3: 0.25, 6: 0.25, 12: 0.5})), walk])
    comparison = gfnmc.compare({"hybrid": hybrid, "random walk": walk}, target, num_chains=32, num_samples=300, seed=0)
    for line in comparison.document["verdict"]:
        print(line)
    comparison.save("hopfield.html")


if __name__ == "__main__":
    main()
