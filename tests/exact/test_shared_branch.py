"""One branch decision for a whole batch, proved where it is legal: given each decision, the step keeps the target.

Where it is not, under a suffix law on objects of different length, the same enumeration finds the decisions that do
not, although all of them together do.
"""

import jaxtyping
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.kernels import SuffixResampling, suffix
from gfnmc.kernels.branch import Fixed, PrefixLaw, SuffixLaw
from gfnmc.testing import move_matrix, transition_matrix
from tests.exact.cases import ENVIRONMENTS, LAWS, PAIRS, balance_error, graph_of, invariance_error, table_target
from tests.support import chi_square, is_identical

CASES = [(environment, law) for environment in ENVIRONMENTS for law in LAWS]
LEGAL = [
    (environment, law)
    for environment, law in CASES
    if isinstance(LAWS[law], PrefixLaw) or ENVIRONMENTS[environment]().is_fixed_length
]
ILLEGAL = [case for case in CASES if case not in LEGAL]


class Decided(Draws):
    """Other draws, except that the decision all rows share is known."""

    def __init__(self, draws: Draws, outcome: int) -> None:
        self._draws = draws
        self._outcome = outcome

    @property
    def num_rows(self) -> int:
        return self._draws.num_rows

    def role(self, name: str) -> "Decided":
        return Decided(self._draws.role(name), self._outcome)

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.categorical(log_probs, active)

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.bernoulli(log_probs, active)

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.bernoulli_logits(logits, active)

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._draws.integers(highs, active)

    def permutation(self, length: int) -> Tensor:
        return self._draws.permutation(length)

    def shared_categorical(self, log_probs: Tensor) -> int:
        assert log_probs[self._outcome] > -torch.inf
        return self._outcome


def conditional_matrices(kernel: SuffixResampling, objects: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The probability of each shared decision, and the transition matrix given it."""
    assert kernel.branching == "shared"
    pmf = kernel._log_pmf.exp()

    def given(place: int) -> Tensor:
        def move(draws: Draws, rows: Tensor) -> Tensor:
            return kernel.step(Decided(draws, place), kernel.init(objects[rows]))[0].position

        return move_matrix(move, objects)

    places = pmf.nonzero()[:, 0].tolist()
    return pmf[places], [given(place) for place in places]


@pytest.mark.parametrize(("environment", "law"), LEGAL)
def test_every_decision_alone_leaves_the_target_invariant(environment: str, law: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    kernel = SuffixResampling(pair, target, LAWS[law], branching="shared")
    weights, matrices = conditional_matrices(kernel, graph.objects)
    for matrix in matrices:
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, target.pmf) < 1e-10
        assert balance_error(matrix, target.pmf) < 1e-12
    # Together they are the kernel in which each chain decides for itself.
    mixed = (weights[:, None, None] * torch.stack(matrices)).sum(0)
    alone = transition_matrix(SuffixResampling(pair, target, LAWS[law]), graph.objects)
    torch.testing.assert_close(mixed, alone, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(("environment", "law"), [case for case in LEGAL if case[1] in ("table", "prefix table")])
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, environment: str, law: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, LAWS[law], branching="shared")
    right = suffix.log_hastings_ratio
    monkeypatch.setattr(suffix, "log_hastings_ratio", lambda **terms: -right(**terms))
    _, matrices = conditional_matrices(kernel, graph.objects)
    assert max(invariance_error(matrix, target.pmf) for matrix in matrices) > 1e-5


@pytest.mark.parametrize(("environment", "law"), ILLEGAL)
def test_elsewhere_a_shared_decision_would_be_wrong_and_is_refused(environment: str, law: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    with pytest.raises(CapabilityError, match="differ in length, and then no single number of steps back"):
        SuffixResampling(pair, target, LAWS[law], branching="shared")
    assert isinstance(LAWS[law], SuffixLaw)
    forced = SuffixResampling(pair, target, LAWS[law])
    forced.branching = "shared"
    weights, matrices = conditional_matrices(forced, graph.objects)
    mixed = (weights[:, None, None] * torch.stack(matrices)).sum(0)
    assert invariance_error(mixed, target.pmf) < 1e-10
    worst = max(invariance_error(matrix, target.pmf) for matrix in matrices)
    if LAWS[law] == Fixed(1):
        # A single decision is all of them together.
        assert len(matrices) == 1
    else:
        assert worst > 1e-3


def test_chains_that_share_decide_alike_whatever_runs_beside_them() -> None:
    graph = graph_of("lattice, any order")
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    kernel = SuffixResampling(pair, target, LAWS["table"], branching="shared")
    alone = SuffixResampling(pair, target, LAWS["table"])
    draws = PhiloxDraws(1, "shared", 12)
    state = kernel.init(kernel.start(draws))
    few = kernel.init(state.position[:3])
    is_uneven = False
    for step in range(20):
        decided = kernel.branch_decisions(draws.at(step))
        is_uneven |= len(alone.branch_decisions(draws.at(step)).unique()) > 1
        state, info = kernel.step(draws.at(step), state)
        few, _ = kernel.step(PhiloxDraws(1, "shared", 3).at(step), few)
        assert torch.equal(info.num_back_steps, decided)
        assert len(decided.unique()) == 1
    assert is_uneven
    assert is_identical(few.position, state.position[:3])
    assert is_identical(few.log_prob, state.log_prob[:3])


def test_shared_decisions_follow_the_law() -> None:
    graph = graph_of("lattice, any order")
    kernel = SuffixResampling(PAIRS["tabular"](graph), table_target(graph), LAWS["table"], branching="shared")
    draws = PhiloxDraws(1, "shared", 1)
    seen = torch.cat([kernel.branch_decisions(draws.at(step)) for step in range(500)])
    counts = torch.bincount(seen, minlength=4)
    statistic, limit = chi_square(counts, [0.0, 0.2, 0.5, 0.3])
    assert statistic < limit
    statistic, limit = chi_square(counts, [0.0, 1 / 3, 1 / 3, 1 / 3])
    assert statistic > limit


def test_a_way_to_decide_is_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("lattice, any order")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match="choose 'independent' or 'shared'"):
        SuffixResampling(PAIRS["tabular"](graph), table_target(graph), branching="both")  # type: ignore[arg-type]
