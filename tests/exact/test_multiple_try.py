"""Multiple-try suffix resampling, proved: two tries are suffix resampling, more are exact, and so is recycling."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, normal
from gfnmc.environments import Direction, Lattice, StateGraph, enumerate_states
from gfnmc.kernels import Cycle, RandomWalk, Reach, Reason, SuffixResampling, multiple_try
from gfnmc.kernels.branch import Geometric, PrefixUniform, SuffixLaw
from gfnmc.kernels.multiple_try import MultipleTrySuffix
from gfnmc.policies import GFlowNet, MLPPolicy, TabularPolicy
from gfnmc.targets import ModeSet
from gfnmc.testing import enumerate_decisions, transition_matrix
from tests.exact.cases import (
    LAWS,
    PAIRS,
    TableTarget,
    Words,
    balance_error,
    graph_of,
    invariance_error,
    is_connected,
    rungs_in_a_batch,
    solved_pair,
    table_target,
)
from tests.support import Stairs

# Every further try multiplies the ways a step may go.
SMALL: dict[str, StateGraph] = {
    "lattice": enumerate_states(Lattice((2,), (0, 1))),
    "lattice, learned order": enumerate_states(Lattice((2,), (0, 1, 2), order="learned")),
    "jumps (not graded)": enumerate_states(Stairs(3)),
    "words (tree)": enumerate_states(Words()),
}
SOME_LAWS = {name: LAWS[name] for name in ("uniform", "geometric", "prefix uniform")}
RUNGS = (1.0, 0.35, 2.0, 0.0)


@pytest.mark.parametrize("law", SOME_LAWS)
@pytest.mark.parametrize("environment", [*SMALL, "subsets"])
def test_two_tries_are_suffix_resampling(environment: str, law: str) -> None:
    graph = SMALL[environment] if environment in SMALL else graph_of(environment)
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    matrix = transition_matrix(MultipleTrySuffix(pair, target, LAWS[law], num_tries=2), graph.objects)
    single = transition_matrix(SuffixResampling(pair, target, LAWS[law]), graph.objects)
    torch.testing.assert_close(matrix, single, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("law", [*SOME_LAWS, "one step", "prefix table"])
@pytest.mark.parametrize("environment", SMALL)
def test_leaves_the_target_invariant_and_is_reversible(environment: str, law: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, LAWS[law], num_tries=3)
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    if kernel.reach is Reach.EVERYWHERE:
        assert (matrix > 0).all()
    if kernel.reach is Reach.CONNECTED:
        assert is_connected(matrix)
    assert not kernel.may_stay or (matrix.diagonal() > 0).all()


@pytest.mark.parametrize("law", ["geometric", "prefix uniform"])
@pytest.mark.parametrize("environment", ["lattice", "words (tree)"])
def test_four_tries_are_exact_and_move_more(environment: str, law: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    matrix, fewer = (
        transition_matrix(MultipleTrySuffix(pair, target, LAWS[law], num_tries=tries), graph.objects)
        for tries in (4, 2)
    )
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert float(target.pmf @ matrix.diagonal()) < float(target.pmf @ fewer.diagonal())


right_ratio = multiple_try.log_multiple_try_ratio


def _without_the_current_one(log_weights: Tensor, picked: Tensor) -> Tensor:
    """The rule that forgets that the way back has the old object among its tries."""
    return right_ratio(log_weights, torch.zeros_like(picked))


CONTROLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "always": lambda log_weights, picked: torch.zeros(len(picked), dtype=torch.float64),
    "inverted": lambda log_weights, picked: -right_ratio(log_weights, picked),
    "as a single try": lambda log_weights, picked: log_weights.gather(1, picked[:, None])[:, 0] - log_weights[:, 0],
    "without the current one": _without_the_current_one,
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("environment", ["lattice", "jumps (not graded)"])
def test_wrong_acceptance_fails(monkeypatch: pytest.MonkeyPatch, environment: str, control: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, num_tries=3)
    monkeypatch.setattr(multiple_try, "log_multiple_try_ratio", CONTROLS[control])
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-4


@pytest.mark.parametrize("environment", ["jumps (not graded)", "words (tree)"])
def test_weights_without_the_branch_law_fail(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, Geometric(0.4), num_tries=3)
    monkeypatch.setattr(kernel, "_log_branch", lambda path: torch.zeros(len(path.lengths), dtype=torch.float64))
    assert invariance_error(transition_matrix(kernel, graph.objects), target.pmf) > 1e-4


@pytest.mark.parametrize("law", ["uniform", "prefix uniform"])
@pytest.mark.parametrize("environment", ["lattice", "jumps (not graded)"])
def test_each_row_keeps_the_law_of_its_own_temperature(environment: str, law: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    target.table[1] = -torch.inf
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, LAWS[law], num_tries=3)
    for matrix, pmf in rungs_in_a_batch(kernel, target, RUNGS):
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, pmf) < 1e-10
        assert balance_error(matrix, pmf) < 1e-12


def conditional_pair(graph: StateGraph) -> GFlowNet:
    """A random network pair that depends on the inverse temperature, and strongly."""
    policies = []
    for direction in Direction:
        made = MLPPolicy(graph.environment, direction, hidden_size=8, dtype=torch.float64, seed=7, num_conditions=1)
        with torch.no_grad():
            made.head.mul_(20.0)
            made.head_bias.copy_(normal(8, direction.value, tuple(made.head_bias.shape), torch.float64))
        policies.append(made)
    return GFlowNet(*policies, condition_names=("inverse_temperature",))


def bound(pair: GFlowNet, beta: float) -> GFlowNet:
    """The pair of one inverse temperature, which no kernel gives another."""
    view = pair.given(torch.tensor([beta], dtype=torch.float64))
    view.condition_names = ()
    return view


def test_a_pair_of_many_temperatures_serves_every_try_at_its_rows_own() -> None:
    graph = SMALL["words (tree)"]
    target = table_target(graph)
    pair = conditional_pair(graph)
    rungs = (1.0, 0.35, 0.0)
    blocks = rungs_in_a_batch(MultipleTrySuffix(pair, target, num_tries=3), target, rungs)
    for beta, (matrix, law) in zip(rungs, blocks, strict=True):
        assert invariance_error(matrix, law) < 1e-10
        assert balance_error(matrix, law) < 1e-12
        alone = transition_matrix(
            MultipleTrySuffix(bound(pair, beta), target, num_tries=3).tempered(beta), graph.objects
        )
        torch.testing.assert_close(matrix, alone, rtol=0.0, atol=1e-10)
    # One temperature for all rows is the same kernel, and the pair of another proposes otherwise.
    alone = transition_matrix(MultipleTrySuffix(pair, target, num_tries=3).tempered(0.35), graph.objects)
    torch.testing.assert_close(alone, blocks[1][0], rtol=0.0, atol=1e-10)
    elsewhere = MultipleTrySuffix(bound(pair, 2.0), target, num_tries=3).tempered(0.35)
    assert float((transition_matrix(elsewhere, graph.objects) - alone).abs().max()) > 1e-3


@pytest.mark.parametrize("environment", ["lattice, learned order", "jumps (not graded)"])
def test_policies_that_forbid_actions_leave_the_target_invariant(environment: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    pair = PAIRS["tabular"](graph)
    assert isinstance(pair.forward, TabularPolicy)
    with torch.no_grad():
        pair.forward.logits[graph.index(graph.environment.source(1)), 0] = -torch.inf
        last = graph.index(graph.environment.states(graph.objects[-1:]))
        way_back = int(graph.environment.backward_mask(graph.states[last]).to(torch.int64).argmax())
        pair.backward.get_parameter("logits")[last, way_back] = -torch.inf
    kernel = MultipleTrySuffix(pair, target, num_tries=3)
    assert kernel.reach is Reach.PARTIAL
    matrix = transition_matrix(kernel, graph.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-12
    assert balance_error(matrix, target.pmf) < 1e-12


@pytest.mark.parametrize("law", ["uniform", "prefix uniform"])
@pytest.mark.parametrize("environment", SMALL)
def test_a_fully_trained_pair_is_always_accepted_where_it_should_be(environment: str, law: str) -> None:
    graph = SMALL[environment]
    target = table_target(graph)
    pair = solved_pair(graph, target, PAIRS["tabular"](graph).backward)
    kernel = MultipleTrySuffix(pair, target, LAWS[law], num_tries=3)

    def measured(draws: Draws, rows: Tensor) -> Tensor:
        info = kernel.step(draws, kernel.init(graph.objects[rows]))[1]
        return torch.stack([info.log_ratio, info.reason.double()], -1)

    # Each way a step may go, whatever its probability.
    log_ratio, reason = enumerate_decisions(measured, len(graph.objects)).result.T
    worst = float(log_ratio[reason != Reason.LAZY].abs().max())
    if isinstance(LAWS[law], SuffixLaw) and not graph.environment.is_fixed_length:
        assert worst > 1e-3
    else:
        assert worst < 1e-9


def test_a_cycle_with_single_changes_is_exact() -> None:
    graph = SMALL["lattice"]
    target = table_target(graph)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, num_tries=3)
    matrix = transition_matrix(Cycle([kernel, RandomWalk(graph.environment, target)]), graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10


class Halves(ModeSet):
    """The first places of a table, and the last; the one between is in no mode."""

    names = ("first", "last")

    def __init__(self, target: TableTarget) -> None:
        self.target = target
        self.examples = target.objects[[0, -1]]

    def assign(self, x: Tensor) -> Tensor:
        place, middle = self.target._index.find(x), len(self.target.table) // 2
        return torch.where(place == middle, -1, (place > middle).to(torch.int64))


class WatchedTarget(TableTarget):
    """Statistics and modes that are as bumpy as the table; one statistic is infinite where the target is 0."""

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        place = self._index.find(x)
        return {"place": place, "bump": torch.sin(5.0 * place.double()), "energy": -self.table[place]}

    def modes(self) -> ModeSet:
        return Halves(self)


def recycled_error(kernel: MultipleTrySuffix, beta: float = 1.0) -> float:
    """Largest difference between the mean of a recycled value, over the law of the chain and all decisions, and f's."""
    target = kernel.target
    assert isinstance(target, WatchedTarget)
    possible = target.table > -torch.inf
    objects, pmf = target.objects[possible], (beta * target.table[possible]).softmax(0)

    def recycled(draws: Draws, rows: Tensor) -> Tensor:
        extras = kernel.step(draws, kernel.init(objects[rows]))[1].extras
        assert list(extras) == [f"recycled[{name}]" for name in ("place", "bump", "energy", "occ[first]", "occ[last]")]
        assert all(value.dtype == torch.float64 for value in extras.values())
        return torch.stack(list(extras.values()), 1)

    found = enumerate_decisions(recycled, len(objects))
    means = (pmf[found.row] * found.weight) @ found.result
    mode = target.modes().assign(objects)
    values = [*target.statistics(objects).values(), mode == 0, mode == 1]
    wanted = torch.stack([pmf @ value.double() for value in values])
    return float((means - wanted).abs().max())


