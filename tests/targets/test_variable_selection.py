"""Variable selection against least squares, model by model, and its modes against their definition."""

import itertools
import math
from importlib import resources

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws, normal
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets.base import product_space
from gfnmc.targets.variable_selection import MODE_DEPTH, MODE_MASS, VariableSelection, _unexplained
from tests.support import assert_close


def regression(num_rows: int, num_covariates: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A design with a common factor, columns of very different location and scale, and a response."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(num_rows, 1))
    core = 0.7 * factor + rng.normal(size=(num_rows, num_covariates))
    response = core[:, 0] - 0.6 * core[:, -1] + 1.5 * rng.normal(size=num_rows) + 20.0
    design = 1e3 * rng.normal(size=num_covariates) + core * 10.0 ** rng.integers(-3, 4, size=num_covariates)
    return torch.from_numpy(design), torch.from_numpy(response)


def log_bayes_factor(design: Tensor, response: Tensor, row: list[int], g: float, *, intercept: bool = True) -> float:
    """The equation of Liang et al., with R^2 by least squares."""
    columns, y = design.numpy()[:, np.array(row, dtype=bool)], response.numpy()
    if intercept:
        columns, y = columns - columns.mean(0), y - y.mean()
    columns = columns / np.linalg.norm(columns, axis=0)
    n, k = columns.shape
    left = y - columns @ np.linalg.lstsq(columns, y, rcond=1e-7)[0]
    unexplained = left @ left / (y @ y)
    return (n - 1 - k) / 2 * math.log1p(g) - (n - 1) / 2 * math.log1p(g * unexplained)


def log_prior(row: list[int], inclusion_probability: float | None) -> float:
    k, p = sum(row), len(row)
    if inclusion_probability is None:
        return -math.log((p + 1) * math.comb(p, k))
    return k * math.log(inclusion_probability) + (p - k) * math.log(1 - inclusion_probability)


def models(target: VariableSelection) -> Tensor:
    return product_space(target.values, target.event_shape, target.dtype)


@pytest.mark.parametrize(("g", "inclusion_probability"), [(None, 0.5), (7.5, 0.1), (200.0, None)])
def test_log_prob_is_the_log_bayes_factor_and_the_log_prior(g: float | None, inclusion_probability: float | None):
    design, response = regression(40, 7)
    target = VariableSelection(design, response, g=g, inclusion_probability=inclusion_probability)
    x = models(target)
    rows, used_g = x.tolist(), 40.0 if g is None else g
    priors = [log_prior(row, inclusion_probability) for row in rows]
    assert math.fsum(map(math.exp, priors)) == pytest.approx(1.0)
    wanted = [log_bayes_factor(design, response, row, used_g) + prior for row, prior in zip(rows, priors, strict=True)]
    found = target.log_prob(x)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)
    assert found[0] == pytest.approx(priors[0]), "the model of the intercept alone has Bayes factor 1"
    # Negative controls: no intercept, another g.
    for options in ({"g": used_g, "intercept": False}, {"g": 1.01 * used_g}):
        other = [log_bayes_factor(design, response, row, **options) for row in rows]
        assert (found - torch.tensor(priors, dtype=torch.float64)).tolist() != pytest.approx(other, abs=1e-3)


def test_many_covariates_are_eliminated_model_by_model() -> None:
    design, response = regression(60, 30, seed=1)
    target = VariableSelection(design, response)
    rng = np.random.default_rng(2)
    x = torch.from_numpy((rng.random((300, 30)) < rng.random((300, 1))).astype(np.int8))
    wanted = [log_bayes_factor(design, response, row, 60.0) - 30 * math.log(2) for row in x.tolist()]
    assert target.log_prob(x).tolist() == pytest.approx(wanted, abs=1e-9)
    assert torch.allclose(target.log_prob(x[7:8]), target.log_prob(x)[7:8], rtol=0, atol=1e-12)
    assert target.log_prob(x[:0]).shape == (0,)
    assert target.exact() is None
    assert target.modes() is None


def test_the_two_ways_to_eliminate_agree() -> None:
    target = VariableSelection.collinear(num_blocks=3, block_size=4)
    x = models(target)
    by_model = target._log_posterior(_unexplained(target._correlations, x), x.sum(1))
    assert torch.allclose(target.log_prob(x), by_model, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_covariates", [6, 24])
def test_exact_combinations_explain_nothing_more(num_covariates: int) -> None:
    design, response = regression(50, num_covariates, seed=3)
    design[:, 1] = design[:, 0]
    design[:, 3] = 2.0 * design[:, 0] - 1e-2 * design[:, 2] + 5.0
    target = VariableSelection(design, response)
    rng = np.random.default_rng(4)
    x = torch.from_numpy((rng.random((100, num_covariates)) < 0.7).astype(np.int8))
    x[0] = 1
    found = target.log_prob(x)
    constant = num_covariates * math.log(2)
    wanted = [log_bayes_factor(design, response, row, 50.0) - constant for row in x.tolist()]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    twins = torch.zeros(3, num_covariates, dtype=torch.int8)
    twins[0, 0] = twins[1, 1] = twins[2, 0] = twins[2, 1] = 1
    one, other, both = target.log_prob(twins).tolist()
    assert one == pytest.approx(other, abs=1e-9)
    # The second twin counts in k, and in nothing else.
    assert both == pytest.approx(one - 0.5 * math.log1p(50.0), abs=1e-6)


def test_a_perfect_fit_is_finite() -> None:
    design = regression(30, 4, seed=5)[0]
    design /= design.std(0)
    target = VariableSelection(design, design @ torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64))
    log_prob = target.log_prob(models(target))
    assert log_prob.isfinite().all()
    assert models(target)[log_prob.argmax()].tolist() == [1, 0, 1, 0]
    assert float(log_prob.max()) == pytest.approx((30 - 1 - 2) / 2 * math.log1p(30.0) - 4 * math.log(2), abs=1e-9)


