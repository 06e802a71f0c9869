"""Relabellings of assignments: sites change places and values change names.

A symmetry maps x to y with `y[sites[i]] = values[x[i]]`, where x[i] is the index of the value at flat site i. Targets
declare those that leave their log-density unchanged; it takes no more than these two permutations to write down a
shift, a reflection, a flip of all spins or an exchange of colours.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from gfnmc.core.errors import ObjectError, OptionError


@dataclass(frozen=True)
class Symmetry:
    """A permutation of sites together with a permutation of values; two are equal where they do the same.

    Attributes:
        name: What it does, for tables and messages.
        sites: Where each flat site goes, a permutation of 0 ... num_sites - 1.
        values: What each index of a value becomes, a permutation of 0 ... num_values - 1.

    Raises:
        OptionError: If `sites` or `values` is no permutation.
    """

    name: str = field(compare=False)
    sites: tuple[int, ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, numbers in (("sites", self.sites), ("values", self.values)):
            if not numbers or sorted(numbers) != list(range(len(numbers))):
                raise OptionError(
                    f"the {what} of the symmetry {self.name!r} are {numbers}; give a permutation of 0 ... n - 1"
                )

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return _is_sorted(self.sites) and _is_sorted(self.values)

    def inverse(self) -> "Symmetry":
        """Return the symmetry that undoes this one."""
        return Symmetry(f"inverse of {self.name}", _inverse(self.sites), _inverse(self.values))

    def after(self, other: "Symmetry") -> "Symmetry":
        """Return the symmetry that does `other` first and then this one.

        Raises:
            OptionError: If the two act on different numbers of sites or values.
        """
        if len(self.sites) != len(other.sites) or len(self.values) != len(other.values):
            raise OptionError(
                f"{self.name!r} acts on {len(self.sites)} sites with {len(self.values)} values, {other.name!r} on "
                f"{len(other.sites)} with {len(other.values)}; only symmetries of one space can follow each other"
            )
        sites = tuple(self.sites[site] for site in other.sites)
        values = tuple(self.values[value] for value in other.values)
        return Symmetry(f"{self.name} after {other.name}", sites, values)

    def apply(self, indices: Int[Tensor, "batch sites"]) -> Int[Tensor, "batch sites"]:
        """Return the relabelled assignments.

        Args:
            indices: Index of the value at each site, any integer dtype, which the result has too.

        Raises:
            ObjectError: If there are not as many sites, or an index is out of range.
        """
        if indices.shape[1] != len(self.sites):
            raise ObjectError(f"{self.name!r} acts on {len(self.sites)} sites, not on {indices.shape[1]}")
        if indices.numel() > 0 and not (0 <= int(indices.min()) <= int(indices.max()) < len(self.values)):
            raise ObjectError(f"{self.name!r} acts on indices of values 0 ... {len(self.values) - 1}, not on others")
        origins, values = (table.to(indices.device) for table in self._tables)
        return values.to(indices.dtype)[indices[:, origins].to(torch.int64)]

    @cached_property
    def _tables(self) -> tuple[Int64[Tensor, " sites"], Int64[Tensor, " values"]]:
        """Return which site each site is filled from, and what each value becomes."""
        return torch.tensor(_inverse(self.sites)), torch.tensor(self.values)


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


def _is_sorted(permutation: tuple[int, ...]) -> bool:
    return permutation == tuple(range(len(permutation)))
