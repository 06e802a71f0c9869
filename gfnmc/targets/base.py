"""The energy on finished objects: what a target is, and what it may know about itself.

A target needs `event_shape`, `dtype` and `log_prob`. Everything else is optional: named statistics, the modes and
the exact solution make the diagnostics better; differences, partial energies and symmetries make kernels and training
cheaper; and a target that can only be estimated says so.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.checks import (
    check_many_sites,
    check_objects,
    check_sites,
    checked_event_shape,
    checked_log_densities,
)
from gfnmc.targets.nonfinite import rejected_if_asked
from gfnmc.targets.solution import ExactSolution, ModeSet

__all__ = [
    "ENUMERATION_LIMIT",
    "ExactSolution",
    "ModeSet",
    "Target",
    "check_objects",
    "check_usable",
    "checked_estimate",
    "checked_event_shape",
    "checked_log_prob",
    "product_space",
    "solve_by_enumeration",
    "solve_product_space",
]

ENUMERATION_LIMIT = 2**17
"""Most objects that `Target.exact()` lists: a second of work and some tens of MiB."""


class Target(ABC):
    """An unnormalised log-density on objects of one shape.

    Attributes:
        name: Short name for tables and files.
        event_shape: Shape of one object.
        dtype: Dtype of objects.
        values: The values a coordinate can take, in increasing order, where objects are assignments of
            values to sites; None where they are something else.
        is_noisy: `log_prob` cannot be had, only an estimate of it.
        is_unbiased: Where it is noisy, the mean of exp(estimate) is the density.
    """

    name: str
    event_shape: tuple[int, ...]
    dtype: torch.dtype
    values: tuple[int, ...] | None = None
    is_noisy: bool = False
    is_unbiased: bool = False

    @abstractmethod
    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        """Return the unnormalised log-density of each object, in nats; -inf where it is impossible."""

    def estimate_log_prob(self, x: Shaped[Tensor, "batch *event"], draws: Draws) -> Float64[Tensor, " batch"]:
        """Return one estimate of each object's log-density, in nats, by the decisions of one row of `draws` each.

        The default is `log_prob` itself, which takes no decision.
        """
        return self.log_prob(x)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        """Return how the log-density changes with each value put at one site.

        Override it where that takes less than evaluating `log_prob` for every value, as the default does.

        Args:
            x: Objects that are possible.
            sites: A flat site of each object.

        Returns:
            log_prob with each of `values` at the site, less log_prob(x), nats: exactly 0 for the value that is
            there, -inf for one that makes the object impossible.

        Raises:
            CapabilityError: If the target declares no `values`.
            ObjectError: If an object is impossible, or not the target's.
            OptionError: If there is not one site an object, or a site is out of range.
            EnergyError: If the target breaks its contract.
        """
        values = torch.tensor(check_sites(self, x, sites), dtype=x.dtype, device=x.device)
        is_site = torch.arange(torch.Size(self.event_shape).numel(), device=x.device) == sites[:, None]
        variants = torch.where(is_site[:, None], values[:, None], x.flatten(1)[:, None])
        rows = torch.arange(len(x), device=x.device).repeat_interleave(len(values))
        log_prob = checked_log_prob(self, variants.reshape(-1, *x.shape[1:]), rows=rows).reshape(-1, len(values))
        present = (x.flatten(1).gather(1, sites[:, None]) == values).to(torch.int64).argmax(1, keepdim=True)
        here = log_prob.gather(1, present)
        if (here == -torch.inf).any():
            row = int((here == -torch.inf).nonzero()[0, 0])
            raise ObjectError(
                f"object {row} of the batch, {x[row].tolist()}, has density zero under {self.name}, so no change can "
                "be compared with it; give objects that are possible"
            )
        return log_prob - here

    @property
    def offers_delta(self) -> bool:
        """Whether the target has a `log_prob_delta` of its own, which costs less than evaluating every value."""
        return type(self).log_prob_delta is not Target.log_prob_delta

    def interactions(self) -> Int64[Tensor, "pairs 2"] | None:
        """Return every pair of flat sites that share a term of the energy, once; None, the default, where not known.

        log_prob is a sum of terms, and a pair that no term contains is independent given all other sites.
        """
        return None

    def log_prob_deltas(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " sites"]
    ) -> Float64[Tensor, "batch sites values"]:
        """Return how the log-density changes with each value put at one of several sites, the same for all objects.

        The default asks `log_prob_delta` site by site. Override it where all at once take less.

        Args:
            x: Objects that are possible.
            sites: Flat sites.

        Returns:
            For each site what `log_prob_delta` returns, all other sites left alone, nats.

        Raises:
            CapabilityError: If the target declares no `values`.
            ObjectError: If an object is impossible, or not the target's.
            OptionError: If a site is out of range.
            EnergyError: If the target breaks its contract.
        """
        values = check_many_sites(self, x, sites)
        if len(sites) == 0:
            return torch.zeros(len(x), 0, len(values), dtype=torch.float64, device=x.device)
        return torch.stack([self.log_prob_delta(x, site.expand(len(x))) for site in sites], 1)

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        """Return the log-density as a differentiable function of a weight for each value of a site, nats.

        It equals `log_prob` where each site has weight 1 for one of `values` and 0 for the others, and has a finite
        gradient there if the object is possible. Each row is a function of its own weights alone.

        Args:
            weights: Of each of `values`, in their order, at each site.

        Raises:
            CapabilityError: If the target offers no such function.
            ObjectError: If the weights are not for the target's objects.
        """
        raise CapabilityError(
            f"{self.name} has no relaxed log-density: implement `log_prob_relaxed`, or use a kernel that needs no "
            "gradient, such as LocallyBalanced or Gibbs"
        )

    @property
    def offers_relaxed(self) -> bool:
        """Whether the target has a `log_prob_relaxed`."""
        return type(self).log_prob_relaxed is not Target.log_prob_relaxed

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        """Return the energy terms that the assigned sites have among themselves, nats.

        It equals `log_prob` where every site is assigned.

        Args:
            x: Objects; any value that the target knows where a site is not assigned.
            is_assigned: True where a site is assigned.

        Raises:
            CapabilityError: If the energy is no sum of such terms, or the target does not say so.
        """
        raise CapabilityError(
            f"{self.name} has no energy of unfinished objects: implement `partial_log_prob`, or use an objective that "
            "looks at finished objects only"
        )

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the elements, without the identity, of a group that leaves `log_prob` unchanged; none by default."""
        return ()

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        """Return the named scalars worth watching; each becomes an ArviZ variable. None by default."""
        return {}

    def modes(self) -> ModeSet | None:
        """Return the modes, or None where they are not known."""
        return None

    def exact(self) -> ExactSolution | None:
        """Return the exact solution, or None where it cannot be computed."""
        return None


