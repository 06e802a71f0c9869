"""The network policy: a cache that is updated equals one that is recomputed, and a row's numbers are its own."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.policies import MLPPolicy
from tests.support import Stairs, assert_close, chi_square, is_identical, network_pair, random_actions, sample_paths

SPACES = {
    "uniform": Lattice((4, 4), (-1, 1), dtype=torch.int8),
    "uniform, head by position": Lattice((12,), (0, 1, 2)),
    "fixed": Lattice((10,), (0, 1), order="fixed"),
    "learned": Lattice((3, 3), (-1, 1), dtype=torch.int8, order="learned"),
    "grid": HyperGrid(3, 5),
    "stairs": Stairs(9),
}


@pytest.fixture(params=SPACES)
def environment(request: pytest.FixtureRequest) -> DiscreteEnvironment:
    return SPACES[request.param]


def policy_for(
    environment: DiscreteEnvironment, direction: Direction, dtype: torch.dtype, *, frozen: bool
) -> MLPPolicy:
    pair = network_pair(environment, dtype=dtype, seed=3)
    if frozen:
        pair = pair.frozen()
    return pair.forward if direction is Direction.FORWARD else pair.backward


def wander(environment: DiscreteEnvironment, num_rows: int, num_moves: int, seed: int) -> list[tuple]:
    """Random moves up and down, as (states before, direction, actions, states after); rows without a move stay."""
    rng = np.random.default_rng(seed)
    states, moves = environment.source(num_rows), []
    for _ in range(num_moves):
        direction = Direction.FORWARD if rng.random() < 0.6 else Direction.BACKWARD
        mask = environment.mask(states, direction).clone()
        if environment.exit_action is not None:
            mask[:, environment.exit_action] = False
        # A walk takes all its rows along; here only those that can move are followed.
        rows = mask.any(-1).nonzero()[:, 0]
        actions = random_actions(mask[rows], rng)
        move = environment.step if direction is Direction.FORWARD else environment.unstep
        after = states.clone()
        after[rows] = move(states[rows], actions)
        moves.append((states[rows], direction, actions, after[rows], rows))
        states = after
    return moves


def wandered_caches(policies: dict[Direction, MLPPolicy], moves: list[tuple], start: Tensor) -> Tensor:
    """The forward policy's cache after moves in both directions, kept up by `advance` alone."""
    cache = policies[Direction.FORWARD].begin(start)
    for before, direction, actions, _, rows in moves:
        cache = cache.clone()
        cache[rows] = policies[direction].advance(cache[rows], before, actions)
    return cache


def both_ways(environment: DiscreteEnvironment, dtype: torch.dtype, *, frozen: bool) -> dict[Direction, MLPPolicy]:
    """A forward policy, and the same network walking backward, so that one cache can be carried either way."""
    forward = policy_for(environment, Direction.FORWARD, dtype, frozen=frozen)
    backward = policy_for(environment, Direction.BACKWARD, dtype, frozen=frozen)
    backward.embedding = forward.embedding
    return {Direction.FORWARD: forward, Direction.BACKWARD: backward}


def test_an_updated_cache_is_the_recomputed_one(environment: DiscreteEnvironment) -> None:
    policies = both_ways(environment, torch.float64, frozen=False)
    for seed in range(3):
        moves = wander(environment, 20, 40, seed)
        cache = wandered_caches(policies, moves, environment.source(20))
        states = environment.source(20)
        for *_, after, rows in moves:
            states[rows] = after
        assert_close(cache, policies[Direction.FORWARD].begin(states), 1e-12)
        # Negative control: without the last move that took effect it is another cache.
        short = wandered_caches(policies, moves[:-1], environment.source(20))
        if len(moves[-1][-1]):
            assert not torch.allclose(short, cache, atol=1e-6)


