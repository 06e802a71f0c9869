"""Where paths come from: exploration, replay, seeds and chains of the pair; what each costs, repeats and changes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.environments import Direction, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import GFlowNet, TabularPolicy, UniformPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, TemperedFamily, from_function
from gfnmc.training.build import build_pair
from gfnmc.training.config import TrainingConfig
from gfnmc.training.replay import ReplayBuffer
from gfnmc.training.seeds import Seeds, seeds_for
from gfnmc.training.sources import Drawn, Sources
from tests.support import CountingTarget, chi_square, network_pair, random_pair, solved_pair, terminal_law
from tests.training.cases import GRID, GRID_TARGET, assert_same_training, is_same_pair, quick, run, tiny, unchecked

BEHAVIOURS: dict[str, dict[str, Any]] = {
    "hotter": {"temperature": 2.0},
    "colder": {"temperature": 0.5},
    "no uniform actions": {"epsilon": 0.0},
    "more uniform actions": {"epsilon": 0.5},
    "no replay": {"replay_batch_size": 0},
    "replay without a bent for reward": {"replay_power": 0.0},
    "replay of what was new": {"replay_priority": "novelty", "novelty_power": 3.0},
    "even replay": {"replay_priority": "uniform"},
    "a short memory": {"buffer_size": 3},
    "chains of the pair": {"chain_batch_size": 5},
    "chains and no replay": {"chain_batch_size": 5, "replay_batch_size": 0},
    "seeds": {"seeding": "tempering"},
    "seeds in later steps alone": {"seeding": "tempering", "likelihood_until": 0.0},
    "seeds and chains": {"seeding": "tempering", "chain_batch_size": 5},
    "a capped reward": {"log_reward_range": 0.5},
    "short gradients": {"max_grad_norm": 1e-3},
}


def walked() -> CountingTarget:
    """The small grid, walked by single changes, whose calls are counted one by one."""
    return CountingTarget(from_function(GRID_TARGET.log_prob, (2,), name="walked"))


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour_is_counted_repeats_and_matters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "seeds and chains":
        unchecked(monkeypatch)
    options = BEHAVIOURS[name]
    target = walked()
    # Far from uniform, so that exploring by another law shows.
    result = quick(target, pair=network_pair(GRID), **options)
    assert result.cost.target_calls == target.num_rows
    if "seeding" not in options and "chain_batch_size" not in options:
        assert target.num_rows == 12 * 8 + 3 * 16
    assert_same_training(quick(walked(), pair=network_pair(GRID), **options), result)
    # Negative control: without it another pair is made.
    assert not is_same_pair(quick(walked(), pair=network_pair(GRID)), result)


def sources(
    pair: GFlowNet, target: Target | TemperedFamily, *, seeds: Seeds | None = None, **options: object
) -> Sources:
    config = tiny(**options)
    num_conditions = len(pair.condition_names)
    buffer = ReplayBuffer(config.buffer_size, tuple(target.event_shape), target.dtype, num_conditions=num_conditions)
    return Sources(pair, target, config, 0, buffer, seeds)


def begun_seeds(environment: HyperGrid, target: Target | TemperedFamily, config: TrainingConfig) -> Seeds:
    seeds = seeds_for(environment, target, config, 0)
    assert seeds is not None
    seeds.begin()
    return seeds


def objects_of(drawn: Drawn) -> Tensor:
    return GRID.objects(drawn.path.end)


@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 0.0), (2.5, 0.0), (0.4, 0.3)])
def test_own_paths_are_drawn_from_the_explored_policy(temperature: float, epsilon: float) -> None:
    pair = random_pair(GRID, seed=2)
    explored = pair.forward.with_exploration(temperature=temperature, epsilon=epsilon)
    options = {"temperature": temperature, "epsilon": epsilon, "batch_size": 5_000, "replay_batch_size": 0}
    drawn = sources(pair, GRID_TARGET, **options).draw(0, 1.0)
    assert drawn.is_own.all()
    counts = torch.bincount(enumerate_states(GRID).index(drawn.path.end), minlength=16)
    statistic, limit = chi_square(counts, terminal_law(explored))
    assert statistic < limit
    if (temperature, epsilon) != (1.0, 0.0):
        # Negative control, and the pair itself is as it was.
        statistic, limit = chi_square(counts, terminal_law(pair.forward))
        assert statistic > limit
    assert (pair.forward.temperature, pair.forward.epsilon) == (1.0, 0.0)


def test_a_batch_holds_own_seeded_moved_and_replayed_objects_in_this_order() -> None:
    config = tiny(seeding="tempering", chain_batch_size=5)
    seeds = begun_seeds(GRID, GRID_TARGET, config)
    made = sources(random_pair(GRID), GRID_TARGET, seeds=seeds, seeding="tempering", chain_batch_size=5)
    for step in range(3):
        drawn = made.draw(step, 1.0)
        objects = objects_of(drawn)
        assert len(objects) == 8 + 6 + 5 + 4
        assert drawn.is_own.tolist() == [True] * 8 + [False] * 15
        assert drawn.path.reached_source.all()
        assert torch.equal(GRID.objects(made.chains.position), objects[14:19])
        assert torch.equal(drawn.log_prob, GRID_TARGET.log_prob(objects))
        assert drawn.condition is None
        held = made.buffer.objects[: len(made.buffer)]
        assert (objects[19:, None] == held).all(-1).any(1).all()
        # What the pair and its chains made is remembered.
        assert (objects[[*range(8), *range(14, 19)], None] == held).all(-1).any(1).all()


def test_remembered_objects_get_a_new_way_back_each_time() -> None:
    """One object in memory, many paths to it: they differ from row to row and from step to step, as P_B has them."""
    made = sources(random_pair(GRID), GRID_TARGET, batch_size=1, replay_batch_size=400, buffer_size=1)
    corner = torch.tensor([[3, 3]])
    made.buffer.add(corner, GRID_TARGET.log_prob(corner))
    made._remember = lambda found: None  # so that nothing else is replayed
    first, second = (made.draw(step, 1.0) for step in range(2))
    for drawn in (first, second):
        assert (objects_of(drawn)[1:] == 3).all()
    assert not torch.equal(first.path.actions[1:], second.path.actions[1:])
    found = made.pair.log_backward(first.path)[1:]
    assert len(found.detach().unique()) > 10


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_what_is_replayed_follows_the_scheduled_reward(power: float) -> None:
    """As long as the reward is flat, replay is too."""
    made = sources(random_pair(GRID), GRID_TARGET, batch_size=1, replay_batch_size=6_000, replay_power=2.0)
    cells = enumerate_states(GRID).objects
    log_prob = GRID_TARGET.log_prob(cells)
    made.buffer.add(cells, log_prob)
    drawn = made.draw(0, power)
    counts = torch.bincount(enumerate_states(GRID).index(drawn.path.end[1:]), minlength=16)
    statistic, limit = chi_square(counts, (2.0 * power * log_prob).softmax(0))
    assert statistic < limit
    statistic, limit = chi_square(counts, (2.0 * power * log_prob + 0.5 * log_prob).softmax(0))
    assert statistic > limit


def test_seeds_are_chosen_anew_at_each_step() -> None:
    config = tiny(seeding="tempering")
    made = sources(random_pair(GRID), GRID_TARGET, seeds=begun_seeds(GRID, GRID_TARGET, config), seeding="tempering")
    likely = [objects_of(made.draw_seeds(step)) for step in (0, 0, 1)]
    later = [objects_of(made.draw(step, 1.0))[8:14] for step in (2, 2, 3)]
    for first, again, other in (likely, later):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert len(likely[0]) == 8 + 6


def test_chains_start_from_what_is_remembered_and_go_on() -> None:
    target = CountingTarget(GRID_TARGET)
    pair = random_pair(GRID)
    made = sources(pair, target, chain_batch_size=50, replay_batch_size=0)
    drawn = made.draw(0, 1.0)
    held = objects_of(drawn)[:8]
    # A chain that has not moved stands on an object of the first batch.
    stayed = (made.chains.position[:, None] == held).all(-1).any(1)
    assert stayed.any()
    assert target.num_rows == drawn.calls.target_calls == 8 + 50
    before = made.chains.position
    drawn = made.draw(1, 1.0)
    assert drawn.calls.policy_calls > 0
    moved = (made.chains.position != before).any(1)
    assert 0 < int(moved.sum()) < 50
    assert torch.equal(made.chains.log_prob, GRID_TARGET.log_prob(made.chains.position))


def test_chains_have_the_law_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some steps, wherever they began and however rough the pair; without the accept step it would be P_F's."""
    unchecked(monkeypatch)
    target = HyperGridTarget(2, 4)
    rough = random_pair(GRID, seed=1)
    made = sources(rough, target, chain_batch_size=2_000, replay_batch_size=0)
    for step in range(60):
        made.draw(step, 1.0)
    counts = torch.bincount(enumerate_states(GRID).index(made.chains.position), minlength=16)
    statistic, limit = chi_square(counts, target.exact().log_pmf.exp())
    assert statistic < limit
    statistic, limit = chi_square(counts, terminal_law(rough.forward))
    assert statistic > limit


