"""Users' own functions as targets."""

import math
import pickle

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import EnergyError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.targets import Target, from_function, from_numpy_function
from gfnmc.targets.base import checked_log_prob


def torch_energy(x: Tensor) -> Tensor:
    return -(x.float() ** 2).sum(1)


def numpy_energy(x: np.ndarray) -> np.ndarray:
    return -(x.astype(np.float32) ** 2).sum(1)


X = torch.tensor([[0, 1, 2], [2, 2, 2]])


@pytest.mark.parametrize(
    "target",
    [
        from_function(torch_energy, (3,)),
        from_function(lambda x: numpy_energy(x.numpy()), (3,)),
        from_numpy_function(numpy_energy, (3,)),
        from_function(lambda x: -(x**2).sum(1), (3,)),
        from_numpy_function(lambda x: -(x**2).sum(1)[::-1][::-1], (3,)),
    ],
    ids=["torch float32", "torch function returning numpy", "numpy float32", "torch int64", "numpy view"],
)
def test_every_flavour_gives_float64(target: Target) -> None:
    log_prob = checked_log_prob(target, X)
    assert log_prob.dtype == torch.float64
    assert log_prob.tolist() == [-5.0, -12.0]
    assert (target.name, target.event_shape, target.dtype, target.values) == ("user", (3,), torch.int64, None)
    assert target.exact() is None
    assert target.modes() is None
    assert target.statistics(X) == {}


@pytest.mark.parametrize("wrap", [from_function, from_numpy_function])
def test_small_spaces_are_solved(wrap) -> None:
    target = wrap(lambda x: 0.5 * x.sum(-1), (3,), values=(0, 1), statistics={"total": lambda x: x.sum(-1)})
    solution = target.exact()
    assert solution is target.exact()
    assert solution.log_z == pytest.approx(3 * math.log1p(math.exp(0.5)))
    assert solution.expectations["total"] == pytest.approx(3 / (1 + math.exp(-0.5)))
    assert solution.mode_masses is None
    assert solution.support.shape == (8, 3)


def test_the_limit_of_enumeration() -> None:
    assert from_function(lambda x: x.sum(1), (17,), values=(0, 1), dtype=torch.int8).exact() is not None
    assert from_function(lambda x: x.sum(1), (18,), values=(0, 1), dtype=torch.int8).exact() is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.float32])
def test_other_dtypes_of_objects(dtype: torch.dtype) -> None:
    target = from_function(lambda x: x.double().sum((1, 2)), (1, 2), values=(0, 1), dtype=dtype)
    solution = target.exact()
    assert solution.support.dtype == dtype
    assert solution.log_z == pytest.approx(2 * math.log1p(math.e))
    assert solution.index(solution.support).tolist() == [0, 1, 2, 3]


def test_statistics_are_float64_batches() -> None:
    chosen = {"first": lambda x: x[:, 0], "any": lambda x: (x > 1).any(-1)}
    statistics = from_function(torch_energy, (3,), statistics=chosen).statistics(X)
    assert {name: value.tolist() for name, value in statistics.items()} == {"first": [0.0, 2.0], "any": [1.0, 1.0]}
    assert all(value.dtype == torch.float64 for value in statistics.values())


@pytest.mark.parametrize(
    "returned",
    [
        1.0,
        np.float64(1.0),
        None,
        [0.0, 0.0],
        np.zeros((2, 1)),
        np.array(["a", "b"]),
        np.zeros(2, dtype=complex),
        torch.zeros(2, 1),
        torch.zeros(()),
        torch.zeros(2, dtype=torch.complex64),
    ],
)
def test_what_is_no_batch_of_numbers_is_refused(returned: object) -> None:
    for wrap in (from_function, from_numpy_function):
        with pytest.raises(EnergyError, match="the log-density of mine"):
            wrap(lambda x: returned, (3,), name="mine").log_prob(X)
        with pytest.raises(OptionError, match="the statistic 'odd' of mine"):
            wrap(torch_energy, (3,), name="mine", statistics={"odd": lambda x: returned}).statistics(X)


def test_nan_is_caught_at_the_door() -> None:
    target = from_function(lambda x: x.sum(1) / (x[:, 0] - x[:, 0]), (3,))
    with pytest.raises(NonFiniteEnergyError, match="row 0"):
        checked_log_prob(target, X)


@pytest.mark.parametrize("wrap", [from_function, from_numpy_function])
def test_exceptions_of_the_user_pass_unchanged(wrap) -> None:
    error = KeyError("mine")

    def fail(x: object) -> object:
        raise error

    with pytest.raises(KeyError) as caught:
        checked_log_prob(wrap(fail, (3,)), X)
    assert caught.value is error


def test_objects_of_another_shape_or_value_are_refused() -> None:
    target = from_function(torch_energy, (3,), values=(0, 1, 2))
    for x in (X[:, :2], X.to(torch.int32), X + 1):
        with pytest.raises(ObjectError):
            target.log_prob(x)


def test_a_numpy_function_cannot_change_the_objects() -> None:
    def careless(x: np.ndarray) -> np.ndarray:
        x[x == 2] = 0
        return x.sum(1)

    x = X.clone()
    with pytest.raises(ValueError, match="read-only"):
        from_numpy_function(careless, (3,)).log_prob(x)
    assert torch.equal(x, X)


def test_a_parametrised_energy_leaves_no_graph_behind() -> None:
    weight = torch.ones(3, requires_grad=True)
    target = from_function(lambda x: x.float() @ weight, (3,), dtype=torch.float32)
    assert not target.log_prob(torch.ones(2, 3)).requires_grad
    x = torch.ones(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    assert torch.equal(gradient, torch.ones(2, 3))


@pytest.mark.parametrize(("wrap", "fn"), [(from_function, torch_energy), (from_numpy_function, numpy_energy)])
def test_a_target_of_a_module_function_can_be_sent_to_a_worker(wrap, fn) -> None:
    target = pickle.loads(pickle.dumps(wrap(fn, (3,), values=(0, 1, 2))))  # noqa: S301 - made on the line itself
    assert target.log_prob(X).tolist() == [-5.0, -12.0]


@pytest.mark.parametrize(
    "options",
    [
        {"fn": 3},
        {"event_shape": 3},
        {"event_shape": ()},
        {"event_shape": (0,)},
        {"event_shape": (1.5,)},
        {"dtype": "int64"},
        {"values": 3},
        {"values": ()},
        {"values": (1, 0)},
        {"values": (0, 0)},
        {"values": (0.5, 1.0)},
        {"values": (0, 300), "dtype": torch.int8},
        {"values": (-1, 1), "dtype": torch.bool},
        {"statistics": [abs]},
        {"statistics": {"a": 1}},
    ],
    ids=str,
)
@pytest.mark.parametrize("wrap", [from_function, from_numpy_function])
def test_options_that_cannot_work_are_refused(wrap, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    # Users have no type checker at run time: the errors they see are the package's own.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError):
        wrap(**({"fn": torch_energy, "event_shape": (3,)} | options))