def test_a_frozen_float32_cache_is_recomputed_to_the_bit(environment: DiscreteEnvironment) -> None:
    states = environment.source(20)
    moves = wander(environment, 20, 800 if isinstance(environment, Lattice) else 400, seed=5)
    for *_, after, rows in moves:
        states[rows] = after
    for frozen in (True, False):
        policies = both_ways(environment, torch.float32, frozen=frozen)
        cache = wandered_caches(policies, moves, environment.source(20))
        # Unfrozen, rounding errors pile up: the negative control.
        assert is_identical(cache, policies[Direction.FORWARD].begin(states)) == frozen
        assert torch.allclose(cache, policies[Direction.FORWARD].begin(states), atol=1e-3)


@pytest.mark.parametrize("direction", Direction)
def test_along_a_path_caches_are_those_begun_there(environment: DiscreteEnvironment, direction: Direction) -> None:
    for dtype, frozen in ((torch.float64, False), (torch.float32, True)):
        pair = network_pair(environment, dtype=dtype, seed=1)
        path = sample_paths(pair, 30, seed=2)
        policy = policy_for(environment, direction, dtype, frozen=frozen)
        place = torch.arange(path.states.shape[1])
        select = place <= path.lengths[:, None]
        select[::3] &= place % 2 == 0
        along = policy.along(path.states, path.actions, select)
        begun = policy.begin(path.states[select])
        assert_close(along, begun, 1e-12)
        assert is_identical(along, begun) or not frozen
        nothing = torch.zeros_like(select)
        assert policy.along(path.states, path.actions, nothing).shape == (0, policy.hidden_size)
        start = policy.along(path.states[:, :1], path.actions[:, :0], select[:, :1])
        assert is_identical(start, policy.begin(path.start))


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("exploration", [{}, {"temperature": 2.5}, {"epsilon": 0.3}], ids=str)
def test_the_law_is_normalised_and_holds_to_the_mask(
    environment: DiscreteEnvironment, direction: Direction, exploration: dict
) -> None:
    policy = policy_for(environment, direction, torch.float32, frozen=True).with_exploration(**exploration)
    path = sample_paths(network_pair(environment), 40)
    states = path.states.flatten(0, 1).unique(dim=0)
    states = states[environment.mask(states, direction).any(-1)]
    log_probs = policy.log_probs(policy.begin(states), states)
    assert log_probs.dtype == torch.float64
    assert_close(log_probs.exp().sum(-1), torch.ones(len(states)), 1e-12)
    assert torch.equal(log_probs > -math.inf, environment.mask(states, direction))
    # Far from uniform, or the tests of this file would test little. (Backward in a fixed order nothing is left open.)
    if not exploration and (environment.mask(states, direction).sum(-1) > 1).any():
        assert float(log_probs[log_probs > -math.inf].std()) > 0.3


@pytest.mark.parametrize("direction", Direction)
def test_what_is_sampled_is_scored_by_the_same_number(environment: DiscreteEnvironment, direction: Direction) -> None:
    policy = policy_for(environment, direction, torch.float32, frozen=True)
    for explored in (policy, policy.with_exploration(temperature=0.7, epsilon=0.1)):
        states = sample_paths(network_pair(environment), 200).states[:, 1]
        cache = explored.begin(states)
        active = environment.mask(states, direction).any(-1)
        assert active.sum() > 100
        actions, log_prob = explored.sample(cache, states, PhiloxDraws(0, "sample", 200), active)
        assert is_identical(explored.score(cache, states, actions)[active], log_prob[active])
        assert environment.mask(states, direction).gather(1, actions[:, None])[active].all()
        table = explored.log_probs(cache, states).gather(1, actions[:, None])[:, 0]
        # The head rows of one position are another float32 product than the whole head.
        is_other_product = direction is Direction.FORWARD and (environment.positions or 0) > 0
        assert_close(table[active], log_prob[active], 1e-5 if is_other_product else 1e-14)


