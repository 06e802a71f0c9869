"""Chains that stand still or stay in a mode: told from the others, and not where chance explains it."""

import math

import numpy as np
import pytest
import torch

from gfnmc.diagnostics import Trap, stuck_chains, trapped_chains
from gfnmc.diagnostics.movement import UNLIKELY, describe_chains, moves


def coin_flips(num_chains: int, num_steps: int, rate: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num_chains, num_steps)) < rate


def telegraph(num_chains: int, num_draws: int, rate: float, seed: int = 0) -> np.ndarray:
    """Chains that change between modes 0 and 1 at a rate."""
    flips = coin_flips(num_chains, num_draws, rate, seed)
    return (flips.cumsum(1) % 2).astype(np.int64)


def test_a_move_is_any_change_of_the_object() -> None:
    position = torch.tensor([[[0, 0], [0, 0], [0, 1], [0, 1]], [[1, 1], [0, 1], [1, 1], [0, 0]]])
    assert moves(position).tolist() == [[False, True, False], [True, True, True]]
    assert moves(position[:, :1]).shape == (2, 0)


def test_where_no_chain_moves_all_are_stuck() -> None:
    assert stuck_chains(np.zeros((3, 50), dtype=bool)) == [0, 1, 2]
    assert stuck_chains(np.zeros((3, 0), dtype=bool)) == []


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_one_stuck_chain_of_four_is_named(rate: float) -> None:
    has_moved = coin_flips(4, 200, rate)
    assert stuck_chains(has_moved) == []
    has_moved[2] = False
    assert stuck_chains(has_moved) == [2]
    has_moved[0] = False
    assert stuck_chains(has_moved) == [0, 2]


def test_a_chain_that_may_have_stood_still_by_chance_is_not_stuck() -> None:
    """The limit is where a chain like the others stands still with probability 1e-6."""
    steps = 100
    limit = 1.0 - math.exp(math.log(UNLIKELY) / steps)
    has_moved = np.zeros((4, steps), dtype=bool)
    for count, expected in ((math.floor(limit * steps), []), (math.ceil(limit * steps), [3])):
        has_moved[:3] = False
        has_moved[:3, :count] = True
        assert stuck_chains(has_moved) == expected


def test_a_chain_in_a_mode_that_others_leave_is_trapped() -> None:
    ids = telegraph(4, 400, 0.1)
    assert trapped_chains(ids, 2) == []
    ids[1] = 1
    assert trapped_chains(ids, 2) == [Trap(1, 1)]
    # Going out of all modes and coming back to the same one is no way out.
    ids[1, ::3] = -1
    ids[1, 0] = 1
    assert trapped_chains(ids, 2) == [Trap(1, 1)]


def test_a_short_stay_is_chance() -> None:
    ids = telegraph(4, 30, 0.1)
    ids[1] = 1
    assert trapped_chains(ids, 2) == []


def test_a_mode_that_nobody_enters_or_leaves_is_closed() -> None:
    each_in_its_own = np.repeat(np.arange(4)[:, None], 50, 1)
    assert trapped_chains(each_in_its_own, 4) == [Trap(chain, chain) for chain in range(4)]
    # One chain moves between the modes 0 and 1, the other sits in mode 2.
    ids = np.concatenate([telegraph(1, 50, 0.3), np.full((1, 50), 2)])
    assert trapped_chains(ids, 3) == [Trap(1, 2)]


def test_a_mode_that_others_enter_and_have_not_left_yet_is_not_closed() -> None:
    ids = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    assert trapped_chains(ids, 2) == []


def test_chains_that_are_all_in_one_mode_are_not_trapped_by_what_they_say() -> None:
    assert trapped_chains(np.zeros((4, 50), dtype=np.int64), 3) == []
    assert trapped_chains(np.full((4, 50), -1), 3) == []
    assert trapped_chains(np.array([[0], [1]]), 2) == []


def test_chains_are_named_or_counted() -> None:
    assert describe_chains([2], 4) == "chain 2 of 4"
    assert describe_chains([0, 2], 4) == "2 of 4 chains"
