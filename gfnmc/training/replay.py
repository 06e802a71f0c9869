"""A buffer of objects that training has paid for, to be revisited by new backward paths."""

import math
from typing import Literal

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws

_NUM_REFERENCES = 256
"""Remembered objects, the newest, that a new one's novelty is measured against."""


class ReplayBuffer:
    """The newest distinct objects with their log-rewards.

    Each object is held once, however often it was made: otherwise the heaviest mode would fill the buffer, and what
    the policy is about to forget would be replayed no more.

    Args:
        capacity: Objects remembered.
        event_shape: Shape of an object.
        dtype: Dtype of objects.
        num_conditions: Numbers in the condition that goes with each object; the same object under another condition
            is another entry.
        measures_novelty: Whether the novelty of objects is measured, which takes longer than all the rest.

    Attributes:
        objects: `(capacity, *event)`; the first `len(buffer)` are filled.
        log_reward: Their log-rewards, `(capacity,)` float64, nats.
        novelty: Distance of each to the nearest object remembered shortly before it: the share of coordinates that
            differ, `(capacity,)` float64 in (0, 1]; 1 where it is not measured.
        conditions: `(capacity, num_conditions)` float64.
        num_added: Objects ever remembered.
    """

    def __init__(
        self,
        capacity: int,
        event_shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        num_conditions: int = 0,
        measures_novelty: bool = True,
    ) -> None:
        self.objects = torch.zeros(capacity, *event_shape, dtype=dtype)
        self.log_reward = torch.zeros(capacity, dtype=torch.float64)
        self.novelty = torch.ones(capacity, dtype=torch.float64)
        self.conditions = torch.zeros(capacity, num_conditions, dtype=torch.float64)
        self.num_added = 0
        self._measures_novelty = measures_novelty
        self._held: set[bytes] = set()

    def __len__(self) -> int:
        return min(self.num_added, len(self.objects))

    def add(
        self,
        objects: Shaped[Tensor, "batch *event"],
        log_reward: Float64[Tensor, " batch"],
        conditions: Float64[Tensor, "batch conditions"] | None = None,
    ) -> None:
        """Remember the objects that are not held yet, forgetting the oldest where the buffer is full."""
        if conditions is None:
            conditions = self.conditions.new_zeros(len(objects), 0)
        new: dict[bytes, int] = {}
        for row, key in enumerate(_keys(objects, conditions)):
            if key not in self._held:
                new.setdefault(key, row)
        capacity = len(self.objects)
        # Of more than fit, the newest.
        forgotten = max(0, len(new) - capacity)
        keys, rows = list(new)[forgotten:], torch.tensor(list(new.values())[forgotten:], dtype=torch.int64)
        if not keys:
            return
        novelty = self._novelty(objects[rows])
        places = (self.num_added + forgotten + torch.arange(len(keys))) % capacity
        is_full = places < len(self)
        self._held.difference_update(_keys(self.objects[places[is_full]], self.conditions[places[is_full]]))
        self._held.update(keys)
        self.objects[places] = objects[rows]
        self.log_reward[places] = log_reward[rows]
        self.conditions[places] = conditions[rows]
        self.novelty[places] = novelty
        self.num_added += forgotten + len(keys)

    def restore(self, num_added: int) -> None:
        """Take up the contents that were written into the tensors from a checkpoint."""
        self.num_added = num_added
        filled = slice(0, len(self))
        self._held = set(_keys(self.objects[filled], self.conditions[filled]))

    def choose(
        self,
        draws: Draws,
        power: float,
        *,
        priority: Literal["reward", "novelty", "uniform"] = "reward",
        novelty_power: float = 1.0,
    ) -> Int64[Tensor, " rows"]:
        """Return the place of one object for each row of `draws`.

        Args:
            draws: Random decisions.
            power: The reward counts to this power, unless the priority is uniform.
            priority: What is drawn more often.
            novelty_power: With priority "novelty", novelty counts to this power.
        """
        log_reward = self.log_reward[: len(self)]
        # Impossible objects stay out at every power (0 times -inf is no number), unless nothing else is held.
        is_possible = log_reward > -torch.inf
        log_weights = torch.zeros_like(log_reward) if priority == "uniform" else power * log_reward
        if priority == "novelty":
            log_weights = log_weights + novelty_power * self.novelty[: len(self)].log()
        log_weights = torch.where(is_possible, log_weights, -torch.inf if is_possible.any() else 0.0)
        return draws.categorical(log_weights.log_softmax(0))

    def _novelty(self, objects: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        count = min(len(self), _NUM_REFERENCES)
        if count == 0 or not self._measures_novelty:
            return torch.ones(len(objects), dtype=torch.float64)
        newest = (self.num_added - 1 - torch.arange(count)) % len(self.objects)
        references = self.objects[newest].flatten(1)
        flat = objects.flatten(1)
        differs = (flat[:, None] != references).to(torch.float32).mean(-1).to(torch.float64)
        # An object that is held under another condition differs nowhere; it still counts as a fraction of a site.
        return differs.amin(1).clamp(min=0.5 / max(math.prod(flat.shape[1:]), 1))


def _keys(objects: Tensor, conditions: Tensor) -> list[bytes]:
    flat = objects.flatten(1).numpy()
    if conditions.shape[1] == 0:
        return [row.tobytes() for row in flat]
    return [row.tobytes() + given.tobytes() for row, given in zip(flat, conditions.numpy(), strict=True)]
