"""Scores that recompute their layers have the numbers and the gradients of autograd."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Sequences, Subsets
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.policies import mlp_score_gradient as module
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.rollout import exit_scores
from tests.support import assert_close, random_numbers

ENVIRONMENTS: dict[str, DiscreteEnvironment] = {
    "grid": HyperGrid(3, 5),
    "subsets": Subsets(6),
    "sequences": Sequences(3, 5),
}


def make_pair(environment: DiscreteEnvironment, num_layers: int = 2, temperature: float = 1.0) -> GFlowNet:
    policies = []
    for direction in Direction:
        policy = MLPPolicy(environment, direction, hidden_size=20, num_layers=num_layers, dtype=torch.float64)
        with torch.no_grad():
            for place, weight in enumerate(policy.parameters()):
                weight.add_(0.3 * random_numbers(place, *weight.shape))
        policies.append(policy.with_exploration(temperature=temperature))
    return GFlowNet(*policies)


def total_and_gradients(scores: Tensor, policy: DiscretePolicy) -> tuple[Tensor, list[Tensor]]:
    weights = random_numbers(8, len(scores))
    return scores.detach(), list(torch.autograd.grad((weights * scores).sum(), list(policy.parameters())))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("num_layers", [0, 2])
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_scores_and_gradients_are_those_of_autograd(
    monkeypatch: pytest.MonkeyPatch, environment: DiscreteEnvironment, num_layers: int, temperature: float
) -> None:
    pair = make_pair(environment, num_layers, temperature)
    path = pair.sample_forward(environment.source(300), PhiloxDraws(1, "up", 300))
    used = []
    learning_scores = module.learning_scores
    monkeypatch.setattr("gfnmc.policies.mlp.learning_scores", lambda *args: used.append(args) or learning_scores(*args))
    asked = [(pair.forward, lambda: pair.log_forward(path)), (pair.backward, lambda: pair.log_backward(path))]
    if environment.exit_action is not None:
        asked.append((pair.forward, lambda: exit_scores(pair.forward, environment, path).sum(1)))
    found = [total_and_gradients(scores(), policy) for policy, scores in asked]
    assert len(used) == len(asked)
    monkeypatch.setattr(MLPPolicy, "score_along", DiscretePolicy.score_along)
    for (policy, scores), (mine, gradients) in zip(asked, found, strict=True):
        wanted, others = total_and_gradients(scores(), policy)
        assert_close(mine, wanted, 1e-12)
        for one, other in zip(gradients, others, strict=True):
            assert_close(one, other, 1e-11 * (1.0 + float(other.abs().max())))
        # One parent leaves nothing to learn.
        assert bool((wanted == 0.0).all()) or any(float(gradient.abs().max()) > 1e-2 for gradient in others)


def test_what_the_walk_knows_is_used_where_it_is_the_same_law() -> None:
    environment = ENVIRONMENTS["grid"]
    pair = make_pair(environment)
    path = pair.sample_forward(environment.source(50), PhiloxDraws(1, "up", 50))
    assert path.walked_with.known(pair.forward) is not None
    assert path.walked_with.known(pair.forward.with_exploration(temperature=2.0)) is None
    assert path.walked_with.known(pair.forward.with_exploration(epsilon=0.1)) is None
    assert path.walked_with.known(make_pair(environment).forward) is None
    with torch.no_grad():
        pair.forward.head_bias[0] += 1.0
    assert path.walked_with.known(pair.forward) is None
    # Negative control: the old numbers would be wrong by now.
    assert not torch.allclose(pair.log_forward(path).detach(), path.log_forward)


def test_a_gradient_left_out_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the law's own part, the gradient of a log-probability is another."""
    environment = ENVIRONMENTS["grid"]
    pair = make_pair(environment)
    path = pair.sample_forward(environment.source(50), PhiloxDraws(1, "up", 50))
    _, right = total_and_gradients(pair.log_forward(path), pair.forward)
    softmax = module.masked_log_softmax
    monkeypatch.setattr(module, "masked_log_softmax", lambda *args, **options: softmax(*args, **options) - 50.0)
    _, wrong = total_and_gradients(pair.log_forward(path), pair.forward)
    assert any(not torch.allclose(one, other, atol=1e-6) for one, other in zip(wrong, right, strict=True))