@pytest.mark.parametrize("law", SOME_LAWS)
@pytest.mark.parametrize("environment", SMALL)
def test_recycled_values_have_the_mean_of_the_target(environment: str, law: str) -> None:
    graph = SMALL[environment]
    target = WatchedTarget(graph.objects, table_target(graph).table)
    if law == "uniform":
        target.table[1] = -torch.inf
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, LAWS[law], num_tries=3, recycle=True)
    assert recycled_error(kernel) < 1e-10


def test_recycling_at_another_temperature_has_that_law() -> None:
    graph = SMALL["jumps (not graded)"]
    target = WatchedTarget(graph.objects, table_target(graph).table)
    tried = MultipleTrySuffix(PAIRS["tabular"](graph), target, PrefixUniform(), num_tries=3, recycle=True)
    kernel = tried.tempered(0.35)
    assert recycled_error(kernel, 0.35) < 1e-10
    assert recycled_error(kernel, 1.0) > 1e-3


WRONG_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "unweighted": lambda log_weights: torch.full_like(log_weights, 1.0 / log_weights.shape[1]),
    "tries alone": lambda log_weights: torch.cat(
        [torch.zeros_like(log_weights[:, :1]), log_weights[:, 1:].softmax(1)], 1
    ),
    "inverted": lambda log_weights: (-log_weights).softmax(1),
}


@pytest.mark.parametrize("control", WRONG_WEIGHTS)
@pytest.mark.parametrize("environment", ["lattice", "jumps (not graded)"])
def test_wrong_weights_fail(monkeypatch: pytest.MonkeyPatch, environment: str, control: str) -> None:
    graph = SMALL[environment]
    target = WatchedTarget(graph.objects, table_target(graph).table)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, num_tries=3, recycle=True)
    monkeypatch.setattr(multiple_try, "candidate_weights", WRONG_WEIGHTS[control])
    assert recycled_error(kernel) > 1e-3
