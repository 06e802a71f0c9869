"""Laws looked up in a table are those of the network, to the bit; and only frozen policies of small spaces have one."""

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import Direction, HyperGrid, Lattice
from gfnmc.policies import GFlowNet, MLPPolicy, law_table
from gfnmc.policies.law_table import TabulatedWalk
from gfnmc.policies.rollout import score_backward, score_forward
from tests.policies.test_filled import assert_same_path
from tests.support import is_identical, network_pair

GRID = HyperGrid(3, 6)


def frozen_pair(dtype: torch.dtype = torch.float32) -> GFlowNet:
    return network_pair(GRID, seed=3, dtype=dtype).frozen()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_walks_and_scores_are_those_of_the_network(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, temperature: float
) -> None:
    pair = frozen_pair(dtype)
    forward, backward = (policy.with_exploration(temperature=temperature) for policy in (pair.forward, pair.backward))
    pair = GFlowNet(forward, backward)
    draws = PhiloxDraws(1, "up", 200)

    def figures() -> tuple:
        up = pair.sample_forward(GRID.source(200), PhiloxDraws(1, "up", 200))
        down = pair.sample_backward(up.end, None, draws.role("down").at(3))
        return up, down, score_forward(forward, GRID, down), score_backward(backward, GRID, up)

    assert isinstance(forward.for_walk(), TabulatedWalk) and isinstance(backward.for_walk(), TabulatedWalk)
    looked_up = figures()
    monkeypatch.setattr(law_table, "MOST_STATES", 0)
    assert isinstance(forward.for_walk(), MLPPolicy) and isinstance(backward.for_walk(), MLPPolicy)
    computed = figures()
    assert_same_path(looked_up[0], computed[0])
    assert_same_path(looked_up[1], computed[1])
    assert all(is_identical(one, other) for one, other in zip(looked_up[2:], computed[2:], strict=True))


def test_a_network_is_evaluated_once_at_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = frozen_pair()
    seen, log_probs = [], pair.forward.log_probs
    monkeypatch.setattr(
        pair.forward, "log_probs", lambda cache, states: seen.append(states) or log_probs(cache, states)
    )
    for step in range(3):
        pair.sample_forward(GRID.source(50), PhiloxDraws(1, "up", 50).at(step))
    assert len(seen) == 1 and torch.equal(seen[0], GRID.numbered_states())


def test_each_law_has_its_table() -> None:
    forward = frozen_pair().forward
    tempered = forward.with_exploration(temperature=3.0)
    paths = [
        GFlowNet(policy).sample_forward(GRID.source(50), PhiloxDraws(1, "up", 50)) for policy in (forward, tempered)
    ]
    # Negative control: with the first one's table the other would walk as the first does.
    assert not torch.equal(paths[0].lengths, paths[1].lengths)


def test_who_has_no_table() -> None:
    learning = network_pair(GRID, seed=3).forward
    assert not isinstance(learning.for_walk(), TabulatedWalk)
    large = MLPPolicy(HyperGrid(4, 12), hidden_size=4).frozen()
    assert HyperGrid(4, 12).num_numbers > law_table.MOST_STATES and not isinstance(large.for_walk(), TabulatedWalk)
    unnumbered = MLPPolicy(Lattice((2, 2), (0, 1)), hidden_size=4).frozen()
    assert not isinstance(unnumbered.for_walk(), TabulatedWalk)
    conditional = MLPPolicy(GRID, hidden_size=4, num_conditions=1).frozen().given(torch.tensor([0.5]))
    assert not isinstance(conditional.for_walk(), TabulatedWalk)


@pytest.mark.parametrize("direction", Direction)
def test_numbers_follow_the_steps(direction: Direction) -> None:
    states = GRID.numbered_states()
    assert torch.equal(GRID.state_numbers(states), torch.arange(GRID.num_numbers))
    assert GRID.number_steps is not None
    mask = GRID.mask(states, direction)
    rows, actions = mask.nonzero(as_tuple=True)
    move = GRID.step if direction is Direction.FORWARD else GRID.unstep
    sign = 1 if direction is Direction.FORWARD else -1
    moved = GRID.state_numbers(move(states[rows], actions))
    assert torch.equal(moved, rows + sign * GRID.number_steps[actions])
