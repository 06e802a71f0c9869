"""The suffix-resampling kernel, proved: production code, every decision followed, the whole transition matrix.

Each proof has its negative controls: the same enumeration with the acceptance ratio wrong must fail.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.environments import HyperGrid, enumerate_states
from gfnmc.kernels import Reach, Reason, SuffixResampling, suffix
from gfnmc.kernels.branch import Fixed, PrefixLaw, PrefixUniform, SuffixLaw, Uniform
from gfnmc.policies import GFlowNet, MLPPolicy, TabularPolicy
from gfnmc.testing import enumerate_decisions, transition_matrix
from tests.exact.cases import (
    ENVIRONMENTS,
    LAWS,
    PAIRS,
    TREES,
    TableTarget,
    balance_error,
    graph_of,
    invariance_error,
    is_connected,
    mlp_pair,
    solved_pair,
    table_target,
)

Ratio = Callable[..., Tensor]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_leaves_the_target_invariant_and_is_reversible(environment: str, law: str, pair: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS[pair](graph), target, LAWS[law])
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    if kernel.reach is Reach.EVERYWHERE:
        assert (matrix > 0).all()
    if kernel.reach is Reach.CONNECTED:
        assert is_connected(matrix)
    assert not kernel.may_stay or (matrix.diagonal() > 0).all()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_is_irreducible_where_it_says_so_and_nowhere_else(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    for name, law in LAWS.items():
        kernel = SuffixResampling(pair, target, law)
        if name != "one step":
            assert kernel.reach is Reach.EVERYWHERE
        elif environment in ("lattice, any order", "lattice, learned order"):
            # Any site may have been the last, so redoing one at a time is Gibbs sampling.
            assert kernel.reach is Reach.CONNECTED
        else:
            assert kernel.reach is Reach.PARTIAL
            if environment != "jumps (not graded)":
                # There the same object has paths of several lengths, which happens to connect; it is not promised.
                assert not is_connected(transition_matrix(kernel, graph.objects))


suffix_ratio = suffix.log_hastings_ratio


def _without(kind: str) -> Ratio:
    """The right ratio with a pair of its terms set to zero."""

    def ratio(**terms: Tensor) -> Tensor:
        gone = {name: torch.zeros_like(terms[name]) for name in (f"{kind}_new", f"{kind}_old")}
        return suffix_ratio(**(terms | gone))

    return ratio


# What a wrong acceptance ratio may look like. Each gets the six terms of the right one.
CONTROLS: dict[str, Ratio] = {
    "no correction": lambda **terms: torch.zeros_like(terms["log_forward_new"]),
    "inverted": lambda **terms: -suffix_ratio(**terms),
    "branch law left out": _without("log_branch"),
    "P_B left out": _without("log_backward"),
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch, environment: str, law: str, control: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, LAWS[law])
    monkeypatch.setattr(suffix, "log_hastings_ratio", CONTROLS[control])
    wrong = transition_matrix(kernel, graph.objects)
    monkeypatch.undo()
    cancels = isinstance(LAWS[law], PrefixLaw) or graph.environment.is_fixed_length
    if (control == "branch law left out" and cancels) or (control == "P_B left out" and environment in TREES):
        # The term is the same on both sides, and leaving it out changes nothing.
        right = transition_matrix(kernel, graph.objects)
        torch.testing.assert_close(wrong, right, rtol=0.0, atol=1e-12)
    else:
        assert invariance_error(wrong, target.pmf) > 1e-5


@pytest.mark.parametrize("change", [{"temperature": 1.7}, {"epsilon": 0.15}])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_scoring_by_another_law_than_the_sampling_one_fails(environment: str, change: dict[str, float]) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    plain = mlp_pair(graph, torch.float64)

    class TwoFaced(GFlowNet):
        """Samples by the explored policy, scores by the plain one: what peers do with epsilon and temperature."""

        def log_forward(self, path):  # type: ignore[no-untyped-def]
            return plain.log_forward(path)

        def frozen(self) -> "TwoFaced":
            return self

    pair = TwoFaced(plain.forward.with_exploration(**change), plain.backward)
    matrix = transition_matrix(SuffixResampling(pair, target), graph.objects)
    assert invariance_error(matrix, target.pmf) > 1e-5


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_frozen_float32_pair_is_exact_to_the_same_bound(environment: str, law: str) -> None:
    # Frozen, a state's logits are the same numbers however it was reached, so float32 costs nothing here.
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(mlp_pair(graph, torch.float32), target, LAWS[law])
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12


def test_an_unfrozen_float32_pair_is_only_exact_to_single_precision() -> None:
    graph = graph_of("lattice, any order")
    target = table_target(graph)

    class NotFrozen(GFlowNet):
        def frozen(self) -> "NotFrozen":
            return self

    pair = mlp_pair(graph, torch.float32)
    kernel = SuffixResampling(NotFrozen(pair.forward, pair.backward), target)
    error = balance_error(transition_matrix(kernel, graph.objects), target.pmf)
    assert 1e-12 < error < 1e-6


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_fully_trained_pair_is_always_accepted_where_it_should_be(environment: str, law: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    pair = solved_pair(graph, target, PAIRS["tabular"](graph).backward)
    log_ratio, reason = _outcomes(SuffixResampling(pair, target, LAWS[law]), graph.objects)
    proposed = reason != Reason.LAZY
    assert proposed.any()
    worst = float(log_ratio[proposed].abs().max())
    if isinstance(LAWS[law], SuffixLaw) and not graph.environment.is_fixed_length:
        # The law's price: paths of different length are not branched alike.
        assert worst > 1e-3
    else:
        assert worst < 1e-9


def test_the_price_of_a_suffix_law_on_a_grid() -> None:
    # A fully trained pair on a flat 4x4 grid: the mean acceptance is the law's price; a prefix law has none.
    graph = enumerate_states(HyperGrid(2, 4))
    target = table_target(graph, scale=0.0)
    pair = solved_pair(graph, target)
    assert _mean_acceptance(SuffixResampling(pair, target, Uniform()), target) < 0.9
    assert abs(_mean_acceptance(SuffixResampling(pair, target, PrefixUniform(high=0)), target) - 1.0) < 1e-9


def test_a_law_that_undoes_nothing_is_legal_only_with_an_exit() -> None:
    graph = graph_of("subsets")
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, Fixed(0))
    matrix = transition_matrix(kernel, graph.objects)
    # It can only build on, and no move leads back but standing still.
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert not is_connected(matrix)


@pytest.mark.parametrize("environment", ["lattice, any order", "hypergrid", "jumps (not graded)"])
def test_impossible_objects_are_never_entered(environment: str) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    target.table[1] = -torch.inf
    possible = torch.arange(len(graph.objects)) != 1
    kernel = SuffixResampling(PAIRS["mlp"](graph), target)
    matrix = transition_matrix(kernel, graph.objects[possible])
    assert invariance_error(matrix, target.pmf[possible]) < 1e-12
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12


def test_policies_that_forbid_actions_leave_the_target_invariant() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    assert isinstance(pair.forward, TabularPolicy)
    with torch.no_grad():
        pair.forward.logits[2, 0] = -torch.inf
        pair.backward.get_parameter("logits")[-1, 1] = -torch.inf
    kernel = SuffixResampling(pair, target)
    assert kernel.reach is Reach.PARTIAL
    matrix = transition_matrix(kernel, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert balance_error(matrix, target.pmf) < 1e-12


def test_the_proof_covers_the_position_drawing_path_of_the_network() -> None:
    # The any-order lattice draws positions; the learned order does not. Both are among the proofs above.
    drawn = mlp_pair(graph_of("lattice, any order"), torch.float64).forward
    chosen = mlp_pair(graph_of("lattice, learned order"), torch.float64).forward
    assert isinstance(drawn, MLPPolicy) and isinstance(chosen, MLPPolicy)
    assert drawn.environment.positions == 3 and chosen.environment.positions is None


def _mean_acceptance(kernel: SuffixResampling, target: TableTarget) -> float:
    def rates(draws: Draws, rows: Tensor) -> Tensor:
        return kernel.step(draws, kernel.init(target.objects[rows]))[1].acceptance_rate

    found = enumerate_decisions(rates, len(target.objects))
    return float((target.pmf[found.row] * found.weight) @ found.result)


def _outcomes(kernel: SuffixResampling, objects: Tensor) -> tuple[Tensor, Tensor]:
    def measured(draws: Draws, rows: Tensor) -> Tensor:
        info = kernel.step(draws, kernel.init(objects[rows]))[1]
        return torch.stack([info.log_ratio, info.reason.double()], -1)

    found = enumerate_decisions(measured, len(objects))
    return found.result[:, 0], found.result[:, 1].to(torch.int64)
