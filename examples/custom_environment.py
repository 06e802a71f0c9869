"""An environment of one's own: choose `size` of `num_items` items, one at a time.

    python examples/custom_environment.py

Items of one kind go well together, so the law has three peaks, and a walk that swaps one item at a time has to pass
through the bad sets between them.
"""

import torch

import gfnmc
from gfnmc.environments import DiscreteEnvironment
from gfnmc.kernels import Cycle, RandomWalk, SuffixResampling, branch


class Subsets(DiscreteEnvironment):
    """A state is a row of 0 and 1, which items are in; action i adds item i; a set of `size` items is finished."""

    is_fixed_length = True
    is_graded = True
    changes_connect = True  # swaps lead from any set to any other
    rebuild_connects = 1  # and so does taking one item out and another in

    def __init__(self, num_items: int, size: int) -> None:
        self.num_items, self.size, self.max_depth = num_items, size, size
        self.num_actions = self.num_tokens = num_items
        self.vocabulary = 2 * num_items  # "item i is out" and "item i is in", for each item

    def source(self, batch):
        return torch.zeros(batch, self.num_items, dtype=torch.int64)

    def step(self, states, actions):
        return states.scatter(1, actions[:, None], 1)

    def unstep(self, states, actions):
        return states.scatter(1, actions[:, None], 0)

    def is_source(self, states):
        return (states == 0).all(-1)

    def depth(self, states):
        return states.sum(-1)

    def objects(self, states):
        return states

    def states(self, objects):
        return objects

    def forward_mask(self, states):
        return (states == 0) & (self.depth(states) < self.size)[:, None]

    def backward_mask(self, states):
        return states == 1

    def tokens(self, states):
        return states + 2 * torch.arange(self.num_items)

    num_changes = property(lambda self: self.num_items**2)  # change i * num_items + j: item i out, item j in

    def change_mask(self, objects):
        return ((objects == 1)[:, :, None] & (objects == 0)[:, None, :]).flatten(1)

    def change(self, objects, changes):
        without = self.unstep(objects, changes // self.num_items)
        return self.step(without, changes % self.num_items)


def log_prob(x):
    """Two nats for each pair of items of one kind; items 0-4 are of the first kind, 5-9 of the second, and so on."""
    of_kind = x.unflatten(1, (3, 5)).sum(-1)
    return 2.0 * (of_kind * (of_kind - 1) / 2).sum(-1)


if __name__ == "__main__":
    statistics = {f"kind {kind}": lambda x, k=kind: x[:, 5 * k : 5 * k + 5].sum(1) for kind in range(3)}
    target = gfnmc.targets.from_function(log_prob, (15,), name="sets of five", statistics=statistics)
    environment = Subsets(15, 5)
    config = gfnmc.TrainingConfig(num_steps=300, hidden_size=64)
    pair = gfnmc.train(environment, target, config=config, seed=0).pair
    walk = RandomWalk(environment, target)
    hybrid = Cycle([SuffixResampling(pair, target, branch.Table({2: 0.3, 5: 0.7})), walk])
    comparison = gfnmc.compare({"hybrid": hybrid, "random walk": walk}, target, num_chains=32, num_samples=300, seed=0)
    for line in comparison.document["verdict"]:
        print(line)
    comparison.save("sets.html")
