"""Kernels on the 25 DAGs of three nodes, proved: production code, every decision followed.

Each proof has its negative controls: the same enumeration with the acceptance ratio wrong must fail.
"""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, normal
from gfnmc.environments import StateGraph, enumerate_states
from gfnmc.environments.dags import DAGs
from gfnmc.kernels import IndependenceMH, Kernel, RandomWalk, Reach, SuffixResampling, suffix
from gfnmc.kernels.branch import PrefixLaw
from gfnmc.kernels.metropolis import Proposal
from gfnmc.targets.dag_posterior import DAGPosterior
from gfnmc.testing import transition_matrix
from tests.exact.cases import LAWS, PAIRS, balance_error, invariance_error, is_connected

GRAPH: StateGraph = enumerate_states(DAGs(3))
TARGET = DAGPosterior(1.5 * normal(11, "dags", (3, 8), torch.float64))
PMF = TARGET.log_prob(GRAPH.objects).softmax(0)
ONE_PARENT = DAGPosterior(
    torch.where(torch.tensor([bin(subset).count("1") for subset in range(8)]) < 2, TARGET.local_scores, -torch.inf)
)


class Uncorrected(RandomWalk):
    """Leaves out the ratio of the numbers of changes."""

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        proposal = super()._propose(draws, position)
        return proposal._replace(log_hastings=torch.zeros_like(proposal.log_hastings))


class UncorrectedIndependence(IndependenceMH):
    """Leaves out how likely P_F and P_B are to propose."""

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        proposal = super()._propose(draws, position)
        return proposal._replace(log_hastings=torch.zeros_like(proposal.log_hastings))


def check_exact(kernel: Kernel) -> Tensor:
    matrix = transition_matrix(kernel, GRAPH.objects)
    assert matrix.shape == (25, 25)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, PMF) < 1e-10
    assert balance_error(matrix, PMF) < 1e-12
    return matrix


@pytest.mark.parametrize("law", LAWS)
def test_suffix_resampling_is_exact(law: str) -> None:
    kernel = SuffixResampling(PAIRS["tabular"](GRAPH), TARGET, LAWS[law])
    matrix = check_exact(kernel)
    if kernel.reach is Reach.EVERYWHERE:
        assert (matrix > 0).all()
    else:
        assert law == "one step"


@pytest.mark.parametrize("control", ["no correction", "inverted", "P_B left out", "branch law left out"])
@pytest.mark.parametrize("law", LAWS)
def test_wrong_suffix_ratios_fail(monkeypatch: pytest.MonkeyPatch, law: str, control: str) -> None:
    right = suffix.log_hastings_ratio

    def without(kind: str, terms: dict[str, Tensor]) -> Tensor:
        gone = {name: torch.zeros_like(terms[name]) for name in (f"{kind}_new", f"{kind}_old")}
        return right(**(terms | gone))

    wrong = {
        "no correction": lambda **terms: torch.zeros_like(terms["log_forward_new"]),
        "inverted": lambda **terms: -right(**terms),
        "P_B left out": lambda **terms: without("log_backward", terms),
        "branch law left out": lambda **terms: without("log_branch", terms),
    }
    monkeypatch.setattr(suffix, "log_hastings_ratio", wrong[control])
    matrix = transition_matrix(SuffixResampling(PAIRS["tabular"](GRAPH), TARGET, LAWS[law]), GRAPH.objects)
    if control == "branch law left out" and isinstance(LAWS[law], PrefixLaw):
        # It cancels there.
        assert invariance_error(matrix, PMF) < 1e-10
    else:
        assert invariance_error(matrix, PMF) > 1e-5


def test_independence_is_exact() -> None:
    pair = PAIRS["tabular"](GRAPH)
    assert (check_exact(IndependenceMH(pair, TARGET)) > 0).all()
    wrong = transition_matrix(UncorrectedIndependence(pair, TARGET), GRAPH.objects)
    assert invariance_error(wrong, PMF) > 1e-4


def test_the_random_walk_is_exact() -> None:
    matrix = check_exact(RandomWalk(GRAPH.environment, TARGET))
    assert is_connected(matrix)
    wrong = transition_matrix(Uncorrected(GRAPH.environment, TARGET), GRAPH.objects)
    assert invariance_error(wrong, PMF) > 1e-4


def test_the_random_walk_proposes_every_single_change_alike() -> None:
    difference = GRAPH.objects[None] - GRAPH.objects[:, None]
    size = difference.abs().flatten(2).sum(2)
    is_reversal = (size == 2) & (difference == -difference.mT).flatten(2).all(2)
    changes = ((size == 1) | is_reversal).double()
    assert torch.equal(changes, changes.T) and is_connected(changes)
    law = changes / changes.sum(1, keepdim=True)
    ratio = (PMF[None] * law.T) / (PMF[:, None] * law).clamp(min=1e-300)
    by_hand = law * ratio.clamp(max=1.0)
    by_hand += torch.diag(1.0 - by_hand.sum(1))
    matrix = transition_matrix(RandomWalk(GRAPH.environment, TARGET), GRAPH.objects)
    torch.testing.assert_close(matrix, by_hand, rtol=0.0, atol=1e-12)


def test_impossible_dags_are_never_entered() -> None:
    log_prob = ONE_PARENT.log_prob(GRAPH.objects)
    possible = log_prob > -torch.inf
    assert int(possible.sum()) == 16
    pair = PAIRS["tabular"](GRAPH)
    for kernel in (
        SuffixResampling(pair, ONE_PARENT, LAWS["uniform"]),
        IndependenceMH(pair, ONE_PARENT),
        RandomWalk(GRAPH.environment, ONE_PARENT),
    ):
        matrix = transition_matrix(kernel, GRAPH.objects[possible])
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, log_prob[possible].softmax(0)) < 1e-10
        assert is_connected(matrix)


def test_the_environment_and_the_target_agree_on_what_a_dag_is() -> None:
    every = (torch.arange(2**9)[:, None] >> torch.arange(9) & 1).reshape(-1, 3, 3).to(torch.int8)
    possible = every[TARGET.log_prob(every) > -torch.inf]
    assert torch.equal(possible.flatten(1).unique(dim=0), GRAPH.objects.flatten(1).unique(dim=0))
    built = DAGs.for_target(TARGET)
    assert (built.num_nodes, built.dtype) == (3, torch.int8)
    support = TARGET.exact().support
    assert torch.equal(support.flatten(1).unique(dim=0), GRAPH.objects.flatten(1).unique(dim=0))
