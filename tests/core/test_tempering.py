"""Powers of a density: what is flat at 0, what stays impossible, and steps of the inverse temperature."""

import inspect
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import EnergyError, OptionError
from gfnmc.core.tempering import checked_inverse_temperature, next_inverse_temperature, tempered_change
from tests.support import assert_close, random_numbers

INF = math.inf


def test_changes_are_tempered_row_by_row_and_never_nan() -> None:
    new = torch.tensor([1.0, -INF, -INF, 2.0, 3.0, -INF]).double()
    old = torch.tensor([0.5, 1.0, 1.0, -INF, -INF, -INF]).double()
    power = torch.tensor([2.0, 0.5, 0.0, 0.0, 1.0, 0.0]).double()
    assert_close(tempered_change(power, new, old), torch.tensor([1.0, -INF, 0.0, 0.0, INF, 0.0]))
    for one in (0.0, 0.25, 1.0):
        rows = tempered_change(torch.full((3,), one).double(), new[:3], old[:3])
        assert torch.equal(tempered_change(one, new[:3], old[:3]), rows)
    # Negative control: the plain product is not a number where an impossible object meets inverse temperature 0.
    assert (0.0 * (new - old)).isnan().any()


@pytest.mark.parametrize(
    "value",
    [-0.1, INF, math.nan, torch.tensor([0.5, -0.1]).double(), torch.tensor([0.5, math.nan]).double()],
    ids=str,
)
def test_inverse_temperatures_that_make_no_sense_are_refused(value: float | Tensor) -> None:
    with pytest.raises(OptionError, match=r"from 0 \(flat\) up"):
        checked_inverse_temperature(value)


def effective_fraction(log_reward: Tensor, power: float) -> float:
    weights = (power * log_reward).softmax(0)
    return 1.0 / float(weights.square().sum()) / int((log_reward > -INF).sum())


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("current", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0, 1e12])
def test_the_next_one_is_where_the_effective_fraction_meets_the_threshold(
    scale: float, current: float, threshold: float
) -> None:
    log_reward = scale * random_numbers(3, 400)
    found = next_inverse_temperature(log_reward, current, threshold)
    assert current < found <= 1.0
    if found == 1.0:
        assert effective_fraction(log_reward, 1.0 - current) >= threshold
    elif scale < 1e12:
        assert effective_fraction(log_reward, found - current) == pytest.approx(threshold, abs=1e-6)
        assert effective_fraction(log_reward, 1.01 * (found - current)) < threshold
    # Impossible objects have weight 0 and do not shorten the step; their number is not the temperature's doing.
    padded = torch.cat([log_reward, torch.full((2_000,), -INF, dtype=torch.float64)])
    assert next_inverse_temperature(padded, current, threshold) == pytest.approx(found, rel=1e-9)


def test_equal_objects_are_reweighted_in_one_step() -> None:
    assert next_inverse_temperature(torch.full((5,), 7.0).double(), 0.0, 0.999) == 1.0
    assert next_inverse_temperature(torch.tensor([1e300, -INF], dtype=torch.float64), 0.5, 0.9) == 1.0


def test_a_ladder_always_ends() -> None:
    """The step may be below the resolution of numbers near `current`; then it is the next number."""
    log_reward = torch.tensor([0.0, 1e30]).double()
    assert next_inverse_temperature(log_reward, 0.5, 0.9) == math.nextafter(0.5, 1.0)


@pytest.mark.parametrize(("current", "threshold"), [(-0.1, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0), (0.5, math.nan)])
def test_steps_that_make_no_sense_are_refused(current: float, threshold: float) -> None:
    with pytest.raises(OptionError, match="must lie"):
        next_inverse_temperature(torch.zeros(3).double(), current, threshold)


def test_a_population_without_a_possible_object_is_refused() -> None:
    with pytest.raises(EnergyError, match="none of 3 objects is possible"):
        next_inverse_temperature(torch.full((3,), -INF).double(), 0.0, 0.5)


def test_inverse_temperatures_of_the_wrong_shape_are_refused() -> None:
    for value in (torch.ones(2, 1).double(), torch.ones(3)):
        # Users run without the tests' checks of annotations.
        with pytest.raises(OptionError, match=r"a float64 tensor with one a row"):
            inspect.unwrap(checked_inverse_temperature)(value)
