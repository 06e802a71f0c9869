"""Gradients that recompute the layers are those of autograd, which keeps them."""

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import Lattice
from gfnmc.policies import GFlowNet, MLPPolicy, Path
from gfnmc.policies import mlp_fill_gradient as module
from gfnmc.policies.rollout import _forward_scores_by_state
from tests.policies.test_filled import LATTICES, make_pair
from tests.support import assert_close, random_numbers


def gradients(total: Tensor, policy: MLPPolicy) -> list[Tensor]:
    found = torch.autograd.grad(total, list(policy.parameters()), allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(policy.parameters(), found, strict=True)]


def by_autograd(pair: GFlowNet, path: Path) -> Tensor:
    """log P_F of paths, every state scored through the network as it is written down."""
    return _forward_scores_by_state(pair.forward, pair.environment, path).sum(1)


def partial_paths(pair: GFlowNet, num_rows: int) -> Path:
    up = pair.sample_forward(pair.environment.source(num_rows), PhiloxDraws(3, "up", num_rows))
    num_steps = torch.arange(num_rows) % (pair.environment.num_sites + 1)
    return pair.sample_backward(up.end, num_steps, PhiloxDraws(3, "down", num_rows))


@pytest.mark.parametrize("num_layers", [0, 1, 2])
@pytest.mark.parametrize("num_rows", [1, 7, 300])
@pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES)
def test_gradients_are_those_of_autograd(lattice: Lattice, num_rows: int, num_layers: int) -> None:
    pair = make_pair(lattice, torch.float64, num_layers=num_layers)
    whole = pair.sample_forward(lattice.source(num_rows), PhiloxDraws(3, "up", num_rows))
    assert whole.walked_with is not None
    weights = random_numbers(8, num_rows)
    for path in (whole, partial_paths(pair, max(num_rows, 3))):
        weights = random_numbers(8, len(path.lengths))
        found, wanted = pair.log_forward(path), by_autograd(pair, path)
        assert_close(found, wanted, 1e-11)
        pairs = zip(
            gradients((weights * found).sum(), pair.forward),
            gradients((weights * wanted).sum(), pair.forward),
            strict=True,
        )
        for one, other in pairs:
            assert_close(one, other, 1e-11 * (1.0 + float(other.abs().max())))
            # Negative control: they are not just zero.
        assert any(
            float(gradient.abs().max()) > 1e-3 for gradient in gradients(by_autograd(pair, path).sum(), pair.forward)
        )


def test_gradients_of_conditions_reach_their_encoder() -> None:
    lattice = LATTICES["three values"]
    family = make_pair(lattice, torch.float64, num_conditions=2)
    pair = family.given(random_numbers(5, 20, 2))
    path = pair.sample_forward(lattice.source(20), PhiloxDraws(3, "up", 20))
    pairs = zip(
        gradients(pair.log_forward(path).square().sum(), pair.forward),
        gradients(by_autograd(pair, path).square().sum(), pair.forward),
        strict=True,
    )
    for one, other in pairs:
        assert_close(one, other, 1e-9 * (1.0 + float(other.abs().max())))


def test_explored_scores_have_gradients_too() -> None:
    lattice = LATTICES["two values"]
    pair = make_pair(lattice, torch.float64)
    explored = GFlowNet(pair.forward.with_exploration(temperature=1.7, epsilon=0.1))
    path = pair.sample_forward(lattice.source(20), PhiloxDraws(3, "up", 20))
    for one, other in zip(
        gradients(explored.log_forward(path).sum(), pair.forward),
        gradients(by_autograd(explored, path).sum(), pair.forward),
        strict=True,
    ):
        assert_close(one, other, 1e-11 * (1.0 + float(other.abs().max())))


def test_a_term_left_out_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without what later states contribute, the embeddings' gradient is another."""
    lattice = LATTICES["two values"]
    pair = make_pair(lattice, torch.float64)
    path = pair.sample_forward(lattice.source(20), PhiloxDraws(3, "up", 20))
    wanted = gradients(by_autograd(pair, path).sum(), pair.forward)
    monkeypatch.setattr(module._Sums, "_before", lambda self, pre, done: pre.new_zeros(done.numel(), pre.shape[1]))
    found = gradients(pair.log_forward(path).sum(), pair.forward)
    assert any(not torch.allclose(one, other, atol=1e-6) for one, other in zip(found, wanted, strict=True))


def test_paths_without_steps_have_nothing_to_learn_from() -> None:
    pair = make_pair(LATTICES["two values"], torch.float64)
    up = pair.sample_forward(pair.environment.source(4), PhiloxDraws(3, "up", 4))
    nothing = pair.sample_backward(up.end, torch.zeros(4, dtype=torch.int64), PhiloxDraws(3, "down", 4))
    assert pair.log_forward(nothing).tolist() == [0.0] * 4
