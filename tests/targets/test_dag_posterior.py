"""Laws on DAGs: the energy, sums over all DAGs against lists and counts known otherwise, and simulated data."""

import math
import pickle

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gfnmc.core.errors import EnergyError, ObjectError, OptionError
from gfnmc.targets import dag_sums
from gfnmc.targets.dag_posterior import NOISE_VARIANCE, DAGPosterior, simulate_linear_gaussian
from gfnmc.targets.dag_sums import all_dags, is_acyclic, members, parent_sets, sum_over_dags
from tests.support import FALSE_ALARM, chi_square

# Robinson 1973, from no node on.
NUM_DAGS = [
    1, 1, 3, 25, 543, 29281, 3781503, 1138779265, 783702329343, 1213442454842881, 4175098976430598143,
    31603459396418917607425,
]  # fmt: skip


def table(num_nodes: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return scale * torch.from_numpy(rng.standard_normal((num_nodes, 2**num_nodes)))


def few_parents(num_nodes: int, most: int) -> Tensor:
    """Score 0 for up to so many parents, -inf above."""
    return torch.where(members(num_nodes).sum(1) <= most, 0.0, -math.inf).double().expand(num_nodes, -1)


def needs_a_parent(num_nodes: int) -> Tensor:
    """Node 0 has to have node 1 among its parents, and node 1 may not have the last one."""
    scores = table(num_nodes, seed=4)
    has = members(num_nodes)
    scores[0, ~has[:, 1]] = -math.inf
    scores[1, has[:, -1]] = -math.inf
    return scores


TABLES = {
    "two nodes": table(2),
    "three nodes": table(3, 3.0),
    "four nodes": table(4),
    "five nodes": table(5),
    "five nodes, a sharp law": table(5, 40.0),
    "five nodes, far from 0": table(5) - 1e4,
    "five nodes, some impossible": needs_a_parent(5),
    "four nodes, one parent": few_parents(4, 1),
    "data": DAGPosterior.simulated(5).local_scores,
}
BY_NAME = pytest.mark.parametrize("name", TABLES)


def test_the_energy_is_the_sum_of_local_scores() -> None:
    scores = table(3)
    target = DAGPosterior(scores)
    dags = all_dags(3, torch.int8)
    for matrix, value in zip(dags.tolist(), target.log_prob(dags).tolist(), strict=True):
        by_hand = 0.0
        for node in range(3):
            by_hand += float(scores[node, sum(2**parent for parent in range(3) if matrix[parent][node])])
        assert value == pytest.approx(by_hand, abs=1e-12)
    # Parents are columns: the transposed graph has another energy.
    assert (target.log_prob(dags.mT.contiguous()) - target.log_prob(dags)).abs().max() > 0.1
    assert target.local_scores is not scores and target.values is None and target.event_shape == (3, 3)


def test_graphs_with_a_cycle_are_impossible() -> None:
    target = DAGPosterior(table(4))
    cyclic = torch.zeros(5, 4, 4, dtype=torch.int8)
    cyclic[0, 2, 2] = 1
    cyclic[1, [0, 1], [1, 0]] = 1
    cyclic[2, [0, 1, 2], [1, 2, 0]] = 1
    cyclic[3, [0, 1, 2, 3], [1, 2, 3, 1]] = 1
    cyclic[4] = 1
    assert target.log_prob(cyclic).tolist() == [-math.inf] * 5
    cyclic[3, 3, 1] = 0
    assert target.log_prob(cyclic).isfinite().tolist() == [False, False, False, True, False]


def test_acyclic_graphs_are_told_from_all_matrices() -> None:
    every = members(9).reshape(-1, 3, 3)
    # A DAG has no closed walk: every power has trace 0.
    power, closed = every.double(), torch.zeros(len(every), dtype=torch.float64)
    for _ in range(3):
        closed += power.diagonal(dim1=1, dim2=2).sum(1)
        power = power @ every.double()
    assert torch.equal(is_acyclic(parent_sets(every)), closed == 0)


def test_objects_that_are_no_matrices_of_0_and_1_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    target = DAGPosterior(table(3))
    for value in (2, -1):
        x = torch.zeros(2, 3, 3, dtype=torch.int8)
        x[1, 0, 1] = value
        with pytest.raises(ObjectError, match=r"object 1 of the batch, .* 0 and 1 only"):
            target.log_prob(x)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for x in (torch.zeros(1, 4, 4, dtype=torch.int8), torch.zeros(1, 3, 3)):
        with pytest.raises(ObjectError):
            target.log_prob(x)


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        (torch.zeros(3, 4).double(), OptionError),
        (torch.zeros(1, 2).double(), OptionError),
        (torch.zeros(12, 2**12).double(), OptionError),
        (table(3).masked_fill(torch.arange(8) == 0, math.nan), EnergyError),
        (table(3).masked_fill(torch.arange(8) == 0, math.inf), EnergyError),
    ],
)
def test_tables_that_cannot_work_are_refused(scores: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        DAGPosterior(scores)


def test_scores_of_a_node_as_its_own_parent_are_not_read() -> None:
    scores = table(3)
    marked = scores.masked_fill(members(3).T, math.nan)
    assert torch.equal(DAGPosterior(scores).local_scores, DAGPosterior(marked).local_scores)


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 5])
def test_all_dags_are_listed_once(num_nodes: int) -> None:
    dags = all_dags(num_nodes, torch.int8)
    assert len(dags.flatten(1).unique(dim=0)) == len(dags) == NUM_DAGS[num_nodes]
    assert is_acyclic(parent_sets(dags)).all()


