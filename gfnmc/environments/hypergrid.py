"""Climb a hypergrid from its corner at the origin: one coordinate up a step, or exit where you stand.

Every cell is an object, so objects differ in length; many paths lead to a cell, all equally long (graded).

Reference: Bengio et al. 2021 (2106.04399), section 4.1.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.base import DiscreteEnvironment, TokenChange


class HyperGrid(DiscreteEnvironment):
    """Cells of a grid of `num_dims` dimensions with coordinates 0 ... side - 1.

    Action i raises coordinate i; the last action exits. States and objects are the same `(batch, num_dims)`.

    Args:
        num_dims: Dimensions.
        side: Cells along each dimension.
        dtype: Dtype of objects.

    Raises:
        OptionError: If there is nothing to choose.
    """

    is_fixed_length = False
    is_graded = True
    builds_every_assignment = True
    changes_connect = True

    def __init__(self, num_dims: int, side: int, *, dtype: torch.dtype = torch.int64) -> None:
        if num_dims < 1 or side < 2:
            raise OptionError(f"a hypergrid of {num_dims} dimensions and side {side} has a single cell")
        self.num_dims = num_dims
        self.side = side
        self.dtype = dtype
        self.num_actions = num_dims + 1
        self.exit_action = num_dims
        self.max_depth = num_dims * (side - 1)
        self.is_enumerable = side**num_dims <= 2**20
        self.num_tokens = num_dims
        self.vocabulary = num_dims * side
        self._offset = torch.arange(num_dims) * side
        token = torch.arange(self.vocabulary)
        is_top = token % side == side - 1
        self.token_changes = TokenChange(token[:, None], (token + ~is_top)[:, None])
        # What each action adds to the coordinates; the exit adds nothing.
        self._rise = torch.eye(num_dims + 1, num_dims, dtype=dtype)
        if self.is_enumerable:
            self.num_numbers = side**num_dims
            self._strides = torch.tensor([side**dim for dim in reversed(range(num_dims))])
            self.number_steps = torch.nn.functional.pad(self._strides, (0, 1))

    @classmethod
    def for_target(cls, target: SiteSpace) -> "HyperGrid":
        """Return the grid that builds a target's objects: its `values` are 0 ... side - 1.

        Raises:
            CapabilityError: If the target's objects are not cells of a grid.
        """
        if target.values is None or len(target.event_shape) != 1 or target.values != tuple(range(len(target.values))):
            raise CapabilityError(f"{target.name} is not defined on cells of a grid with coordinates 0, 1, ...")
        return cls(target.event_shape[0], len(target.values), dtype=target.dtype)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"num_dims": self.num_dims, "side": self.side}

    def source(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.num_dims, dtype=self.dtype)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states + self._rise.index_select(0, actions)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states - self._rise.index_select(0, actions)

    def is_source(self, states: Tensor) -> Bool[Tensor, " batch"]:
        return (states == 0).all(-1)

    def depth(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return states.sum(-1, dtype=torch.int64)

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        steps = states.to(torch.float64)
        return torch.lgamma(steps.sum(-1) + 1) - torch.lgamma(steps + 1).sum(-1)

    def objects(self, states: Tensor) -> Tensor:
        return states

    def states(self, objects: Tensor) -> Tensor:
        return objects

    def assigned(self, states: Tensor) -> tuple[Tensor, Bool[Tensor, "batch dims"]]:
        return states, torch.ones_like(states, dtype=torch.bool)

    def forward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        return torch.nn.functional.pad(states < self.side - 1, (0, 1), value=True)

    def backward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        return torch.nn.functional.pad(states > 0, (0, 1))

    def tokens(self, states: Tensor) -> Int64[Tensor, "batch tokens"]:
        return states.to(torch.int64) + self._offset

    def state_numbers(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return (states * self._strides).sum(-1)

    def numbered_states(self) -> Tensor:
        numbers = torch.arange(self.num_numbers)
        return (numbers[:, None] // self._strides % self.side).to(self.dtype)

    def token_change(self, states: Tensor, actions: Tensor) -> Int64[Tensor, " batch"]:
        # The exit and forbidden moves change nothing that is kept.
        dim = actions.clamp(max=self.num_dims - 1)
        before = states.gather(1, dim[:, None])[:, 0].clamp(min=0)
        return before + dim * self.side

    @property
    def num_changes(self) -> int:
        return 2 * self.num_dims

    def change_mask(self, objects: Tensor) -> Bool[Tensor, "batch changes"]:
        return torch.cat([objects < self.side - 1, objects > 0], -1)

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        sign = 1 - 2 * (changes // self.num_dims)
        return objects + sign[:, None].to(objects.dtype) * self._rise.index_select(0, changes % self.num_dims)
