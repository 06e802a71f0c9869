"""A buffer of objects that training has paid for, to be revisited by new backward paths."""

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws


class ReplayBuffer:
    """The newest distinct objects with their log-rewards.

    Each object is held once, however often it was made: otherwise the heaviest mode would fill the buffer, and what
    the policy is about to forget would be replayed no more.

    Args:
        capacity: Objects remembered.
        event_shape: Shape of an object.
        dtype: Dtype of objects.
    """

    def __init__(self, capacity: int, event_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.objects = torch.zeros(capacity, *event_shape, dtype=dtype)
        self.log_reward = torch.zeros(capacity, dtype=torch.float64)
        self.num_added = 0
        self._held: dict[bytes, int] = {}

    def __len__(self) -> int:
        return min(self.num_added, len(self.objects))

    def add(self, objects: Shaped[Tensor, "batch *event"], log_reward: Float64[Tensor, " batch"]) -> None:
        """Remember the objects that are not held yet, forgetting the oldest where the buffer is full."""
        new: dict[bytes, int] = {}
        for row, key in enumerate(_keys(objects)):
            if key not in self._held:
                new.setdefault(key, row)
        for key, row in new.items():
            place = self.num_added % len(self.objects)
            if self.num_added >= len(self.objects):
                del self._held[_keys(self.objects[place : place + 1])[0]]
            self._held[key] = place
            self.objects[place] = objects[row]
            self.log_reward[place] = log_reward[row]
            self.num_added += 1

    def restore(self, num_added: int) -> None:
        """Take up the contents that were written into `objects` and `log_reward` from a checkpoint."""
        self.num_added = num_added
        self._held = {key: place for place, key in enumerate(_keys(self.objects[: len(self)]))}

    def sample(self, draws: Draws, power: float) -> tuple[Shaped[Tensor, "rows *event"], Float64[Tensor, " rows"]]:
        """Return one object for each row of `draws` and its log-reward, in proportion to its reward to `power`."""
        log_reward = self.log_reward[: len(self)]
        # Impossible objects stay out at every power (0 times -inf is no number), unless nothing else is held.
        is_possible = log_reward > -torch.inf
        log_weights = torch.where(is_possible, power * log_reward, -torch.inf if is_possible.any() else 0.0)
        chosen = draws.categorical(log_weights.log_softmax(0))
        return self.objects[chosen], self.log_reward[chosen]


def _keys(objects: Tensor) -> list[bytes]:
    return [row.tobytes() for row in objects.flatten(1).numpy()]