@BY_NAME
def test_sums_agree_with_the_list(name: str) -> None:
    target = DAGPosterior(TABLES[name])
    solution, sums = target.exact(), sum_over_dags(target.local_scores)
    assert len(solution.support) == NUM_DAGS[target.num_nodes]
    assert sums.log_z == pytest.approx(solution.log_z, rel=1e-14, abs=1e-12)
    listed = (solution.log_pmf.exp()[:, None, None] * solution.support.double()).sum(0)
    assert float((sums.edge_probabilities - listed).abs().max()) < 1e-11
    assert torch.equal(target.edge_probabilities(), sums.edge_probabilities)


def test_sums_without_the_signs_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    right = dag_sums._layers(4)
    unsigned = tuple(layer._replace(sign=layer.sign.abs()) for layer in right)
    truth = DAGPosterior(TABLES["four nodes"]).exact()
    monkeypatch.setattr(dag_sums, "_layers", lambda num_nodes: unsigned)
    sums = sum_over_dags(DAGPosterior(TABLES["four nodes"]).local_scores)
    assert abs(sums.log_z - truth.log_z) > 0.1
    assert abs(float(sums.edge_probabilities.sum()) - truth.expectations["num_edges"]) > 1e-2


@pytest.mark.parametrize("num_nodes", [2, 5, 6, 8, 11])
def test_dags_are_counted(num_nodes: int) -> None:
    sums = sum_over_dags(DAGPosterior(torch.zeros(num_nodes, 2**num_nodes).double()).local_scores)
    assert sums.log_z == pytest.approx(math.log(NUM_DAGS[num_nodes]), rel=1e-13)
    edges = sums.edge_probabilities[~torch.eye(num_nodes, dtype=torch.bool)]
    assert float(edges.max() - edges.min()) < 1e-12
    assert sums.edge_probabilities.diagonal().tolist() == [0.0] * num_nodes


