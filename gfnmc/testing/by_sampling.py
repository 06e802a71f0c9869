"""Judge a kernel of a large space by chains that start from exact, independent draws of its law.

Where a kernel leaves the law invariant, each chain is an exact draw after any number of steps; where it is reversible
as well, (x0, x1) and (x1, x0) have one law. Both are judged by counts:

    invariant     counts of a statistic after some steps, beside those of new exact draws: the two-sample chi-square
    reversible    counts n_ij of (bin of x0, bin of x1) beside n_ji: sum over i < j of (n_ij - n_ji)^2 / (n_ij + n_ji)

Bins are quantiles of a third set of exact draws, so they depend on nothing that is counted. Bins, and pairs of bins,
that too few chains hit are put together, or left out, by the sum of the two counts that are compared; given that sum
they are binomial, so the choice costs nothing.

Reference: Bowker 1948, "A test for symmetry in contingency tables"; Gandy and Scott 2020 (2001.06465), "Unit testing
for MCMC and other Monte Carlo methods", for chains that start from exact draws.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws, normal
from gfnmc.core.errors import CapabilityError
from gfnmc.kernels.base import Kernel
from gfnmc.kernels.parallel_tempering import ParallelTempering
from gfnmc.targets.base import Target, checked_log_prob
from gfnmc.targets.solution import ExactSolution
from gfnmc.testing.judgement import Judgement

FALSE_ALARM = 1e-6
"""Probability that a right kernel is found wrong, were the seed drawn at random; of all statistics and rounds."""

ROUNDS = (1, 4, 16)
"""How many times the chains are judged anew, with so many times as many, while a broken twin is not found out."""

_NUM_BINS = 12
_NUM_PROJECTIONS = 4
# Fewest chains, of both counts together, for which chi-square is the law of their difference.
_LEAST_COUNT = 40

Statistics = Mapping[str, Float64[Tensor, " objects"]]


class _Test(NamedTuple):
    """A chi-square test of one statistic: its p-value, and where the counts differ most."""

    p_value: float
    where: str


class _Starts:
    """Exact draws that chains start from, and what is watched of an object."""

    def __init__(self, kernel: Kernel, target: Target, exact: ExactSolution, num_chains: int, seed: int) -> None:
        self.target = target
        self.num_chains = num_chains
        self.seed = seed
        self.position = self._starts(kernel, exact)
        self.first = self.statistics(self.exact_draws(exact, "starts"))
        self.edges = {
            name: _edges(values) for name, values in self.statistics(self.exact_draws(exact, "edges")).items()
        }

    def exact_draws(self, exact: ExactSolution, role: str) -> Tensor:
        return exact.sample(PhiloxDraws(self.seed, role, self.num_chains))

    def _starts(self, kernel: Kernel, exact: ExactSolution) -> Tensor:
        """Return an object a chain; for parallel tempering one a replica, each drawn at its own temperature."""
        cold = self.exact_draws(exact, "starts")
        if not isinstance(kernel, ParallelTempering):
            return cold
        if exact.support is None or exact.log_pmf is None:
            raise CapabilityError(
                f"replicas start from exact draws at every temperature, which takes an enumerated law; "
                f"{self.target.name} has none, so prove the kernel on a smaller target of its kind"
            )
        replicas = [cold]
        for rung, power in enumerate(kernel.inverse_temperatures[1:], 1):
            # At power 0 impossible objects are possible.
            law = (power * exact.log_pmf if power else torch.zeros_like(exact.log_pmf)).log_softmax(0)
            draws = PhiloxDraws(self.seed, f"starts/{rung}", self.num_chains)
            replicas.append(exact.support[draws.categorical(law)])
        return torch.stack(replicas, 1)

    def statistics(self, objects: Shaped[Tensor, "objects *event"]) -> Statistics:
        """Return what is watched: the target's statistics, its log-density, modes, and projections on random lines."""
        watched = {name: value.to(torch.float64) for name, value in self.target.statistics(objects).items()}
        watched["log-density"] = checked_log_prob(self.target, objects)
        modes = self.target.modes()
        if modes is not None:
            watched["mode"] = modes.assign(objects).to(torch.float64)
        flat = objects.flatten(1).to(torch.float64)
        lines = normal(self.seed, "projections", (flat.shape[1], _NUM_PROJECTIONS), torch.float64)
        for place, value in enumerate((flat @ lines).T.contiguous(), 1):
            watched[f"projection {place}"] = value
        return watched

    def bins(self, statistics: Statistics) -> dict[str, Int64[Tensor, " objects"]]:
        """Return the bin of each object in each statistic."""
        return {name: torch.bucketize(value.contiguous(), self.edges[name]) for name, value in statistics.items()}

    def run(self, kernel: Kernel, num_steps: int) -> Tensor:
        """Return the objects of the chains after some steps."""
        draws = PhiloxDraws(self.seed, "steps", self.num_chains)
        state = kernel.init(self.position)
        for step in range(num_steps):
            state, _ = kernel.step(draws.at(step), state)
        return state.position


