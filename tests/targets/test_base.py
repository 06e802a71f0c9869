"""The contract of targets: checked energies, checked objects, and the exact solution by enumeration."""

import math

import jaxtyping
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.targets import ExactSolution, Target, from_function
from gfnmc.targets.base import (
    check_objects,
    check_usable,
    checked_estimate,
    checked_event_shape,
    checked_log_prob,
    product_space,
    solve_by_enumeration,
)


class Returning(Target):
    """A target that returns whatever it is given."""

    name = "returning"
    event_shape = (2,)
    dtype = torch.int64

    def __init__(self, value: object) -> None:
        self.value = value

    def log_prob(self, x: Tensor) -> Tensor:
        return self.value


def two_sites(values: tuple[int, ...] | None = (0, 1, 2), dtype: torch.dtype = torch.int64) -> Target:
    return from_function(lambda x: x.double() @ torch.tensor([0.3, -0.7]).double(), (2,), values=values, dtype=dtype)


X = torch.zeros(3, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        [0.0, 0.0, 0.0],
        torch.zeros(3, 1, dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros((), dtype=torch.float64),
        torch.zeros(3, dtype=torch.float32),
        torch.zeros(3, dtype=torch.int64),
    ],
    ids=["float", "list", "column", "short", "scalar", "float32", "int64"],
)
def test_checked_log_prob_refuses_what_is_no_batch_of_float64(value: object) -> None:
    with pytest.raises(EnergyError, match="returning"):
        checked_log_prob(Returning(value), X)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_checked_log_prob_names_the_row_that_is_not_finite(value: float) -> None:
    log_prob = torch.tensor([0.0, value, -math.inf], dtype=torch.float64)
    with pytest.raises(NonFiniteEnergyError, match="row 1") as caught:
        checked_log_prob(Returning(log_prob), X)
    assert caught.value.row == 1
    assert caught.value.step is None
    assert caught.value.value == value or math.isnan(value)


