"""Walks that are made at once are the walks made step by step, to the bit, and so are their scores."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import PolicyError
from gfnmc.environments import Lattice
from gfnmc.policies import GFlowNet, MLPPolicy, Path, walk_forward
from gfnmc.policies import filled as filled_module
from gfnmc.policies.filled import empty, score_empty, score_fill
from gfnmc.policies.rollout import score_backward, score_forward
from tests.policies.plain import (
    plain_score_backward,
    plain_score_forward,
    plain_walk_backward,
    plain_walk_forward,
)
from tests.support import assert_close, is_identical, random_numbers

LATTICES = {
    "two values": Lattice((4, 4), (-1, 1), dtype=torch.int8),
    "two values, few sites": Lattice((2, 2), (0, 1)),
    "three values": Lattice((3, 7), (0, 1, 2)),
    "four values, few sites": Lattice((8,), (0, 1, 2, 3)),
    "five values": Lattice((30,), (0, 1, 2, 3, 4)),
    "fixed": Lattice((4, 5), (-1, 1), order="fixed"),
    "fixed, shuffled": Lattice((7,), (0, 1, 2), order="fixed", site_order=(3, 0, 6, 1, 5, 2, 4)),
    "one site": Lattice((1,), (0, 1)),
}
EXPLORATIONS = ({}, {"temperature": 0.6}, {"epsilon": 0.2}, {"temperature": 2.0, "epsilon": 0.05})


def make_pair(lattice: Lattice, dtype: torch.dtype, *, num_layers: int = 2, num_conditions: int = 0) -> GFlowNet:
    """An MLP far from uniform, with the uniform P_B."""
    policy = MLPPolicy(lattice, hidden_size=24, num_layers=num_layers, dtype=dtype, num_conditions=num_conditions)
    with torch.no_grad():
        for place, weight in enumerate(policy.parameters()):
            weight.add_(0.3 * random_numbers(place, *weight.shape).to(dtype))
    return GFlowNet(policy, condition_names=tuple(f"c{number}" for number in range(num_conditions)))


def draws_for(num_rows: int, role: str) -> PhiloxDraws:
    return PhiloxDraws(3, role, num_rows)


def assert_same_path(one: Path, other: Path) -> None:
    for name in ("states", "actions", "lengths", "reached_source", "start", "end"):
        assert is_identical(getattr(one, name), getattr(other, name)), name
    for name in ("log_forward", "log_backward"):
        if getattr(other, name) is not None:
            assert is_identical(getattr(one, name), getattr(other, name)), name


@pytest.fixture(params=LATTICES)
def lattice(request: pytest.FixtureRequest) -> Lattice:
    return LATTICES[request.param]


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


# Below, at and above the sizes of blocks that walk and are scored together.
@pytest.mark.parametrize("num_rows", [1, 5, 64, 300])
def test_whole_walks_are_those_step_by_step(lattice: Lattice, dtype: torch.dtype, num_rows: int) -> None:
    pair = make_pair(lattice, dtype).frozen()
    assert pair.forward.filler() is not None and pair.backward.empties_as_filled
    source = lattice.source(num_rows)
    up = pair.sample_forward(source, draws_for(num_rows, "up"))
    assert_same_path(up, plain_walk_forward(pair.forward, lattice, source, draws_for(num_rows, "up")))
    by_row = torch.arange(num_rows) % (lattice.num_sites + 1)
    for num_steps in (None, by_row, torch.full_like(by_row, lattice.num_sites // 2), by_row * 0, by_row + 1_000):
        down = pair.sample_backward(up.end, num_steps, draws_for(num_rows, "down"))
        plain = plain_walk_backward(pair.backward, lattice, up.end, num_steps, draws_for(num_rows, "down"))
        assert_same_path(down, plain)
        assert is_identical(pair.log_forward(down), plain_score_forward(pair.forward, lattice, plain))
        again = pair.sample_forward(down.start, draws_for(num_rows, "again"))
        plain = plain_walk_forward(pair.forward, lattice, down.start, draws_for(num_rows, "again"))
        assert_same_path(again, plain)
        assert is_identical(pair.log_backward(again), plain_score_backward(pair.backward, plain))
        # A walk is scored by its own numbers.
        assert is_identical(score_forward(pair.forward, lattice, plain), again.log_forward)


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=str)
@pytest.mark.parametrize("num_layers", [0, 1])
def test_explored_walks_are_those_step_by_step(dtype: torch.dtype, exploration: dict, num_layers: int) -> None:
    for lattice in (LATTICES["two values"], LATTICES["three values"]):
        pair = make_pair(lattice, dtype, num_layers=num_layers).frozen()
        explored = pair.forward.with_exploration(**exploration)
        up = walk_forward(explored, lattice, lattice.source(100), draws_for(100, "up"))
        assert_same_path(up, plain_walk_forward(explored, lattice, lattice.source(100), draws_for(100, "up")))
        assert is_identical(score_forward(explored, lattice, up), up.log_forward)
        # Negative control: by another law than it was drawn by, the path has another probability.
        other = score_forward(pair.forward, lattice, up)
        assert is_identical(other, up.log_forward) == (not exploration)


def test_conditions_of_rows_follow_them(dtype: torch.dtype) -> None:
    lattice = LATTICES["three values"]
    family = make_pair(lattice, dtype, num_conditions=2).frozen()
    conditions = random_numbers(5, 80, 2)
    pair = family.given(conditions)
    up = pair.sample_forward(lattice.source(80), draws_for(80, "up"))
    assert_same_path(up, plain_walk_forward(pair.forward, lattice, lattice.source(80), draws_for(80, "up")))
    num_steps = torch.arange(80) % 22
    down = pair.sample_backward(up.end, num_steps, draws_for(80, "down"))
    assert is_identical(pair.log_forward(down), plain_score_forward(pair.forward, lattice, down))
    again = pair.sample_forward(down.start, draws_for(80, "again"))
    assert_same_path(again, plain_walk_forward(pair.forward, lattice, down.start, draws_for(80, "again")))
    # Negative control: with the conditions of others it is another walk.
    other = family.given(conditions.flip(0)).sample_forward(lattice.source(80), draws_for(80, "up"))
    assert not torch.equal(other.end, up.end)


def test_caches_at_both_ends_are_those_begun_there(lattice: Lattice, dtype: torch.dtype) -> None:
    pair = make_pair(lattice, dtype).frozen()
    filler = pair.forward.filler()
    up = pair.sample_forward(lattice.source(70), draws_for(70, "up"))
    assert is_identical(up.end_cache, pair.forward.begin(up.end))
    num_steps = torch.arange(70) % (lattice.num_sites + 1)
    down = pair.sample_backward(up.end, num_steps, draws_for(70, "down"))
    start_cache = filler.retreat(up.end_cache, down.actions, down.lengths)
    assert is_identical(start_cache, pair.forward.begin(down.start))
    again = pair.sample_forward(down.start, draws_for(70, "again"), start_cache)
    assert_same_path(again, pair.sample_forward(down.start, draws_for(70, "again")))
    assert is_identical(filler.moved(up.end_cache, up.end, again.end), again.end_cache)
    # Negative control: a cache that belongs to other states makes another walk.
    if lattice.num_sites > 1:
        wrong = pair.sample_forward(down.start, draws_for(70, "again"), start_cache.flip(0))
        assert not is_identical(wrong.log_forward, again.log_forward)


def test_off_the_grid_sums_would_differ() -> None:
    """Negative control of all the above: the embeddings of a pair that is not frozen do not add up the same."""
    lattice = LATTICES["two values"]
    for dtype in (torch.float32, torch.float64):
        pair = make_pair(lattice, dtype)
        up = pair.sample_forward(lattice.source(70), draws_for(70, "up"))
        assert not is_identical(up.end_cache, pair.forward.begin(up.end))
        assert torch.allclose(up.end_cache, pair.forward.begin(up.end), atol=1e-4)


def test_scores_know_what_was_computed_on_the_way_and_by_which_weights() -> None:
    lattice = LATTICES["three values"]
    pair = make_pair(lattice, torch.float64)
    up = pair.sample_forward(lattice.source(40), draws_for(40, "up"))
    with torch.no_grad():
        assert pair.forward.filler().known_differences(up.walked_with) is not None
        assert is_identical(pair.log_forward(up), up.log_forward)
        pair.forward.head.mul_(1.5)
        assert pair.forward.filler().known_differences(up.walked_with) is None
        assert_close(pair.log_forward(up), plain_score_forward(pair.forward, lattice, up), 1e-12)
        assert not torch.allclose(pair.log_forward(up), up.log_forward)


def test_weights_that_are_not_numbers_are_refused() -> None:
    lattice = LATTICES["three values"]
    pair = make_pair(lattice, torch.float64)
    with torch.no_grad():
        pair.forward.hidden_bias[0][3] = math.nan
    with pytest.raises(PolicyError, match="row 0 has nothing to choose from"):
        pair.sample_forward(lattice.source(4), draws_for(4, "up"))


def test_a_wrong_order_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: rows that are put back in the wrong order, a mistake that the lengths alone do not show."""
    lattice = LATTICES["two values"]
    pair = make_pair(lattice, torch.float64).frozen()
    up = pair.sample_forward(lattice.source(70), draws_for(70, "up"))
    down = empty(lattice, up.end, torch.arange(70) % 17, draws_for(70, "down"))
    right = score_fill(pair.forward.filler(), lattice, down, pair.forward.begin(down.start))
    monkeypatch.setattr(filled_module._Rows, "back", lambda self, values: values)
    wrong = score_fill(pair.forward.filler(), lattice, down, pair.forward.begin(down.start))
    assert not torch.equal(wrong, right)


def test_undoing_in_the_order_that_fits_has_the_probabilities_of_uniform_choices() -> None:
    lattice = LATTICES["two values"]
    up = make_pair(lattice, torch.float64).sample_forward(lattice.source(9), draws_for(9, "up"))
    scores = score_empty(lattice, up)
    expected = -torch.arange(1.0, 17.0, dtype=torch.float64).log()
    assert_close(scores, expected.expand(9, -1), 1e-15)
    assert_close(score_backward(GFlowNet(MLPPolicy(lattice)).backward, lattice, up), expected.sum().expand(9), 1e-12)
    fixed = LATTICES["fixed"]
    only = make_pair(fixed, torch.float64).sample_forward(fixed.source(3), draws_for(3, "up"))
    assert not score_empty(fixed, only).any()


def test_states_on_the_way_are_laid_out_when_they_are_asked_for() -> None:
    lattice = LATTICES["three values"]
    up = make_pair(lattice, torch.float32).sample_forward(lattice.source(6), draws_for(6, "up"))
    assert not isinstance(up.walked, Tensor)
    assert up.states.shape == (6, 22, 21)
    assert torch.equal(up.states[:, 0], up.start) and torch.equal(up.states[:, -1], up.end)
    assert up.states is up.states
