"""The BGe score, against predictive densities one row after the other, and its promise to equivalent DAGs."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import stats

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets.bge import bge_local_scores, bge_log_marginals
from gfnmc.targets.dag_posterior import DAGPosterior
from gfnmc.targets.dag_sums import all_dags, members


def some_data(num_nodes: int, num_rows: int = 12) -> np.ndarray:
    rng = np.random.default_rng(num_nodes)
    return rng.standard_normal((num_rows, num_nodes)) @ rng.standard_normal((num_nodes, num_nodes)) + 0.7


def sequential(data: np.ndarray, num_nodes: int, alpha_mu: float, alpha_w: float, wrong: float = 0.0) -> float:
    """The log marginal likelihood of some columns of `num_nodes`, by one Student t an observation."""
    size = data.shape[1]
    mean, scatter = np.zeros(size), alpha_mu * (alpha_w - num_nodes - 1) / (alpha_mu + 1) * np.eye(size)
    freedom = alpha_w - num_nodes + 1 + wrong
    total = 0.0
    for row in data:
        shape = scatter * (alpha_mu + 1) / (alpha_mu * freedom)
        total += stats.multivariate_t.logpdf(row, mean, shape, freedom)
        scatter = scatter + alpha_mu / (alpha_mu + 1) * np.outer(row - mean, row - mean)
        mean = (alpha_mu * mean + row) / (alpha_mu + 1)
        alpha_mu, freedom = alpha_mu + 1, freedom + 1
    return float(total)


@pytest.mark.parametrize(("alpha_mu", "extra"), [(1.0, 2.0), (0.3, 5.5)])
@pytest.mark.parametrize("num_nodes", [1, 2, 4])
def test_marginals_are_products_of_predictive_densities(num_nodes: int, alpha_mu: float, extra: float) -> None:
    data, alpha_w = some_data(num_nodes), num_nodes + extra
    found = bge_log_marginals(torch.from_numpy(data), alpha_mu=alpha_mu, alpha_w=alpha_w)
    assert found.shape == (2**num_nodes,) and float(found[0]) == 0.0
    for subset, columns in enumerate(members(num_nodes).numpy()):
        if subset > 0:
            value = float(found[subset])
            assert value == pytest.approx(sequential(data[:, columns], num_nodes, alpha_mu, alpha_w), abs=1e-9)
            # Negative control: another number of degrees of freedom.
            assert abs(value - sequential(data[:, columns], num_nodes, alpha_mu, alpha_w, wrong=0.1)) > 1e-3


def test_the_defaults_are_those_of_the_benchmarks() -> None:
    data = torch.from_numpy(some_data(3))
    assert torch.equal(bge_log_marginals(data), bge_log_marginals(data, alpha_mu=1.0, alpha_w=5.0))


def test_scores_are_differences_of_marginals() -> None:
    data = torch.from_numpy(some_data(3))
    marginal, scores = bge_log_marginals(data), bge_local_scores(data)
    assert scores.shape == (3, 8) and scores.dtype == torch.float64
    for node, subset in itertools.product(range(3), range(8)):
        if subset >> node & 1:
            assert float(scores[node, subset]) == -math.inf
        else:
            assert float(scores[node, subset]) == float(marginal[subset + 2**node] - marginal[subset])


def test_the_arrow_between_two_nodes_has_no_direction() -> None:
    target = DAGPosterior.from_data(torch.from_numpy(some_data(2)))
    there, back = target.log_prob(torch.tensor([[[0, 1], [0, 0]], [[0, 0], [1, 0]]], dtype=torch.int8)).tolist()
    assert there == pytest.approx(back, abs=1e-10)


def test_chains_and_forks_are_one_and_colliders_are_not() -> None:
    target = DAGPosterior.from_data(torch.from_numpy(some_data(3)))
    chain, back, fork, collider = torch.zeros(4, 3, 3, dtype=torch.int8)
    chain[0, 1] = chain[1, 2] = back[2, 1] = back[1, 0] = fork[1, 0] = fork[1, 2] = 1
    collider[0, 1] = collider[2, 1] = 1
    scores = target.log_prob(torch.stack([chain, back, fork, collider])).tolist()
    assert scores[:3] == pytest.approx([scores[0]] * 3, abs=1e-10)
    assert abs(scores[3] - scores[0]) > 1e-2


def test_equivalent_dags_of_four_nodes_have_one_score() -> None:
    target = DAGPosterior.from_data(torch.from_numpy(some_data(4)))
    dags = all_dags(4, torch.int8)
    classes: dict[bytes, list[float]] = {}
    for matrix, score in zip(dags.numpy(), target.log_prob(dags).tolist(), strict=True):
        skeleton = matrix | matrix.T
        # Verma and Pearl 1990: equivalent are those with the same skeleton and the same colliders a -> c <- b.
        apart = 1 - skeleton - np.eye(4, dtype=np.int8)
        colliders = matrix[:, None, :] & matrix[None, :, :] & apart[:, :, None]
        classes.setdefault(skeleton.tobytes() + colliders.tobytes(), []).append(score)
    assert len(classes) == 185  # Gillispie and Perlman 2001
    assert max(max(scores) - min(scores) for scores in classes.values()) < 1e-9
    # Negative control: other classes, other scores.
    assert min(np.diff(sorted(scores[0] for scores in classes.values()))) > 1e-6


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"alpha_mu": 0.0}, OptionError),
        ({"alpha_mu": math.inf}, OptionError),
        ({"alpha_w": 4.0}, OptionError),
        ({"alpha_w": math.nan}, OptionError),
        ({"data": torch.zeros(3, 0).double()}, OptionError),
        ({"data": torch.zeros(3, 12).double()}, OptionError),
        ({"data": torch.zeros(0, 3).double()}, ObjectError),
        ({"data": torch.full((3, 3), math.nan).double()}, ObjectError),
    ],
    ids=str,
)
def test_data_and_priors_that_cannot_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict, error: type[Exception]
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    options = {"data": torch.from_numpy(some_data(3))} | change
    for function in (bge_local_scores, bge_log_marginals):
        with pytest.raises(error):
            function(**options)
