"""Environments that contradict themselves are caught, each by a check that a sound one passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import EnvironmentContractError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice, TokenChange, check_environment, enumerate_states
from tests.support import Stairs


class ForbidsUndoing(HyperGrid):
    def backward_mask(self, states: Tensor) -> Tensor:
        return super().backward_mask(states) & (states[:, :1] != 2)


class UnstepsElsewhere(HyperGrid):
    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return super().unstep(states, (1 - actions).clamp(min=0))


class NeverAtSource(HyperGrid):
    def is_source(self, states: Tensor) -> Tensor:
        return torch.zeros(len(states), dtype=torch.bool)


class AlwaysAtSource(HyperGrid):
    def is_source(self, states: Tensor) -> Tensor:
        return torch.ones(len(states), dtype=torch.bool)


class SourceElsewhere(HyperGrid):
    def is_source(self, states: Tensor) -> Tensor:
        return states.sum(1) <= 1


class CountsInMask(Lattice):
    def forward_mask(self, states: Tensor) -> Tensor:
        return super().forward_mask(states).to(torch.int64)


class BackwardMaskOfFloats(Lattice):
    def backward_mask(self, states: Tensor) -> Tensor:
        return super().backward_mask(states).to(torch.float32)


class ForgetsExitColumn(HyperGrid):
    def forward_mask(self, states: Tensor) -> Tensor:
        return super().forward_mask(states)[:, :-1]


class BackwardMaskTooWide(Lattice):
    def backward_mask(self, states: Tensor) -> Tensor:
        return torch.nn.functional.pad(super().backward_mask(states), (0, 1))


class RunsInCircles(Stairs):
    """Action 0 climbs to 3, action 1 falls from 3 back to 1."""

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.where(actions[:, None] == 1, states - 2, states + 1)

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.where(actions[:, None] == 1, states + 2, states - 1)

    def forward_mask(self, states: Tensor) -> Tensor:
        return torch.cat([states < 3, states == 3, torch.ones_like(states, dtype=torch.bool)], 1)

    def backward_mask(self, states: Tensor) -> Tensor:
        return torch.cat([states >= 1, states == 1, torch.zeros_like(states, dtype=torch.bool)], 1)


class WrongDepth(HyperGrid):
    def depth(self, states: Tensor) -> Tensor:
        return states[:, 0].to(torch.int64)


class DeeperThanSaid(Lattice):
    def __init__(self) -> None:
        super().__init__((3,), (0, 1))
        self.max_depth = 2


class UndoesTheSource(HyperGrid):
    def backward_mask(self, states: Tensor) -> Tensor:
        return super().backward_mask(states) | ((states == 0).all(1) & torch.tensor([[True], [False], [False]])).T


class WidensDtype(Lattice):
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return super().step(states, actions).to(torch.int64)


class ChangesShape(HyperGrid):
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return super().step(states, actions)[:, None]


class EndsNowhere(Lattice):
    def is_terminal(self, states: Tensor) -> Tensor:
        return torch.zeros(len(states), dtype=torch.bool)


class StepsInPlace(HyperGrid):
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.add_(super().step(states, actions) - states)


class ForgetsTheObject(HyperGrid):
    def states(self, objects: Tensor) -> Tensor:
        return objects.clamp(max=1)


class WrongTokenChange(HyperGrid):
    def changed_tokens(self, states: Tensor, actions: Tensor) -> TokenChange:
        right = super().changed_tokens(states, actions)
        return TokenChange(right.added, right.removed)


class LopsidedTokenChange(HyperGrid):
    def changed_tokens(self, states: Tensor, actions: Tensor) -> TokenChange:
        right = super().changed_tokens(states, actions)
        return TokenChange(right.removed.repeat(1, 2), right.added)


class SmallVocabulary(HyperGrid):
    def __init__(self, num_dims: int, side: int) -> None:
        super().__init__(num_dims, side)
        self.vocabulary -= 2


class NumbersAnotherWay(HyperGrid):
    def state_numbers(self, states: Tensor) -> Tensor:
        return super().state_numbers(states.flip(-1))


class CountsOnWrongly(HyperGrid):
    def __init__(self, num_dims: int, side: int) -> None:
        super().__init__(num_dims, side)
        assert self.number_steps is not None
        self.number_steps = self.number_steps.flip(0)


class NumbersTooFew(HyperGrid):
    def numbered_states(self) -> Tensor:
        return super().numbered_states()[1:]


BROKEN: dict[str, tuple[Callable[[], DiscreteEnvironment], str]] = {
    "backward_mask forbids the action taken": (lambda: ForbidsUndoing(2, 4), "forbids undoing"),
    "unstep leads elsewhere": (lambda: UnstepsElsewhere(2, 4), "unstep does not return"),
    "is_source denies the source": (lambda: NeverAtSource(2, 4), "is_source denies"),
    "is_source is always true": (lambda: AlwaysAtSource(2, 4), "is_source calls a state after a step"),
    "is_source is true elsewhere too": (lambda: SourceElsewhere(2, 4), "is_source calls a state after a step"),
    "a forward mask of integers": (lambda: CountsInMask((3,), (0, 1)), "torch.int64 .*return torch.bool"),
    "a backward mask of floats": (lambda: BackwardMaskOfFloats((3,), (0, 1)), "torch.float32 .*return torch.bool"),
    "a forward mask without its exit": (lambda: ForgetsExitColumn(2, 4), r"shape \(32, 2\); .*\(32, 3\)"),
    "a backward mask too wide": (lambda: BackwardMaskTooWide((3,), (0, 1)), r"shape \(32, 7\); .*\(32, 6\)"),
    "depth is wrong": (lambda: WrongDepth(2, 4), "is_graded, but depth"),
    "paths exceed max_depth": (DeeperThanSaid, "more than 2 actions has not ended"),
    "a cycle": (lambda: RunsInCircles(3), "more than 3 actions has not ended"),
    "the source can be undone": (lambda: UndoesTheSource(2, 4), "allows an action at the source"),
    "step changes the dtype": (lambda: WidensDtype((3,), (0, 1)), "step returned torch.int64"),
    "step changes the shape": (lambda: ChangesShape(2, 4), r"step returned .*of shape \(32, 1, 2\)"),
    "step changes its input": (lambda: StepsInPlace(2, 4), "step changes the states it is given"),
    "states forgets": (lambda: ForgetsTheObject(1, 4), r"states\(objects\(state\)\) is not the state"),
    "tokens change the other way": (lambda: WrongTokenChange(2, 4), "changed_tokens is not the difference"),
    "more tokens go than come": (lambda: LopsidedTokenChange(2, 4), "remove as many tokens as it adds"),
    "a token beyond the vocabulary": (lambda: SmallVocabulary(1, 4), "outside the vocabulary of 2"),
    "states have other numbers": (lambda: NumbersAnotherWay(2, 4), "not the place of a state"),
    "steps lead to other numbers": (lambda: CountsOnWrongly(2, 4), r"action 0 does not add number_steps\[0\]"),
    "a state without a number": (lambda: NumbersTooFew(2, 4), "returns 15 states, not num_numbers"),
    "a path ends in no object": (lambda: EndsNowhere((3,), (0, 1)), "not terminal"),
}

CAUGHT_BY_ENUMERATION: dict[str, tuple[Callable[[], DiscreteEnvironment], str]] = {
    "backward_mask forbids the action taken": (lambda: ForbidsUndoing(2, 4), "backward_mask forbids undoing it"),
    "unstep leads elsewhere": (lambda: UnstepsElsewhere(2, 4), "unstep does not lead back"),
    "is_source is always true": (lambda: AlwaysAtSource(2, 4), "is_source calls the result the source"),
    "is_source is true elsewhere too": (lambda: SourceElsewhere(2, 4), "is_source calls the result the source"),
    "a cycle": (lambda: RunsInCircles(3), "has a cycle"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_quick_check_catches(name: str) -> None:
    broken, message = BROKEN[name]
    with pytest.raises(EnvironmentContractError, match=message):
        check_environment(broken())


@pytest.mark.parametrize("name", CAUGHT_BY_ENUMERATION)
def test_enumeration_catches(name: str) -> None:
    broken, message = CAUGHT_BY_ENUMERATION[name]
    with pytest.raises(EnvironmentContractError, match=message):
        enumerate_states(broken())


def test_a_contradiction_is_shown_by_state_and_action() -> None:
    with pytest.raises(EnvironmentContractError, match=r"ForbidsUndoing: action 0 .*state \[1, \d\].*\[2, \d\]"):
        enumerate_states(ForbidsUndoing(2, 4))
    with pytest.raises(EnvironmentContractError, match=r"ForbidsUndoing: .*\(state \[2, \d\]\)"):
        check_environment(ForbidsUndoing(2, 4))


def test_sound_environments_pass() -> None:
    """The negative control: what is broken above is all that is wrong with them."""
    for environment in (HyperGrid(2, 4), Lattice((3,), (0, 1)), HyperGrid(2, 3), Stairs(4), Stairs(4, exits=False)):
        check_environment(environment)
        enumerate_states(environment)


def test_shared_action_ids_are_declared_not_contradictions() -> None:
    class Merges(Stairs):
        """Both actions lead one step up, and which one it was cannot be told: unstep undoes two."""

        parents_share_actions = True

        def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
            return states - 2

    check_environment(Merges(4))
    enumerate_states(Merges(4))
    Merges.parents_share_actions = False
    with pytest.raises(EnvironmentContractError, match="unstep"):
        check_environment(Merges(4))