def test_chains_are_possible_where_most_objects_are_not() -> None:
    target = HyperGridTarget(2, 4, r0=0.0)
    result = quick(target, chain_batch_size=6, batch_size=16)
    assert result.cost.target_calls > 12 * 16


def test_seeds_of_a_family_keep_their_conditions_in_the_batch() -> None:
    family = TemperedFamily(GRID_TARGET, 0.3)
    config = tiny(seeding="tempering")
    pair = build_pair(GRID, config, seed=0, condition_names=family.condition_names)
    made = sources(pair, family, seeds=begun_seeds(GRID, family, config), seeding="tempering")
    for drawn in (made.draw_seeds(0), made.draw(1, 1.0), made.draw(2, 1.0)):
        assert drawn.condition is not None and drawn.condition.shape == (len(drawn.log_prob), 1)
        assert ((drawn.condition >= 0.3) & (drawn.condition <= 1.0)).all()
        wanted = drawn.condition[:, 0] * GRID_TARGET.log_prob(objects_of(drawn))
        assert torch.allclose(drawn.log_prob, wanted, atol=1e-12)
    # Own paths are drawn under conditions of their own, a row each.
    assert len(made.draw(3, 1.0).condition[:8].unique()) == 8


def test_sources_of_one_step_do_not_share_random_numbers() -> None:
    """The same step drawn again is the same, another step is not, and a longer batch begins like a shorter one."""
    pair = GFlowNet(UniformPolicy(GRID, Direction.FORWARD))
    short, long = (sources(pair, GRID_TARGET, batch_size=size, replay_batch_size=0).draw(4, 1.0) for size in (20, 50))
    again = sources(pair, GRID_TARGET, batch_size=20, replay_batch_size=0).draw(4, 1.0)
    other = sources(pair, GRID_TARGET, batch_size=20, replay_batch_size=0).draw(5, 1.0)
    assert torch.equal(objects_of(short), objects_of(again))
    assert torch.equal(objects_of(short), objects_of(long)[:20])
    assert not torch.equal(objects_of(short), objects_of(other))


def test_exploration_is_not_scored() -> None:
    """An exact pair that explores has no loss: paths are scored without temperature and uniform actions."""
    target = Ising((3,), 0.6, field=0.3)
    environment = Lattice.for_target(target)
    exact = solved_pair(environment, target)
    pair = GFlowNet(TabularPolicy(exact.forward.graph, Direction.FORWARD, exact.forward.logits.detach().clamp(min=-50)))
    with torch.no_grad():
        pair.log_z_weight.copy_(exact.log_z_weight)
    options = {"temperature": 3.0, "epsilon": 0.4, "num_steps": 1, "replay_batch_size": 0}
    result = run(environment, target, tiny(**options), pair=pair)
    assert result.history["loss"][0] < 1e-20
