"""Costs add up."""

import dataclasses

import pytest

from gfnmc.core.cost import Cost


def test_costs_add_up() -> None:
    assert Cost() == Cost(0, 0, 0.0)
    assert Cost(1, 2, 0.5) + Cost(10, 20, 5.0) == Cost(11, 22, 5.5)
    assert Cost(delta_calls=3, gradient_calls=1) + Cost(delta_calls=1) == Cost(0, 0, 0.0, 4, 1)
    assert sum([Cost(1, 1, 1.0)] * 3, Cost()) == Cost(3, 3, 3.0)
    assert {Cost(1, 2, 0.5), Cost(1, 2, 0.5)} == {Cost(1, 2, 0.5)}


def test_a_cost_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cost().target_calls = 1
