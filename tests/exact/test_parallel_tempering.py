"""Parallel tempering, proved on joint states: replicas of every rung, local moves and swaps, by production code."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import HyperGrid, Lattice, StateGraph, enumerate_states
from gfnmc.kernels import Cycle, Gibbs, Kernel, Mixture, ParallelTempering, RandomWalk, State, SuffixResampling
from gfnmc.kernels import parallel_tempering as module
from gfnmc.testing import move_matrix, transition_matrix
from tests.exact.cases import PAIRS, TableTarget, invariance_error, site_target, tempered_pmf

GRAPHS = {
    "lattice": enumerate_states(Lattice((2,), (0, 1))),
    "grid": enumerate_states(HyperGrid(1, 3)),
}
LADDERS = {"two": (1.0, 0.4), "three": (1.0, 0.5, 0.2), "to zero": (1.0, 0.3, 0.0)}
KERNELS: dict[str, Callable[[StateGraph, TableTarget], Kernel]] = {
    "random walk": lambda graph, target: RandomWalk(graph.environment, target),
    "gibbs": lambda graph, target: Gibbs(graph.environment, target),
    "gibbs sweep": lambda graph, target: Gibbs(graph.environment, target, "systematic"),
    "suffix": lambda graph, target: SuffixResampling(PAIRS["tabular"](graph), target),
    "mixture": lambda graph, target: Mixture(
        [RandomWalk(graph.environment, target), Gibbs(graph.environment, target)], [1.0, 2.0]
    ),
}


def joint_points(target: TableTarget, ladder: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Every joint state of the replicas, as the place of each in the table, and its exact probability."""
    points = torch.tensor(list(itertools.product(range(len(target.objects)), repeat=len(ladder))))
    laws = torch.stack([tempered_pmf(target, beta) for beta in ladder])
    pmf = laws.gather(1, points.T).prod(0)
    return points[pmf > 0], pmf[pmf > 0]


def begun(kernel: ParallelTempering, position: Tensor, num_steps: int) -> State:
    """Replicas at given objects, as they would be after some steps."""
    state = kernel.init(position)
    return state._replace(cache=state.cache._replace(num_steps=torch.full((len(position),), num_steps)))


def joint_matrix(
    kernel: ParallelTempering, target: TableTarget, points: Tensor, num_steps: int = 0, outer: Kernel | None = None
) -> Tensor:
    """The transition matrix on joint states of the step that follows `num_steps` others."""
    index = RowIndex(target.objects)

    def move(draws: Draws, rows: Tensor) -> Tensor:
        state, _ = (outer or kernel).step(draws, begun(kernel, target.objects[points[rows]], num_steps))
        replicas = kernel.replicas(state)
        found = index.find(replicas.position.flatten(0, 1)).unflatten(0, (-1, points.shape[1]))
        torch.testing.assert_close(replicas.log_prob, target.table[found], rtol=0.0, atol=1e-12)
        return found

    return move_matrix(move, points)


# Three rungs of suffix resampling have too many ways to go.
CASES = [case for case in itertools.product(GRAPHS, LADDERS, KERNELS) if case[1] == "two" or case[2] != "suffix"]


@pytest.mark.parametrize("num_steps", [0, 1])
@pytest.mark.parametrize(("graph", "ladder", "name"), CASES)
def test_the_product_law_is_invariant(graph: str, ladder: str, name: str, num_steps: int) -> None:
    target = site_target(GRAPHS[graph])
    if ladder == "to zero":
        # At inverse temperature 0 the replica may be impossible; it must not come to the others.
        target.table[1] = -torch.inf
    kernel = ParallelTempering(KERNELS[name](GRAPHS[graph], target), LADDERS[ladder])
    points, pmf = joint_points(target, LADDERS[ladder])
    assert float(pmf.sum()) == pytest.approx(1.0)
    matrix = joint_matrix(kernel, target, points, num_steps)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, pmf) < 1e-10


@pytest.mark.parametrize("ladder", LADDERS)
def test_a_step_is_local_moves_and_then_swaps(ladder: str) -> None:
    target = site_target(GRAPHS["grid"])
    local = Gibbs(GRAPHS["grid"].environment, target)
    kernel = ParallelTempering(local, LADDERS[ladder], swap_every=2)
    points, _ = joint_points(target, LADDERS[ladder])
    moves = torch.ones(1, 1, dtype=torch.float64)
    for beta in LADDERS[ladder]:
        moves = torch.kron(moves, transition_matrix(local.tempered(beta), target.objects))
    steps = [joint_matrix(kernel, target, points, num_steps) for num_steps in range(6)]
    for num_steps in (1, 3, 5):
        torch.testing.assert_close(steps[num_steps], moves, rtol=0.0, atol=1e-12)
    # With two pairs of neighbours, turns alternate; with one, it has every turn.
    pairs = [(0, 1)] * 3 if ladder == "two" else [(0, 1), (1, 2), (0, 1)]
    for turn, (colder, hotter) in enumerate(pairs):
        torch.testing.assert_close(
            steps[2 * turn], moves @ swap_matrix(target, points, LADDERS[ladder], colder, hotter), rtol=0.0, atol=1e-12
        )


