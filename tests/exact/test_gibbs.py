"""Gibbs sampling, proved: both scans leave the target invariant, and the random scan is reversible."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.lookup import RowIndex
from gfnmc.kernels import Cycle, Gibbs, Mixture, RandomWalk, Reach
from gfnmc.testing import enumerate_decisions, transition_matrix
from tests.exact.cases import balance_error, graph_of, invariance_error, is_connected, rungs_in_a_batch, site_target

LATTICES = ["lattice, any order", "lattice, fixed order (tree)", "lattice, learned order", "hypergrid"]
SCANS = ["random", "systematic"]
RUNGS = (1.0, 0.35, 2.0, 0.0)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("environment", LATTICES)
def test_leaves_the_target_invariant(environment: str, scan: str) -> None:
    graph = graph_of(environment)
    target = site_target(graph)
    kernel = Gibbs(graph.environment, target, scan)
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert (matrix.diagonal() > 0).all() and kernel.may_stay
    if scan == "random":
        assert balance_error(matrix, target.pmf) < 1e-12
        assert kernel.reach is Reach.CONNECTED and is_connected(matrix)
        return
    # A sweep is not reversible, and reaches everything at once.
    assert balance_error(matrix, target.pmf) > 1e-6
    assert kernel.reach is Reach.EVERYWHERE and (matrix > 0).all()


@pytest.mark.parametrize("environment", LATTICES)
def test_a_sweep_visits_every_site_once_in_order(environment: str) -> None:
    graph = graph_of(environment)
    target = site_target(graph)
    flat = graph.objects.flatten(1)
    by_hand = torch.eye(len(flat), dtype=torch.float64)
    for site in range(flat.shape[1]):
        others = [place for place in range(flat.shape[1]) if place != site]
        is_neighbour = (flat[:, None, others] == flat[None, :, others]).all(-1)
        by_hand = by_hand @ torch.where(is_neighbour, target.table, -torch.inf).softmax(1)
    matrix = transition_matrix(Gibbs(graph.environment, target, "systematic"), graph.objects)
    torch.testing.assert_close(matrix, by_hand, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("control", ["inverted", "another site", "another object"])
@pytest.mark.parametrize("scan", SCANS)
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, scan: str, control: str) -> None:
    graph = graph_of("lattice, any order")
    target = site_target(graph)
    kernel = Gibbs(graph.environment, target, scan)
    right = target.log_prob_delta
    wrong = {
        "inverted": lambda x, sites: -right(x, sites),
        "another site": lambda x, sites: right(x, (sites + 1) % 3),
        "another object": lambda x, sites: right(x.flip(1), sites),
    }[control]
    monkeypatch.setattr(target, "log_prob_delta", wrong)
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("environment", LATTICES)
def test_impossible_objects_are_never_entered(environment: str, scan: str) -> None:
    graph = graph_of(environment)
    target = site_target(graph)
    target.table[1] = -torch.inf
    possible = target.table > -torch.inf
    matrix = transition_matrix(Gibbs(graph.environment, target, scan), graph.objects[possible])
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf[possible]) < 1e-12


@pytest.mark.parametrize("has_impossible", [False, True])
@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("environment", LATTICES)
def test_each_row_keeps_the_law_of_its_own_temperature(environment: str, scan: str, has_impossible: bool) -> None:
    graph = graph_of(environment)
    target = site_target(graph)
    if has_impossible:
        target.table[1] = -torch.inf
    kernel = Gibbs(graph.environment, target, scan)
    blocks = rungs_in_a_batch(kernel, target, RUNGS)
    for matrix, law in blocks:
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, law) < 1e-12
        if scan == "random":
            assert balance_error(matrix, law) < 1e-12
    # Negative control: the matrix of one temperature does not keep the law of another.
    assert invariance_error(blocks[1][0], blocks[0][1]) > 1e-3
    # One temperature for all rows is the same kernel.
    possible = target.table > -torch.inf
    alone = transition_matrix(kernel.tempered(0.35), graph.objects[possible])
    torch.testing.assert_close(alone, blocks[1][0], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(
        transition_matrix(kernel.tempered(0.0), graph.objects), blocks[3][0], rtol=0.0, atol=1e-12
    )


@pytest.mark.parametrize("scan", SCANS)
def test_compositions_with_gibbs_are_exact(scan: str) -> None:
    graph = graph_of("lattice, any order")
    target = site_target(graph)
    parts = Gibbs(graph.environment, target, scan), RandomWalk(graph.environment, target)
    for kernel in (Cycle(parts), Mixture(parts)):
        for matrix, law in rungs_in_a_batch(kernel, target, RUNGS):
            assert invariance_error(matrix, law) < 1e-10


def test_the_start_is_the_law_at_inverse_temperature_zero() -> None:
    for environment in LATTICES:
        graph = graph_of(environment)
        kernel = Gibbs(graph.environment, site_target(graph))

        def start(draws: Draws, rows: Tensor, kernel: Gibbs = kernel) -> Tensor:
            return kernel.start(draws)

        found = enumerate_decisions(start, 1)
        assert len(found.weight) == len(graph.objects)
        assert (RowIndex(graph.objects).find(found.result).sort().values == torch.arange(len(graph.objects))).all()
        torch.testing.assert_close(found.weight, torch.full_like(found.weight, 1.0 / len(found.weight)))
