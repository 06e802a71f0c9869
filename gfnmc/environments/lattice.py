"""Assign a value to every site of a lattice, one site at a time, in any order.

The order is *uniform* (each next site is drawn uniformly from those left; the policy chooses its value),
*fixed* (sites are filled in one given order: a tree, one path an object) or *learned* (the policy chooses site and
value together). Every object has one action a site, so the length is fixed.

States hold the index of each site's value, and one index more for a site not assigned yet.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.base import DiscreteEnvironment, TokenChange, uniform_log_probs
from gfnmc.environments.filling import FixedFilling, UniformFilling

Order = Literal["uniform", "fixed", "learned"]


class Lattice(DiscreteEnvironment):
    """Assignments of values to sites.

    An action is `site * num_values + index of the value`; there is no exit action.

    Args:
        event_shape: Shape of an object; its sites are counted in row-major order.
        values: The values of a site, increasing.
        dtype: Dtype of objects.
        order: "uniform", "fixed" or "learned" (see the module).
        site_order: With order "fixed", the sites in the order they are filled; row-major by default.

    Raises:
        OptionError: If values or an order make no lattice.
    """

    is_fixed_length = True
    is_graded = True
    builds_every_assignment = True
    changes_connect = True

    def __init__(
        self,
        event_shape: Sequence[int],
        values: Sequence[int],
        *,
        dtype: torch.dtype = torch.int64,
        order: Order = "uniform",
        site_order: Sequence[int] | None = None,
    ) -> None:
        self.event_shape = tuple(event_shape)
        self.values = tuple(values)
        self.dtype = dtype
        self.order = order
        self.num_sites = math.prod(self.event_shape)
        self.num_values = len(self.values)
        if self.num_sites < 1 or self.num_values < 2:
            raise OptionError(f"a lattice of shape {self.event_shape} with values {self.values} has nothing to choose")
        if list(self.values) != sorted(set(self.values)):
            raise OptionError(f"values {self.values} must be distinct and increasing")
        if dtype is torch.bool:
            raise OptionError("a lattice of bool objects cannot be indexed by value; give an integer dtype")
        if order not in ("uniform", "fixed", "learned"):
            raise OptionError(f"order is {order!r}; choose 'uniform', 'fixed' or 'learned'")
        if site_order is not None and (order != "fixed" or sorted(site_order) != list(range(self.num_sites))):
            raise OptionError("site_order must be a permutation of the sites and goes with order='fixed'")
        self.site_order = torch.tensor(list(site_order) if site_order is not None else range(self.num_sites))
        self.num_actions = self.num_sites * self.num_values
        self.max_depth = self.num_sites
        self.is_enumerable = (self.num_values + 1) ** self.num_sites <= 2**20
        self.num_tokens = self.num_sites
        self.vocabulary = self.num_sites * (self.num_values + 1)
        self.positions = None if order == "learned" else self.num_sites
        self.action_tokens = torch.arange(self.num_sites).repeat_interleave(self.num_values)[:, None]
        # Any site may have been the last one, so redoing one site at a time reaches everything.
        self.rebuild_connects = None if order == "fixed" else 1
        self._blank = self.num_values
        if order == "fixed":
            self.filling = FixedFilling(self.site_order, self._blank)
        elif order == "uniform":
            self.filling = UniformFilling(self.num_sites, self._blank)
        self._state_dtype = torch.int8 if self.num_values < 127 else torch.int64
        self._site_offset = torch.arange(self.num_sites) * (self.num_values + 1)
        self._value_table = torch.tensor(self.values, dtype=dtype)
        self._gap = _equal_gap(self.values, dtype)
        token = (self._site_offset[:, None] + torch.arange(self.num_values)).flatten()
        blank = (self._site_offset + self._blank).repeat_interleave(self.num_values)
        self.token_changes = TokenChange(blank[:, None], token[:, None])

    @classmethod
    def for_target(
        cls, target: SiteSpace, *, order: Order = "uniform", site_order: Sequence[int] | None = None
    ) -> "Lattice":
        """Return the lattice that builds a target's objects.

        Raises:
            CapabilityError: If the target does not declare `values`.
        """
        if target.values is None:
            raise CapabilityError(f"{target.name} declares no `values` of a site; give Lattice its shape and values")
        return cls(target.event_shape, target.values, dtype=target.dtype, order=order, site_order=site_order)

    def describe(self) -> dict[str, Any]:
        mine = {"event_shape": list(self.event_shape), "values": list(self.values), "order": self.order}
        return super().describe() | mine | {"site_order": self.site_order.tolist()}

    def source(self, batch: int) -> Tensor:
        return torch.full((batch, self.num_sites), self._blank, dtype=self._state_dtype)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        site, value = actions // self.num_values, actions % self.num_values
        return states.scatter(1, site[:, None], value[:, None].to(states.dtype))

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, (actions // self.num_values)[:, None], self._blank)

    def is_source(self, states: Tensor) -> Bool[Tensor, " batch"]:
        return (states == self._blank).all(-1)

    def is_terminal(self, states: Tensor) -> Bool[Tensor, " batch"]:
        return (states != self._blank).all(-1)

    def depth(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return (states != self._blank).sum(-1)

    def objects(self, states: Tensor) -> Tensor:
        if self._gap is not None:
            return (states.to(self.dtype) * self._gap + self.values[0]).reshape(-1, *self.event_shape)
        return self._value_table[states.to(torch.int64)].reshape(-1, *self.event_shape)

    def states(self, objects: Tensor) -> Tensor:
        flat = objects.flatten(1)
        place = self._places(flat.contiguous())
        is_known = (place >= 0) & (place < self.num_values) & (self.objects(place).flatten(1) == flat)
        if not is_known.all():
            row = int((~is_known).any(-1).nonzero()[0, 0])
            raise ObjectError(f"object {row}, {objects[row].tolist()}, has a value that is not one of {self.values}")
        return place.to(self._state_dtype)

    def _places(self, flat: Shaped[Tensor, "batch sites"]) -> Shaped[Tensor, "batch sites"]:
        """Return the index of each value; anything where it is none."""
        if self._gap is None:
            return torch.searchsorted(self._value_table, flat).clamp(max=self.num_values - 1)
        # Where values have equal gaps, arithmetic in their own dtype takes a tenth of the time.
        return torch.div(flat - self.values[0], self._gap, rounding_mode="floor")

    def assigned(self, states: Tensor) -> tuple[Tensor, Bool[Tensor, "batch *event"]]:
        is_assigned = states != self._blank
        objects = self.objects(torch.where(is_assigned, states, 0))
        return objects, is_assigned.reshape(-1, *self.event_shape)

    def forward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        open_sites = self._fixed_site(self.depth(states)) if self.order == "fixed" else states == self._blank
        return open_sites.repeat_interleave(self.num_values, -1)

    def backward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        value = torch.arange(self.num_values, device=states.device)
        holds = states[:, :, None] == value
        if self.order == "fixed":
            holds = holds & self._fixed_site(self.depth(states) - 1)[:, :, None]
        return holds.flatten(1)

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        depth = self.depth(states).to(torch.float64)
        return torch.zeros_like(depth) if self.order == "fixed" else torch.lgamma(depth + 1)

    def position_log_probs(self, states: Tensor) -> Float64[Tensor, "batch positions"]:
        if self.order == "fixed":
            return uniform_log_probs(self._fixed_site(self.depth(states)))
        return uniform_log_probs(states == self._blank)

    def tokens(self, states: Tensor) -> Int64[Tensor, "batch tokens"]:
        return states.to(torch.int64) + self._site_offset

    def token_change(self, states: Tensor, actions: Tensor) -> Int64[Tensor, " batch"]:
        return actions

    def edges(self, states: Tensor) -> Bool[Tensor, "batch nodes nodes"]:
        return self._nearest.expand(states.shape[0], -1, -1)

    def transformed(self, symmetry: Symmetry, states: Tensor) -> Shaped[Tensor, "batch sites"]:
        self._check_symmetry(symmetry)
        origins, values = _relabelling(symmetry)
        return values.to(states.dtype)[states[:, origins].to(torch.int64)]

    def transformed_actions(self, symmetry: Symmetry) -> Int64[Tensor, " actions"]:
        self._check_symmetry(symmetry)
        site, value = torch.tensor(symmetry.sites)[:, None], torch.tensor(symmetry.values)
        return (site * self.num_values + value).flatten()

    @property
    def num_changes(self) -> int:
        return self.num_sites * (self.num_values - 1)

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        states = self.states(objects).to(torch.int64)
        site = (changes // (self.num_values - 1))[:, None]
        shift = (changes % (self.num_values - 1))[:, None] + 1
        value = (states.gather(1, site) + shift) % self.num_values
        return self.objects(states.scatter(1, site, value))

    @functools.cached_property
    def _nearest(self) -> Bool[Tensor, "sites sites"]:
        """Return which sites are nearest neighbours along some axis; the lattice closes on itself."""
        site = torch.arange(self.num_sites)
        grid = site.reshape(self.event_shape)
        joined = torch.zeros(self.num_sites, self.num_sites, dtype=torch.bool)
        for axis in range(grid.dim()):
            joined[site, grid.roll(-1, axis).flatten()] = True
        return (joined | joined.T) & ~torch.eye(self.num_sites, dtype=torch.bool)

    def _check_symmetry(self, symmetry: Symmetry) -> None:
        if len(symmetry.sites) != self.num_sites or len(symmetry.values) != self.num_values:
            raise CapabilityError(
                f"{symmetry.name!r} acts on {len(symmetry.sites)} sites with {len(symmetry.values)} values, but the "
                f"lattice has {self.num_sites} with {self.num_values}"
            )
        if self.order == "fixed" and symmetry.sites != tuple(range(self.num_sites)):
            raise CapabilityError(
                f"{symmetry.name!r} moves sites, which does not keep a fixed order of filling them; use order "
                "'uniform' or 'learned'"
            )

    def _fixed_site(self, depth: Int64[Tensor, " batch"]) -> Bool[Tensor, "batch sites"]:
        """Return which site is the depth-th of the fixed order; none where depth is out of range."""
        inside = (depth >= 0) & (depth < self.num_sites)
        site = self.site_order[depth.clamp(0, self.num_sites - 1)]
        return (torch.arange(self.num_sites) == site[:, None]) & inside[:, None]


def _equal_gap(values: tuple[int, ...], dtype: torch.dtype) -> int | None:
    """Return the gap between neighbouring values where it is always the same and differences do not overflow."""
    gaps = {high - low for low, high in itertools.pairwise(values)}
    most = torch.iinfo(dtype).max if not dtype.is_floating_point else torch.finfo(dtype).max
    return gaps.pop() if len(gaps) == 1 and values[-1] - 2 * values[0] <= most else None


@functools.lru_cache(maxsize=4096)
def _relabelling(symmetry: Symmetry) -> tuple[Int64[Tensor, " sites"], Int64[Tensor, " values_and_blank"]]:
    """Return which site each site is filled from, and what each value becomes; a blank stays one."""
    values = torch.tensor([*symmetry.values, len(symmetry.values)])
    return torch.tensor(symmetry.sites).argsort(), values
