"""The Edwards-Anderson spin glass: an Ising model whose bonds are +beta or -beta, by chance and then for good.

    log_prob(s) = beta * sum over bonds (i, j) of sign_ij s_i s_j,    s_i = -1 or +1

Bonds that cannot all be satisfied leave many deep valleys that no order parameter tells apart. What does is the
overlap between independent replicas: its law is symmetric, and a chain stuck in a valley shows one narrow peak.

Reference: Edwards and Anderson 1975, "Theory of spin glasses".
"""

import dataclasses
import math
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, Target
from gfnmc.targets.ising import Ising


class EdwardsAnderson(Target):
    """A spin glass with bonds of two signs; objects have the lattice's shape, int8, -1 or +1.

    The statistics are "energy_per_site" (-log_prob / sites, nats), "magnetisation" (mean spin) and
    "satisfied_bonds" (fraction of the bonds that add +beta).

    Attributes:
        bonds: The sites that each bond joins, `(num_bonds, 2)`, in the order of `Ising.bonds`.
        coupling: +beta or -beta for each bond, `(num_bonds,)` float64.

    Args:
        shape: Sites along each axis; the lattice has a bond.
        beta: Size of every coupling, nats; positive.
        seed: Draws the signs: bond b is positive where row b of
            `PhiloxDraws(seed, "edwards-anderson", num_bonds).bernoulli(log(1/2))` is True.
        periodic: Whether every axis is closed to a ring.

    Raises:
        OptionError: If there is no bond, or beta cannot work.
    """

    dtype = torch.int8
    values = (-1, 1)

    def __init__(self, shape: tuple[int, ...], beta: float, *, seed: int, periodic: bool = True) -> None:
        if not math.isfinite(beta) or beta <= 0:
            raise OptionError(f"beta is {beta}; it must be finite and positive")
        self.bonds = Ising(shape, 0.0, periodic=periodic).bonds
        if len(self.bonds) == 0:
            raise OptionError(f"a lattice of shape {tuple(shape)} has no bond to draw a sign for")
        even = torch.full((len(self.bonds),), -math.log(2), dtype=torch.float64)
        is_positive = PhiloxDraws(seed, "edwards-anderson", len(self.bonds)).bernoulli(even)
        self._ising = Ising(shape, beta * (2.0 * is_positive.to(torch.float64) - 1.0), periodic=periodic)
        self.event_shape = self._ising.event_shape
        self.name = f"edwards-anderson-{'x'.join(str(side) for side in self.event_shape)}-seed{seed}"
        self.beta = float(beta)
        self.seed = seed
        self.periodic = periodic
        self.num_sites = self._ising.num_sites
        self.coupling = self._ising.coupling
        self._half_bonds_per_energy = 0.5 * self.num_sites / (self.beta * len(self.bonds))

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        return self._ising.log_prob(x)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        return self._ising.log_prob_delta(x, sites)

    def interactions(self) -> Int64[Tensor, "pairs 2"]:
        return self.bonds

    def log_prob_deltas(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " sites"]
    ) -> Float64[Tensor, "batch sites values"]:
        return self._ising.log_prob_deltas(x, sites)

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        return self._ising.log_prob_relaxed(weights)

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        return self._ising.partial_log_prob(x, is_assigned)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the flip, and shifts where the signs happen to repeat."""
        return self._ising.symmetries()

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        energy = -self.log_prob(x) / self.num_sites
        return {
            "energy_per_site": energy,
            "magnetisation": x.flatten(1).to(torch.float64).mean(1),
            "satisfied_bonds": 0.5 - self._half_bonds_per_energy * energy,
        }

    def exact(self) -> ExactSolution | None:
        """Return the exact solution, where the Ising model of these couplings has one; the modes are not known."""
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution | None:
        solution = self._ising.exact()
        if solution is None:
            return None
        energy = solution.expectations["energy_per_site"]
        expectations = {
            "energy_per_site": energy,
            "magnetisation": solution.expectations["magnetisation"],
            "satisfied_bonds": 0.5 - self._half_bonds_per_energy * energy,
        }
        return dataclasses.replace(solution, expectations=expectations, mode_masses=None)


def overlap(a: Shaped[Tensor, "batch *event"], b: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
    """Return the mean over sites of the product of two configurations' spins, from -1 to 1.

    Args:
        a: Spins, -1 or +1.
        b: As many others, independent of `a` where the law of the overlap is wanted.

    Raises:
        ObjectError: If the shapes differ.
    """
    if a.shape != b.shape:
        raise ObjectError(f"spins of shapes {tuple(a.shape)} and {tuple(b.shape)} have no overlap; give equal shapes")
    return (a * b).flatten(1).to(torch.float64).mean(1)
