"""Kernels on subsets and words, proved: every decision of production code followed, the whole transition matrix.

Each proof has its negative controls: the same enumeration with the ratio wrong, or with single changes that do not lead
back, must fail.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.environments.enumeration import StateGraph, enumerate_states
from gfnmc.environments.sequences import Sequences
from gfnmc.environments.subsets import Subsets
from gfnmc.kernels import Gibbs, IndependenceMH, Kernel, RandomWalk, Reach, SuffixResampling, suffix
from gfnmc.kernels.branch import FullRestart, PrefixLaw
from gfnmc.kernels.metropolis import Proposal
from gfnmc.testing import transition_matrix
from tests.exact.cases import (
    LAWS,
    PAIRS,
    balance_error,
    invariance_error,
    is_connected,
    site_target,
    solved_pair,
    table_target,
)

ENVIRONMENTS: dict[str, Callable[[], Subsets | Sequences]] = {
    "subsets of any size": lambda: Subsets(3),
    "subsets of two": lambda: Subsets(4, size=2),
    "words": lambda: Sequences(2, 2),
    "words that are not empty": lambda: Sequences(2, 2, min_length=1),
    "words of one length": lambda: Sequences(2, 2, min_length=2),
}
SUBSETS = [name for name in ENVIRONMENTS if "subsets" in name]
WORDS = [name for name in ENVIRONMENTS if "words" in name]
BY_ENVIRONMENT = pytest.mark.parametrize("environment", ENVIRONMENTS)
BY_LAW = pytest.mark.parametrize("law", LAWS)


@functools.cache
def graph_of(name: str) -> StateGraph:
    return enumerate_states(ENVIRONMENTS[name]())


@BY_LAW
@BY_ENVIRONMENT
def test_suffix_resampling_is_exact_and_reversible(environment: str, law: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, LAWS[law])
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert not kernel.may_stay or (matrix.diagonal() > 0).all()
    if law != "one step":
        assert kernel.reach is Reach.EVERYWHERE and (matrix > 0).all()
    elif environment == "subsets of two":
        # Any item may have been the last, so redoing one choice at a time goes everywhere.
        assert kernel.reach is Reach.CONNECTED and is_connected(matrix)
    else:
        assert kernel.reach is Reach.PARTIAL and not is_connected(matrix)


@BY_ENVIRONMENT
def test_a_network_that_reads_changed_tokens_is_as_exact(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    matrix = transition_matrix(SuffixResampling(PAIRS["mlp"](graph), target), graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12


suffix_ratio = suffix.log_hastings_ratio


def _without(kind: str) -> Callable[..., Tensor]:
    """The right ratio with a pair of its terms set to zero."""

    def ratio(**terms: Tensor) -> Tensor:
        gone = {name: torch.zeros_like(terms[name]) for name in (f"{kind}_new", f"{kind}_old")}
        return suffix_ratio(**(terms | gone))

    return ratio


CONTROLS: dict[str, Callable[..., Tensor]] = {
    "no correction": lambda **terms: torch.zeros_like(terms["log_forward_new"]),
    "inverted": lambda **terms: -suffix_ratio(**terms),
    "branch law left out": _without("log_branch"),
    "P_B left out": _without("log_backward"),
}


@pytest.mark.parametrize("control", CONTROLS)
@BY_LAW
@BY_ENVIRONMENT
def test_suffix_resampling_by_a_wrong_ratio_fails(
    monkeypatch: pytest.MonkeyPatch, environment: str, law: str, control: str
) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, LAWS[law])
    monkeypatch.setattr(suffix, "log_hastings_ratio", CONTROLS[control])
    wrong = transition_matrix(kernel, graph.objects)
    monkeypatch.undo()
    cancels = isinstance(LAWS[law], PrefixLaw) or graph.environment.is_fixed_length
    if (control == "branch law left out" and cancels) or (control == "P_B left out" and environment in WORDS):
        # The term is the same on both sides: a fixed length, or one way only to take a word apart.
        torch.testing.assert_close(wrong, transition_matrix(kernel, graph.objects), rtol=0.0, atol=1e-12)
    else:
        assert invariance_error(wrong, target.pmf) > 1e-5


@BY_LAW
def test_a_fully_trained_pair_is_always_accepted_on_subsets_of_one_size(law: str) -> None:
    graph = graph_of("subsets of two")
    target = table_target(graph)
    pair = solved_pair(graph, target, PAIRS["tabular"](graph).backward)
    kernel = SuffixResampling(pair, target, LAWS[law])
    state = kernel.init(graph.objects.repeat(20, 1))
    _, info = kernel.step(_numbers(len(state.position)), state)
    assert float(info.log_ratio.abs().max()) < 1e-9
    # The negative control: a pair that is not trained is not.
    _, info = SuffixResampling(PAIRS["tabular"](graph), target, LAWS[law]).step(_numbers(120), state)
    assert float(info.log_ratio.abs().max()) > 1e-3


@BY_ENVIRONMENT
def test_independence_mh_is_exact_and_is_the_full_restart(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    kernel = IndependenceMH(pair, target)
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    restart = transition_matrix(SuffixResampling(pair, target, FullRestart()), graph.objects)
    torch.testing.assert_close(matrix, restart, rtol=0.0, atol=1e-12)
    _drop_correction(monkeypatch, kernel)
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


@BY_ENVIRONMENT
def test_random_walk_is_exact_and_connected(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = RandomWalk(graph.environment, target)
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert balance_error(matrix, target.pmf) < 1e-12
    assert kernel.reach is Reach.CONNECTED and is_connected(matrix)
    _drop_correction(monkeypatch, kernel)
    wrong = transition_matrix(kernel, graph.objects)
    if len(graph.environment.change_mask(graph.objects).sum(-1).unique()) == 1:
        # Subsets, and words of one length, have as many changes as any other: there is nothing to correct.
        torch.testing.assert_close(wrong, matrix, rtol=0.0, atol=1e-12)
    else:
        assert invariance_error(wrong, target.pmf) > 1e-5


# Single changes that do not lead back: items go in but not out, members only move up, words only grow at their end.
ONE_WAY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "subsets of any size": lambda mask, objects: mask & (objects == 0),
    "subsets of two": lambda mask, objects: mask & (objects[:, torch.triu_indices(4, 4, 1)[0]] == 1),
    "words": lambda mask, objects: mask & (torch.arange(5) < 4),
    "words that are not empty": lambda mask, objects: mask & (torch.arange(5) < 4),
}


@pytest.mark.parametrize("environment", ONE_WAY)
def test_random_walk_by_changes_that_do_not_lead_back_fails(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    right = graph.environment.change_mask
    one_way = ONE_WAY[environment]
    monkeypatch.setattr(graph.environment, "change_mask", lambda objects: one_way(right(objects), objects))
    matrix = transition_matrix(RandomWalk(graph.environment, target), graph.objects)
    assert invariance_error(matrix, target.pmf) > 1e-5
    assert not is_connected(matrix)


@pytest.mark.parametrize("scan", ["random", "systematic"])
def test_gibbs_is_exact_on_subsets_of_any_size(monkeypatch: pytest.MonkeyPatch, scan: str) -> None:
    graph = graph_of("subsets of any size")
    target = site_target(graph)
    kernel = Gibbs(graph.environment, target, scan)  # type: ignore[arg-type]
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-12 and is_connected(matrix)
    right = target.log_prob_delta
    monkeypatch.setattr(target, "log_prob_delta", lambda x, sites: -right(x, sites))
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-5


def _drop_correction(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    """Make a kernel accept by the target alone."""
    propose = kernel._propose  # type: ignore[attr-defined]

    def uncorrected(draws: Draws, position: Tensor) -> Proposal:
        proposal = propose(draws, position)
        return proposal._replace(log_hastings=torch.zeros_like(proposal.log_hastings))

    monkeypatch.setattr(kernel, "_propose", uncorrected)


def _numbers(num_rows: int) -> Draws:
    return PhiloxDraws(0, "some moves", num_rows)
