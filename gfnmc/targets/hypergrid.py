"""The hypergrid: a flat floor, 2^D corners that carry the mass, and nothing to follow in between.

    R(x) = r0 + r1 [all |c_i| > 1/4] + r2 [all 3/10 < |c_i| < 4/10],    c_i = x_i / (side - 1) - 1/2

and `log_prob = log R`. The smaller r0, the longer a local chain stays in a corner.

Reference: Bengio et al. 2021 (2106.04399), section 4.1.
"""

import itertools
import math
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target, solve_product_space
from gfnmc.targets.checks import check_assigned, check_objects
from gfnmc.targets.relaxed import check_weights

MAX_NAMED_DIMS = 16
"""Dimensions up to which the 2^D corners are listed as modes."""

MAX_PERMUTED_DIMS = 4
"""Dimensions up to which all permutations of the axes are declared as symmetries; with more, only the cyclic ones."""


class HyperGrid(Target):
    """Cells of a grid; objects are `(num_dims,)` int64 with coordinates 0 ... side - 1.

    The statistics are the coordinates scaled to [0, 1] ("x0", "x1", ...) and "in_mode", 1 where all three terms
    of the reward are earned.

    Args:
        num_dims: Dimensions D.
        side: Cells along each dimension.
        r0: Reward of every cell; 0 makes the floor impossible.
        r1: Reward of the outer part.
        r2: Reward of the corners' cores.

    Raises:
        OptionError: If the grid has a single cell, or a reward is negative, not finite, or r2 is zero.
    """

    dtype = torch.int64

    def __init__(self, num_dims: int, side: int, r0: float = 0.1, r1: float = 0.5, r2: float = 2.0) -> None:
        if num_dims < 1 or side < 2:
            raise OptionError(f"a hypergrid of {num_dims} dimensions and side {side} has a single cell")
        if not all(math.isfinite(reward) for reward in (r0, r1, r2)) or min(r0, r1) < 0 or r2 <= 0:
            raise OptionError(f"rewards r0={r0}, r1={r1}, r2={r2} must be finite, none negative and r2 positive")
        self.name = f"hypergrid-{num_dims}d-{side}"
        self.num_dims = num_dims
        self.side = side
        self.r0, self.r1, self.r2 = r0, r1, r2
        self.event_shape = (num_dims,)
        self.values = tuple(range(side))
        # |c| = a / (2 (side - 1)) with an integer a, so the strict inequalities are decided exactly, without the
        # small number that floating point would need.
        distance = (2 * torch.arange(side) - (side - 1)).abs()
        is_outer = 2 * distance > side - 1
        is_core = (5 * distance > 3 * (side - 1)) & (5 * distance < 4 * (side - 1))
        # The core lies inside the outer part, so the lowest level among the coordinates decides the reward.
        self._level = is_outer.to(torch.int64) + is_core.to(torch.int64)
        self._log_rewards = torch.tensor([r0, r0 + r1, r0 + r1 + r2], dtype=torch.float64).log()

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return self._log_rewards.to(x.device)[_lowest_level(x, self._level)]

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        """Return the log-reward of the best cell with the assigned coordinates: the reward is no sum of terms."""
        check_assigned(self, x, is_assigned)
        level = torch.where(is_assigned, self._level.to(x.device)[x], self._level.max())
        return self._log_rewards.to(x.device)[level.amin(1)]

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        """Return log(r0 + r1 prod_i outer_i + r2 prod_i core_i), with the weights of each coordinate's parts."""
        check_weights(self, weights)
        level = self._level.to(weights.device)
        outer, core = (weights @ (level >= lowest).to(torch.float64) for lowest in (1, 2))
        return (self.r0 + self.r1 * outer.prod(1) + self.r2 * core.prod(1)).log()

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the permutations of the axes, each with and without the reflection of all coordinates at once.

        A reflection of some coordinates only leaves the reward unchanged too, but is no relabelling of all sites.
        """
        return self._symmetries

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        scaled = x.to(torch.float64) / (self.side - 1)
        named = {f"x{axis}": scaled[:, axis] for axis in range(self.num_dims)}
        return named | {"in_mode": _is_in_mode(x, self._level).to(torch.float64)}

    def modes(self) -> ModeSet | None:
        """Return the corners, one an orthant; None where the side leaves no cell in them.

        None too above `MAX_NAMED_DIMS` dimensions, where they are too many to list.
        """
        return self._modes

    def exact(self) -> ExactSolution | None:
        """Return the enumerated solution, or None above `ENUMERATION_LIMIT` cells."""
        return self._exact

    @cached_property
    def _modes(self) -> ModeSet | None:
        if self.num_dims > MAX_NAMED_DIMS or not (self._level == 2).any():
            return None
        return _Corners(self.num_dims, self.side, self._level)

    @cached_property
    def _symmetries(self) -> tuple[Symmetry, ...]:
        axes, values = tuple(range(self.num_dims)), tuple(range(self.side))
        orders = [axes[turn:] + axes[:turn] for turn in axes]
        if self.num_dims <= MAX_PERMUTED_DIMS:
            orders = list(itertools.permutations(axes))
        elements = []
        for order in orders:
            name = f"axes to {', '.join(map(str, order))}"
            elements += [Symmetry(name, order, values), Symmetry(f"{name}, reflected", order, values[::-1])]
        return tuple(element for element in elements if not element.is_identity)

    @cached_property
    def _exact(self) -> ExactSolution | None:
        return solve_product_space(self)


class _Corners(ModeSet):
    """The cells of full reward, by orthant: "-" below the middle, "+" above, the first dimension leading."""

    def __init__(self, num_dims: int, side: int, level: Int64[Tensor, " side"]) -> None:
        self.names = tuple(f"corner {''.join(signs)}" for signs in itertools.product("-+", repeat=num_dims))
        self._level = level
        self._middle = (side - 1) / 2
        self._place = 2 ** torch.arange(num_dims - 1, -1, -1)
        core = (level == 2).nonzero()[:, 0]
        below = core[core < self._middle]
        low = int(below[len(below) // 2])
        ends = torch.tensor([low, side - 1 - low])
        self.examples = ends[torch.arange(2**num_dims)[:, None] // self._place % 2]

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        orthant = ((x > self._middle) * self._place.to(x.device)).sum(1)
        return torch.where(_is_in_mode(x, self._level), orthant, -1)


def _lowest_level(x: Int64[Tensor, "batch dims"], level: Int64[Tensor, " side"]) -> Int64[Tensor, " batch"]:
    return level.to(x.device)[x].amin(1)


def _is_in_mode(x: Int64[Tensor, "batch dims"], level: Int64[Tensor, " side"]) -> Bool[Tensor, " batch"]:
    return _lowest_level(x, level) == 2
