"""Gibbs sampling: draw one site anew from its law given all others.

    P(x_site = v | rest)  proportional to  R(x with v at the site)^beta

A random scan visits one site a step, drawn uniformly, and is reversible; a systematic scan visits every site once, in
row-major order, which leaves the target invariant but is not reversible; and so is a chromatic scan, which visits at
once all sites that share no term of the energy, a checkerboard on a lattice (`sweep.py`).

Reference: Geman and Geman 1984, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images".
"""

import copy
import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, OptionError
from gfnmc.core.tempering import InverseTemperature, checked_inverse_temperature
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Info, Kernel, Reach, State
from gfnmc.kernels.site_rules import Moved, SiteRule, report
from gfnmc.kernels.sweep import ChromaticSweep
from gfnmc.targets.base import Target, checked_log_prob

Scan = Literal["random", "systematic", "chromatic"]


class Gibbs(Kernel):
    """Single-site heat bath on assignments of values to sites.

    A draw from the conditional law is always kept, so `Info` says accepted, with log ratio 0 and acceptance rate 1,
    even where the site got the value that it had. A visit counts as one target call for each value that is not there
    yet, a delta call too where the target offers `log_prob_delta`; at inverse temperature 0 no conditional law is
    needed, and a step costs one. A chromatic scan of spins whose bonds have one strength, and no field, counts the
    satisfied bonds of every site at any temperature, and that is what it says it cost.

    Args:
        environment: How objects are built.
        target: What to sample; it declares `values`.
        scan: "random" for one site a step, "systematic" for a sweep over all, "chromatic" for a sweep that visits at
            once all sites of a colour, many times faster; for this the target says which of its sites interact.

    Raises:
        CapabilityError: If the target declares no `values`, or is noisy; or if the scan is chromatic and the target
            does not say which sites interact.
        EnergyError: If the pairs of sites that interact are none.
        OptionError: If `scan` is none of them.
    """

    name = "Gibbs"

    def __init__(self, environment: DiscreteEnvironment, target: Target, scan: Scan = "random") -> None:
        if target.values is None:
            raise CapabilityError(f"{target.name} declares no `values` of a site, so Gibbs has nothing to choose from")
        if target.is_noisy:
            raise CapabilityError(
                f"{target.name} is noisy, and Gibbs needs the densities of a site's values, not estimates of them; use "
                "RandomWalk"
            )
        if scan not in ("random", "systematic", "chromatic"):
            raise OptionError(f"scan is {scan!r}; choose 'random', 'systematic' or 'chromatic'")
        self.environment = environment
        self.target = target
        self.scan = scan
        self._values = torch.tensor(target.values, dtype=target.dtype)
        self._num_sites = math.prod(target.event_shape)
        self._visits = 1 if scan == "random" else self._num_sites
        self._calls = self._visits * (len(self._values) - 1)
        self.calls_per_step = max(self._calls, 1)
        self._sweep = ChromaticSweep(target, _HeatBath()) if scan == "chromatic" else None

    def start(self, draws: Draws) -> Tensor:
        """Return objects with every site drawn uniformly: exact draws of the law at inverse temperature 0."""
        return uniform_assignments(self.target, draws)

    @property
    def reach(self) -> Reach:
        return Reach.EVERYWHERE if self._visits == self._num_sites else Reach.CONNECTED

    @property
    def may_stay(self) -> bool:
        return True

    def tempered(self, inverse_temperature: InverseTemperature) -> "Gibbs":
        tempered = copy.copy(self)
        tempered.inverse_temperature = checked_inverse_temperature(inverse_temperature)
        return tempered

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        if self._sweep is None:
            moved = self._one_by_one(draws, state)
        else:
            moved = self._sweep(draws, state, self.inverse_temperature)
        info = report(moved, None, self._calls, offers_delta=self.target.offers_delta)
        return State(moved.position, moved.log_prob, state.cache), info

    @torch.no_grad()
    def _one_by_one(self, draws: Draws, state: State) -> Moved:
        """Return the chains after a visit of each site that the scan names."""
        position = state.position.clone(memory_format=torch.contiguous_format)
        power = torch.as_tensor(self.inverse_temperature, dtype=torch.float64).expand(len(position))
        is_warm = power > 0.0
        warm, flat = is_warm.nonzero()[:, 0], (~is_warm).nonzero()[:, 0]
        values, log_prob, value_draws = self._values.to(position.device), state.log_prob.clone(), draws.role("value")
        for sites in self._scan(draws):
            delta = self._delta(position, sites, warm)
            chosen = value_draws.categorical(_normalised(power[:, None] * delta))[:, None]
            position.flatten(1).scatter_(1, sites[:, None], values[chosen])
            log_prob += delta.gather(1, chosen)[:, 0]
        if len(flat):
            log_prob[flat] = checked_log_prob(self.target, position[flat], rows=flat)
        return Moved(position, log_prob, is_warm, None)

    def _scan(self, draws: Draws) -> Iterator[Int64[Tensor, " chains"]]:
        """Yield the site that each chain visits next."""
        if self.scan == "random":
            yield draws.role("site").integers(torch.full((draws.num_rows,), self._num_sites))
            return
        for site in range(self._num_sites):
            yield torch.full((draws.num_rows,), site)

    def _delta(
        self, position: Tensor, sites: Int64[Tensor, " chains"], warm: Int64[Tensor, " some"]
    ) -> Float64[Tensor, "chains values"]:
        """Return the change of the log-density with each value at the sites, nats; 0 in rows that are not `warm`."""
        if len(warm) == len(position):
            return _checked_delta(self.target, position, sites, None)
        delta = torch.zeros(len(position), len(self._values), dtype=torch.float64, device=position.device)
        if len(warm) == 0:
            return delta
        # The other rows may be impossible objects, which nothing can be compared with.
        compared = position.index_select(0, warm), sites.index_select(0, warm)
        return delta.index_copy_(0, warm, _checked_delta(self.target, *compared, warm))


