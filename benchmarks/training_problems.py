"""The targets of benchmarks/training.py: how their objects are built, and what the default trainer must reach."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.kernels.branch import BranchLaw, Fixed, PrefixTable
from gfnmc.targets import EdwardsAnderson, ExactSolution, Ising, Potts, Target, TFBinding
from gfnmc.targets import HyperGrid as HyperGridTarget


@dataclass(frozen=True, eq=False)
class Problem:
    """A target, its environment, and what is asked of a pair trained without options.

    Attributes:
        name: What the user types.
        title: What tables call it; no title begins another one.
        make_target: Makes the target.
        acceptance: Least acceptance of a full restart.
        seconds: Most seconds of training.
        num_draws: Objects of P_F that log Z and the modes are judged by: at least 20 expected in each mode.
    """

    name: str
    title: str
    make_target: Callable[[], Target]
    acceptance: float
    seconds: float
    num_draws: int = 4_096

    @cached_property
    def target(self) -> Target:
        """The target."""
        return self.make_target()

    @cached_property
    def environment(self) -> DiscreteEnvironment:
        """The climb of a hypergrid, or sites filled in row-major order: a tree, one path an object."""
        if isinstance(self.target, HyperGridTarget):
            return HyperGrid.for_target(self.target)
        return Lattice.for_target(self.target, order="fixed")

    @cached_property
    def exact(self) -> ExactSolution:
        """The exact solution, which can draw."""
        solution = self.target.exact()
        assert solution is not None and solution.can_sample
        return solution

    @property
    def half(self) -> BranchLaw:
        """The law that rebuilds about half of an object.

        Half of the sites; on a hypergrid, where objects differ in length, all above a fixed depth, half the mean one.
        """
        if self.environment.is_fixed_length:
            return Fixed(math.prod(self.target.event_shape) // 2)
        assert self.environment.max_depth is not None
        return PrefixTable({self.environment.max_depth // 4: 1.0})

    def exact_objects(self, num_objects: int, purpose: str) -> Tensor:
        """Return independent exact objects, others for each purpose.

        Args:
            num_objects: How many.
            purpose: What they are for; names their stream of random numbers.
        """
        return self.exact.sample(PhiloxDraws(0, f"benchmark/{purpose}", num_objects))


def _hypergrid(side: int, r0: float, acceptance: float, seconds: float, num_draws: int) -> Problem:
    short = f"{r0:.0e}".replace("e-0", "e-")
    return Problem(
        name=f"hypergrid-{side}-{short}",
        title=f"hypergrid {side}^4, R0 = {short}",
        make_target=lambda: HyperGridTarget(4, side, r0=r0),
        acceptance=acceptance,
        seconds=seconds,
        num_draws=num_draws,
    )


def _ising(coupling: float, acceptance: float) -> Problem:
    return Problem(
        name=f"ising-{coupling}",
        title=f"ising 8x8, coupling {coupling}",
        make_target=lambda: Ising((8, 8), coupling),
        acceptance=acceptance,
        seconds=180.0,
    )


def _tf_binding(factor: str) -> Problem:
    return Problem(
        name=factor.lower(),
        title=f"tfbind {factor}, beta 40",
        make_target=lambda: TFBinding(factor, beta=40.0),
        acceptance=0.8,
        seconds=60.0,
    )


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        _hypergrid(8, 1e-3, acceptance=0.9, seconds=90.0, num_draws=4_096),
        _hypergrid(8, 1e-5, acceptance=0.9, seconds=90.0, num_draws=4_096),
        # Each of its modes has a mass of 0.12 %.
        _hypergrid(16, 1e-3, acceptance=0.85, seconds=180.0, num_draws=20_480),
        _ising(0.4407, acceptance=0.6),
        _ising(0.6, acceptance=0.8),
        Problem(
            name="edwards-anderson",
            title="edwards-anderson 8x8, beta 1",
            make_target=lambda: EdwardsAnderson((8, 8), 1.0, seed=0),
            acceptance=0.3,
            seconds=300.0,
        ),
        *(_tf_binding(factor) for factor in ("KLF1", "WT1", "SNAI2")),
        Problem(
            name="potts",
            title="potts q = 3, 6x6, coupling 1.0050",
            make_target=lambda: Potts((6, 6), 3, 1.0050),
            acceptance=0.6,
            seconds=180.0,
        ),
    )
}


def value_indices(target: Target, objects: Tensor) -> Tensor:
    """Return objects as rows of indices of the target's values, `(n, sites)` int64."""
    assert target.values is not None
    values = torch.tensor(target.values, dtype=target.dtype)
    return torch.searchsorted(values, objects.flatten(1).contiguous())


def objects_of(target: Target, indices: Tensor) -> Tensor:
    """Return the objects of rows of indices of values."""
    assert target.values is not None
    return torch.tensor(target.values, dtype=target.dtype)[indices].reshape(-1, *target.event_shape)
