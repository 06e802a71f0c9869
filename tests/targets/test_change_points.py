"""Change points against the law of Gaussian vectors, and the oracle against enumeration."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.core.lookup import RowIndex
from gfnmc.targets import ExactSolution
from gfnmc.targets.base import product_space, solve_by_enumeration
from gfnmc.targets.change_points import ChangePoints
from gfnmc.testing import enumerate_decisions
from tests.support import assert_close, chi_square

LEVELS = {"noise_scale": 0.8, "level_scale": 1.5, "mean": 0.3, "change_probability": 0.2}


def short(num_values: int = 10, **options: object) -> ChangePoints:
    rng = np.random.default_rng(4)
    series = np.where(np.arange(num_values) < 4, 1.5, -1.0) + 0.8 * rng.normal(size=num_values)
    return ChangePoints(torch.from_numpy(series), **(LEVELS | options))


def enumerated(target: ChangePoints) -> ExactSolution:
    return solve_by_enumeration(target, product_space(target.values, target.event_shape, target.dtype))


def log_joint(target: ChangePoints, x: Tensor, *, level_scale: float) -> float:
    """The log-density of series and changes from the definition: within a segment values are jointly Gaussian."""
    y, q = target.series.numpy(), target.change_probability
    total = sum(math.log(q if change else 1 - q) for change in x.tolist())
    ends = [0, *(place + 1 for place, change in enumerate(x.tolist()) if change), len(y)]
    for start, end in itertools.pairwise(ends):
        residuals = y[start:end] - target.mean
        covariance = target.noise_scale**2 * np.eye(end - start) + level_scale**2
        total -= 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]
        total -= 0.5 * residuals @ np.linalg.solve(covariance, residuals)
    return total


def test_log_prob_is_the_joint_density() -> None:
    target = short()
    x = product_space(target.values, target.event_shape, target.dtype)[::7]
    found = target.log_prob(x).tolist()
    assert found == pytest.approx([log_joint(target, row, level_scale=1.5) for row in x], abs=1e-11)
    # Negative control: levels spread a little more.
    assert found != pytest.approx([log_joint(target, row, level_scale=1.51) for row in x], abs=1e-4)


def test_the_prior_is_normalised() -> None:
    # Levels without spread make all segmentations equally likely, so what is left of log Z is the series' own density.
    target = short(level_scale=1e-9)
    residuals = (target.series - target.mean) / 0.8
    log_density = -0.5 * float((residuals.square() + math.log(2 * math.pi * 0.64)).sum())
    assert target.exact().log_z == pytest.approx(log_density, abs=1e-9)


@pytest.mark.parametrize("num_values", [2, 3, 10])
def test_the_oracle_agrees_with_enumeration(num_values: int) -> None:
    target = short(num_values, windows=[(0, 0), (0, 1), (3, 20)] if num_values == 10 else [])
    solution, truth = target._solve_by_segments(), enumerated(target)
    assert solution.support is None
    assert solution.log_z == pytest.approx(truth.log_z, abs=1e-11)
    assert solution.expectations == pytest.approx(truth.expectations, abs=1e-11)
    changes = truth.log_pmf.exp() @ truth.support.to(torch.float64)
    assert torch.allclose(target.change_probabilities(), changes, rtol=0, atol=1e-12)
    # Negative control: the oracle of another prior.
    other = short(num_values, change_probability=0.21)._solve_by_segments()
    assert abs(other.log_z - truth.log_z) > 1e-4
    assert abs(other.expectations["num_changes"] - truth.expectations["num_changes"]) > 1e-3


def law_of_sampler(target: ChangePoints, support: Tensor) -> Tensor:
    """The exact probability of each object under the sampler, by following every decision."""
    found = enumerate_decisions(lambda draws, rows: target._solve_by_segments().sample(draws), 1)
    law = torch.zeros(len(support), dtype=torch.float64)
    return law.index_add_(0, RowIndex(support).find(found.result), found.weight)


def test_the_sampler_has_the_posterior_law() -> None:
    target = short(8)
    truth = enumerated(target)
    assert_close(law_of_sampler(target, truth.support), truth.log_pmf.exp())
    # Negative control: the sampler of another prior.
    other = law_of_sampler(short(8, change_probability=0.21), truth.support)
    assert (other - truth.log_pmf.exp()).abs().sum() > 1e-3


def test_draws_follow_the_posterior_and_do_not_depend_on_each_other() -> None:
    """False alarm 1e-6."""
    target, other = short(), short(noise_scale=0.9)
    truth = enumerated(target)
    solution = target._solve_by_segments()
    x = solution.sample(PhiloxDraws(0, "test", 20_000))
    assert x.dtype == torch.int8
    assert torch.equal(x[:300], solution.sample(PhiloxDraws(0, "test", 300)))
    likely = truth.log_pmf.exp() > 1e-3

    def statistic(x: Tensor) -> tuple[float, float]:
        counts = torch.bincount(truth.index(x), minlength=len(truth.support))
        pmf = truth.log_pmf.exp()
        pooled = [torch.cat([v[likely], v[~likely].sum(0, keepdim=True)]) for v in (counts, pmf)]
        return chi_square(*pooled)

    found, limit = statistic(x)
    assert found < limit
    found, limit = statistic(other._solve_by_segments().sample(PhiloxDraws(0, "test", 20_000)))
    assert found > limit, "the negative control: draws of another posterior would show"


def test_delta_is_the_difference_of_log_probs() -> None:
    for target in (short(), ChangePoints.nile()):
        rng = np.random.default_rng(1)
        x = torch.from_numpy((rng.random((200, *target.event_shape)) < 0.3).astype(np.int8))
        sites = torch.from_numpy(rng.integers(target.event_shape[0], size=200))
        delta = target.log_prob_delta(x, sites)
        assert delta.dtype == torch.float64
        for value in (0, 1):
            changed = x.scatter(1, sites[:, None], value)
            assert torch.allclose(delta[:, value], target.log_prob(changed) - target.log_prob(x), rtol=0, atol=2e-11)
            is_there = x.gather(1, sites[:, None])[:, 0] == value
            assert not delta[is_there, value].any()
            assert delta[~is_there, value].all()
        with pytest.raises(OptionError):
            target.log_prob_delta(x, sites + target.event_shape[0])
        assert target.log_prob_delta(x[:0], sites[:0]).shape == (0, 2)


def test_log_prob_does_not_depend_on_the_batch() -> None:
    target = ChangePoints.nile()
    x = target.exact().sample(PhiloxDraws(3, "test", 50))
    assert torch.equal(target.log_prob(x), torch.cat([target.log_prob(row) for row in x.split(1)]))


def test_nile() -> None:
    target = ChangePoints.nile()
    assert target.name == "nile"
    assert target.event_shape == (99,)
    assert target.series[:3].tolist() == [1120.0, 1160.0, 963.0]
    assert (int(target.labels[0]), int(target.labels[-1])) == (1871, 1970)
    assert target.change_probability == pytest.approx(1 / 99)
    solution = target.exact()
    assert solution is target.exact()
    assert solution.support is None
    assert target.modes() is None
    # The flow fell after 1898, as the year of the change is given in the literature.
    probabilities = target.change_probabilities()
    assert int(target.labels[probabilities.argmax()]) == 1898
    assert solution.expectations["changes_1895_1901"] == pytest.approx(float(probabilities[24:31].sum()), abs=1e-12)
    windows = [solution.expectations[f"changes_{w}"] for w in ("1871_1894", "1895_1901", "1902_1969")]
    assert sum(windows) == pytest.approx(solution.expectations["num_changes"], abs=1e-11)


def test_nile_draws_have_the_exact_means() -> None:
    """Six standard errors, and a bounded number of changes: false alarm below 1e-6."""
    target = ChangePoints.nile()
    solution = target.exact()
    statistics = target.statistics(solution.sample(PhiloxDraws(7, "test", 20_000)))
    assert statistics.keys() == solution.expectations.keys()
    for name, value in statistics.items():
        error = abs(float(value.mean()) - solution.expectations[name])
        assert error < 6 * float(value.std()) / math.sqrt(20_000), name


def test_a_long_series_without_changes_is_one_segment() -> None:
    series = torch.from_numpy(np.random.default_rng(0).normal(size=400))
    target = ChangePoints(series, noise_scale=1.0, level_scale=5.0)
    assert target.exact().expectations["num_changes"] < 0.2
    stepped = torch.where(torch.arange(400) < 250, series, series + 6.0)
    target = ChangePoints(stepped, noise_scale=1.0, level_scale=5.0)
    assert float(target.change_probabilities()[249]) > 0.9


def test_statistics() -> None:
    target = short(5, first_label=1990, windows=[(1990, 1991), (1993, 1993)])
    x = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.int8)
    statistics = target.statistics(x)
    assert list(statistics) == ["num_changes", "log_likelihood", "changes_1990_1991", "changes_1993_1993"]
    assert statistics["num_changes"].tolist() == [0.0, 3.0]
    assert statistics["changes_1990_1991"].tolist() == [0.0, 2.0]
    assert statistics["changes_1993_1993"].tolist() == [0.0, 1.0]
    log_prior = torch.tensor([4 * math.log(0.8), math.log(0.8) + 3 * math.log(0.2)], dtype=torch.float64)
    assert torch.allclose(statistics["log_likelihood"] + log_prior, target.log_prob(x), rtol=0, atol=1e-12)


def test_short_series_are_enumerated() -> None:
    assert len(short(10).exact().support) == 2**9
    assert short(19).exact().support is None
    assert short(19).exact().can_sample


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 9), torch.zeros(1, 10, dtype=torch.int8), torch.full((1, 9), 2, dtype=torch.int8)]
)
def test_what_are_no_changes_is_refused(x: Tensor) -> None:
    with pytest.raises(ObjectError):
        short().log_prob(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_scale": 0.0}, "noise_scale"),
        ({"level_scale": math.inf}, "level_scale"),
        ({"mean": math.nan}, "mean"),
        ({"change_probability": 0.0}, "change_probability"),
        ({"change_probability": 1.0}, "change_probability"),
        ({"windows": [(9, 12)]}, "window"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        short(**options)


@pytest.mark.parametrize("series", [torch.zeros(1), torch.zeros(3, 2), torch.tensor([0.0, math.nan])])
def test_series_that_cannot_work_are_refused(series: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match="series"):
        ChangePoints(series, noise_scale=1.0, level_scale=1.0)
