"""Sweeps that update all sites of a colour at once, colour after colour.

Sites of one colour share no term of the energy (`colouring.py`). So given all others they are independent: drawing each
by itself, from any law that leaves its conditional law invariant, leaves the law of the whole invariant, and the
changes of the log-density add up. Which law that is, says a `SiteRule`: a heat bath makes Gibbs sampling, a proposal
that is accepted or rejected makes Metropolis.

A sweep is not reversible, like a systematic scan.

Reference: Gonzalez, Low, Gretton and Guestrin 2011, "Parallel Gibbs sampling: from colored fields to thin junction
trees".
"""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import EnergyError, NonFiniteEnergyError
from gfnmc.core.numerics import take_rows
from gfnmc.core.tempering import InverseTemperature
from gfnmc.kernels.base import State
from gfnmc.kernels.bond_sweep import BondSweep, equal_bonds
from gfnmc.kernels.colouring import colours_of
from gfnmc.kernels.site_rules import Moved, SiteRule
from gfnmc.targets.base import Target, checked_log_prob


class ChromaticSweep:
    """A sweep over all sites, colour after colour.

    Args:
        target: What to sample; it declares `values`, and which sites interact.
        rule: How a site is drawn.

    Raises:
        CapabilityError: If the target does not say which sites interact.
        EnergyError: If what it says are no pairs of its sites.
    """

    def __init__(self, target: Target, rule: SiteRule) -> None:
        self._target = target
        self._rule = rule
        self._values = torch.tensor(target.values, dtype=target.dtype)
        self._colours = colours_of(target)
        model = equal_bonds(target)
        self._quicker = None if model is None else BondSweep(target, model, self._colours, rule)

    def __call__(self, draws: Draws, state: State, inverse_temperature: InverseTemperature) -> Moved:
        """Return the chains after one sweep.

        Args:
            draws: The step's draws.
            state: Where the chains are; it is not changed.
            inverse_temperature: The power of the target.

        Raises:
            EnergyError: If the target breaks its contract.
        """
        if self._quicker is not None:
            return self._quicker(draws, state, inverse_temperature)
        return self._by_changes(draws, state, inverse_temperature)

    @torch.no_grad()
    def _by_changes(self, draws: Draws, state: State, inverse_temperature: InverseTemperature) -> Moved:
        power = torch.as_tensor(inverse_temperature, dtype=torch.float64).expand(len(state.position))
        is_warm = power > 0.0
        warm, flat = is_warm.nonzero()[:, 0], (~is_warm).nonzero()[:, 0]
        by_site, position = _laid_out_by_site(state.position)
        log_prob, num_changed = state.log_prob.clone(), torch.zeros(len(power), dtype=torch.int64)
        for number, sites in enumerate(self._colours):
            delta = self._deltas(position, sites, warm)
            present = (take_rows(by_site, sites).T[:, :, None] == self._values).to(torch.uint8).argmax(2)
            chosen = self._chosen(draws.role(f"colour{number}"), power[:, None, None] * delta, present)
            # One after the other, so that the sum of a chain does not depend on how many there are.
            log_prob += delta.gather(2, chosen[:, :, None])[:, :, 0].cumsum(1)[:, -1]
            num_changed += (chosen != present).sum(1)
            # Of bytes torch's `index_copy_` takes ten times as long.
            by_site.numpy()[sites.numpy()] = self._values[chosen].T.numpy()
        if len(flat):
            log_prob[flat] = checked_log_prob(self._target, position[flat], rows=flat)
        return Moved(position, log_prob, is_warm, num_changed.numpy())

    def _chosen(
        self, draws: Draws, change: Float64[Tensor, "chains sites values"], present: Int64[Tensor, "chains sites"]
    ) -> Int64[Tensor, "chains sites"]:
        if len(self._values) != 2:
            site_draws = draws.repeated(present.shape[1])
            return self._rule.choose(site_draws, change.flatten(0, 1), present.flatten()).reshape(present.shape)
        log_flip = self._rule.log_flip(change.gather(2, 1 - present[:, :, None]).flatten())
        flips = draws.role(self._rule.role).repeated(present.shape[1]).bernoulli(log_flip)
        return torch.where(flips.reshape(present.shape), 1 - present, present)

    def _deltas(
        self, position: Tensor, sites: Int64[Tensor, " sites"], warm: Int64[Tensor, " some"]
    ) -> Float64[Tensor, "chains sites values"]:
        """Return the change of the log-density with each value at the sites, nats; 0 in rows that are not `warm`."""
        if len(warm) == len(position):
            return _checked_deltas(self._target, position, sites, warm)
        delta = torch.zeros(len(position), len(sites), len(self._values), dtype=torch.float64)
        if len(warm) > 0:
            # The other rows may be impossible objects, which nothing can be compared with.
            delta[warm] = _checked_deltas(self._target, position[warm], sites, warm)
        return delta


def _laid_out_by_site(
    position: Shaped[Tensor, "chains *event"],
) -> tuple[Shaped[Tensor, "sites chains"], Shaped[Tensor, "chains *event"]]:
    """Return a copy of some objects site by site, and the same memory as objects.

    The sites of a colour are rows then, which are gathered and put back at once; the next sweep finds them so.
    """
    by_site = position.flatten(1).T.clone(memory_format=torch.contiguous_format)
    return by_site, by_site.T.unflatten(1, position.shape[1:])


def _checked_deltas(
    target: Target, x: Tensor, sites: Int64[Tensor, " sites"], rows: Int64[Tensor, " batch"]
) -> Float64[Tensor, "batch sites values"]:
    """Ask a target for its differences and hold them to their contract; `rows` are what an error calls the rows."""
    delta = target.log_prob_deltas(x, sites)
    if delta.dtype != torch.float64 or delta.shape != (len(x), len(sites), len(target.values or ())):
        raise EnergyError(
            f"{target.name}.log_prob_deltas returned {delta.dtype} of shape {tuple(delta.shape)} for {len(x)} objects "
            f"and {len(sites)} sites; return torch.float64, one number a site and value"
        )
    # NaN is not below infinity either.
    is_legal = delta < torch.inf
    if not is_legal.all():
        row, place, index = (~is_legal).nonzero()[0].tolist()
        called, value = int(rows[row]), float(delta[row, place, index])
        raise NonFiniteEnergyError(
            f"{target.name}.log_prob_deltas returned {value} in row {called} at site {int(sites[place])} of the object "
            f"{x[row].tolist()}; a difference is finite, or -inf where a value makes the object impossible",
            row=called,
            value=value,
            state=x[row].tolist(),
        )
    return delta