def swap_matrix(target: TableTarget, points: Tensor, ladder: tuple[float, ...], colder: int, hotter: int) -> Tensor:
    """The Metropolis exchange of two rungs, by its definition on joint probabilities."""
    laws = [tempered_pmf(target, beta) for beta in ladder]
    index = RowIndex(points)
    matrix = torch.zeros(len(points), len(points), dtype=torch.float64)
    for place, point in enumerate(points):
        swapped = point.clone()
        swapped[colder], swapped[hotter] = point[hotter], point[colder]
        now, then = (math.prod(float(law[at]) for law, at in zip(laws, p, strict=True)) for p in (point, swapped))
        there = int(index.find(swapped[None]))
        matrix[place, there] += min(1.0, then / now)
        matrix[place, place] += 1.0 - min(1.0, then / now)
    return matrix


right_ratio = module.log_swap_ratio
CONTROLS: dict[str, Callable[..., Tensor]] = {
    "inverted": lambda *terms: -right_ratio(*terms),
    "always swapped": lambda b, c, log_prob, other: torch.zeros_like(log_prob),
    "the colder temperature only": lambda b, c, log_prob, other: b * (other - log_prob),
    "untempered": lambda b, c, log_prob, other: other - log_prob,
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_wrong_swaps_fail(monkeypatch: pytest.MonkeyPatch, graph: str, control: str) -> None:
    target = site_target(GRAPHS[graph])
    for ladder in ((1.0, 0.4), (1.0, 0.5, 0.2)):
        kernel = ParallelTempering(RandomWalk(GRAPHS[graph].environment, target), ladder)
        points, pmf = joint_points(target, ladder)
        with monkeypatch.context() as patched:
            patched.setattr(module, "log_swap_ratio", CONTROLS[control])
            errors = [invariance_error(joint_matrix(kernel, target, points, turn), pmf) for turn in (0, 1)]
        assert min(errors) > 1e-4
        assert invariance_error(joint_matrix(kernel, target, points), pmf) < 1e-10


def test_rungs_that_all_move_at_one_temperature_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    target = site_target(GRAPHS["grid"])
    kernel = ParallelTempering(RandomWalk(GRAPHS["grid"].environment, target), (1.0, 0.4))
    points, pmf = joint_points(target, (1.0, 0.4))
    monkeypatch.setattr(kernel, "_at_rungs", lambda num_chains: kernel.kernel)
    assert invariance_error(joint_matrix(kernel, target, points), pmf) > 1e-3


def test_turns_that_look_at_the_replicas_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which pairs swap may depend on a count, not on where the replicas are."""
    target = site_target(GRAPHS["grid"])
    kernel = ParallelTempering(RandomWalk(GRAPHS["grid"].environment, target), (1.0, 0.4))
    points, pmf = joint_points(target, (1.0, 0.4))
    move = kernel._move

    def peeking(draws: Draws, replicas: module.Replicas) -> tuple:
        moved, info = move(draws, replicas)
        is_better = moved.log_prob[:, :1] > moved.log_prob[:, 1:]
        monkeypatch.setattr(kernel, "_is_tried", lambda num_steps: is_better)
        return moved, info

    monkeypatch.setattr(kernel, "_move", peeking)
    assert invariance_error(joint_matrix(kernel, target, points), pmf) > 1e-3


@pytest.mark.parametrize("kind", [Cycle, Mixture])
@pytest.mark.parametrize("place", [0, 1])
def test_a_composition_moves_the_first_replica_and_keeps_the_others(kind: type, place: int) -> None:
    target = site_target(GRAPHS["grid"])
    walk = RandomWalk(GRAPHS["grid"].environment, target)
    kernel = ParallelTempering(Gibbs(GRAPHS["grid"].environment, target), LADDERS["two"])
    points, pmf = joint_points(target, LADDERS["two"])
    composed = kind([kernel, walk] if place == 0 else [walk, kernel])
    matrix = joint_matrix(kernel, target, points, outer=composed)
    assert invariance_error(matrix, pmf) < 1e-10
    alone = torch.kron(transition_matrix(walk, target.objects), torch.eye(3, dtype=torch.float64))
    tempered = joint_matrix(kernel, target, points)
    both = alone @ tempered if place else tempered @ alone
    wanted = both if kind is Cycle else 0.5 * (alone + tempered)
    torch.testing.assert_close(matrix, wanted, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("is_inverted", [False, True])
def test_chains_from_exact_draws_stay_exact_with_real_random_numbers(
    monkeypatch: pytest.MonkeyPatch, is_inverted: bool
) -> None:
    """Replicas drawn from the joint law, some steps, a chi-square test of the joint end states: false alarm 1e-6."""
    ladder = LADDERS["three"]
    target = site_target(GRAPHS["grid"])
    kernel = ParallelTempering(RandomWalk(GRAPHS["grid"].environment, target), ladder)
    points, pmf = joint_points(target, ladder)
    if is_inverted:
        monkeypatch.setattr(module, "log_swap_ratio", CONTROLS["inverted"])
    draws = PhiloxDraws(4, "black box", 30_000)
    state = kernel.init(target.objects[points[draws.role("joint").categorical(pmf.log())]])
    for step in range(4):
        state, _ = kernel.step(draws.at(step), state)
    found = RowIndex(target.objects).find(kernel.replicas(state).position.flatten(0, 1)).unflatten(0, (-1, 3))
    counts = torch.bincount(RowIndex(points).find(found), minlength=len(points)).double()
    p_value = stats.chisquare(counts.numpy(), (30_000 * pmf).numpy()).pvalue
    assert (p_value < 1e-6) == is_inverted