class InvarianceJudge:
    """Judges whether chains that start from exact draws stay exact draws.

    Args:
        kernel: Says where chains start; copies of it can be judged.
        target: The law.
        exact: Its exact solution, which can sample.
        num_chains: Chains, and new exact draws.
        num_steps: Steps of each chain.
        seed: Names the run.
    """

    def __init__(
        self, kernel: Kernel, target: Target, exact: ExactSolution, *, num_chains: int, num_steps: int, seed: int
    ) -> None:
        self._starts = _Starts(kernel, target, exact, num_chains, seed)
        self._num_steps = num_steps
        self._new = self._starts.bins(self._starts.statistics(self._starts.exact_draws(exact, "new")))

    @property
    def method(self) -> str:
        """How it judges, in words."""
        draws = f"{self._starts.num_chains:,} exact draws after {self._num_steps} steps"
        return f"in {len(self._new)} statistics of {draws}"

    def __call__(self, kernel: Kernel) -> Judgement:
        position = self._starts.run(kernel, self._num_steps)
        after = self._starts.bins(self._starts.statistics(position))
        tests = {name: _same_law(self._new[name], after[name], self._starts.edges[name]) for name in after}
        return _judged(tests, position)


class ReversibilityJudge:
    """Judges whether one step from an exact draw is as likely as the step back.

    Args:
        kernel: Says where chains start; copies of it can be judged.
        target: The law.
        exact: Its exact solution, which can sample.
        num_chains: Chains.
        seed: Names the run.
    """

    def __init__(self, kernel: Kernel, target: Target, exact: ExactSolution, *, num_chains: int, seed: int) -> None:
        self._starts = _Starts(kernel, target, exact, num_chains, seed)
        self._before = self._starts.bins(self._starts.first)

    @property
    def method(self) -> str:
        """How it judges, in words."""
        return f"in {len(self._before)} statistics of {self._starts.num_chains:,} steps from exact draws"

    def __call__(self, kernel: Kernel) -> Judgement:
        position = self._starts.run(kernel, 1)
        after = self._starts.bins(self._starts.statistics(position))
        tests = {name: _symmetric(self._before[name], after[name], self._starts.edges[name]) for name in after}
        return _judged(tests, position)


def _judged(tests: Mapping[str, _Test], outcome: Tensor) -> Judgement:
    worst = min(tests, key=lambda name: tests[name].p_value)
    p_value, where = tests[worst]
    is_right = p_value >= FALSE_ALARM / (len(tests) * len(ROUNDS))
    complaint = f"{worst!r} is wrong (p = {p_value:.1e}): {where}"
    return Judgement(is_right, f"smallest p {p_value:.2g}", "" if is_right else complaint, outcome)


def _edges(values: Float64[Tensor, " objects"]) -> Float64[Tensor, " edges"]:
    """Return edges of bins at quantiles, a little above values, so that rounding moves no object over one."""
    quantiles = values.quantile(torch.arange(1, _NUM_BINS, dtype=torch.float64) / _NUM_BINS)
    return (quantiles + 1e-7 * (1.0 + quantiles.abs())).unique()


def _same_law(one: Int64[Tensor, " a"], other: Int64[Tensor, " b"], edges: Float64[Tensor, " edges"]) -> _Test:
    """Test whether two samples of bins have one law."""
    num_bins = len(edges) + 1
    wanted = torch.bincount(one, minlength=num_bins).to(torch.float64)
    found = torch.bincount(other, minlength=num_bins).to(torch.float64)
    is_full = wanted + found >= _LEAST_COUNT
    names = [_name(edges, place) for place in is_full.nonzero()[:, 0].tolist()] + ["the other bins"]
    wanted = torch.cat([wanted[is_full], wanted[~is_full].sum()[None]])
    found = torch.cat([found[is_full], found[~is_full].sum()[None]])
    balance = float(found.sum() / wanted.sum()) ** 0.5
    terms = (balance * wanted - found / balance).square() / (wanted + found).clamp(min=1.0)
    worst = int(terms.argmax())
    where = f"{names[worst]}: {found[worst]:.0f} chains, and {wanted[worst]:.0f} new exact draws"
    degrees = int((wanted + found > 0).sum()) - 1
    return _Test(_p_value(float(terms.sum()), degrees), where)


def _symmetric(before: Int64[Tensor, " a"], after: Int64[Tensor, " a"], edges: Float64[Tensor, " edges"]) -> _Test:
    """Test whether bins before and after a step are exchangeable."""
    num_bins = len(edges) + 1
    table = torch.bincount(before * num_bins + after, minlength=num_bins**2).reshape(num_bins, num_bins)
    there, back = table.triu(1).to(torch.float64), table.T.triu(1).to(torch.float64)
    is_full = there + back >= _LEAST_COUNT
    if not is_full.any():
        return _Test(1.0, "hardly any chain moved")
    terms = torch.where(is_full, (there - back).square() / (there + back).clamp(min=1.0), 0.0)
    i, j = divmod(int(terms.argmax()), num_bins)
    where = (
        f"from {_name(edges, i)} to {_name(edges, j)} went {there[i, j]:.0f} chains, and {back[i, j]:.0f} the other way"
    )
    return _Test(_p_value(float(terms.sum()), int(is_full.sum())), where)


def _p_value(statistic: float, degrees: int) -> float:
    from scipy.stats import chi2

    return float(chi2.sf(statistic, degrees)) if degrees > 0 else 1.0


def _name(edges: Float64[Tensor, " edges"], place: int) -> str:
    low = "-inf" if place == 0 else f"{float(edges[place - 1]):.4g}"
    high = "inf" if place == len(edges) else f"{float(edges[place]):.4g}"
    return f"({low}, {high}]"