def test_location_and_scale_of_the_data_do_not_matter() -> None:
    design, response = regression(40, 6, seed=6)
    target = VariableSelection(design, response)
    moved = VariableSelection(1e-200 * (3.0 - design), 1e200 * (response - 7.0))
    assert_close(moved.log_prob(models(target)), target.log_prob(models(target)), atol=1e-9)


def test_exact_is_the_sum_over_models() -> None:
    design, response = regression(40, 6, seed=7)
    target = VariableSelection(design, response, inclusion_probability=None, covariate_names=list("abcdef"))
    solution = target.exact()
    assert solution is target.exact()
    rows = models(target).tolist()
    weight = np.exp([log_bayes_factor(design, response, row, 40.0) + log_prior(row, None) for row in rows])
    assert solution.log_z == pytest.approx(math.log(weight.sum()), abs=1e-9)
    included = weight @ np.array(rows) / weight.sum()
    assert list(solution.expectations) == ["model_size", *(f"includes_{name}" for name in "abcdef")]
    assert [solution.expectations[f"includes_{name}"] for name in "abcdef"] == pytest.approx(included, abs=1e-9)
    assert solution.expectations["model_size"] == pytest.approx(included.sum(), abs=1e-9)


def test_diabetes() -> None:
    target = VariableSelection.diabetes()
    assert target.name == "diabetes"
    assert target.g == 442.0
    assert target.covariate_names[:11] == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "sex_x_bmi")
    assert target.covariate_names[-1] == "s3_x_s5"
    solution = target.exact()
    assert solution.support.shape == (2**20, 20)
    assert float(solution.log_pmf.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)
    assert solution.sample(PhiloxDraws(0, "test", 3)).shape == (3, 20)
    # Body mass index, blood pressure and s5 are the covariates that every analysis of these data keeps.
    certain = [name for name in target.covariate_names if solution.expectations[f"includes_{name}"] > 0.99]
    assert certain == ["bmi", "bp", "s5"]


