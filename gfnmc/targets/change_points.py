"""When the mean of a series changed: a posterior over sets of change points, with an exact oracle in O(n^2).

    log_prob(x) = sum over segments of log m(segment)  +  k log q  +  (n - 1 - k) log(1 - q)

x_t = 1 where a segment ends with value t of n and another begins; k is the number of changes, each of which has the
prior probability q. The values of a segment are its level and independent Gaussian noise, and levels are independent
Gaussians:

    y_i ~ Normal(level, noise_scale^2),    level ~ Normal(mean, level_scale^2)

With the level integrated out, a segment of m values with residuals r = y - mean has

    log m = - m / 2 log(2 pi s^2) - log(1 + m v / s^2) / 2 - (sum r^2 - v (sum r)^2 / (s^2 + m v)) / (2 s^2)

where s = noise_scale and v = level_scale^2. So exp(log_prob) is the joint density of series and changes, and log Z the
log evidence. Segments are independent, so one sum over the first segment's end, from the last value back to the first,
gives log Z, the posterior of every segment, and independent exact draws, segment after segment.

Reference: Fearnhead 2006, "Exact and efficient Bayesian inference for multiple changepoint problems".
"""

import math
from collections.abc import Sequence
from functools import cached_property
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.targets.base import ExactSolution, Target, solve_product_space
from gfnmc.targets.checks import check_objects, check_sites


