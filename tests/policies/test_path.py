"""Paths: what is cut off, joined and turned round is still a path, padded as one."""

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.policies import Path, score_backward, walk_backward
from gfnmc.policies.path import joined, reversed_path
from tests.policies.test_rollout import assert_is_a_path
from tests.support import Stairs, assert_close, random_pair, sample_paths

ENVIRONMENTS = [Lattice((3,), (-1, 1), dtype=torch.int8), HyperGrid(2, 4), Stairs(6)]


@pytest.fixture(params=ENVIRONMENTS, ids=lambda environment: type(environment).__name__)
def environment(request: pytest.FixtureRequest) -> DiscreteEnvironment:
    return request.param


def test_after_cuts_off_the_beginning(environment: DiscreteEnvironment) -> None:
    path = sample_paths(random_pair(environment), 100)
    for depth in (torch.arange(100) % 5, torch.zeros(100, dtype=torch.int64), torch.full((100,), 50)):
        cut = path.after(depth)
        assert_is_a_path(cut, environment)
        assert torch.equal(cut.lengths, (path.lengths - depth).clamp(min=0))
        assert torch.equal(cut.end, path.end)
        for row in range(0, 100, 7):
            kept, first = int(cut.lengths[row]), int(path.lengths[row] - cut.lengths[row])
            assert torch.equal(cut.actions[row, :kept], path.actions[row, first : first + kept])
            assert torch.equal(cut.states[row, : kept + 1], path.states[row, first : first + kept + 1])
        assert cut.log_forward is None
        assert cut.log_backward is None


def test_a_path_and_its_rest_add_up(environment: DiscreteEnvironment) -> None:
    pair = random_pair(environment)
    path = sample_paths(pair, 60)
    whole = pair.log_forward(path).detach()
    for depth in range(environment.max_depth):
        rest = path.after(torch.full((60,), depth))
        first = path.after(torch.full((60,), depth)).start
        again = rest.after(torch.ones(60, dtype=torch.int64))
        # The score of the rest is that of its first action and of what follows it.
        law = pair.forward.log_probs(pair.forward.begin(first), first).detach()
        long = rest.lengths > 0
        if long.any():
            step = law[long].gather(1, rest.actions[long][:, :1])[:, 0]
            assert_close(pair.log_forward(rest).detach()[long], step + pair.log_forward(again).detach()[long], 1e-12)
        if depth == 0:
            assert_close(pair.log_forward(rest).detach(), whole, 1e-12)


def test_joined_paths_are_the_two_batches(environment: DiscreteEnvironment) -> None:
    pair = random_pair(environment)
    first = sample_paths(pair, 40)
    ends = first.end[:30]
    second = walk_backward(pair.backward, environment, ends, torch.arange(30) % 3, PhiloxDraws(1, "x", 30))
    for one, other in ((first, second), (second, first), (first, first)):
        both = joined(one, other)
        assert_is_a_path(both, environment)
        assert both.lengths.tolist() == [*one.lengths.tolist(), *other.lengths.tolist()]
        assert torch.equal(both.end, torch.cat([one.end, other.end]))
        assert torch.equal(both.start, torch.cat([one.start, other.start]))
        assert both.log_forward is None
        scores = torch.cat([pair.log_forward(one), pair.log_forward(other)]).detach()
        assert_close(pair.log_forward(both).detach(), scores, 1e-12)


def test_a_walk_down_is_a_path_up(environment: DiscreteEnvironment) -> None:
    """Against turning each row round by hand."""
    pair = random_pair(environment)
    ends = sample_paths(pair, 50).end
    down = walk_backward(pair.backward, environment, ends, torch.arange(50) % 4, PhiloxDraws(2, "x", 50))
    # Record it from the object down again, with rubbish after each row's end, as a walk leaves it.
    length = down.actions.shape[1]
    visited, undone = torch.full_like(down.states, 1), torch.full_like(down.actions, 1)
    for row in range(50):
        steps = int(down.lengths[row])
        visited[row, : steps + 1] = down.states[row, : steps + 1].flip(0)
        undone[row, :steps] = down.actions[row, :steps].flip(0)
    up = reversed_path(visited, undone, down.lengths, down.reached_source, down.log_backward)
    assert up.actions.shape == (50, length)
    for field in ("states", "actions", "lengths", "reached_source", "log_backward"):
        assert torch.equal(getattr(up, field), getattr(down, field)), field
    assert_close(score_backward(pair.backward, environment, up).detach(), up.log_backward, 1e-12)


def test_which_actions_are_padding() -> None:
    path = Path(torch.zeros(3, 3, 1), torch.zeros(3, 2).long(), torch.tensor([0, 1, 2]), torch.zeros(3).bool())
    assert path.is_action.tolist() == [[False, False], [True, False], [True, True]]
    assert path.start.shape == path.end.shape == (3, 1)