def uniform_assignments(target: Target, draws: Draws) -> Tensor:
    """Return objects with every site drawn uniformly from the target's values, `(rows, *event)`."""
    values, num_sites = torch.tensor(target.values, dtype=target.dtype), math.prod(target.event_shape)
    uniform = torch.full((len(values),), -math.log(len(values)), dtype=torch.float64)
    value_draws = draws.role("value")
    sites = [value_draws.categorical(uniform) for _ in range(num_sites)]
    return values[torch.stack(sites, 1)].reshape(-1, *target.event_shape)


class _HeatBath(SiteRule):
    role = "value"
    counts_changes = False

    def log_flip(self, change: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        return torch.nn.functional.logsigmoid(change)

    def choose(
        self, draws: Draws, change: Float64[Tensor, "rows values"], present: Int64[Tensor, " rows"]
    ) -> Int64[Tensor, " rows"]:
        return draws.role(self.role).categorical(_normalised(change))


def _normalised(scores: Float64[Tensor, "chains values"]) -> Float64[Tensor, "chains values"]:
    # Over the first dimension torch is ten times faster when there are few values.
    return scores.T.log_softmax(0).T.contiguous()


def _checked_delta(
    target: Target, x: Tensor, sites: Int64[Tensor, " batch"], rows: Int64[Tensor, " batch"] | None
) -> Float64[Tensor, "batch values"]:
    """Ask a target for its differences and hold them to their contract; `rows` are what an error calls the rows."""
    delta = target.log_prob_delta(x, sites)
    if delta.dtype != torch.float64 or delta.shape != (len(x), len(target.values or ())):
        raise EnergyError(
            f"{target.name}.log_prob_delta returned {delta.dtype} of shape {tuple(delta.shape)} for {len(x)} objects; "
            "return torch.float64, one number a value of the site"
        )
    # NaN is not below infinity either.
    is_legal = delta < torch.inf
    if not is_legal.all():
        row = int((~is_legal).nonzero()[0, 0])
        called = row if rows is None else int(rows[row])
        value = float(delta[row][~is_legal[row]][0])
        raise NonFiniteEnergyError(
            f"{target.name}.log_prob_delta returned {value} in row {called} at site {int(sites[row])} of the object "
            f"{x[row].tolist()}; a difference is finite, or -inf where a value makes the object impossible",
            row=called,
            value=value,
            state=x[row].tolist(),
        )
    return delta
