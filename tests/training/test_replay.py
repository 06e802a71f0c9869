"""The replay buffer: the newest distinct objects, drawn in proportion to their reward to a power."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.training.replay import ReplayBuffer
from tests.support import chi_square


def rows(*values: int) -> Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2).contiguous()


def held(buffer: ReplayBuffer) -> dict[int, float]:
    return {int(x[0]): float(r) for x, r in zip(buffer.objects[: len(buffer)], buffer.log_reward, strict=False)}


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


def test_a_restored_buffer_goes_on_as_the_first() -> None:
    first, second = (ReplayBuffer(4, (2,), torch.int64) for _ in range(2))
    first.add(rows(1, 2, 3, 4, 5), torch.arange(5).double())
    second.objects.copy_(first.objects)
    second.log_reward.copy_(first.log_reward)
    second.restore(first.num_added)
    for buffer in (first, second):
        buffer.add(rows(2, 6, 5, 7), torch.arange(4).double())
    assert torch.equal(first.objects, second.objects)
    assert torch.equal(first.log_reward, second.log_reward)
    assert first.num_added == second.num_added


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_draws_are_in_proportion_to_the_reward_to_a_power(power: float) -> None:
    buffer = ReplayBuffer(10, (2,), torch.int64)
    log_reward = torch.tensor([0.0, 1.0, 2.0, -1.0]).double()
    buffer.add(rows(0, 1, 2, 3), log_reward)
    objects, its = buffer.sample(PhiloxDraws(2, "x", 20_000), power)
    counts = torch.bincount(objects[:, 0], minlength=4)
    statistic, limit = chi_square(counts, (power * log_reward).softmax(0))
    assert statistic < limit
    statistic, limit = chi_square(counts, ((power + 0.3) * log_reward).softmax(0))
    assert statistic > limit
    assert torch.equal(its, log_reward[objects[:, 0]])


def test_impossible_objects_are_left_out_at_every_power() -> None:
    buffer = ReplayBuffer(4, (2,), torch.int64)
    buffer.add(rows(1, 2, 3), torch.tensor([0.5, -math.inf, 1.5]).double())
    for power in (0.0, 0.5):
        objects, log_reward = buffer.sample(PhiloxDraws(0, "x", 500), power)
        assert set(objects[:, 0].tolist()) == {1, 3}
        assert log_reward.isfinite().all()
    nothing = ReplayBuffer(4, (2,), torch.int64)
    nothing.add(rows(1, 2), torch.tensor([-math.inf, -math.inf]).double())
    for power in (0.0, 0.5):
        objects, log_reward = nothing.sample(PhiloxDraws(0, "x", 100), power)
        assert set(objects[:, 0].tolist()) == {1, 2}
        assert (log_reward == -math.inf).all()