def checked_log_prob(
    target: Target, x: Shaped[Tensor, "batch *event"], *, rows: Int64[Tensor, " batch"] | None = None
) -> Float64[Tensor, " batch"]:
    """Evaluate a target and hold it to its contract.

    Every energy the package uses comes through here, or through `checked_estimate`.

    Args:
        target: What to evaluate.
        x: Objects.
        rows: What to call the rows in an error, where they are a subset of a batch; 0, 1, ... by default.

    Raises:
        EnergyError: If the result is not a `(batch,)` float64 tensor.
        NonFiniteEnergyError: If a value is NaN or +inf, unless a run asks to count those (`targets.nonfinite`).
    """
    return checked_log_densities(rejected_if_asked(target.log_prob(x), rows), f"{target.name}.log_prob", x, rows)


def checked_estimate(
    target: Target, x: Shaped[Tensor, "batch *event"], draws: Draws, *, rows: Int64[Tensor, " batch"] | None = None
) -> Float64[Tensor, " batch"]:
    """Estimate the log-density of each object once and hold the target to its contract.

    Where the target is not noisy this is `checked_log_prob`.

    Args:
        target: What to estimate.
        x: Objects.
        draws: One row an object; or, where `rows` is given, one a row of the whole batch, of which each object
            uses its own, so that its estimate does not depend on which others are estimated.
        rows: Which rows of a batch the objects are, where they are a subset; 0, 1, ... by default.

    Raises:
        EnergyError: If the result is not a `(batch,)` float64 tensor.
        NonFiniteEnergyError: If a value is NaN or +inf, unless a run asks to count those (`targets.nonfinite`).
        OptionError: If there is not one row of draws an object.
    """
    if not target.is_noisy:
        return checked_log_prob(target, x, rows=rows)
    if rows is not None and draws.num_rows != len(x):
        draws = draws.for_rows(rows)
    if draws.num_rows != len(x):
        raise OptionError(f"draws of {draws.num_rows} rows for {len(x)} objects; give one row an object")
    estimate = rejected_if_asked(target.estimate_log_prob(x, draws), rows)
    return checked_log_densities(estimate, f"{target.name}.estimate_log_prob", x, rows)


def check_usable(target: Target) -> None:
    """Refuse a target whose estimates would make chains sample something else.

    Raises:
        CapabilityError: If it is noisy and not declared unbiased.
    """
    if target.is_noisy and not target.is_unbiased:
        raise CapabilityError(
            f"{target.name} is noisy and does not say that it is unbiased, so chains would sample another law than "
            "its own. Set is_unbiased = True only if the mean of exp(estimate) is the density; then chains are "
            "pseudo-marginal and exact"
        )


def product_space(values: tuple[int, ...], event_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return every assignment of `values` to sites, `(n, *event_shape)`, the last site changing fastest."""
    num_sites = torch.Size(event_shape).numel()
    code = torch.arange(len(values) ** num_sites)[:, None]
    digits = code // len(values) ** torch.arange(num_sites - 1, -1, -1) % len(values)
    return torch.tensor(values, dtype=dtype)[digits].reshape(-1, *event_shape)


def solve_by_enumeration(target: Target, support: Shaped[Tensor, "n *event"]) -> ExactSolution:
    """Return the exact solution of a target whose every object is given.

    Raises:
        EnergyError: If no object is possible: there is no law to solve.
    """
    log_prob = checked_log_prob(target, support)
    log_z = log_prob.logsumexp(0)
    if log_z == -torch.inf:
        raise EnergyError(f"{target.name}.log_prob is -inf for all {support.shape[0]} objects; one must be possible")
    log_pmf = log_prob - log_z
    pmf = log_pmf.exp()
    expectations = {name: float(pmf @ value.to(torch.float64)) for name, value in target.statistics(support).items()}
    modes = target.modes()
    masses = None
    if modes is not None:
        label = modes.assign(support)
        masses = tuple(float(pmf[label == mode].sum()) for mode in range(len(modes)))
    return ExactSolution(float(log_z), expectations, masses, support, log_pmf)


def solve_product_space(target: Target) -> ExactSolution | None:
    """Return the exact solution of a target on assignments of `values` to sites.

    None where it declares no values, or where there are more than `ENUMERATION_LIMIT` assignments.
    """
    if target.values is None or len(target.values) ** math.prod(target.event_shape) > ENUMERATION_LIMIT:
        return None
    return solve_by_enumeration(target, product_space(target.values, target.event_shape, target.dtype))
