"""Orders that are drawn ahead are the orders drawn step by step, and as uniform as they say."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.environments import Lattice
from gfnmc.environments.filling import FixedFilling, Order, UniformFilling
from gfnmc.testing import enumerate_decisions
from tests.support import assert_close, is_identical

NUM_SITES, BLANK = 9, 2
FILLINGS = {
    "uniform": UniformFilling(NUM_SITES, BLANK),
    "fixed": FixedFilling(torch.tensor([4, 0, 8, 1, 7, 3, 5, 2, 6]), BLANK),
}


def some_states(num_rows: int, seed: int) -> Tensor:
    """States that the fixed order can meet, and of which the others are open in the uniform one."""
    order = FILLINGS["fixed"]._order
    depth = torch.arange(num_rows) % (NUM_SITES + 1)
    states = torch.full((num_rows, NUM_SITES), BLANK, dtype=torch.int8)
    for row in range(num_rows):
        states[row, order[: depth[row]]] = (row + seed) % 2
    return states


def step_by_step(filling: UniformFilling | FixedFilling, states: Tensor, draws: Draws) -> Order:
    """The same order by single choices, each followed by a number that decides something else."""
    positions, log_probs = [], []
    other = torch.full((len(states),), math.log(0.5), dtype=torch.float64)
    while True:
        active = filling.num_open(states) > 0
        if not active.any():
            return Order(torch.stack(positions), torch.stack(log_probs))
        position, log_prob = filling.next(states, draws, active)
        draws.bernoulli(other)
        positions.append(torch.where(active, position, 0))
        log_probs.append(torch.where(active, log_prob, 0.0))
        filled = states.scatter(1, position[:, None], 1)
        states = torch.where(active[:, None], filled, states)


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
@pytest.mark.parametrize("num_rows", [1, 40])
def test_an_order_ahead_is_the_order_step_by_step(filling: UniformFilling | FixedFilling, num_rows: int) -> None:
    states = some_states(num_rows, seed=1)
    num_open = filling.num_open(states)
    length, every = int(num_open.max()), filling.num_decisions + 1
    decisions = PhiloxDraws(2, "order", num_rows).ahead(every * length)
    ahead = filling.ahead(states, num_open, decisions, every)
    plain = step_by_step(filling, states, PhiloxDraws(2, "order", num_rows))
    is_step = torch.arange(length)[:, None] < num_open
    assert torch.equal(ahead.positions[is_step], plain.positions[is_step])
    assert is_identical(ahead.log_probs[is_step], plain.log_probs[is_step])
    assert not ahead.log_probs[~is_step].any()


def test_uniform_orders_are_all_orders_with_equal_probability() -> None:
    filling = UniformFilling(4, BLANK)
    states = torch.tensor([[BLANK, 1, BLANK, BLANK], [0, 1, BLANK, BLANK]], dtype=torch.int8)

    def orders(draws: Draws, rows: Tensor) -> Tensor:
        here = states[rows]
        order = filling.ahead(here, filling.num_open(here), draws.ahead(6), 2)
        return (order.positions * torch.tensor([16, 4, 1])[:, None]).sum(0)[:, None]

    found = enumerate_decisions(orders, 2)
    first = found.row == 0
    code = [16 * a + 4 * b + c for a, b, c in itertools.permutations((0, 2, 3))]
    weight = torch.zeros(64, dtype=torch.float64).index_add_(0, found.result[first, 0], found.weight[first])
    assert_close(weight[code], torch.full((6,), 1 / 6, dtype=torch.float64), 1e-15)
    assert_close(weight.sum(), 1.0, 1e-15)


def test_what_is_undone_is_drawn_without_replacement() -> None:
    filling = UniformFilling(4, BLANK)

    def undone(draws: Draws, rows: Tensor) -> Tensor:
        order = filling.undone_ahead(torch.full_like(rows, 2), draws.ahead(2))
        return (order.positions * torch.tensor([4, 1])[:, None]).sum(0)[:, None]

    found = enumerate_decisions(undone, 1)
    weight = torch.zeros(16, dtype=torch.float64).index_add_(0, found.result[:, 0], found.weight)
    wanted = torch.full((4, 4), 1 / 12, dtype=torch.float64).fill_diagonal_(0.0).flatten()
    assert_close(weight, wanted, 1e-15)
    # Negative control: with replacement the same position could be undone twice.
    assert not torch.allclose(weight, torch.full((16,), 1 / 16, dtype=torch.float64))


def test_a_fixed_order_is_undone_from_its_end_and_takes_no_decision() -> None:
    filling = FILLINGS["fixed"]
    order = filling.undone_ahead(torch.tensor([3, 1]), PhiloxDraws(0, "x", 2).ahead(0))
    assert order.positions[:, 0].tolist() == [6, 2, 5]
    assert order.positions[0, 1] == 6
    assert not order.log_probs.any()


def test_lattices_say_how_they_are_filled() -> None:
    assert isinstance(Lattice((3,), (0, 1)).filling, UniformFilling)
    assert isinstance(Lattice((3,), (0, 1), order="fixed").filling, FixedFilling)
    assert Lattice((3,), (0, 1), order="learned").filling is None
