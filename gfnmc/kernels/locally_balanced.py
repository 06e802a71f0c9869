"""Locally balanced proposals: one natural single change, the better ones more often, but not too much more.

    q(y|x) = g(R(y)/R(x)) / Z(x),    Z(x) = sum over the changes y of x of g(R(y)/R(x)),    g(t) = t g(1/t)

with R^beta for R where the kernel is tempered. For such a g the proposal satisfies detailed balance with R(x) Z(x), so
the acceptance ratio is Z(x)/Z(y), near 1 in large spaces. Between two objects one change leads one way and one back, so
q(x|y) = g(R(x)/R(y)) / Z(y) needs no search for the change that leads back.

Reference: Zanella 2020 (1711.07424), "Informed proposals for local MCMC in discrete spaces".
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import EnergyError, OptionError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.kernels.base import Reach
from gfnmc.kernels.informed import (
    InformedKernel,
    Move,
    SiteChanges,
    Surroundings,
    chosen,
    draw_change,
)
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.checks import checked_log_densities

Balancing = Literal["sqrt", "barker", "min"]

_LOG_BALANCING: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": lambda log_ratio: 0.5 * log_ratio,
    "barker": torch.nn.functional.logsigmoid,
    "min": lambda log_ratio: log_ratio.clamp(max=0.0),
}


class EnvironmentChanges(Surroundings):
    """The environment's single changes, each by evaluating the target.

    Args:
        environment: Says what a single change is.
        target: What to evaluate.

    Raises:
        CapabilityError: If the environment has no single changes.
    """

    is_exact = True

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        self.environment = environment
        self.target = target
        self.num_changes = environment.num_changes

    def mask(self, x: Tensor) -> Bool[Tensor, "batch changes"]:
        return self.environment.change_mask(x)

    def changed(self, x: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        return self.environment.change(x, changes)

    def num_calls(self, x: Tensor) -> Int64[Tensor, " batch"]:
        return self.mask(x).sum(-1)

    def look(
        self, x: Tensor, log_prob: Float64[Tensor, " batch"], rows: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch changes"]:
        neighbours, applies = self.environment.neighbours(x)
        log_changes = torch.full(applies.shape, -torch.inf, dtype=torch.float64, device=x.device)
        row = applies.nonzero()[:, 0]
        if len(row):
            there = checked_log_prob(self.target, neighbours[applies], rows=rows[row])
            log_changes[applies] = there - log_prob[row]
        return log_changes


class SiteDeltas(SiteChanges):
    """Changes of one site, by the target's `log_prob_delta`."""

    is_exact = True
    counted_as = "delta_calls"

    def num_calls(self, x: Tensor) -> Int64[Tensor, " batch"]:
        return torch.full((len(x),), self.num_sites * (self.num_values - 1), device=x.device)

    def look(
        self, x: Tensor, log_prob: Float64[Tensor, " batch"], rows: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch changes"]:
        sites = torch.arange(self.num_sites, device=x.device).repeat(len(x))
        repeated, source = x.repeat_interleave(self.num_sites, 0), f"{self.target.name}.log_prob_delta"
        delta = self.target.log_prob_delta(repeated, sites)
        if delta.shape != (len(repeated), self.num_values):
            raise EnergyError(
                f"{source} returned shape {tuple(delta.shape)} for {len(repeated)} objects; return one number a value "
                "of the site"
            )
        # The largest is NaN where any is.
        checked_log_densities(delta.amax(1), source, repeated, rows.repeat_interleave(self.num_sites))
        return delta.reshape(len(x), -1)


class LocallyBalanced(InformedKernel):
    """Informed random walk on the environment's single changes.

    A step looks round the proposal, and round the current object where that is not known from the step before. A look
    is a target call for every change that applies; a delta call too where the changes are those of one site and the
    target offers `log_prob_delta`. At inverse temperature 0 no ratio is needed, and a step costs one call.

    Args:
        environment: Says what a single change is.
        target: What to sample.
        balancing: g: "sqrt" for sqrt(t), "barker" for t / (1 + t), "min" for min(1, t).

    Raises:
        CapabilityError: If the environment has no single changes, or the target is noisy.
        OptionError: If `balancing` is none of these.
    """

    name = "locally balanced"

    def __init__(self, environment: DiscreteEnvironment, target: Target, balancing: Balancing = "sqrt") -> None:
        if balancing not in _LOG_BALANCING:
            raise OptionError(f"balancing is {balancing!r}; choose one of {', '.join(map(repr, _LOG_BALANCING))}")
        super().__init__(environment, target, _surroundings(environment, target))
        self.balancing = balancing
        self.calls_per_step = max(2 * environment.num_changes, 1)

    @property
    def reach(self) -> Reach:
        return Reach.CONNECTED if self.environment.changes_connect else Reach.PARTIAL

    @property
    def may_stay(self) -> bool:
        # Where all objects weigh the same and have equally many changes, every move is accepted.
        return False

    def _draw(self, draws: Draws, position: Tensor, log_changes: Float64[Tensor, "chains changes"]) -> Move:
        move = draw_change(draws, self.surroundings, position, self._log_weights(log_changes))
        assert move.changes is not None
        return move._replace(log_change=torch.where(move.is_lazy, 0.0, chosen(log_changes, move.changes)))

    def _log_back(
        self, position: Tensor, move: Move, log_changes: Float64[Tensor, "chains changes"]
    ) -> Float64[Tensor, " chains"]:
        assert move.log_change is not None
        log_weights = self._log_weights(log_changes)
        log_z = log_weights.masked_fill(~self.surroundings.mask(move.position), -torch.inf).logsumexp(1)
        return self._log_weights(-move.log_change[:, None])[:, 0] - log_z

    def _log_weights(self, log_changes: Float64[Tensor, "chains changes"]) -> Float64[Tensor, "chains changes"]:
        return _LOG_BALANCING[self.balancing](self._tempered(log_changes))


def _surroundings(environment: DiscreteEnvironment, target: Target) -> Surroundings:
    if environment.builds_every_assignment and target.offers_delta and target.values is not None:
        one = torch.full((1, *target.event_shape), target.values[0], dtype=target.dtype)
        if _changes_sites(environment, one, len(target.values) - 1):
            return SiteDeltas(target)
    return EnvironmentChanges(environment, target)


def _changes_sites(environment: DiscreteEnvironment, one: Shaped[Tensor, "1 *event"], num_others: int) -> bool:
    """Say whether the changes of an object put each other value at each site, and no more."""
    # Of environments that step to the next value only, some changes do not apply at the border.
    neighbours, applies = environment.neighbours(one)
    has_all = environment.num_changes == one.numel() * num_others and bool(applies.all())
    return has_all and bool(((neighbours != one).flatten(2).sum(2) == 1).all())
