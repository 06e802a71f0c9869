"""Models with the interface of alexhernandezgarcia/gflownet: a stand-in of it, exact by enumeration."""

from typing import Any

import pytest
import torch

from gfnmc.core.errors import CapabilityError, EnvironmentContractError, PolicyError
from gfnmc.environments import enumerate_states
from gfnmc.integrations.hernandez_garcia import from_gflownet, gflownet_target
from gfnmc.kernels import IndependenceMH, SuffixResampling, suffix
from gfnmc.testing import transition_matrix
from tests.exact.cases import balance_error, invariance_error
from tests.integrations.gflownet_stand_in import (
    StandInGrid,
    StandInModel,
    StandInProxy,
    StandInSpins,
    all_objects,
)

ENVIRONMENTS = {"grid": StandInGrid, "spins": StandInSpins}


def made(name: str, **options: Any) -> tuple[Any, Any, Any]:
    env = ENVIRONMENTS[name]()
    pair = from_gflownet(StandInModel(env, **options))
    return pair, gflownet_target(env, StandInProxy()), all_objects(env)


@pytest.mark.parametrize(
    ("name", "kernel", "has_backward"),
    [
        ("grid", SuffixResampling, True),
        ("grid", SuffixResampling, False),
        ("grid", IndependenceMH, True),
        ("spins", IndependenceMH, True),
        ("spins", IndependenceMH, False),
    ],
)
def test_an_untrained_model_leaves_the_rewards_law_invariant(name: str, kernel: Any, has_backward: bool) -> None:
    pair, target, objects = made(name, has_backward=has_backward)
    law = StandInProxy().rewards(objects.float(), log=True).double().softmax(0)
    matrix = transition_matrix(kernel(pair, target), objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, law) < 1e-6
    assert invariance_error(matrix, target.log_prob(objects).softmax(0)) < 1e-10
    assert balance_error(matrix, target.log_prob(objects).softmax(0)) < 1e-10
    assert (matrix > 0).all()


def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, target, objects = made("grid")
    right = suffix.log_hastings_ratio
    for wrong in (lambda **terms: -right(**terms), lambda **terms: torch.zeros_like(terms["log_forward_new"])):
        monkeypatch.setattr(suffix, "log_hastings_ratio", wrong)
        matrix = transition_matrix(SuffixResampling(pair, target), objects)
        assert invariance_error(matrix, target.log_prob(objects).softmax(0)) > 1e-4


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_object_and_no_other_is_built(name: str) -> None:
    pair, _, objects = made(name)
    built = enumerate_states(pair.environment).objects
    assert {tuple(x) for x in built.tolist()} == {tuple(x) for x in objects.tolist()}


def test_masks_of_the_other_polarity_are_noticed() -> None:
    class Wrong(StandInGrid):
        """True for what is allowed."""

        def get_mask_invalid_actions_forward(self, state: Any = None, done: Any = None) -> list[bool]:
            return [not invalid for invalid in super().get_mask_invalid_actions_forward(state, done)]

    with pytest.raises(PolicyError, match="a mask allows no action"):
        from_gflownet(StandInModel(Wrong()))


def test_a_mask_that_allows_what_step_refuses_is_noticed() -> None:
    class Wrong(StandInGrid):
        """Masks that call nothing invalid, and a step that knows better."""

        def get_mask_invalid_actions_forward(self, state: Any = None, done: Any = None) -> list[bool]:
            return [False] * 3 if state is not None else super().get_mask_invalid_actions_forward()

    with pytest.raises(EnvironmentContractError, match="which its mask allows"):
        from_gflownet(StandInModel(Wrong()))


def test_two_parents_by_one_action_are_refused() -> None:
    class Twice(StandInGrid):
        """A cell that two parents reach by the same action, as graphs that are written in several ways."""

        def get_parents(self, state: Any = None, done: Any = None) -> tuple[list[Any], list[Any]]:
            parents, actions = super().get_parents(state, done)
            return parents + parents, actions + actions

    with pytest.raises(CapabilityError, match="2 parents of the state"):
        from_gflownet(StandInModel(Twice()))


def test_a_model_of_another_environment_is_refused() -> None:
    spins, grid = StandInSpins(), StandInGrid(3)
    model = StandInModel(spins)
    model.forward_policy = lambda states: torch.zeros(len(states), spins.action_space_dim)
    with pytest.raises(PolicyError, match="which has 3 actions"):
        from_gflownet(model, grid)


def test_states_that_are_no_rows_need_to_be_encoded() -> None:
    class Named(StandInGrid):
        """The state is a dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.source = {"x": 0, "y": 0}

    with pytest.raises(CapabilityError, match="say with `encode` and `decode`"):
        from_gflownet(StandInModel(StandInGrid()), Named())
    continuous = StandInGrid()
    continuous.mask_dim = 5
    with pytest.raises(CapabilityError, match="only discrete environments"):
        from_gflownet(StandInModel(StandInGrid()), continuous)


def test_the_model_may_train_on() -> None:
    env = StandInGrid()
    model = StandInModel(env)
    kernel, objects = SuffixResampling(from_gflownet(model), gflownet_target(env, StandInProxy())), all_objects(env)
    before = transition_matrix(kernel, objects)
    with torch.no_grad():
        for weight in model.forward_policy.model.parameters():
            weight.add_(0.5)
    env.step((0, 1))
    assert torch.equal(transition_matrix(kernel, objects), before)
    # Negative control: a model that is adapted now is another.
    again = SuffixResampling(from_gflownet(model), gflownet_target(env, StandInProxy()))
    assert (transition_matrix(again, objects) - before).abs().max() > 1e-3


def test_states_may_be_written_in_another_way() -> None:
    env = StandInGrid()
    target = gflownet_target(
        env,
        StandInProxy(),
        encode=lambda state: torch.tensor([2 * state[0] + state[1]]),
        decode=lambda code: [int(code) // 2, int(code) % 2],
    )
    pair = from_gflownet(
        StandInModel(env),
        encode=lambda state: torch.tensor([2 * state[0] + state[1]]),
        decode=lambda code: [int(code) // 2, int(code) % 2],
    )
    matrix = transition_matrix(SuffixResampling(pair, target), torch.arange(4)[:, None])
    plain, plain_target, objects = made("grid")
    expected = transition_matrix(SuffixResampling(plain, plain_target), objects)
    torch.testing.assert_close(matrix, expected, rtol=0.0, atol=1e-12)
