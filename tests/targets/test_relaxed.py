"""Relaxed log-densities: they agree with `log_prob` on objects, and their gradients tell of single changes."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError
from gfnmc.targets import EdwardsAnderson, HyperGrid, Ising, Potts, Target, TFBinding, from_function
from gfnmc.targets.base import product_space
from gfnmc.targets.relaxed import contract_table, mean_values, object_weights
from tests.support import assert_close, is_identical, random_numbers


def uneven_ising(shape: tuple[int, ...], periodic: bool) -> Ising:
    num_bonds = len(Ising(shape, 0.0, periodic=periodic).bonds)
    return Ising(shape, random_numbers(5, num_bonds), field=random_numbers(6, *shape), periodic=periodic)


LINEAR: dict[str, Target] = {
    "ising": Ising((3, 4), 0.4),
    "uneven ising": uneven_ising((3, 3), periodic=True),
    "uneven free ising": uneven_ising((2, 1, 4), periodic=False),
    "side of two": Ising((2, 3), 0.7),
    "no bonds": Ising((1,), 0.5),
    "one spin": Ising((1,), 0.0, field=0.3),
    "potts": Potts((2, 3), 3, 0.9),
    "free potts": Potts((3, 2), 3, -0.4, periodic=False),
    "one colour site": Potts((1,), 4, 0.9),
    "spin glass": EdwardsAnderson((3, 3), 0.8, seed=1),
}
GRIDS: dict[str, Target] = {
    "grid": HyperGrid(2, 8),
    "grid without a floor": HyperGrid(3, 5, r0=0.0),
    "grid without corners": HyperGrid(2, 3),
    "line": HyperGrid(1, 8),
}
TABLES: dict[str, Target] = {
    "8-mers": TFBinding("KLF1", 40.0),
    "8-mers with a power": TFBinding("SIX6", 20.0, power=3.0),
}
TARGETS = LINEAR | GRIDS | TABLES


def some_objects(target: Target, num_rows: int = 200) -> Tensor:
    assert target.values is not None
    place = np.random.default_rng(0).integers(len(target.values), size=(num_rows, *target.event_shape))
    return torch.tensor(target.values, dtype=target.dtype)[torch.from_numpy(place)]


def gradient_of(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = object_weights(target, x).requires_grad_()
    value = target.log_prob_relaxed(weights)
    (gradient,) = torch.autograd.grad(value.sum(), weights)
    return value.detach(), gradient


@pytest.mark.parametrize("name", TARGETS)
def test_on_objects_it_is_the_log_density(name: str) -> None:
    target = TARGETS[name]
    assert target.offers_relaxed
    x = some_objects(target)
    value = target.log_prob_relaxed(object_weights(target, x))
    assert value.dtype == torch.float64
    assert_close(value, target.log_prob(x), 1e-12)
    # Negative control: the values in another order are other objects.
    if name not in ("no bonds", "one colour site") and not name.startswith(("grid", "line")):
        shifted = object_weights(target, x).clone()
        shifted[:, 0] = shifted[:, 0].roll(1, -1)
        assert float((target.log_prob_relaxed(shifted) - target.log_prob(x)).abs().max()) > 1e-3


@pytest.mark.parametrize("name", LINEAR)
def test_gradients_of_linear_ones_are_the_differences(name: str) -> None:
    target = LINEAR[name]
    x = some_objects(target, 50)
    _, gradient = gradient_of(target, x)
    gradient = gradient.flatten(1, -2)
    present = object_weights(target, x).flatten(1, -2)
    differences = gradient - (gradient * present).sum(-1, keepdim=True)
    for site in range(gradient.shape[1]):
        wanted = target.log_prob_delta(x, torch.full((len(x),), site))
        assert_close(differences[:, site], wanted, 1e-12)


@pytest.mark.parametrize("name", GRIDS)
def test_gradients_of_the_grid_are_those_of_its_reward(name: str) -> None:
    """The reward is linear in each coordinate's weights, so dlogR = dR / R tells the rewards of all changes."""
    target = GRIDS[name]
    x = some_objects(target, 50)
    x = x[target.log_prob(x) > -math.inf]
    value, gradient = gradient_of(target, x)
    assert gradient.isfinite().all()
    assert target.values is not None
    for site in range(x.shape[1]):
        for place, other in enumerate(target.values):
            changed = x.clone()
            changed[:, site] = other
            here = gradient[:, site].gather(1, x[:, site : site + 1])[:, 0]
            told = value.exp() * (1.0 + gradient[:, site, place] - here)
            assert_close(told, target.log_prob(changed).exp(), 1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    target = TARGETS[name]
    assert target.values is not None
    weights = random_numbers(1, 2, *target.event_shape, len(target.values)).softmax(-1).requires_grad_()
    assert torch.autograd.gradcheck(target.log_prob_relaxed, (weights,))


@pytest.mark.parametrize("name", TARGETS)
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    target = TARGETS[name]
    x = some_objects(target, 9)
    x = x[target.log_prob(x) > -math.inf]
    value, gradient = gradient_of(target, x)
    alone = [gradient_of(target, row[None]) for row in x]
    assert_close(value, torch.cat([one for one, _ in alone]), 1e-12)
    assert_close(gradient, torch.cat([other for _, other in alone]), 1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_weights_of_another_kind_are_refused(name: str) -> None:
    target = TARGETS[name]
    weights = object_weights(target, some_objects(target, 2))
    for wrong in (weights[..., :1], weights[:, None], torch.cat([weights, weights], 1)):
        with pytest.raises(ObjectError, match=r"weights are torch.float64 of shape .*, but .* takes torch.float64"):
            target.log_prob_relaxed(wrong)


def test_targets_without_one_say_so() -> None:
    target = from_function(lambda x: x.sum(1).double(), (2,), values=(0, 1), name="plain")
    assert not target.offers_relaxed
    with pytest.raises(CapabilityError, match="plain has no relaxed log-density: implement `log_prob_relaxed`"):
        target.log_prob_relaxed(torch.ones(1, 2, 2, dtype=torch.float64))
    with pytest.raises(CapabilityError, match="declares no `values` of a site, so there is nothing to weigh"):
        object_weights(from_function(lambda x: x.sum(1).double(), (2,)), torch.zeros(1, 2, dtype=torch.int64))


def test_weights_of_objects_give_their_values_back() -> None:
    target = from_function(lambda x: x.sum(1).double(), (3,), values=(-2, 0, 5))
    x = some_objects(target)
    weights = object_weights(target, x)
    assert weights.shape == (200, 3, 3)
    assert (weights.sum(-1) == 1.0).all()
    assert torch.equal(mean_values((-2, 0, 5), weights), x.double())


@pytest.mark.parametrize(("num_sites", "num_values"), [(1, 3), (2, 2), (3, 4), (5, 2)])
def test_a_contracted_table_is_the_mean_under_independent_sites(num_sites: int, num_values: int) -> None:
    table = random_numbers(3, *[num_values] * num_sites)
    weights = random_numbers(4, 6, num_sites, num_values).softmax(-1)
    objects = product_space(tuple(range(num_values)), (num_sites,), torch.int64)
    law = torch.stack([weights[:, site, objects[:, site]] for site in range(num_sites)]).prod(0)
    assert_close(contract_table(table, weights), law @ table.flatten(), 1e-12)
    # On objects it is the table's own number.
    ones = torch.nn.functional.one_hot(objects, num_values).double()
    assert is_identical(contract_table(table, ones), table.flatten())