@pytest.mark.parametrize("direction", Direction)
def test_a_row_scores_the_same_in_any_batch(environment: DiscreteEnvironment, direction: Direction) -> None:
    policy = policy_for(environment, direction, torch.float32, frozen=True)
    states = sample_paths(network_pair(environment), 400).states[:, 1]
    states = states[environment.mask(states, direction).any(-1)][:200]
    assert len(states) == 200
    actions = random_actions(environment.mask(states, direction), np.random.default_rng(4))
    whole = policy.score(policy.begin(states), states, actions)
    table = policy.log_probs(policy.begin(states), states)
    for size in (1, 7, 64):
        batches = zip(states.split(size), actions.split(size), strict=True)
        parts = torch.cat([policy.score(policy.begin(some), some, chosen) for some, chosen in batches])
        assert is_identical(parts, whole), size
        tables = torch.cat([policy.log_probs(policy.begin(some), some) for some in states.split(size)])
        assert is_identical(tables, table), size
    order = torch.from_numpy(np.random.default_rng(5).permutation(200))
    shuffled = policy.score(policy.begin(states[order]), states[order], actions[order])
    assert is_identical(shuffled, whole[order])


def test_a_drawn_position_makes_sampling_the_whole_table() -> None:
    """Sampling draws position, then value; its frequencies are those of the table of log-probabilities."""
    lattice = Lattice((3,), (0, 1, 2))
    policy = network_pair(lattice, seed=9, scale=4.0).forward
    state = torch.tensor([[3, 1, 3]], dtype=torch.int8)
    states = state.expand(60_000, -1).contiguous()
    with torch.no_grad():
        law = policy.log_probs(policy.begin(state), state)[0].exp()
        everyone = torch.ones(60_000, dtype=torch.bool)
        actions, log_prob = policy.sample(policy.begin(states), states, PhiloxDraws(1, "sample", 60_000), everyone)
    counts = torch.bincount(actions, minlength=9)
    statistic, limit = chi_square(counts, law)
    assert statistic < limit
    assert_close(log_prob, law.log()[actions], 1e-5)
    # Negative control: a law that swaps the values of each position is told apart.
    statistic, limit = chi_square(counts, law.unflatten(0, (3, 3)).flip(1).flatten())
    assert statistic > limit


def test_a_wide_action_space_uses_the_rows_of_one_position() -> None:
    lattice = Lattice((30,), (0, 1))
    policy = network_pair(lattice, seed=2).frozen().forward
    assert policy.num_actions > policy.hidden_size
    states = sample_paths(network_pair(lattice), 100).states[:, 11]
    cache = policy.begin(states)
    actions, log_prob = policy.sample(cache, states, PhiloxDraws(0, "x", 100), torch.ones(100, dtype=torch.bool))
    assert is_identical(policy.score(cache, states, actions), log_prob)
    rows = zip(cache.split(1), states.split(1), actions.split(1), strict=True)
    assert is_identical(torch.cat([policy.score(*row) for row in rows]), log_prob)
    assert_close(policy.log_probs(cache, states).gather(1, actions[:, None])[:, 0], log_prob, 1e-5)


def test_inactive_rows_get_action_zero(environment: DiscreteEnvironment) -> None:
    policy = policy_for(environment, Direction.FORWARD, torch.float32, frozen=True)
    states = environment.source(50)
    active = torch.arange(50) % 2 == 0
    actions, _ = policy.sample(policy.begin(states), states, PhiloxDraws(3, "x", 50), active)
    everyone, _ = policy.sample(policy.begin(states), states, PhiloxDraws(3, "x", 50), torch.ones(50, dtype=torch.bool))
    assert not actions[~active].any()
    assert torch.equal(actions[active], everyone[active])


def test_weights_are_named_by_the_seed_and_gradients_reach_them_all(environment: DiscreteEnvironment) -> None:
    one, same, other = (MLPPolicy(environment, hidden_size=8, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding, other.embedding)
    assert not torch.equal(one.embedding, MLPPolicy(environment, Direction.BACKWARD, hidden_size=8).embedding)
    states = sample_paths(network_pair(environment), 30).states[:, 0]
    actions = random_actions(environment.forward_mask(states), np.random.default_rng(0))
    one.score(one.begin(states), states, actions).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert one.is_positive


@pytest.mark.parametrize("options", [{"hidden_size": 0}, {"num_layers": -1}], ids=str)
def test_sizes_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError, match=r"hidden_size .* num_layers"):
        MLPPolicy(HyperGrid(2, 4), **options)
