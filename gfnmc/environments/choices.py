"""What environments that choose items one at a time share: edges of a graph, members of a subset.

A state holds 0 or 1 for each item. An action puts one in, the exit (where there is one) is the last action, and k items
can be put in in k! orders, all equally long, wherever every part of an object is a state too.
"""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.environments.base import DiscreteEnvironment, TokenChange


class ItemChoices(DiscreteEnvironment):
    """Items that are put in one at a time.

    Args:
        num_items: Items to choose from; a token each.
        has_exit: Whether there is an exit action.
    """

    is_graded = True

    def __init__(self, num_items: int, *, has_exit: bool) -> None:
        self.num_actions = num_items + has_exit
        self.exit_action = num_items if has_exit else None
        self.num_tokens = num_items
        self.vocabulary = 2 * num_items
        self.action_tokens = torch.arange(num_items)[:, None]
        self._offset = 2 * torch.arange(num_items)

    @abstractmethod
    def may_enter(self, states: Shaped[Tensor, "batch items"]) -> Bool[Tensor, "batch items"]:
        """Return True where an item may be put in."""

    def source(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.num_tokens, dtype=torch.int8)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, self._item(actions), 1)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, self._item(actions), 0)

    def is_source(self, states: Tensor) -> Bool[Tensor, " batch"]:
        return (states == 0).all(-1)

    def depth(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return states.sum(-1, dtype=torch.int64)

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        return torch.lgamma(self.depth(states).to(torch.float64) + 1)

    def assigned(self, states: Tensor) -> tuple[Tensor, Bool[Tensor, "batch *event"]]:
        objects = self.objects(states)
        return objects, torch.ones_like(objects, dtype=torch.bool)

    def forward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        mask = self.may_enter(states)
        return mask if self.exit_action is None else torch.cat([mask, torch.ones_like(mask[:, :1])], -1)

    def backward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        is_in = states == 1
        return is_in if self.exit_action is None else torch.cat([is_in, torch.zeros_like(is_in[:, :1])], -1)

    def tokens(self, states: Tensor) -> Int64[Tensor, "batch tokens"]:
        return states.to(torch.int64) + self._offset

    def changed_tokens(self, states: Tensor, actions: Tensor) -> TokenChange:
        removed = self._offset[self._item(actions)]
        return TokenChange(removed, removed + 1)

    def _item(self, actions: Int64[Tensor, " batch"]) -> Int64[Tensor, "batch 1"]:
        # The exit changes nothing that is kept; clamping keeps it an item.
        return actions.clamp(max=self.num_tokens - 1)[:, None]
