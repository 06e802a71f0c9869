"""Walks and scores are one law: what a walk did is scored by the number it had, whichever way and how far it went."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice, StateGraph, enumerate_states
from gfnmc.policies import GFlowNet, Path, score_backward, score_forward, walk_backward, walk_forward
from gfnmc.policies.rollout import backward_scores, evaluate_along, exit_scores, forward_scores, num_transitions
from gfnmc.testing import enumerate_decisions
from tests.support import (
    Stairs,
    assert_close,
    chi_square,
    is_identical,
    network_pair,
    random_pair,
    sample_paths,
    small_environments,
)

SMALL = small_environments()
LARGER = {"lattice": Lattice((4, 4), (-1, 1), dtype=torch.int8), "grid": HyperGrid(3, 5), "stairs": Stairs(9)}


@pytest.fixture(params=[*SMALL, *LARGER])
def pair(request: pytest.FixtureRequest) -> GFlowNet:
    if request.param in SMALL:
        return random_pair(SMALL[request.param], seed=3)
    return network_pair(LARGER[request.param], seed=3).frozen()


def assert_is_a_path(path: Path, environment: DiscreteEnvironment) -> None:
    """Every row is a walk of allowed steps to a finished state, and padded as a path is."""
    num_rows, length = path.actions.shape
    assert path.states.shape[:2] == (num_rows, length + 1)
    assert length == int(path.lengths.max())
    assert not path.actions[~path.is_action].any()
    for place in range(length):
        here, there = path.states[:, place], path.states[:, place + 1]
        rows = path.is_action[:, place]
        stepped = environment.step(here[rows], path.actions[rows, place])
        assert torch.equal(stepped, there[rows])
        assert environment.forward_mask(here[rows]).gather(1, path.actions[rows, place][:, None]).all()
        assert torch.equal(here[~rows], there[~rows])
    assert environment.is_terminal(path.end).all()
    assert torch.equal(path.reached_source, environment.is_source(path.start))


def plain_log_forward(pair: GFlowNet, path: Path) -> Tensor:
    """log P_F by its definition, one action at a time."""
    total = torch.zeros(len(path.lengths), dtype=torch.float64)
    for place in range(path.actions.shape[1]):
        states = path.states[:, place]
        law = pair.forward.log_probs(pair.forward.begin(states), states).detach()
        gained = law.gather(1, path.actions[:, place : place + 1])[:, 0]
        total += torch.where(path.is_action[:, place], gained, 0.0)
    if pair.environment.exit_action is not None:
        total += pair.forward.log_probs(pair.forward.begin(path.end), path.end).detach()[
            :, pair.environment.exit_action
        ]
    return total


def plain_log_backward(pair: GFlowNet, path: Path) -> Tensor:
    """log P_B by its definition, one action at a time."""
    total = torch.zeros(len(path.lengths), dtype=torch.float64)
    for place in range(path.actions.shape[1]):
        states = path.states[:, place + 1]
        law = pair.backward.log_probs(pair.backward.begin(states), states).detach()
        gained = law.gather(1, path.actions[:, place : place + 1])[:, 0]
        total += torch.where(path.is_action[:, place], gained, 0.0)
    return total


def test_a_walk_forward_is_scored_by_its_own_number(pair: GFlowNet) -> None:
    path = sample_paths(pair, 300)
    assert_is_a_path(path, pair.environment)
    assert path.log_backward is None
    assert path.reached_source.all()
    assert_close(score_forward(pair.forward, pair.environment, path), path.log_forward, 1e-12)
    assert_close(plain_log_forward(pair, path), path.log_forward, 1e-4 if pair.environment.positions == 16 else 1e-12)
    assert_close(score_backward(pair.backward, pair.environment, path), plain_log_backward(pair, path), 1e-12)


def test_a_walk_backward_is_scored_by_its_own_number(pair: GFlowNet) -> None:
    environment = pair.environment
    ends = sample_paths(pair, 300).end
    max_depth = environment.max_depth
    by_row = torch.arange(300) % (max_depth + 1)
    whole = [torch.full((300,), steps) for steps in range(max_depth + 1)] if max_depth < 10 else []
    for num_steps in (None, by_row, torch.zeros_like(by_row), by_row + 1_000, *whole):
        path = walk_backward(pair.backward, environment, ends, num_steps, PhiloxDraws(1, "back", 300))
        assert_is_a_path(path, environment)
        assert torch.equal(path.end, ends)
        assert path.log_forward is None
        if num_steps is None:
            assert path.reached_source.all()
        else:
            # As many as asked for, or as many as there are.
            assert ((path.lengths == num_steps) | (path.reached_source & (path.lengths < num_steps))).all()
        assert_close(score_backward(pair.backward, environment, path), path.log_backward, 1e-12)
        assert_close(plain_log_backward(pair, path), path.log_backward, 1e-12)
        assert_close(
            score_forward(pair.forward, environment, path),
            plain_log_forward(pair, path),
            1e-4 if environment.positions == 16 else 1e-12,
        )


def test_a_walk_goes_on_from_where_it_is(pair: GFlowNet) -> None:
    environment = pair.environment
    full = sample_paths(pair, 200)
    middle = full.after(torch.arange(200) % (environment.max_depth + 1))
    path = walk_forward(pair.forward, environment, middle.start, PhiloxDraws(5, "on", 200))
    assert_is_a_path(path, environment)
    assert torch.equal(path.start, middle.start)
    assert torch.equal(path.reached_source, environment.is_source(middle.start))
    assert_close(score_forward(pair.forward, environment, path), path.log_forward, 1e-12)
    # From a finished state without an exit there is nowhere to go.
    if environment.exit_action is None:
        stay = walk_forward(pair.forward, environment, full.end, PhiloxDraws(5, "on", 200))
        assert stay.actions.shape == (200, 0)
        assert not stay.log_forward.any()
        assert not score_forward(pair.forward, environment, stay).any()


def test_a_row_walks_and_scores_the_same_in_any_batch() -> None:
    """To the bit, with a frozen pair: lengths differ, so the padding beside a row does as well."""
    for environment in LARGER.values():
        pair = network_pair(environment, seed=3).frozen()
        whole = sample_paths(pair, 300)
        forward = score_forward(pair.forward, environment, whole)
        backward = score_backward(pair.backward, environment, whole)
        back = walk_backward(pair.backward, environment, whole.end, None, PhiloxDraws(1, "back", 300))
        for num_rows in (1, 2, 7, 64):
            some = sample_paths(pair, num_rows)
            length = some.actions.shape[1]
            assert torch.equal(some.actions, whole.actions[:num_rows, :length])
            assert is_identical(some.log_forward, whole.log_forward[:num_rows])
            assert is_identical(score_forward(pair.forward, environment, some), forward[:num_rows])
            assert is_identical(score_backward(pair.backward, environment, some), backward[:num_rows])
            again = walk_backward(pair.backward, environment, some.end, None, PhiloxDraws(1, "back", num_rows))
            assert is_identical(again.log_backward, back.log_backward[:num_rows])
            assert is_identical(again.states[:, 0], back.states[:num_rows, 0])


def test_walks_enumerate_to_a_law() -> None:
    """Every way forward, by the enumerator: weights sum to one and are the exponentials of the scores."""
    for name, environment in SMALL.items():
        pair = random_pair(environment, seed=6)
        graph = enumerate_states(environment)

        def forward(draws: Draws, rows: Tensor, pair: GFlowNet = pair, graph: StateGraph = graph) -> Tensor:
            path = walk_forward(pair.forward, pair.environment, pair.environment.source(len(rows)), draws)
            score = score_forward(pair.forward, pair.environment, path).detach()
            return torch.stack([graph.index(path.end).double(), path.log_forward, score], 1)

        found = enumerate_decisions(forward, 1)
        assert_close(found.weight.sum(), 1.0, 1e-12)
        assert_close(found.result[:, 1].exp(), found.weight, 1e-12)
        assert_close(found.result[:, 2].exp(), found.weight, 1e-12)
        assert set(found.result[:, 0].long().tolist()) == set(graph.is_terminal.nonzero()[:, 0].tolist()), name

        def backward(draws: Draws, rows: Tensor, pair: GFlowNet = pair, graph: StateGraph = graph) -> Tensor:
            ends = graph.states[graph.is_terminal][rows]
            return walk_backward(pair.backward, pair.environment, ends, None, draws).log_backward[:, None]

        found = enumerate_decisions(backward, int(graph.is_terminal.sum()))
        assert_close(found.result[:, 0].exp(), found.weight, 1e-12)
        total = torch.zeros(int(graph.is_terminal.sum()), dtype=torch.float64).index_add(0, found.row, found.weight)
        assert_close(total, torch.ones_like(total), 1e-12)


def test_walks_with_real_draws_follow_the_enumerated_law() -> None:
    environment = HyperGrid(2, 3)
    pair = random_pair(environment, seed=8)
    graph = enumerate_states(environment)

    def ends(draws: Draws, rows: Tensor) -> Tensor:
        return graph.index(walk_forward(pair.forward, environment, environment.source(len(rows)), draws).end)

    found = enumerate_decisions(ends, 1)
    law = torch.zeros(9, dtype=torch.float64).index_add(0, found.result, found.weight)
    counts = torch.bincount(graph.index(sample_paths(pair, 30_000, seed=2).end), minlength=9)
    statistic, limit = chi_square(counts, law)
    assert statistic < limit
    # Negative control: without the exit's probability it is another law.
    statistic, limit = chi_square(counts, torch.full((9,), 1 / 9))
    assert statistic > limit


def test_the_exit_counts_forward_and_is_free_backward() -> None:
    environment = HyperGrid(2, 3)
    pair = random_pair(environment)
    corner = torch.zeros(1, 2, dtype=torch.int64)
    path = walk_backward(pair.backward, environment, corner, None, PhiloxDraws(0, "x", 1))
    assert path.log_backward.tolist() == [0.0]
    source_law = pair.forward.log_probs(pair.forward.begin(corner), corner)[0]
    assert_close(score_forward(pair.forward, environment, path), source_law[2:].detach(), 1e-15)
    assert float(source_law[2].detach()) < math.log(0.9)


def test_gradients_flow_through_scores_and_not_through_walks() -> None:
    pair = random_pair(HyperGrid(2, 3))
    path = sample_paths(pair, 20)
    assert not path.log_forward.requires_grad
    (score_forward(pair.forward, pair.environment, path).sum() + pair.log_backward(path).sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in pair.parameters())
    assert any(parameter.grad.any() for parameter in pair.parameters())


def test_no_rows_are_no_trouble() -> None:
    pair = random_pair(HyperGrid(2, 3))
    source = pair.environment.source(0)
    path = walk_forward(pair.forward, pair.environment, source, PhiloxDraws(0, "x", 0))
    assert path.states.shape[0] == 0
    assert score_forward(pair.forward, pair.environment, path).shape == (0,)


def test_scores_of_transitions_add_up_to_scores_of_paths(pair: GFlowNet) -> None:
    environment = pair.environment
    full = sample_paths(pair, 100)
    has_exit = environment.exit_action is not None
    for path in (full, full.after(torch.arange(100) % 3), full.after(full.lengths)):
        forward = forward_scores(pair.forward, environment, path)
        backward = backward_scores(pair.backward, environment, path)
        width = path.actions.shape[1] + has_exit
        assert forward.shape == backward.shape == (100, width)
        is_padding = torch.arange(width) >= num_transitions(environment, path)[:, None]
        assert not forward[is_padding].any()
        assert not backward[is_padding].any()
        assert_close(forward.sum(1), score_forward(pair.forward, environment, path), 1e-12)
        assert_close(backward.sum(1), score_backward(pair.backward, environment, path), 1e-12)
        for place in range(path.actions.shape[1]):
            rows = path.is_action[:, place]
            here, there, taken = (
                it[rows] for it in (path.states[:, place], path.states[:, place + 1], path.actions[:, place])
            )
            forth = pair.forward.score(pair.forward.begin(here), here, taken)
            back = pair.backward.score(pair.backward.begin(there), there, taken)
            bound = 1e-4 if environment.positions == 16 else 1e-12
            assert_close(forward[rows, place], forth, bound)
            assert_close(backward[rows, place], back, bound)
        if has_exit:
            assert not backward.gather(1, path.lengths[:, None]).any()


def test_scores_of_exits() -> None:
    for environment in (HyperGrid(2, 4), Stairs(5)):
        pair = random_pair(environment, seed=4)
        path = sample_paths(pair, 60)
        exits = exit_scores(pair.forward, environment, path)
        for place in range(path.states.shape[1]):
            states = path.states[:, place]
            law = pair.forward.log_probs(pair.forward.begin(states), states)[:, environment.exit_action]
            assert_close(exits[:, place], torch.where(place <= path.lengths, law, 0.0), 1e-12)
        last = forward_scores(pair.forward, environment, path).gather(1, path.lengths[:, None])
        assert_close(exits.gather(1, path.lengths[:, None]), last, 1e-12)
    lattice = Lattice((3,), (0, 1))
    with pytest.raises(CapabilityError, match="no exit action"):
        exit_scores(random_pair(lattice).forward, lattice, sample_paths(random_pair(lattice), 3))


def test_gradients_flow_through_scores_of_transitions() -> None:
    pair = random_pair(HyperGrid(2, 3))
    path = sample_paths(pair, 20)
    environment = pair.environment
    exits = exit_scores(pair.forward, environment, path)
    scores = forward_scores(pair.forward, environment, path) + backward_scores(pair.backward, environment, path)
    (scores + exits).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in pair.parameters())


def test_a_function_along_paths_is_told_the_row() -> None:
    for environment in (HyperGrid(2, 4), Stairs(5, exits=False)):
        path = sample_paths(random_pair(environment), 30)
        states, rows = [], []

        def record(at: Tensor, of: Tensor, states: list[Tensor] = states, rows: list[Tensor] = rows) -> Tensor:
            states.append(at)
            rows.append(of)
            return of.double() + 1.0

        values = evaluate_along(environment, path, record)
        inside = torch.arange(values.shape[1]) < num_transitions(environment, path)[:, None]
        assert torch.equal(values, torch.where(inside, torch.arange(30)[:, None] + 1.0, 0.0).double())
        assert torch.equal(states[0], path.states[:, : values.shape[1]][inside])
        assert not environment.is_terminal(states[0]).any() or environment.exit_action is not None
        assert torch.equal(rows[0], inside.nonzero()[:, 0])