class ChangePoints(Target):
    """The posterior of the places where a series changes its level; objects are `(n - 1,)` int8, 1 for a change.

    The statistics are "num_changes" (k), "log_likelihood" (sum over segments of log m, nats) and, for each window,
    "changes_<first>_<last>": the changes after a value whose label lies in it.

    Attributes:
        series: The values, `(n,)` float64.
        labels: Label of each value, 0, 1, ... from `first_label`, `(n,)` int64.

    Args:
        series: At least two values; memory and the work of the exact solution grow as n^2.
        noise_scale: Standard deviation of a value about its level; positive.
        level_scale: Standard deviation of levels; positive.
        mean: Mean of levels; by default that of the series.
        change_probability: q; by default 1 / (n - 1), so that one change is expected.
        first_label: Label of the first value, such as a year.
        windows: Labels of the first and last value of each window.
        name: Short name for tables and files.

    Raises:
        OptionError: If the series is too short or not finite, or another option cannot work.
    """

    dtype = torch.int8
    values = (0, 1)

    def __init__(
        self,
        series: Shaped[Tensor, " n"],
        *,
        noise_scale: float,
        level_scale: float,
        mean: float | None = None,
        change_probability: float | None = None,
        first_label: int = 0,
        windows: Sequence[tuple[int, int]] = (),
        name: str = "change-points",
    ) -> None:
        if series.dim() != 1 or len(series) < 2 or not series.isfinite().all():
            raise OptionError(f"the series has shape {tuple(series.shape)}; give (n,), n at least 2, finite values")
        self.series = series.detach().to(torch.float64).clone()
        self.name = name
        self.event_shape = (len(series) - 1,)
        self.noise_scale = _checked_scale("noise_scale", noise_scale)
        self.level_scale = _checked_scale("level_scale", level_scale)
        self.mean = float(self.series.mean()) if mean is None else float(mean)
        if not math.isfinite(self.mean):
            raise OptionError(f"mean is {mean}; it must be finite")
        self.change_probability = 1 / (len(series) - 1) if change_probability is None else float(change_probability)
        if not 0 < self.change_probability < 1:
            raise OptionError(f"change_probability is {change_probability}; it must lie between 0 and 1")
        self.labels = first_label + torch.arange(len(series))
        self._windows = {f"changes_{first}_{last}": self._places_within(first, last) for first, last in windows}
        self._log_marginal = self._log_marginal_likelihoods()
        self._log_weight = self._log_marginal + self._log_prior()

    @classmethod
    def nile(cls) -> "ChangePoints":
        """Return the annual flow of the Nile at Aswan, 1871 to 1970, 1e8 cubic metres: one change, about 1898.

        The noise is 125, about the standard deviation within the years before and after 1898, and the levels are
        spread by 200, somewhat more than the whole series. The windows are the years up to 1894, those about the
        change, and the rest.

        Reference: Cobb 1978, "The problem of the Nile"; `targets/data/README.md` says where the table comes from.
        """
        path = resources.files("gfnmc.targets") / "data" / "nile.csv"
        with path.open(encoding="utf-8") as file:
            table = np.loadtxt(file, delimiter=",", skiprows=1)
        return cls(
            torch.from_numpy(table[:, 1]),
            noise_scale=125.0,
            level_scale=200.0,
            first_label=int(table[0, 0]),
            windows=((1871, 1894), (1895, 1901), (1902, 1969)),
            name="nile",
        )

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return _sum_over_segments(x, self._log_weight)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        check_sites(self, x, sites)
        place = torch.arange(x.shape[1], device=x.device)
        is_change = x == 1
        start = torch.where(is_change & (place < sites[:, None]), place + 1, 0).amax(1)
        end = torch.where(is_change & (place > sites[:, None]), place, x.shape[1]).amin(1) + 1
        weight = self._log_weight.to(x.device)
        parting = weight[start, sites + 1] + weight[sites + 1, end] - weight[start, end]
        has_change = is_change.gather(1, sites[:, None])[:, 0]
        without = torch.where(has_change, -parting, 0.0)
        return torch.stack([without, torch.where(has_change, 0.0, parting)], 1)

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        windows = {name: (x * window.to(x.device)).sum(1).to(torch.float64) for name, window in self._windows.items()}
        return {
            "num_changes": x.sum(1, dtype=torch.float64),
            "log_likelihood": _sum_over_segments(x, self._log_marginal),
        } | windows

    def change_probabilities(self) -> Float64[Tensor, " sites"]:
        """Return the exact posterior probability of a change after each value but the last."""
        return self._segment_probabilities[:, 1:-1].sum(0)

    def exact(self) -> ExactSolution:
        """Return the exact solution: enumerated up to `ENUMERATION_LIMIT` objects, else with a sampler."""
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution:
        return solve_product_space(self) or self._solve_by_segments()

    def _solve_by_segments(self) -> ExactSolution:
        changes = self.change_probabilities()
        expectations = {
            "num_changes": float(changes.sum()),
            "log_likelihood": float((self._segment_probabilities * self._log_marginal).sum()),
        } | {name: float(changes @ window.to(torch.float64)) for name, window in self._windows.items()}
        return ExactSolution(float(self._log_evidence_from[0]), expectations, sampler=self._sample)

    def _sample(self, draws: Draws) -> Int8[Tensor, "rows sites"]:
        """Draw the end of one segment after another, given where it starts."""
        num_values = len(self.series)
        laws = self._allowed_log_weight + self._log_evidence_from - self._log_evidence_from[:, None]
        ends = torch.zeros(draws.num_rows, dtype=torch.int64)
        is_end = torch.zeros(draws.num_rows, num_values + 1, dtype=torch.int8)
        while (active := ends < num_values).any():
            drawn = draws.categorical(laws[ends], active)
            ends = torch.where(active, drawn, ends)
            is_end.scatter_(1, ends[:, None], 1)
        return is_end[:, 1:-1]

    @cached_property
    def _allowed_log_weight(self) -> Float64[Tensor, "starts ends"]:
        """Return the log-weight of every segment, and of the empty one after the last value; -inf for no segment."""
        size = len(self.series) + 1
        is_segment = torch.ones(size, size, dtype=torch.bool).triu(1)
        return self._log_weight.masked_fill(~is_segment, -math.inf)

    @cached_property
    def _log_evidence_from(self) -> Float64[Tensor, " places"]:
        """Return the log-weight of everything from each place on, summed, where a segment starts there."""
        evidence = torch.zeros(len(self.series) + 1, dtype=torch.float64)
        for start in range(len(self.series) - 1, -1, -1):
            evidence[start] = (self._allowed_log_weight[start] + evidence)[start + 1 :].logsumexp(0)
        return evidence

    @cached_property
    def _log_evidence_to(self) -> Float64[Tensor, " places"]:
        """Return the log-weight of everything before each place, summed, where a segment ends there."""
        evidence = torch.zeros(len(self.series) + 1, dtype=torch.float64)
        for end in range(1, len(evidence)):
            evidence[end] = (self._allowed_log_weight[:, end] + evidence)[:end].logsumexp(0)
        return evidence

    @cached_property
    def _segment_probabilities(self) -> Float64[Tensor, "starts ends"]:
        """Return the posterior probability that values start ... end - 1 are a segment."""
        around = self._log_evidence_to[:, None] + self._log_evidence_from
        return (self._allowed_log_weight + around - self._log_evidence_from[0]).exp()

    def _log_marginal_likelihoods(self) -> Float64[Tensor, "starts ends"]:
        """Return log m of values start ... end - 1, for every start and end; 0 where end <= start."""
        residuals = self.series - self.mean
        sums, squares = (_from_zero(terms.cumsum(0)) for terms in (residuals, residuals.square()))
        total, square = sums - sums[:, None], squares - squares[:, None]
        place = torch.arange(len(sums), dtype=torch.float64)
        length = (place - place[:, None]).clamp(min=0.0)
        noise, spread = self.noise_scale**2, self.level_scale**2
        misfit = square - spread * total.square() / (noise + length * spread)
        log_marginal = -0.5 * (
            length * math.log(2 * math.pi * noise) + torch.log1p(length * spread / noise) + misfit / noise
        )
        return log_marginal.triu(1)

    def _log_prior(self) -> Float64[Tensor, "starts ends"]:
        """Return the log prior probability that a segment goes on to its end, and ends there; 0 where end <= start."""
        num_values = len(self.series)
        place = torch.arange(num_values + 1)
        inside = (place - place[:, None] - 1).to(torch.float64) * math.log1p(-self.change_probability)
        at_end = (place < num_values).to(torch.float64) * math.log(self.change_probability)
        return (inside + at_end).triu(1)

    def _places_within(self, first: int, last: int) -> Int64[Tensor, " sites"]:
        """Return 1 for the places of a window, else 0."""
        labels = self.labels[:-1]
        within = (labels >= first) & (labels <= last)
        if not within.any():
            raise OptionError(
                f"no change can fall into the window {(first, last)}; changes come after the values "
                f"{int(labels[0])} ... {int(labels[-1])}"
            )
        return within.to(torch.int64)


def _sum_over_segments(
    x: Shaped[Tensor, "batch sites"], table: Float64[Tensor, "starts ends"]
) -> Float64[Tensor, " batch"]:
    """Return the sum of the table's entries for the segments of each object."""
    table = table.to(x.device)
    is_end = torch.nn.functional.pad(x == 1, (0, 1), value=True)
    end = torch.arange(1, is_end.shape[1] + 1, device=x.device)
    last_end = torch.where(is_end, end, 0).cummax(1).values
    start = torch.nn.functional.pad(last_end[:, :-1], (1, 0))
    return torch.where(is_end, table[start, end], 0.0).sum(1)


def _from_zero(cumulated: Float64[Tensor, " n"]) -> Float64[Tensor, " places"]:
    return torch.cat([cumulated.new_zeros(1), cumulated])


def _checked_scale(what: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise OptionError(f"{what} is {value}; it must be finite and positive")
    return float(value)