def test_diabetes_models_are_regressions_on_the_published_table() -> None:
    lines = (resources.files("gfnmc.targets") / "data" / "diabetes.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "59,2,32.1,101,157,93.2,38,4,4.8598,87,151"
    table = np.array([[float(entry) for entry in line.split(",")] for line in lines[1:]])
    assert table.shape == (442, 11)
    main = (table[:, :10] - table[:, :10].mean(0)) / table[:, :10].std(0)
    pairs = itertools.combinations([1, 2, 3, 6, 8], 2)
    design = torch.from_numpy(np.column_stack([main, *(main[:, a] * main[:, b] for a, b in pairs)]))
    target = VariableSelection.diabetes()
    x = torch.from_numpy((np.random.default_rng(8).random((100, 20)) < 0.5).astype(np.int8))
    response = torch.from_numpy(table[:, 10])
    wanted = [log_bayes_factor(design, response, row, 442.0) - 20 * math.log(2) for row in x.tolist()]
    assert target.log_prob(x).tolist() == pytest.approx(wanted, abs=1e-8)


def test_collinear_is_what_it_says() -> None:
    target = VariableSelection.collinear(seed=3)
    assert target.name == "collinear-4x4-seed3"
    assert target.event_shape == (16,)
    hidden = normal(3, "collinear/hidden", (400, 4), torch.float64)
    apart = normal(3, "collinear/members", (400, 4, 4), torch.float64)
    noise = normal(3, "collinear/response", (400,), torch.float64)
    design, response = (hidden[:, :, None] + 0.1 * apart).flatten(1), hidden[:, 0] + hidden[:, 1] + hidden[:, 2] + noise
    within = np.corrcoef(design[:, 4:8].numpy().T)[np.triu_indices(4, 1)]
    assert (within.min(), within.max()) == pytest.approx((0.99, 0.99), abs=0.005)
    x = torch.from_numpy((np.random.default_rng(9).random((100, 16)) < 0.3).astype(np.int8))
    wanted = [log_bayes_factor(design, response, row, 400.0) + log_prior(row, 0.01) for row in x.tolist()]
    assert target.log_prob(x).tolist() == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_collinear_modes_hold_one_member_of_each_block_that_matters(seed: int) -> None:
    target = VariableSelection.collinear(seed=seed)
    modes, solution = target.modes(), target.exact()
    assert modes is target.modes()
    assert len(modes) > 8
    assert modes.examples.unflatten(1, (4, 4)).sum(2).tolist() == [[1, 1, 1, 0]] * len(modes)
    assert list(solution.mode_masses) == sorted(solution.mode_masses, reverse=True)
    assert min(solution.mode_masses) > MODE_MASS
    assert sum(solution.mode_masses) > 0.85
    assert len(set(modes.names)) == len(modes)
    assert all(name.count(" + ") == 2 for name in modes.names)


def test_modes_are_the_components_of_the_good_models() -> None:
    target = VariableSelection.collinear(seed=1, inclusion_probability=0.03)
    modes, solution = target.modes(), target.exact()
    label = modes.assign(solution.support).numpy()
    log_prob = target.log_prob(solution.support)
    is_good = (log_prob > log_prob.max() - MODE_DEPTH).numpy()
    code, powers = np.arange(2**16), {1 << place for place in range(16)}
    sizes = np.bincount(label[label >= 0])
    assert max(sizes) > 1, "a mode of several models"
    for place in range(16):
        neighbour = code ^ (1 << place)
        linked = is_good & is_good[neighbour]
        assert (label[linked] == label[neighbour[linked]]).all()
    assert (label[~is_good] == -1).all()
    for mode, example in enumerate(modes.examples):
        members = code[label == mode]
        best = int(members[log_prob[members].argmax()])
        assert torch.equal(solution.support[best], example)
        reached = {best}
        # Connected, not only closed: a search from the example reaches the whole mode.
        while more := {one for one in members.tolist() if any(one ^ other in powers for other in reached)} - reached:
            reached |= more
        assert reached == set(members.tolist())
    # What was left out is too light to be a mode.
    left_out = torch.from_numpy(is_good & (label == -1))
    assert left_out.any()
    assert float(solution.log_pmf.exp()[left_out].max()) < MODE_MASS


def test_without_the_barrier_there_are_no_modes() -> None:
    """The negative control of the tests above: with an even prior odds a second member costs half the depth."""
    assert VariableSelection.collinear(inclusion_probability=0.5).modes() is None
    assert VariableSelection.diabetes().modes() is None


def test_a_mode_of_the_intercept_alone_has_a_name() -> None:
    # Two covariates whose difference matters: neither helps alone, and each costs more than the depth.
    rng = np.random.default_rng(10)
    first, second, noise = torch.from_numpy(rng.normal(size=(3, 100)))
    target = VariableSelection(
        torch.stack([first + 0.1 * second, first], 1), 0.48 * second + noise, inclusion_probability=1e-3
    )
    assert set(target.modes().names) == {"no covariate", "x0 + x1"}


def test_statistics() -> None:
    design, response = regression(20, 3)
    target = VariableSelection(design, response)
    statistics = target.statistics(torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=torch.int8))
    assert {name: value.tolist() for name, value in statistics.items()} == {
        "model_size": [2.0, 0.0],
        "includes_x0": [1.0, 0.0],
        "includes_x1": [0.0, 0.0],
        "includes_x2": [1.0, 0.0],
    }


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 3), torch.zeros(1, 4, dtype=torch.int8), torch.full((1, 3), 2, dtype=torch.int8)]
)
def test_what_are_no_models_is_refused(x: Tensor) -> None:
    with pytest.raises(ObjectError):
        VariableSelection(*regression(20, 3)).log_prob(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"g": 0.0}, "g is"),
        ({"g": math.inf}, "g is"),
        ({"inclusion_probability": 0.0}, "inclusion_probability"),
        ({"inclusion_probability": 1.0}, "inclusion_probability"),
        ({"covariate_names": ["a", "b"]}, "covariate_names"),
        ({"covariate_names": ["a", "b", "a"]}, "covariate_names"),
        ({"covariate_names": ["a", "b", ""]}, "covariate_names"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VariableSelection(*regression(20, 3), **options)


def test_data_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    design, response = regression(20, 3)
    flat = design.clone()
    flat[:, 1] = 1234.567
    missing = design.clone()
    missing[3, 2] = math.nan
    cases = [
        (design, response[:-1], "shape"),
        (design[:, 0], response, "shape"),
        (design[:, :0], response, "shape"),
        (design[:4], response[:4], "at least 5"),
        (missing, response, "finite"),
        (design, response * math.inf, "finite"),
        (flat, response, "x1 does not vary"),
        (design, torch.ones(20), "the response does not vary"),
    ]
    for bad_design, bad_response, message in cases:
        with pytest.raises(OptionError, match=message):
            VariableSelection(bad_design, bad_response)


@pytest.mark.parametrize("options", [{"num_blocks": 1}, {"block_size": 1}, {"num_rows": 17}])
def test_collinear_designs_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        VariableSelection.collinear(**options)