@pytest.mark.parametrize("num_nodes", [6, 9, 11])
def test_forests_are_counted(num_nodes: int) -> None:
    # Cayley: (n + 1)^(n - 1) forests of rooted trees, binom(n, k) k n^(n - k - 1) of them with k roots and n - k edges.
    n, solution = num_nodes, DAGPosterior(few_parents(num_nodes, 1)).exact()
    assert solution.log_z == pytest.approx((n - 1) * math.log(n + 1), rel=1e-13)
    with_roots = [math.comb(n, k) * k * n ** (n - k) // n for k in range(1, n + 1)]
    assert sum(with_roots) == (n + 1) ** (n - 1)
    mean = sum((n - k) * count for k, count in enumerate(with_roots, 1)) / sum(with_roots)
    assert solution.expectations == {"num_edges": pytest.approx(mean, abs=1e-10)}
    assert solution.support is None and not solution.can_sample


def test_edge_probabilities_are_the_slopes_of_log_z() -> None:
    scores = DAGPosterior.simulated(7, 30, seed=2).local_scores
    edges = sum_over_dags(scores).edge_probabilities
    step, has = 1e-4, members(7)
    for parent, child in ((0, 1), (1, 0), (6, 3), (2, 5)):
        log_z = []
        for sign in (-1, 1):
            moved = scores.clone()
            moved[child, has[:, parent]] += sign * step
            log_z.append(dag_sums._log_sum(dag_sums._sum_over_subsets(moved)))
        assert float(edges[parent, child]) == pytest.approx((log_z[1] - log_z[0]) / (2 * step), abs=1e-7)
    assert not torch.allclose(edges, edges.T, atol=1e-3)


def test_edges_that_must_or_cannot_be_are_certain() -> None:
    edges = DAGPosterior(needs_a_parent(6)).edge_probabilities()
    assert float(edges[1, 0]) == 1.0 and float(edges[0, 1]) == 0.0 and float(edges[5, 1]) == 0.0
    assert edges.min() >= 0 and edges.max() <= 1 and 0 < float(edges[3, 4]) < 1


@pytest.mark.parametrize("num_nodes", [4, 6])
def test_laws_without_a_possible_dag_are_refused(num_nodes: int) -> None:
    in_a_circle = table(num_nodes)
    has = members(num_nodes)
    in_a_circle[0, ~has[:, 1]] = in_a_circle[1, ~has[:, 0]] = -math.inf
    hopeless = table(num_nodes)
    hopeless[2] = -math.inf
    for scores in (in_a_circle, hopeless):
        with pytest.raises(EnergyError):
            DAGPosterior(scores).exact()
        with pytest.raises(EnergyError):
            DAGPosterior(scores).edge_probabilities()


def test_statistics_and_their_exact_means() -> None:
    target = DAGPosterior.simulated(4, seed=1)
    solution = target.exact()
    found = target.statistics(solution.support)
    edges = {f"edge_{i}_{j}" for i in range(4) for j in range(4) if i != j}
    assert set(found) == set(solution.expectations) == {"num_edges"} | edges
    probabilities = target.edge_probabilities()
    for name in edges:
        _, i, j = name.split("_")
        assert torch.equal(found[name], solution.support[:, int(i), int(j)].double())
        assert solution.expectations[name] == pytest.approx(float(probabilities[int(i), int(j)]), abs=1e-11)
    assert torch.equal(found["num_edges"], sum(found[name] for name in edges))
    large = DAGPosterior.simulated(6)
    empty = torch.zeros(2, 6, 6, dtype=torch.int8)
    assert set(large.statistics(empty)) == set(large.exact().expectations) == {"num_edges"}
    assert len(large.edge_indicators(empty)) == 30
    assert target.modes() is None


def test_partial_energies_are_those_of_the_assigned_edges() -> None:
    target = DAGPosterior(table(4))
    dags = all_dags(4, torch.int8)
    everything = torch.ones_like(dags, dtype=torch.bool)
    assert torch.equal(target.partial_log_prob(dags, everything), target.log_prob(dags))
    upper = everything.triu()
    assert torch.equal(target.partial_log_prob(dags, upper), target.log_prob(dags.triu()))
    assert not torch.equal(target.partial_log_prob(dags, upper), target.log_prob(dags))


def test_edge_probabilities_are_the_callers_own() -> None:
    target = DAGPosterior(table(3))
    target.edge_probabilities().zero_()
    assert target.edge_probabilities().sum() > 0


def test_a_target_that_was_solved_can_be_sent_to_a_worker() -> None:
    target = DAGPosterior.simulated(6)
    before = target.exact().log_z
    copy = pickle.loads(pickle.dumps(target))  # noqa: S301 - made on the line itself
    assert copy.exact().log_z == before and torch.equal(copy.local_scores, target.local_scores)


def test_simulations_are_their_seeds() -> None:
    one, same, other = (simulate_linear_gaussian(6, 20, seed=seed) for seed in (4, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.data, other.data) and not torch.equal(one.weights, other.weights)
    target = DAGPosterior.simulated(6, 20, seed=4)
    assert target.name == "dag-posterior-6-seed4"
    assert torch.equal(target.local_scores, DAGPosterior.from_data(one.data).local_scores)
    # Rows come one after the other, so more of them begin with the same.
    assert torch.equal(simulate_linear_gaussian(6, 50, seed=4).data[:20], one.data)


def test_simulated_data_are_those_of_their_network() -> None:
    graph, weights, data = simulate_linear_gaussian(200, 500, expected_edges=2000.0, seed=1)
    assert is_nilpotent(graph) and torch.equal(weights != 0, graph == 1)
    noise = data - data @ weights
    total = float((noise**2).sum()) / NOISE_VARIANCE
    for wrong, is_right in ((1.0, True), (1.1, False)):
        tail = stats.chi2(noise.numel())
        inside = tail.ppf(FALSE_ALARM / 2) < wrong * total < tail.isf(FALSE_ALARM / 2)
        assert inside == is_right
    drawn = weights[graph == 1]
    assert stats.kstest(drawn, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(1.3 * drawn, "norm").pvalue < FALSE_ALARM
    edges = int(graph.sum())
    for expected, is_right in ((2000, True), (2400, False)):
        statistic, limit = chi_square([edges, 19900 - edges], [expected / 19900, 1 - expected / 19900])
        assert (statistic < limit) == is_right


def is_nilpotent(graph: Tensor) -> bool:
    """Whether no walk is as long as there are nodes: a DAG of any size."""
    power = graph.double()
    for _ in range(math.ceil(math.log2(len(graph)))):
        power = (power @ power).clamp(max=1.0)
    return not power.any()


def test_as_many_edges_as_nodes_are_expected() -> None:
    edges = sum(int(simulate_linear_gaussian(5, 1, seed=seed).graph.sum()) for seed in range(200))
    statistic, limit = chi_square([edges, 2000 - edges], [0.5, 0.5])
    assert statistic < limit
    assert int(simulate_linear_gaussian(3, 1).graph.sum()) == 3
    assert int(simulate_linear_gaussian(4, 1, expected_edges=0.0).graph.sum()) == 0
    assert int(simulate_linear_gaussian(4, 1, expected_edges=6.0).graph.sum()) == 6


def test_much_data_tell_the_graph_up_to_what_cannot_be_told() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000))
    c = a + b + 0.5 * rng.standard_normal(4000)
    d = c + 0.5 * rng.standard_normal(4000)
    target = DAGPosterior.from_data(torch.from_numpy(np.stack([a, b, c, d], 1)))
    collider_and_tail = torch.zeros(4, 4, dtype=torch.float64)
    collider_and_tail[[0, 1, 2], [2, 2, 3]] = 1.0
    assert float((target.edge_probabilities() - collider_and_tail).abs().max()) < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"num_nodes": 1},
        {"num_nodes": 12},
        {"num_rows": 0},
        {"expected_edges": -1.0},
        {"expected_edges": 11.0},
        {"expected_edges": math.nan},
    ],
    ids=str,
)
def test_simulations_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        DAGPosterior.simulated(**options)
