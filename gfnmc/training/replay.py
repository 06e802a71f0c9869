"""A buffer of objects that training has paid for, to be revisited by new backward paths."""

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws


class ReplayBuffer:
    """The newest objects with their log-rewards.

    Args:
        capacity: Objects remembered.
        event_shape: Shape of an object.
        dtype: Dtype of objects.
    """

    def __init__(self, capacity: int, event_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.objects = torch.zeros(capacity, *event_shape, dtype=dtype)
        self.log_reward = torch.zeros(capacity, dtype=torch.float64)
        self.num_added = 0

    def __len__(self) -> int:
        return min(self.num_added, len(self.objects))

    def add(self, objects: Shaped[Tensor, "batch *event"], log_reward: Float64[Tensor, " batch"]) -> None:
        """Remember objects, forgetting the oldest where the buffer is full."""
        place = (self.num_added + torch.arange(len(objects))) % len(self.objects)
        self.objects[place] = objects
        self.log_reward[place] = log_reward
        self.num_added += len(objects)

    def sample(self, draws: Draws, power: float) -> tuple[Shaped[Tensor, "rows *event"], Float64[Tensor, " rows"]]:
        """Return one object for each row of `draws` and its log-reward, in proportion to its reward to `power`."""
        chosen = draws.categorical((power * self.log_reward[: len(self)]).log_softmax(0))
        return self.objects[chosen], self.log_reward[chosen]
