"""Choose a subset of items, one item at a time.

Of any size: every state is a subset and may exit, so objects differ in length. Of a fixed size k: there is no exit, a
state is finished when k items are in. Either way a subset of k items is chosen in k! orders, all equally long (graded).

States and objects hold 1 for each item that is in, 0 for each that is not. Single changes put one item in or take one
out; where the size is fixed they exchange one that is in for one that is not.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.choices import ItemChoices


class Subsets(ItemChoices):
    """Subsets of `num_items` items, as vectors `(num_items,)` of 0 and 1.

    Action i puts item i in. Where the size is free the last action exits, the only one left when every item is in.

    Args:
        num_items: Items to choose from.
        size: Items in every object; None for any number.
        dtype: Dtype of objects.

    Raises:
        OptionError: If there is nothing to choose, or no subset of that size.
    """

    changes_connect = True

    def __init__(self, num_items: int, *, size: int | None = None, dtype: torch.dtype = torch.int8) -> None:
        if num_items < (1 if size is None else 2):
            raise OptionError(f"num_items is {num_items}, which leaves nothing to choose; give more items")
        if size is not None and not 1 <= size <= num_items:
            raise OptionError(f"size is {size}; give 1 ... {num_items}, or None for subsets of any size")
        if dtype is torch.bool:
            raise OptionError("subsets of bool cannot be added up; give an integer dtype")
        super().__init__(num_items, has_exit=size is None)
        self.num_items = num_items
        self.size = size
        self.dtype = dtype
        self.event_shape = (num_items,)
        self.is_fixed_length = size is not None
        self.builds_every_assignment = size is None
        self.max_depth = num_items if size is None else size
        # Any item may have been the last one, so redoing one choice at a time reaches every subset of the size.
        self.rebuild_connects = None if size is None else 1
        num_states = sum(math.comb(num_items, depth) for depth in range(self.max_depth + 1))
        # Lists of states are searched by codes of 63 bits.
        self.is_enumerable = num_items < 63 and num_states <= 2**20
        self._pairs = torch.triu_indices(num_items, num_items, 1).T.contiguous()

    @classmethod
    def for_target(cls, target: SiteSpace, *, size: int | None = None) -> "Subsets":
        """Return the environment that builds a target's objects, or those of one size.

        Raises:
            CapabilityError: If the target's objects are not vectors of 0 and 1.
        """
        if len(target.event_shape) != 1 or target.values != (0, 1):
            raise CapabilityError(
                f"{target.name} is not defined on subsets: its objects have shape {target.event_shape} and values "
                f"{target.values}; subsets are vectors with values (0, 1)"
            )
        return cls(target.event_shape[0], size=size, dtype=target.dtype)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"num_items": self.num_items, "size": self.size}

    def objects(self, states: Tensor) -> Shaped[Tensor, "batch items"]:
        return states.to(self.dtype)

    def states(self, objects: Tensor) -> Shaped[Tensor, "batch items"]:
        wrong = ((objects != 0) & (objects != 1)).any(-1)
        if self.size is not None:
            wrong = wrong | ((objects != 0).sum(-1) != self.size)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            how_many = "" if self.size is None else f", {self.size} of them 1"
            raise ObjectError(
                f"object {row}, {objects[row].tolist()}, is not a subset of {self.num_items} items: it holds 0 and 1"
                f"{how_many}"
            )
        return objects.to(torch.int8)

    def may_enter(self, states: Tensor) -> Bool[Tensor, "batch items"]:
        is_out = states == 0
        return is_out if self.size is None else is_out & (self.depth(states) < self.size)[:, None]

    def transformed(self, symmetry: Symmetry, states: Tensor) -> Shaped[Tensor, "batch items"]:
        self._check_symmetry(symmetry)
        return states[:, torch.tensor(symmetry.sites).argsort()]

    def transformed_actions(self, symmetry: Symmetry) -> Int64[Tensor, " actions"]:
        self._check_symmetry(symmetry)
        exits = () if self.exit_action is None else (self.exit_action,)
        return torch.tensor([*symmetry.sites, *exits])

    @property
    def num_changes(self) -> int:
        return self.num_items if self.size is None else len(self._pairs)

    def change_mask(self, objects: Tensor) -> Bool[Tensor, "batch changes"]:
        if self.size is None:
            return torch.ones_like(objects, dtype=torch.bool)
        # Exchanging two that are both in, or both out, would change nothing.
        return objects[:, self._pairs[:, 0]] != objects[:, self._pairs[:, 1]]

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        if self.size is None:
            return objects.scatter(1, changes[:, None], 1 - objects.gather(1, changes[:, None]))
        pair = self._pairs[changes]
        return objects.scatter(1, pair, objects.gather(1, pair.flip(1)))

    def _check_symmetry(self, symmetry: Symmetry) -> None:
        if len(symmetry.sites) != self.num_items or symmetry.values != (0, 1):
            raise CapabilityError(
                f"{symmetry.name!r} acts on {len(symmetry.sites)} sites and makes {symmetry.values} of the values; "
                f"paths of subsets are carried into paths by permutations of the {self.num_items} items alone"
            )
