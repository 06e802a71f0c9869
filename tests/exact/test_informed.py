"""Informed kernels, proved: exact with right and wrong gradients, at every temperature, with the cache and without."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, normal
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import GraphBuilding, Lattice, StateGraph, enumerate_states
from gfnmc.environments.dags import DAGs
from gfnmc.environments.sequences import Sequences
from gfnmc.environments.subsets import Subsets
from gfnmc.kernels import Cycle, Kernel, ParallelTempering, RandomWalk, Reach, State
from gfnmc.kernels.discrete_langevin import DiscreteLangevin
from gfnmc.kernels.gibbs_with_gradients import GibbsWithGradients
from gfnmc.kernels.informed import InformedKernel, Move, View
from gfnmc.kernels.locally_balanced import LocallyBalanced, SiteDeltas
from gfnmc.targets.relaxed import contract_table
from gfnmc.testing import move_matrix, transition_matrix
from tests.exact.cases import (
    ENVIRONMENTS,
    TableTarget,
    balance_error,
    graph_of,
    invariance_error,
    is_connected,
    rungs_in_a_batch,
    table_target,
)
from tests.exact.test_parallel_tempering import joint_matrix, joint_points

RUNGS = (1.0, 0.35, 2.0, 0.0)
ASSIGNMENTS = ["lattice, fixed order (tree)", "lattice, learned order", "hypergrid"]
OTHERS: dict[str, Callable[[], StateGraph]] = {
    "jumps (not graded)": lambda: graph_of("jumps (not graded)"),
    "swaps": lambda: enumerate_states(Subsets(4, size=2)),
    "words": lambda: enumerate_states(Sequences(2, 2)),
    "graphs": lambda: enumerate_states(GraphBuilding(3)),
    "directed graphs": lambda: enumerate_states(DAGs(3)),
}


class RoughTable(TableTarget):
    """A table on assignments whose relaxed log-density is made of another table: a gradient that is mostly wrong."""

    def __init__(self, graph: StateGraph) -> None:
        # In the order of the table's entries, the last site changing fastest, whatever order the graph has.
        rows = sorted(graph.objects.tolist())
        super().__init__(torch.tensor(rows, dtype=graph.objects.dtype), table_target(graph).table)
        self.values = tuple(graph.objects.unique().tolist())
        self.rough = 0.7 * self.table + normal(23, "rough", tuple(self.table.shape), torch.float64)

    def log_prob_relaxed(self, weights: Tensor) -> Tensor:
        return contract_table(self.rough.reshape((weights.shape[2],) * weights.shape[1]), weights)

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        return super().log_prob_delta(x, sites)


def target_on(graph: StateGraph, *, has_impossible: bool = False) -> TableTarget:
    """A random target; on assignments one that offers differences and a gradient."""
    target = RoughTable(graph) if graph.environment.builds_every_assignment else table_target(graph)
    if has_impossible:
        target.table[1] = -math.inf
    return target


BALANCED: dict[str, Callable[[StateGraph, TableTarget], Kernel]] = {
    f"locally balanced, {name}": lambda graph, target, name=name: LocallyBalanced(graph.environment, target, name)
    for name in ("sqrt", "barker", "min")
}
BY_GRADIENT: dict[str, Callable[[StateGraph, TableTarget], Kernel]] = {
    "gibbs with gradients": lambda graph, target: GibbsWithGradients(graph.environment, target),
    "bold gibbs with gradients": lambda graph, target: GibbsWithGradients(graph.environment, target, 0.6),
    "langevin": lambda graph, target: DiscreteLangevin(graph.environment, target, 0.4),
    "bold langevin": lambda graph, target: DiscreteLangevin(graph.environment, target, 5.0),
}
KERNELS = BALANCED | BY_GRADIENT
CASES = [(environment, name) for environment in ASSIGNMENTS for name in KERNELS]
CASES += [(environment, name) for environment in OTHERS for name in BALANCED]


def case(environment: str, name: str, *, has_impossible: bool = False) -> tuple[Kernel, TableTarget]:
    graph = OTHERS[environment]() if environment in OTHERS else graph_of(environment)
    target = target_on(graph, has_impossible=has_impossible)
    return KERNELS[name](graph, target), target


@pytest.mark.parametrize(("environment", "name"), CASES)
def test_leaves_the_target_invariant(environment: str, name: str) -> None:
    kernel, target = case(environment, name)
    matrix = transition_matrix(kernel, target.objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert is_connected(matrix) and kernel.reach is not Reach.PARTIAL
    if "langevin" in name:
        assert kernel.reach is Reach.EVERYWHERE and (matrix > 0).all() and kernel.may_stay
    else:
        assert kernel.reach is Reach.CONNECTED and not kernel.may_stay


@pytest.mark.parametrize(("environment", "name"), CASES)
def test_each_row_keeps_the_law_of_its_own_temperature(environment: str, name: str) -> None:
    # Impossible objects are entered at inverse temperature 0 alone.
    kernel, target = case(environment, name, has_impossible=True)
    blocks = rungs_in_a_batch(kernel, target, RUNGS)
    for beta, (matrix, law) in zip(RUNGS, blocks, strict=True):
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, law) < 1e-10
        assert balance_error(matrix, law) < 1e-12
        # One temperature for all rows is the same kernel.
        objects = target.objects if beta == 0.0 else target.objects[target.table > -math.inf]
        alone = transition_matrix(kernel.tempered(beta), objects)
        torch.testing.assert_close(alone, matrix, rtol=0.0, atol=1e-12)
    # Negative control: the matrix of one temperature does not keep the law of another.
    assert invariance_error(blocks[1][0], blocks[0][1]) > 1e-3


def no_correction(kernel: InformedKernel, position: Tensor, move: Move, log_changes: Tensor) -> Tensor:
    return move.log_forward


def the_way_there_as_the_way_back(kernel: InformedKernel, position: Tensor, move: Move, log_changes: Tensor) -> Tensor:
    """The law of the way back, but of what was seen where the chain stands."""
    here = kernel._looked(kernel._unseen(position), kernel.target.log_prob(position), torch.ones(len(position)) > 0)
    return RIGHT[type(kernel)](kernel, position, move, here.log_changes)


def inverted(kernel: InformedKernel, position: Tensor, move: Move, log_changes: Tensor) -> Tensor:
    return 2.0 * move.log_forward - RIGHT[type(kernel)](kernel, position, move, log_changes)


RIGHT: dict[type, Callable[..., Tensor]] = {
    kind: kind._log_back for kind in (LocallyBalanced, GibbsWithGradients, DiscreteLangevin)
}


@pytest.mark.parametrize("control", [no_correction, the_way_there_as_the_way_back, inverted])
@pytest.mark.parametrize(("environment", "name"), CASES)
def test_wrong_corrections_fail(
    monkeypatch: pytest.MonkeyPatch, environment: str, name: str, control: Callable[..., Tensor]
) -> None:
    kernel, target = case(environment, name)
    monkeypatch.setattr(type(kernel), "_log_back", control)
    matrix = transition_matrix(kernel, target.objects)
    assert invariance_error(matrix, target.pmf) > 1e-4
    assert balance_error(matrix, target.pmf) > 1e-4


@pytest.mark.parametrize("environment", ["lattice, fixed order (tree)", "lattice, learned order"])
@pytest.mark.parametrize("name", BALANCED)
def test_differences_and_evaluations_give_one_kernel(environment: str, name: str) -> None:
    kernel, target = case(environment, name)
    assert isinstance(kernel, LocallyBalanced) and isinstance(kernel.surroundings, SiteDeltas)
    plain = TableTarget(target.objects, target.table)
    evaluating = LocallyBalanced(kernel.environment, plain, kernel.balancing)
    assert not isinstance(evaluating.surroundings, SiteDeltas)
    wanted = transition_matrix(evaluating, target.objects)
    torch.testing.assert_close(transition_matrix(kernel, target.objects), wanted, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("environment", ASSIGNMENTS)
def test_moves_are_the_single_changes_of_the_environment(environment: str) -> None:
    """On a grid those are steps to the next value, also for a target that offers the differences of all values."""
    for name in BALANCED:
        kernel, target = case(environment, name)
        walked = transition_matrix(RandomWalk(kernel.environment, target), target.objects) > 0
        moved = transition_matrix(kernel, target.objects) > 0
        others = ~torch.eye(len(moved), dtype=torch.bool)
        assert torch.equal(moved[others], walked[others])


@pytest.mark.parametrize("name", BALANCED)
def test_the_proposal_is_balanced_as_defined(name: str) -> None:
    """q(y|x) is g(R(y)/R(x)) over its sum, by the definition on the table."""
    kernel, target = case("jumps (not graded)", name)
    assert isinstance(kernel, LocallyBalanced)
    g = {"sqrt": torch.sqrt, "barker": lambda t: t / (1 + t), "min": lambda t: t.clamp(max=1.0)}[kernel.balancing]
    density = target.table.exp()
    size = len(density)
    is_neighbour = (torch.arange(size)[:, None] - torch.arange(size)).abs() == 1
    weight = torch.where(is_neighbour, g(density / density[:, None]), 0.0)
    proposal = weight / weight.sum(1, keepdim=True)
    flow = density[:, None] * proposal
    by_hand = torch.where(is_neighbour, proposal * (flow.T / flow).clamp(max=1.0), 0.0)
    by_hand += torch.diag(1.0 - by_hand.sum(1))
    torch.testing.assert_close(transition_matrix(kernel, target.objects), by_hand, rtol=0.0, atol=1e-12)


def test_exact_gradients_make_gibbs_with_gradients_locally_balanced() -> None:
    graph = graph_of("lattice, any order")
    target = target_on(graph)
    assert isinstance(target, RoughTable)
    target.rough = target.table
    balanced = transition_matrix(LocallyBalanced(graph.environment, target), target.objects)
    informed = transition_matrix(GibbsWithGradients(graph.environment, target), target.objects)
    torch.testing.assert_close(informed, balanced, rtol=0.0, atol=1e-12)


def steps(kernels: list[Kernel], target: TableTarget, *, is_cache_kept: bool) -> Tensor:
    """The transition matrix of several steps in a row, each handed the state of the one before."""
    index = RowIndex(target.objects)
    places = (target.table > -math.inf).nonzero()

    def move(draws: Draws, rows: Tensor) -> Tensor:
        state = kernels[0].init(target.objects[places[rows, 0]])
        for kernel in kernels:
            state, _ = kernel.step(draws, state if is_cache_kept else state._replace(cache=None))
        return index.find(state.position)[:, None]

    return move_matrix(move, places)


@pytest.mark.parametrize("name", ["locally balanced, sqrt", "gibbs with gradients", "langevin"])
@pytest.mark.parametrize("environment", ["lattice, learned order", "hypergrid"])
def test_what_is_kept_changes_nothing(environment: str, name: str) -> None:
    kernel, target = case(environment, name, has_impossible=True)
    walk = RandomWalk(kernel.environment, target)
    runs = [[kernel, kernel], [kernel, kernel.tempered(0.35), kernel], [kernel, walk, kernel]]
    for kernels in runs[:1] if name == "langevin" else runs:
        kept = steps(kernels, target, is_cache_kept=True)
        possible = target.objects[target.table > -math.inf]
        wanted = torch.linalg.multi_dot([transition_matrix(each, possible) for each in kernels])
        torch.testing.assert_close(kept, wanted, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["locally balanced, sqrt", "gibbs with gradients"])
def test_a_view_of_another_place_would_be_wrong(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kernel, target = case("lattice, learned order", name)
    assert isinstance(kernel, InformedKernel)
    kernels = [kernel, RandomWalk(kernel.environment, target), kernel]
    assert invariance_error(steps(kernels, target, is_cache_kept=True), target.pmf) < 1e-10

    def trusting(state: State, known: Callable[[State], View] = kernel._known) -> View:
        if state.cache is None:
            return known(state)
        return state.cache._replace(position=state.position)

    monkeypatch.setattr(kernel, "_known", trusting)
    assert invariance_error(steps(kernels, target, is_cache_kept=True), target.pmf) > 1e-4


@pytest.mark.parametrize("name", ["locally balanced, min", "gibbs with gradients", "langevin"])
def test_compositions_are_exact(name: str) -> None:
    kernel, target = case("lattice, any order", name, has_impossible=True)
    cycle = Cycle([RandomWalk(kernel.environment, target), kernel])
    assert cycle.keeps_cache
    for matrix, law in rungs_in_a_batch(cycle, target, RUNGS):
        assert invariance_error(matrix, law) < 1e-10


@pytest.mark.parametrize("ladder", [(1.0, 0.4), (1.0, 0.0)])
@pytest.mark.parametrize("name", ["locally balanced, sqrt", "gibbs with gradients", "langevin"])
def test_replicas_are_exact(name: str, ladder: tuple[float, ...]) -> None:
    graph = enumerate_states(Lattice((2,), (0, 1)))
    target = target_on(graph, has_impossible=ladder[-1] == 0.0)
    kernel = ParallelTempering(KERNELS[name](graph, target), ladder)
    points, pmf = joint_points(target, ladder)
    for num_steps in (0, 1):
        matrix = joint_matrix(kernel, target, points, num_steps)
        assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
        assert invariance_error(matrix, pmf) < 1e-10


def test_environments_are_what_the_cases_say() -> None:
    assert set(ASSIGNMENTS) <= set(ENVIRONMENTS)
    for name in ASSIGNMENTS:
        assert graph_of(name).environment.builds_every_assignment
    assert not any(make().environment.builds_every_assignment for make in OTHERS.values())
