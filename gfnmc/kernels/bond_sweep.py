"""Sweeps of models whose bonds all have one strength, where a table has the laws of all sites.

Without a field, and with bonds of one strength K that want their ends equal (e_b = 1) or different (e_b = -1),

    log R(x) = constant + K/2 * sum over bonds (i, j) of e_b s_i s_j,    s_i = -1 or +1,

so to flip site i changes log R by -K a_i, where a_i = s_i * (sum over its bonds of e_b s_j) is a whole number: how many
of its bonds are satisfied, less how many are not. Spins are bytes, laid out site by site in the order of the colours,
so that a colour is a slice, and only bytes are worked on.

Reference: Newman and Barkema 1999, "Monte Carlo Methods in Statistical Physics", chapter 3, for flips by a table.
"""

import functools

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from gfnmc.core.coins import FewLaws
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError
from gfnmc.core.tempering import InverseTemperature
from gfnmc.kernels.base import State
from gfnmc.kernels.clusters import BondModel, bond_model
from gfnmc.kernels.site_rules import Moved, SiteRule
from gfnmc.targets.base import Target
from gfnmc.targets.lattice import neighbour_tables

Bytes = NDArray[np.int8]

_HIGHEST_BYTE = 127
_ALL_BITS_BUT_THE_LAST = np.int8(-2)
# Every byte as a number, in the order of the law that it names.
_NUMBERS = torch.arange(256).to(torch.uint8).view(torch.int8).to(torch.float64)


def equal_bonds(target: Target) -> BondModel | None:
    """Return a target's bonds where all have one strength, there is no field, and sites have two values."""
    if target.values is None or len(target.values) != 2:
        return None
    try:
        model = bond_model(target)
    except CapabilityError:
        return None
    is_equal = len(model.bonds) > 0 and bool((model.strength == model.strength[0]).all())
    return model if is_equal and not model.field.any() else None


class BondSweep:
    """A sweep over all sites, colour after colour.

    Args:
        target: What to sample; it has two values.
        model: Its bonds, all of one strength; there is no field.
        colours: The sites of each colour.
        rule: How a site is drawn.
    """

    def __init__(
        self, target: Target, model: BondModel, colours: tuple[Int64[Tensor, "_"], ...], rule: SiteRule
    ) -> None:
        assert target.values is not None
        self._low, self._high = target.values
        self._is_spin = target.values == (-1, 1) and target.dtype == torch.int8
        self._dtype = target.dtype
        self._event_shape = target.event_shape
        self._rule = rule
        self._change_of_a_bond = -float(model.strength[0])
        order = torch.cat(colours)
        place = order.argsort()
        self._order, self._place = order.numpy(), place.numpy()
        neighbours, bonds = neighbour_tables(model.bonds, len(order))
        self._degree = neighbours.shape[1]
        # Where a site has fewer bonds than another, the table is filled up with bonds that want nothing.
        wants = torch.cat([2 * model.wants_equal.to(torch.int8) - 1, torch.zeros(1, dtype=torch.int8)])[bonds]
        all_want_equal = bool((wants == 1).all())
        self._largest = max(len(sites) for sites in colours)
        ends = torch.tensor([len(sites) for sites in colours]).cumsum(0).tolist()
        self._colours = [
            (
                slice(end - len(sites), end),
                place[neighbours[sites].T].numpy(),
                None if all_want_equal else wants[sites].T[:, :, None].numpy(),
            )
            for sites, end in zip(colours, ends, strict=True)
        ]

    def __call__(self, draws: Draws, state: State, inverse_temperature: InverseTemperature) -> Moved:
        """Return the chains after one sweep; see `ChromaticSweep`."""
        laws, law_of_chain = self._laws(inverse_temperature)
        coins = draws.role(self._rule.role).coins(laws, len(self._order))
        spins = self._spins(state.position)
        # What flips turn, and how many there are; added up over the colours, so that fewer sites are left to add up.
        bound = self._degree * len(self._colours)
        shape = 1 + self._rule.counts_changes, self._largest, len(state.position)
        tally = np.zeros(shape, dtype=np.int8 if bound <= _HIGHEST_BYTE else np.int64)
        for colour, neighbours, wants in self._colours:
            own = spins[colour]
            around = spins.take(neighbours, 0)
            if wants is not None:
                around *= wants
            satisfied = around[0]
            for other in around[1:]:
                satisfied += other
            satisfied *= own
            law = satisfied.view(np.uint8)
            flips = coins.decide(law if law_of_chain is None else law + law_of_chain).view(np.int8)
            tally[0, : len(own)] += np.multiply(flips, satisfied, out=satisfied)
            if self._rule.counts_changes:
                tally[1, : len(own)] += flips
            # In these -1 and +1 differ.
            own ^= np.multiply(flips, _ALL_BITS_BUT_THE_LAST, out=flips)
        turned, *num_changed = (_sums_over_sites(counts, bound) for counts in tally)
        log_prob = state.log_prob.numpy() + self._change_of_a_bond * turned
        return Moved(self._objects(spins), torch.from_numpy(log_prob), None, num_changed[0] if num_changed else None)

    def _laws(self, inverse_temperature: InverseTemperature) -> tuple[FewLaws, NDArray[np.int64] | None]:
        """Return the law of a flip for each byte, and where those of each chain begin if not shared."""
        if not isinstance(inverse_temperature, Tensor):
            return _shared_laws(self._rule, inverse_temperature * self._change_of_a_bond), None
        powers, power_of_chain = inverse_temperature.unique(return_inverse=True)
        change = self._change_of_a_bond * powers[:, None] * _NUMBERS
        return FewLaws(self._rule.log_flip(change).flatten()), len(_NUMBERS) * power_of_chain.numpy()

    def _spins(self, position: Shaped[Tensor, "chains *event"]) -> Bytes:
        """Return a copy of some objects as spins, site by site in the order of the colours."""
        by_site = position.numpy().reshape(len(position), -1).T.take(self._order, 0)
        return by_site if self._is_spin else 2 * (by_site == self._high).view(np.int8) - np.int8(1)

    def _objects(self, spins: Bytes) -> Shaped[Tensor, "chains *event"]:
        """Return objects that lie site by site in memory, as the next sweep takes them quickest."""
        by_site = spins.take(self._place, 0)
        objects = torch.from_numpy(by_site.T.reshape(-1, *self._event_shape))
        return objects if self._is_spin else torch.where(objects > 0, self._high, self._low).to(self._dtype)


@functools.lru_cache(maxsize=16)
def _shared_laws(rule: SiteRule, change_of_a_bond: float) -> FewLaws:
    return FewLaws(rule.log_flip(change_of_a_bond * _NUMBERS))


def _sums_over_sites(counts: NDArray[np.integer], bound: int) -> NDArray[np.integer]:
    """Return the sums over the first axis of numbers from -bound to bound.

    Of bytes as many as a byte can hold the sum of are added up as bytes first, which takes a third of the time.
    """
    if counts.dtype != np.int8:
        return counts.sum(0)
    num_sums = -(-len(counts) // (_HIGHEST_BYTE // bound))
    depth, rest = divmod(len(counts), num_sums)
    stacked = counts[: depth * num_sums].reshape(depth, num_sums, counts.shape[1])
    sums = np.add.reduce(stacked, dtype=np.int8)
    if rest:
        sums[:rest] += counts[-rest:]
    return np.add.reduce(sums, dtype=np.int16 if len(counts) * bound < 2**15 else np.int64)
