"""At an exact solution every objective is zero with no gradient, on every path; a little beside it, it is not."""

import pytest
import torch
from torch import Tensor

from gfnmc.objectives import detailed_balance, maximum_likelihood, trajectory_likelihood
from gfnmc.policies import TabularPolicy
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from tests.objectives.cases import (
    ENVIRONMENTS,
    FORWARD_LOOKING,
    NO_FLOW,
    OBJECTIVES,
    Learned,
    Problem,
    log_z_of,
    problem,
    random_backward,
    solved,
    untrained,
)
from tests.support import assert_close, random_numbers

CASES = [
    (name, environment)
    for name in OBJECTIVES
    for environment in ENVIRONMENTS
    if name != "modified detailed balance" or environment not in ("lattice", "stairs without exits")
]


def exact(environment: str, name: str) -> tuple[Problem, Learned]:
    it = problem(environment)
    return it, solved(it, random_backward(it), forward_looking=name in FORWARD_LOOKING)


def losses(it: Problem, learned: Learned, name: str) -> Tensor:
    return OBJECTIVES[name](it, learned, it.path, it.path_log_reward)


@pytest.mark.parametrize(("name", "environment"), CASES)
def test_zero_at_the_solution(name: str, environment: str) -> None:
    it, learned = exact(environment, name)
    found = losses(it, learned, name)
    assert found.shape == (len(it.path.lengths),)
    assert float(found.detach().abs().max()) <= 1e-20
    for gradient in torch.autograd.grad(found.sum(), learned.parameters, allow_unused=True):
        assert gradient is None or float(gradient.abs().max()) <= 1e-10
    assert log_z_of(it, learned, name) == pytest.approx(it.log_z, abs=1e-10)


@pytest.mark.parametrize(("name", "environment"), CASES)
def test_not_zero_beside_it(name: str, environment: str) -> None:
    """Another P_F, another flow or log Z, another reward: each alone is seen, and has a gradient."""
    for what in ("forward", "flow"):
        if what == "flow" and name in NO_FLOW:
            continue
        it, learned = exact(environment, name)
        (parameter,) = getattr(learned, what).parameters()
        with torch.no_grad():
            parameter.add_(0.5 * random_numbers(1, *parameter.shape))
        found = losses(it, learned, name)
        assert float(found.detach().max()) > 1e-2, what
        (gradient,) = torch.autograd.grad(found.sum(), [parameter])
        assert float(gradient.abs().max()) > 1e-2, what
    it, learned = exact(environment, name)
    if name != "modified detailed balance":
        tilted = it.path_log_reward + 0.3 * it.graph.index(it.path.end)
        assert float(OBJECTIVES[name](it, learned, it.path, tilted).detach().max()) > 1e-3
    if name == "trajectory balance":
        learned.log_z = learned.log_z + 0.1
        assert_close((losses(it, learned, name) - 0.01).abs().max(), 0.0, 1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_not_zero_with_another_backward_policy(name: str) -> None:
    it, learned = exact("larger hypergrid", name)
    learned.backward = random_backward(it, seed=99)
    found = float(losses(it, learned, name).detach().max())
    # Flow matching alone reads no P_B.
    assert found < 1e-20 if name == "flow matching" else found > 1e-2


@pytest.mark.parametrize("environment", ["hypergrid", "stairs", "subsets"])
def test_the_exit_counts(environment: str) -> None:
    it, learned = exact(environment, "detailed balance")
    transitions = learned.transitions(it.path, it.path_log_reward)
    is_exit = torch.arange(transitions.log_forward.shape[1]) == it.path.lengths[:, None]
    forgotten = transitions._replace(log_forward=transitions.log_forward.masked_fill(is_exit, 0.0))
    assert float(detailed_balance(transitions).detach().max()) < 1e-20
    # A path that ends where nothing but the exit is left has an exit that costs nothing.
    is_forced = (transitions.log_forward.detach() * is_exit).sum(1) > -1e-12
    assert is_forced.any()
    assert float(detailed_balance(forgotten)[~is_forced].detach().min()) > 1e-4


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_flow_matching_is_detailed_balance_with_the_induced_backward_policy(environment: str) -> None:
    it = problem(environment)
    learned = untrained(it)
    with torch.no_grad():
        for parameter in learned.parameters:
            parameter.add_(random_numbers(2, *parameter.shape))
    learned.backward = FlowBackwardPolicy(learned.forward, learned.flow)
    found, wanted = (losses(it, learned, name) for name in ("flow matching", "detailed balance"))
    assert_close(found, wanted, 1e-12)
    assert float(found.detach().min()) > 1e-4


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_likelihoods_are_least_at_the_solution(environment: str) -> None:
    """They are entropies there, not zero, and have no gradient on average."""
    it, learned = exact(environment, "")
    assert isinstance(learned.forward, TabularPolicy)
    log_forward, log_backward = learned.log_forward(it.path), learned.log_backward(it.path)
    weight = (it.path_log_reward - it.log_z + log_backward).exp().detach()
    assert_close(weight, log_forward.exp(), 1e-12)
    forward_loss = (weight * maximum_likelihood(log_forward)).sum()
    assert_close(forward_loss, -(weight * weight.log()).sum(), 1e-12)
    backward_loss = (log_forward.detach().exp() * trajectory_likelihood(log_backward)).sum()
    for loss, module in ((forward_loss, learned.forward), (backward_loss, learned.backward)):
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        assert float(gradients[0].abs().max()) <= 1e-10
    # Negative control: uniform weights.
    (gradient,) = torch.autograd.grad(maximum_likelihood(learned.log_forward(it.path)).sum(), [learned.forward.logits])
    assert float(gradient.abs().max()) > 1e-2
