"""Policies and environments with the interface of gfnx: a stand-in of it, exact by enumeration."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gfnmc.core.draws import normal
from gfnmc.core.errors import CapabilityError, EnvironmentContractError
from gfnmc.environments import enumerate_states
from gfnmc.integrations.gfnx import from_gfnx, gfnx_field, gfnx_target
from gfnmc.kernels import IndependenceMH, SuffixResampling, suffix
from gfnmc.testing import transition_matrix
from tests.exact.cases import balance_error, invariance_error
from tests.integrations.gfnx_stand_in import StandInGrid, StandInIsing

ENVIRONMENTS = {"spins": StandInIsing, "grid": StandInGrid}


def untrained(env: Any, num_actions: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    weights = normal(seed, "weights", (env.dim, num_actions), torch.float32).numpy()
    return lambda obs: obs @ weights


def made(name: str, *, has_backward: bool = True) -> tuple[Any, Any, Any]:
    """A pair, the target and the environment."""
    env = ENVIRONMENTS[name](2)
    forward, backward = untrained(env, env.action_space.n, 1), untrained(env, env.backward_action_space.n, 2)
    pair = from_gfnx(
        env,
        env.init(),
        forward=forward,
        backward=backward if has_backward else None,
        is_fixed_length=name == "spins",
    )
    return pair, gfnx_target(env, env.init()), env


@pytest.mark.parametrize(
    ("name", "kernel", "has_backward"),
    [
        ("spins", SuffixResampling, True),
        ("spins", IndependenceMH, False),
        ("grid", SuffixResampling, True),
        ("grid", IndependenceMH, False),
    ],
)
def test_untrained_policies_leave_the_rewards_law_invariant(name: str, kernel: Any, has_backward: bool) -> None:
    pair, target, env = made(name, has_backward=has_backward)
    objects = enumerate_states(pair.environment).objects
    built = gfnx_field(env, objects, "state")
    assert len(objects) == {"spins": 4, "grid": 9}[name] == len(built.unique(dim=0))
    law = (1.5 * torch.sin((built * torch.tensor([1.0, 3.3])).sum(1))).double().softmax(0)
    matrix = transition_matrix(kernel(pair, target), objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, law) < 1e-6
    assert invariance_error(matrix, target.log_prob(objects).softmax(0)) < 1e-10
    assert balance_error(matrix, target.log_prob(objects).softmax(0)) < 1e-10
    assert (matrix > 0).all()


def test_negative_controls_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, target, _ = made("spins")
    objects = enumerate_states(pair.environment).objects
    law, right = target.log_prob(objects).softmax(0), suffix.log_hastings_ratio
    for wrong in (lambda **terms: -right(**terms), lambda **terms: torch.zeros_like(terms["log_forward_new"])):
        monkeypatch.setattr(suffix, "log_hastings_ratio", wrong)
        assert invariance_error(transition_matrix(SuffixResampling(pair, target), objects), law) > 1e-3


def test_backward_actions_that_are_taken_for_forward_ones_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandInGrid, "get_forward_action", lambda self, state, action, before, params: action)
    with pytest.raises(EnvironmentContractError, match="unstep does not return"):
        made("grid")


def test_two_parents_by_one_action_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(self: Any, state: Any, action: np.ndarray, before: Any, params: Any) -> np.ndarray:
        return np.where((state.state > 0).all(1), 0, self.dim - 1 - action)

    monkeypatch.setattr(StandInGrid, "get_forward_action", alike)
    with pytest.raises(CapabilityError, match="two parents reach a state of stand-in grid"):
        made("grid")


def test_states_of_other_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StandInGrid.get_init_state
    monkeypatch.setattr(
        StandInGrid, "get_init_state", lambda self, n: plain(self, n).replace(state=np.zeros((n, 2), np.float32))
    )
    with pytest.raises(CapabilityError, match="the 'state' of a state of stand-in grid"):
        made("grid")
