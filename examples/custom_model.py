"""A model of one's own: five people in a queue that likes to be sorted, upwards or downwards, no matter which.

    gfnmc check examples/custom_model.py:model

A state is a row of the people in the queue, -1 where nobody stands yet; action i lets person i join. Two of the 120
queues are peaks, and swaps of two people have to climb down from the one to reach the other.
"""

import torch

from gfnmc.environments import DiscreteEnvironment
from gfnmc.targets import from_function

PEOPLE = torch.arange(5)
PAIRS = torch.combinations(PEOPLE)


class Queues(DiscreteEnvironment):
    is_fixed_length = is_graded = changes_connect = True
    max_depth = num_actions = num_tokens = 5
    vocabulary = 5 * 6  # "nobody" and five people, at each of five places

    def source(self, batch):
        return torch.full((batch, 5), -1)

    def depth(self, states):
        return (states >= 0).sum(-1)

    def step(self, states, actions):
        return states.scatter(1, self.depth(states).clamp(max=4)[:, None], actions[:, None])

    def unstep(self, states, actions):
        return torch.where(states == actions[:, None], -1, states)

    def is_source(self, states):
        return self.depth(states) == 0

    def forward_mask(self, states):
        return (states[:, :, None] != PEOPLE).all(1)

    def backward_mask(self, states):
        return states.gather(1, (self.depth(states) - 1).clamp(min=0)[:, None]) == PEOPLE

    def objects(self, states):
        return states

    states = objects

    def tokens(self, states):
        return states + 1 + 6 * PEOPLE

    num_changes = property(lambda self: len(PAIRS))

    def change(self, objects, changes):
        return objects.scatter(1, PAIRS[changes], objects.gather(1, PAIRS[changes].flip(1)))


def climbs(x):
    return (x.diff(dim=1) > 0).sum(1)


def log_prob(x):
    is_queue = (x.sort(1).values == PEOPLE).all(1)
    return torch.where(is_queue, 3.0 * (2 * climbs(x) - 4).abs(), -torch.inf)


def model():
    return Queues(), from_function(log_prob, (5,), values=tuple(range(5)), name="queues", statistics={"climbs": climbs})
