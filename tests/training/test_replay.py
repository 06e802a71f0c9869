"""The replay buffer: the newest distinct objects, drawn by their reward, by how new they were, or alike."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.training import replay
from gfnmc.training.replay import ReplayBuffer
from tests.support import chi_square, is_identical


def rows(*values: int) -> Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2).contiguous()


def held(buffer: ReplayBuffer) -> dict[int, float]:
    return {int(x[0]): float(r) for x, r in zip(buffer.objects[: len(buffer)], buffer.log_reward, strict=False)}


def filled(*log_reward: float) -> ReplayBuffer:
    buffer = ReplayBuffer(10, (2,), torch.int64)
    buffer.add(rows(*range(len(log_reward))), torch.tensor(log_reward).double())
    return buffer


def counts(buffer: ReplayBuffer, power: float, num_draws: int = 20_000, **options: object) -> Tensor:
    return torch.bincount(buffer.choose(PhiloxDraws(2, "x", num_draws), power, **options), minlength=len(buffer))


def assert_law(found: Tensor, wanted: Tensor, wrong: Tensor) -> None:
    """The counts fit a law, and as the negative control do not fit another."""
    statistic, limit = chi_square(found, wanted)
    assert statistic < limit
    statistic, limit = chi_square(found, wrong)
    assert statistic > limit


def test_it_holds_the_newest_distinct_objects() -> None:
    buffer = ReplayBuffer(3, (2,), torch.int64)
    assert len(buffer) == 0
    buffer.add(rows(1, 2, 1, 1), torch.tensor([0.1, 0.2, 0.1, 0.1]).double())
    assert held(buffer) == pytest.approx({1: 0.1, 2: 0.2}, abs=1e-6)
    buffer.add(rows(2, 3), torch.tensor([0.2, 0.3]).double())
    assert held(buffer) == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3}, abs=1e-6)
    buffer.add(rows(3, 4, 5, 4), torch.tensor([0.3, 0.4, 0.5, 0.4]).double())
    assert held(buffer) == pytest.approx({3: 0.3, 4: 0.4, 5: 0.5}, abs=1e-6)
    # What was forgotten may come back.
    buffer.add(rows(1), torch.tensor([0.1]).double())
    assert held(buffer) == pytest.approx({4: 0.4, 5: 0.5, 1: 0.1}, abs=1e-6)
    assert len(buffer) == 3


def test_more_than_it_holds_at_once() -> None:
    buffer = ReplayBuffer(3, (2,), torch.int64)
    buffer.add(rows(*range(10)), torch.arange(10).double())
    assert held(buffer) == {7: 7.0, 8: 8.0, 9: 9.0}


def test_one_object_under_two_conditions_is_two_entries() -> None:
    buffer = ReplayBuffer(4, (2,), torch.int64, num_conditions=1)
    conditions = torch.tensor([[0.5], [1.0], [0.5]]).double()
    buffer.add(rows(1, 1, 1), torch.tensor([0.5, 1.0, 0.5]).double(), conditions)
    assert len(buffer) == 2
    assert buffer.conditions[:2].tolist() == [[0.5], [1.0]]
    assert buffer.log_reward[:2].tolist() == [0.5, 1.0]
    buffer.add(rows(1, 2), torch.tensor([1.0, 2.0]).double(), torch.tensor([[1.0], [1.0]]).double())
    assert len(buffer) == 3
    # Forgetting an entry forgets its condition with it.
    buffer.add(rows(3, 4), torch.tensor([3.0, 4.0]).double(), torch.tensor([[1.0], [1.0]]).double())
    buffer.add(rows(1), torch.tensor([0.5]).double(), torch.tensor([[0.5]]).double())
    assert buffer.num_added == 6
    assert buffer.conditions.tolist() == [[1.0], [0.5], [1.0], [1.0]]


@pytest.mark.parametrize("num_conditions", [0, 2])
def test_a_restored_buffer_goes_on_as_the_first(num_conditions: int) -> None:
    first, second = (ReplayBuffer(4, (2,), torch.int64, num_conditions=num_conditions) for _ in range(2))

    def conditions(*values: int) -> Tensor:
        return torch.tensor(values).double()[:, None].expand(-1, num_conditions) / 2

    first.add(rows(1, 2, 3, 4, 5), torch.arange(5).double(), conditions(1, 1, 2, 2, 3))
    for name in ("objects", "log_reward", "novelty", "conditions"):
        getattr(second, name).copy_(getattr(first, name))
    second.restore(first.num_added)
    for buffer in (first, second):
        buffer.add(rows(2, 6, 5, 7), torch.arange(4).double(), conditions(1, 1, 3, 1))
    for name in ("objects", "log_reward", "novelty", "conditions"):
        assert is_identical(getattr(first, name), getattr(second, name))
    assert first.num_added == second.num_added
    draws = PhiloxDraws(0, "x", 100)
    assert torch.equal(first.choose(draws, 0.5), second.choose(draws.at(0), 0.5))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_draws_are_in_proportion_to_the_reward_to_a_power(power: float) -> None:
    log_reward = torch.tensor([0.0, 1.0, 2.0, -1.0]).double()
    found = counts(filled(*log_reward.tolist()), power)
    assert_law(found, (power * log_reward).softmax(0), ((power + 0.3) * log_reward).softmax(0))


def test_uniform_draws_ask_for_no_reward() -> None:
    buffer = filled(0.0, 1.0, 2.0, -1.0)
    flat = torch.full((4,), 0.25).double()
    assert_law(counts(buffer, 3.0, priority="uniform"), flat, buffer.log_reward[:4].mul(0.3).softmax(0))


@pytest.mark.parametrize("novelty_power", [0.0, 1.0, 2.5])
def test_novelty_counts_to_its_own_power(novelty_power: float) -> None:
    buffer = ReplayBuffer(10, (4,), torch.int64)
    log_reward = torch.tensor([0.3, -0.4, 0.9]).double()
    # Each differs from those before it in four, one and two of four places.
    for x, value in zip(([0, 0, 0, 0], [0, 0, 0, 1], [2, 0, 0, 2]), log_reward, strict=True):
        buffer.add(torch.tensor([x]), value[None])
    assert buffer.novelty[:3].tolist() == [1.0, 0.25, 0.5]
    log_weights = 0.7 * log_reward + novelty_power * buffer.novelty[:3].log()
    wrong = log_weights + (novelty_power + 0.3) * buffer.novelty[:3].log()
    found = counts(buffer, 0.7, priority="novelty", novelty_power=novelty_power)
    assert_law(found, log_weights.softmax(0), wrong.softmax(0))


def test_novelty_is_the_distance_to_the_nearest_one_remembered_before() -> None:
    generator = torch.Generator().manual_seed(0)
    objects = torch.randint(0, 3, (40, 2, 3), generator=generator)
    buffer = ReplayBuffer(100, (2, 3), torch.int64)
    for x in objects:
        before = buffer.objects[: len(buffer)].clone()
        count = len(buffer)
        buffer.add(x[None], torch.zeros(1).double())
        if len(buffer) > count > 0:
            nearest = min(float((x != other).double().mean()) for other in before)
            assert float(buffer.novelty[count]) == pytest.approx(nearest)
    assert float(buffer.novelty[0]) == 1.0
    assert 0.1 < float(buffer.novelty[1 : len(buffer)].min()) < float(buffer.novelty[: len(buffer)].max())


def test_novelty_looks_back_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_NUM_REFERENCES", 2)
    buffer = ReplayBuffer(3, (2,), torch.int64)
    for x in ([0, 0], [1, 1], [2, 2]):
        buffer.add(torch.tensor([x]), torch.zeros(1).double())
    # Near to the first, which is no longer looked at, and far from the last two.
    buffer.add(torch.tensor([[0, 9]]), torch.zeros(1).double())
    assert buffer.novelty.tolist() == [1.0, 1.0, 1.0]
    buffer.add(torch.tensor([[0, 8]]), torch.zeros(1).double())
    assert buffer.novelty.tolist() == [1.0, 0.5, 1.0]


def test_an_object_held_under_another_condition_is_hardly_new_but_may_be_drawn() -> None:
    buffer = ReplayBuffer(4, (2,), torch.int64, num_conditions=1)
    for condition in (0.5, 1.0):
        buffer.add(rows(1), torch.zeros(1).double(), torch.tensor([[condition]]).double())
    assert buffer.novelty[:2].tolist() == [1.0, 0.25]
    assert counts(buffer, 1.0, 1_000, priority="novelty").min() > 0


@pytest.mark.parametrize("priority", ["reward", "novelty", "uniform"])
def test_impossible_objects_are_left_out_whatever_the_priority(priority: str) -> None:
    for power in (0.0, 0.5):
        some = counts(filled(0.5, -math.inf, 1.5), power, 500, priority=priority)
        assert some[1] == 0 and some.sum() == 500 and some.min() == 0
        none = counts(filled(-math.inf, -math.inf), power, 100, priority=priority)
        assert none.min() > 0
