"""Swendsen-Wang and Wolff, proved: production code, every bond and every cluster followed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.lookup import RowIndex
from gfnmc.environments import Lattice
from gfnmc.kernels import Cycle, Kernel, RandomWalk, Reach, clusters, swendsen_wang
from gfnmc.kernels.swendsen_wang import SwendsenWang
from gfnmc.kernels.wolff import Wolff
from gfnmc.targets import EdwardsAnderson, Ising, Potts, Target
from gfnmc.targets.base import product_space
from gfnmc.testing import enumerate_decisions, move_matrix, transition_matrix
from tests.exact.cases import balance_error, invariance_error, is_connected
from tests.support import random_numbers

# Couplings of both signs, one of them 0.
MIXED = torch.cat([random_numbers(3, 8), torch.zeros(1, dtype=torch.float64)])
TARGETS: dict[str, Target] = {
    "square": Ising((2, 2), 0.7 * random_numbers(1, 4)),
    "ring": Ising((3,), 0.6 * random_numbers(2, 3)),
    "2x3": Ising((2, 3), 0.6 * MIXED),
    "chain": Ising((4,), 0.8, periodic=False),
    "single site": Ising((1,), 0.5),
    "glass": EdwardsAnderson((2, 2), 0.6, seed=3),
    "Potts ring": Potts((3,), 3, 0.9),
    "Potts without coupling": Potts((2,), 3, 0.0),
}
WITH_FIELD: dict[str, Target] = {
    "square in a field": Ising((2, 2), 0.7 * random_numbers(1, 4), field=0.5 * random_numbers(4, 2, 2)),
    "ring in a field": Ising((3,), -0.4, field=0.3),
    "2x3 in a field": Ising((2, 3), 0.6 * MIXED, field=0.4 * random_numbers(5, 2, 3)),
}
CASES = [(SwendsenWang, name) for name in TARGETS | WITH_FIELD] + [(Wolff, name) for name in TARGETS]
BOUND = [(kind, name) for kind, name in CASES if name not in ("single site", "Potts without coupling")]


def space(target: Target) -> Tensor:
    assert target.values is not None
    return product_space(target.values, target.event_shape, target.dtype)


def kernel_of(kind: Callable[..., Kernel], name: str) -> Kernel:
    target = (TARGETS | WITH_FIELD)[name]
    return kind(Lattice.for_target(target), target)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_leaves_the_target_invariant_and_is_reversible(kind: Callable[..., Kernel], name: str) -> None:
    kernel = kernel_of(kind, name)
    objects = space(kernel.target)
    pmf = kernel.target.log_prob(objects).softmax(0)
    matrix = transition_matrix(kernel, objects)
    assert (matrix.sum(1) - 1.0).abs().max() < 1e-12
    assert invariance_error(matrix, pmf) < 1e-10
    assert balance_error(matrix, pmf) < 1e-12
    if kind is SwendsenWang:
        assert kernel.reach is Reach.EVERYWHERE and (matrix > 0).all() and kernel.may_stay
    else:
        assert kernel.reach is Reach.CONNECTED and is_connected(matrix)
        assert not kernel.may_stay and not matrix.diagonal().any()


log_active = clusters.log_active_probability
WRONG_BONDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "half the strength": lambda strength, power: log_active(0.5 * strength, power),
    "twice the strength": lambda strength, power: log_active(2.0 * strength, power),
    "the other probability": lambda strength, power: -power[:, None] * strength,
}


@pytest.mark.parametrize("control", WRONG_BONDS)
@pytest.mark.parametrize(("kind", "name"), [case for case in BOUND if "2x3" not in case[1]])
def test_wrong_bond_probabilities_fail(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Kernel], name: str, control: str
) -> None:
    kernel = kernel_of(kind, name)
    objects = space(kernel.target)
    pmf = kernel.target.log_prob(objects).softmax(0)
    monkeypatch.setattr(clusters, "log_active_probability", WRONG_BONDS[control])
    assert invariance_error(transition_matrix(kernel, objects), pmf) > 1e-3


log_flip = swendsen_wang.log_flip_probability
WRONG_FLIPS: dict[str, Callable[..., Tensor]] = {
    "field ignored": lambda *terms: torch.full_like(log_flip(*terms), 0.5).log(),
    "inverted": lambda field, *terms: log_flip(-field, *terms),
    "half the field": lambda field, *terms: log_flip(0.5 * field, *terms),
    "of the root alone": lambda field, values, labels, power: log_flip(
        field, values, torch.arange(labels.shape[1]).expand_as(labels), power
    ),
}


@pytest.mark.parametrize("control", WRONG_FLIPS)
@pytest.mark.parametrize("name", ["square in a field", "ring in a field"])
def test_wrong_flips_in_a_field_fail(monkeypatch: pytest.MonkeyPatch, name: str, control: str) -> None:
    kernel = kernel_of(SwendsenWang, name)
    objects = space(kernel.target)
    pmf = kernel.target.log_prob(objects).softmax(0)
    monkeypatch.setattr(swendsen_wang, "log_flip_probability", WRONG_FLIPS[control])
    assert invariance_error(transition_matrix(kernel, objects), pmf) > 1e-3


@pytest.mark.parametrize(
    ("kind", "name"),
    [(SwendsenWang, "square in a field"), (SwendsenWang, "Potts ring"), (Wolff, "glass"), (Wolff, "Potts ring")],
)
def test_each_row_keeps_the_law_of_its_own_temperature(kind: Callable[..., Kernel], name: str) -> None:
    kernel = kernel_of(kind, name)
    target, objects = kernel.target, space(kernel.target)
    ladder = torch.tensor([1.0, 0.35, 2.0, 0.0], dtype=torch.float64)
    points = torch.cartesian_prod(torch.arange(len(ladder)), torch.arange(len(objects)))
    index = RowIndex(objects)

    def move(draws: Draws, rows: Tensor) -> Tensor:
        rung, place = points[rows].unbind(1)
        tempered = kernel.tempered(ladder[rung])
        state, _ = tempered.step(draws, tempered.init(objects[place]))
        torch.testing.assert_close(state.log_prob, target.log_prob(state.position), rtol=0.0, atol=0.0)
        return torch.stack([rung, index.find(state.position)], 1)

    matrix = move_matrix(move, points).unflatten(0, (len(ladder), -1)).unflatten(2, (len(ladder), -1))
    for rung, beta in enumerate(ladder.tolist()):
        law = (beta * target.log_prob(objects)).softmax(0)
        assert invariance_error(matrix[rung, :, rung], law) < 1e-10
        assert balance_error(matrix[rung, :, rung], law) < 1e-12
        alone = transition_matrix(kernel.tempered(beta), objects)
        torch.testing.assert_close(matrix[rung, :, rung], alone, rtol=0.0, atol=1e-14)
    # Negative control: the matrix of one temperature does not keep the law of another.
    assert invariance_error(matrix[1, :, 1], target.log_prob(objects).softmax(0)) > 1e-3


@pytest.mark.parametrize("kind", [SwendsenWang, Wolff])
def test_a_potts_model_of_two_colours_is_an_ising_model_of_half_the_coupling(kind: Callable[..., Kernel]) -> None:
    ising, potts = Ising((2, 2), 0.35), Potts((2, 2), 2, 0.7)
    one, other = (transition_matrix(kind(Lattice.for_target(t), t), space(t)) for t in (ising, potts))
    torch.testing.assert_close(one, other, rtol=0.0, atol=1e-14)


def test_wolff_by_hand() -> None:
    """Two spins: one flips alone where the bond is inactive, both where it is active."""
    coupling = 0.6
    target = Ising((2,), coupling)
    matrix = transition_matrix(Wolff(Lattice.for_target(target), target), space(target))
    active = 1.0 - torch.exp(torch.tensor(-2.0 * coupling, dtype=torch.float64))
    alone = 0.5 * (1.0 - active)
    zero, half = torch.zeros_like(active), torch.full_like(active, 0.5)
    rows = [[zero, alone, alone, active], [half, zero, zero, half]]
    rows += [rows[1], rows[0][::-1]]
    by_hand = torch.stack([torch.stack(row) for row in rows])
    torch.testing.assert_close(matrix, by_hand, rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("kind", [SwendsenWang, Wolff])
def test_a_cycle_with_single_changes_is_exact(kind: Callable[..., Kernel]) -> None:
    kernel = kernel_of(kind, "square")
    objects = space(kernel.target)
    matrix = transition_matrix(Cycle([kernel, RandomWalk(kernel.environment, kernel.target)]), objects)
    assert invariance_error(matrix, kernel.target.log_prob(objects).softmax(0)) < 1e-10


def test_the_start_is_the_law_at_inverse_temperature_zero() -> None:
    kernel = kernel_of(SwendsenWang, "Potts ring")
    found = enumerate_decisions(lambda draws, rows: kernel.start(draws), 1)
    objects = space(kernel.target)
    assert torch.equal(RowIndex(objects).find(found.result).sort().values, torch.arange(len(objects)))
    torch.testing.assert_close(found.weight, torch.full_like(found.weight, 1.0 / len(objects)))