def test_checked_log_prob_lets_minus_infinity_pass() -> None:
    log_prob = torch.tensor([0.0, 1.0, -math.inf], dtype=torch.float64)
    assert checked_log_prob(Returning(log_prob), X) is log_prob


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int32), "int32"),
        (torch.zeros(3, 3, dtype=torch.int64), "shape"),
        (torch.zeros(3, dtype=torch.int64), "shape"),
        (torch.tensor([[0, 0], [0, 3]]), "object 1"),
        (torch.tensor([[0, 0], [-1, 0]]), "object 1"),
    ],
)
def test_check_objects_refuses_objects_outside_the_space(x: Tensor, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        check_objects(two_sites(), x)


def test_check_objects_knows_gaps_between_values() -> None:
    for values, inside, outside in (((-1, 1), [-1, 1], [-1, 0]), ((0, 2, 5), [2, 5], [0, 4])):
        check_objects(two_sites(values, torch.int8), torch.tensor([inside], dtype=torch.int8))
        with pytest.raises(ObjectError, match="object 0"):
            check_objects(two_sites(values, torch.int8), torch.tensor([outside], dtype=torch.int8))
    with pytest.raises(ObjectError, match="object 0"):
        check_objects(two_sites((0, 1), torch.float32), torch.tensor([[0.0, 0.5]]))
    with pytest.raises(ObjectError, match="object 0"):
        check_objects(two_sites((-1, 1), torch.int8), torch.tensor([[-128, 1]], dtype=torch.int8))


def test_check_objects_accepts_no_objects_and_any_value_where_none_are_declared() -> None:
    check_objects(two_sites(), torch.zeros(0, 2, dtype=torch.int64))
    check_objects(two_sites(values=None), torch.tensor([[7, -7]]))


def test_checked_event_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    # Users have no type checker at run time: the errors they see are the package's own.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert checked_event_shape(torch.Size([2, 3])) == (2, 3)
    for shape in ((), (0,), (2, -1), (2.5,), "88"):
        with pytest.raises(OptionError, match="shape"):
            checked_event_shape(shape)


def test_product_space_counts_with_the_last_site_fastest() -> None:
    space = product_space((-1, 4), (1, 2), torch.int8)
    assert space.dtype == torch.int8
    assert space.tolist() == [[[-1, -1]], [[-1, 4]], [[4, -1]], [[4, 4]]]
    assert len(product_space((0, 1, 2), (2, 2), torch.int64).unique(dim=0)) == 81


def test_index_finds_every_object_and_refuses_others() -> None:
    solution = two_sites().exact()
    assert solution is not None
    order = torch.tensor([5, 0, 8, 3])
    assert solution.index(solution.support[order]).tolist() == order.tolist()
    # (0, 3) would carry into (1, 0) if coordinates out of range were encoded.
    for stranger in ([0, 3], [-1, 2], [100, 100]):
        with pytest.raises(ObjectError, match="object 1"):
            solution.index(torch.tensor([[0, 0], stranger]))


def test_exact_samples_follow_the_pmf() -> None:
    solution = two_sites().exact()
    assert solution is not None
    num_rows = 20_000
    x = solution.sample(PhiloxDraws(7, "test", num_rows))
    count = torch.bincount(solution.index(x), minlength=9)
    wanted = num_rows * solution.log_pmf.exp()
    # The chi-square law with 8 degrees of freedom exceeds 42.7 with probability 1e-6.
    assert float(((count - wanted) ** 2 / wanted).sum()) < 42.7
    # Negative control: the uniform law is told apart.
    assert float(((count - num_rows / 9) ** 2 / (num_rows / 9)).sum()) > 42.7
    assert torch.equal(x, solution.sample(PhiloxDraws(7, "test", num_rows)))


def test_a_solution_without_support_says_so() -> None:
    solution = ExactSolution(1.0)
    with pytest.raises(CapabilityError, match="not enumerated"):
        solution.index(X)
    with pytest.raises(CapabilityError, match="not enumerated"):
        solution.sample(PhiloxDraws(0, "test", 4))
    assert not solution.can_sample


def test_a_solution_with_a_sampler_needs_no_support() -> None:
    solution = ExactSolution(1.0, sampler=lambda draws: torch.arange(draws.num_rows)[:, None])
    assert solution.can_sample
    assert solution.sample(PhiloxDraws(0, "test", 3)).tolist() == [[0], [1], [2]]


def test_what_a_target_offers_by_default() -> None:
    target = two_sites()
    assert not target.is_noisy
    assert not target.is_unbiased
    assert target.symmetries() == ()
    x = target.exact().support
    draws = PhiloxDraws(0, "test", len(x))
    assert torch.equal(target.estimate_log_prob(x, draws), target.log_prob(x))
    assert torch.equal(checked_estimate(target, x, draws), target.log_prob(x))
    with pytest.raises(CapabilityError, match="partial_log_prob"):
        target.partial_log_prob(x, torch.ones_like(x, dtype=torch.bool))
    check_usable(target)


def test_differences_are_held_to_the_contract_too() -> None:
    target = from_function(lambda x: torch.where(x.sum(1) == 5, math.nan, 0.0), (3,), values=(0, 1, 2))
    x = torch.tensor([[0, 0, 0], [0, 1, 0], [2, 2, 0]])
    assert torch.equal(target.log_prob_delta(x[:2], torch.tensor([2, 0])), torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(NonFiniteEnergyError, match="row 2"):
        target.log_prob_delta(x, torch.tensor([0, 0, 2]))


def test_enumeration_gives_no_weight_to_the_impossible() -> None:
    target = from_function(lambda x: torch.where(x.sum(1) == 1, 0.0, -math.inf), (2,), values=(0, 1))
    solution = target.exact()
    assert solution is not None
    assert solution.log_z == pytest.approx(math.log(2))
    assert solution.log_pmf.exp().tolist() == pytest.approx([0.0, 0.5, 0.5, 0.0])


def test_enumeration_refuses_a_target_that_is_impossible_everywhere() -> None:
    with pytest.raises(EnergyError, match="-inf for all 3"):
        solve_by_enumeration(Returning(torch.full((3,), -math.inf, dtype=torch.float64)), X)
