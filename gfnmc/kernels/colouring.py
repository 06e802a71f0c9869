"""Colour the sites of a target so that no two of one colour share a term of its energy.

Sites of one colour are then independent given all others, and may be updated at once. Greedy: each site in its order
gets the first colour that none of its neighbours has, so that a lattice of even sides gets two, its checkerboard, and
no target more than one and the most neighbours that a site has.

Reference: Welsh and Powell 1967, "An upper bound for the chromatic number of a graph and its application to
timetabling problems".
"""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnergyError
from gfnmc.targets.base import Target


def colour_classes(pairs: Int64[Tensor, "pairs 2"], num_sites: int) -> tuple[Int64[Tensor, "_"], ...]:
    """Return the sites of each colour, increasing.

    Args:
        pairs: The sites that must not have one colour; both ways round and more than once is the same.
        num_sites: Sites are 0 ... num_sites - 1.
    """
    neighbours: list[list[int]] = [[] for _ in range(num_sites)]
    for one, other in pairs.tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    colour_of = [-1] * num_sites
    for site in range(num_sites):
        taken = {colour_of[neighbour] for neighbour in neighbours[site]}
        colour_of[site] = next(colour for colour in range(num_sites) if colour not in taken)
    colours = torch.tensor(colour_of)
    return tuple((colours == colour).nonzero()[:, 0] for colour in range(max(colour_of, default=-1) + 1))


def colours_of(target: Target) -> tuple[Int64[Tensor, "_"], ...]:
    """Return the sites of each colour of a target.

    Raises:
        CapabilityError: If the target does not say which of its sites interact.
        EnergyError: If what it says makes no pairs of its sites.
    """
    pairs, num_sites = target.interactions(), math.prod(target.event_shape)
    if pairs is None:
        raise CapabilityError(
            f"{target.name} does not say which of its sites share a term of the energy, so none can be updated at "
            "once; implement `interactions`, or visit one site after the other: Gibbs(..., scan='systematic')"
        )
    if pairs.dim() != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise EnergyError(
            f"{target.name}.interactions returned {pairs.dtype} of shape {tuple(pairs.shape)}; return int64, two sites "
            "a pair"
        )
    is_pair = (pairs >= 0).all(1) & (pairs < num_sites).all(1) & (pairs[:, 0] != pairs[:, 1])
    if not is_pair.all():
        wrong = pairs[~is_pair][0].tolist()
        raise EnergyError(
            f"{target.name}.interactions returned the pair {wrong}; a pair is two different sites of 0 ... "
            f"{num_sites - 1}"
        )
    return colour_classes(pairs, num_sites)
