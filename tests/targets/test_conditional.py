"""Families of targets: members are ordinary targets, and conditions follow the law that the family says."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, ObjectError, OptionError
from gfnmc.environments import Lattice
from gfnmc.targets import Ising, from_function, noisy_from_function
from gfnmc.targets.base import checked_log_prob
from gfnmc.targets.conditional import TemperedFamily, conditional_from_function
from tests.support import FALSE_ALARM, assert_close, is_identical

ISING = Ising((2, 3), 0.4)
TEMPERED = TemperedFamily(ISING, 0.25)
SPINS = torch.tensor([[[-1, 1, 1], [1, -1, -1]], [[1, 1, 1], [1, 1, 1]]], dtype=torch.int8)


def biased(x: Tensor, condition: Tensor) -> Tensor:
    """A field on the first site and a preference for agreement."""
    return condition[:, 0] * x[:, 0] + condition[:, 1] * (x[:, 0] == x[:, 1])


FIELDS = conditional_from_function(
    biased, (2,), condition_names=("field", "preference"), low=(-1.0, 0.0), high=(1.0, 3.0), values=(0, 1), name="pair"
)


def test_powers_of_a_density() -> None:
    betas = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    log_prob = ISING.log_prob(SPINS)
    assert_close(TEMPERED.given(betas).log_prob(SPINS), betas[:, 0] * log_prob, 1e-15)
    assert_close(TEMPERED.given(torch.tensor([0.5])).log_prob(SPINS), 0.5 * log_prob, 1e-15)
    target = TEMPERED.given(torch.tensor([0.5]))
    assert (target.event_shape, target.values, target.dtype) == ((2, 3), (-1, 1), torch.int8)
    assert target.name == f"{ISING.name} at inverse temperature 0.5"
    assert TEMPERED.condition_names == ("inverse_temperature",)
    assert target.symmetries() == ISING.symmetries()
    assert is_identical(target.statistics(SPINS)["magnetisation"], ISING.statistics(SPINS)["magnetisation"])


def test_a_tempered_member_is_a_target_through_and_through() -> None:
    hot, same = TEMPERED.given(torch.tensor([0.5])), Ising((2, 3), 0.2)
    sites = torch.tensor([0, 4])
    assert_close(hot.log_prob_delta(SPINS, sites), same.log_prob_delta(SPINS, sites), 1e-12)
    is_assigned = SPINS == 1
    assert_close(hot.partial_log_prob(SPINS, is_assigned), same.partial_log_prob(SPINS, is_assigned), 1e-12)
    exact, wanted = hot.exact(), same.exact()
    assert exact is not None and wanted is not None
    assert exact.log_z == pytest.approx(wanted.log_z, abs=1e-12)
    assert exact.expectations["magnetisation"] == pytest.approx(wanted.expectations["magnetisation"], abs=1e-12)
    assert hot.modes() is not None
    # A condition a row is no single law.
    assert TEMPERED.given(torch.full((2, 1), 0.5)).exact() is None
    by_row = TEMPERED.given(torch.tensor([[0.5], [0.25]]))
    assert_close(by_row.log_prob_delta(SPINS, sites)[0], same.log_prob_delta(SPINS, sites)[0], 1e-12)


def test_the_flat_power_knows_nothing_impossible() -> None:
    target = from_function(lambda x: torch.where(x[:, 0] == 1, -torch.inf, 0.5), (2,), values=(0, 1))
    family = TemperedFamily(target, 0.0)
    x = torch.tensor([[0, 0], [1, 0]])
    assert family.given(torch.tensor([0.0])).log_prob(x).tolist() == [0.0, 0.0]
    assert family.given(torch.tensor([0.5])).log_prob(x).tolist() == [0.25, -math.inf]
    assert family.given(torch.tensor([[0.5], [0.0]])).log_prob(x).tolist() == [0.25, 0.0]


def uniform_statistic(u: Tensor) -> tuple[float, float]:
    """Kolmogorov's distance from the uniform law on [0, 1], and the limit it exceeds with probability FALSE_ALARM."""
    n = len(u)
    above = torch.arange(1, n + 1) / n - u.sort().values
    distance = max(float(above.max()), float((1.0 / n - above).max()))
    return distance, math.sqrt(math.log(2.0 / FALSE_ALARM) / (2.0 * n))


def test_conditions_follow_their_law() -> None:
    draws = PhiloxDraws(3, "conditions", 5_000)
    beta = TEMPERED.sample_conditions(draws)
    assert beta.shape == (5_000, 1) and beta.dtype == torch.float64
    distance, limit = uniform_statistic((beta[:, 0] - 0.25) / 0.75)
    assert distance < limit
    logs = TemperedFamily(ISING, 0.01, 2.0, law="log-uniform").sample_conditions(draws.at(1)).log()
    unit = (logs[:, 0] - math.log(0.01)) / math.log(200.0)
    distance, limit = uniform_statistic(unit)
    assert distance < limit
    # Negative control: uniform in beta is not uniform in its logarithm.
    distance, limit = uniform_statistic((unit * math.log(200.0)).exp() / 200.0)
    assert distance > limit
    fields = FIELDS.sample_conditions(draws.at(2))
    assert fields.shape == (5_000, 2)
    for column, low, span in ((0, -1.0, 2.0), (1, 0.0, 3.0)):
        distance, limit = uniform_statistic((fields[:, column] - low) / span)
        assert distance < limit
    assert abs(float(torch.corrcoef(fields.T)[0, 1])) < 0.08
    # A row's condition is its own.
    assert is_identical(FIELDS.sample_conditions(PhiloxDraws(3, "conditions", 7).at(2)), fields[:7])


def test_a_function_of_objects_and_conditions() -> None:
    x = torch.tensor([[0, 1], [1, 1], [1, 0]])
    condition = torch.tensor([[0.5, 2.0], [-1.0, 3.0], [0.25, 1.0]], dtype=torch.float64)
    by_row = FIELDS.given(condition)
    assert_close(by_row.log_prob(x), torch.tensor([0.0, 2.0, 0.25]), 1e-15)
    one = FIELDS.given(condition[1])
    assert_close(one.log_prob(x), torch.tensor([0.0, 2.0, -1.0]), 1e-15)
    assert one.name == "pair (field -1, preference 3)"
    exact = one.exact()
    assert exact is not None
    assert exact.log_z == pytest.approx(math.log(math.exp(3) + 1 + math.exp(-1) + math.exp(2)))
    lattice = Lattice.for_target(FIELDS)
    assert (lattice.event_shape, lattice.values) == ((2,), (0, 1))


def test_as_many_objects_as_conditions() -> None:
    for family, x in ((TEMPERED, SPINS), (FIELDS, torch.zeros(2, 2, dtype=torch.int64))):
        target = family.given(torch.ones(3, len(family.condition_names)))
        with pytest.raises(ObjectError, match="is bound to 3 conditions, one an object, but met 2 objects"):
            target.log_prob(x)


def test_conditions_that_do_not_fit_are_refused() -> None:
    for family, names in ((TEMPERED, "inverse_temperature"), (FIELDS, "field, preference")):
        for wrong in (torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 1, len(family.condition_names))):
            with pytest.raises(OptionError, match=f"was given to .*{names}"):
                family.given(wrong)


def test_families_that_cannot_work_are_refused() -> None:
    for lowest, highest in ((-0.1, 1.0), (1.0, 1.0), (0.5, 0.1), (0.0, math.inf)):
        with pytest.raises(OptionError, match="are no range"):
            TemperedFamily(ISING, lowest, highest)
    with pytest.raises(OptionError, match="law is 'log-uniform'"):
        TemperedFamily(ISING, 0.0, law="log-uniform")
    noisy = noisy_from_function(
        lambda x, draws: ISING.log_prob(x), (2, 3), values=(-1, 1), dtype=torch.int8, is_unbiased=True
    )
    with pytest.raises(CapabilityError, match="powers of its estimates are biased"):
        TemperedFamily(noisy, 0.5)
    for options, message in (
        ({"condition_names": ()}, "give one name or more"),
        ({"condition_names": ("a", "a")}, "give one name or more"),
        ({"low": (0.0,)}, "a number for each"),
        ({"high": (math.inf, 1.0)}, "give finite numbers"),
        ({"low": (2.0, 0.0)}, "give finite numbers"),
        ({"values": (1, 0)}, "values"),
    ):
        right = {"condition_names": ("a", "b"), "low": (0.0, 0.0), "high": (1.0, 1.0)}
        with pytest.raises(OptionError, match=message):
            conditional_from_function(biased, (2,), **(right | options))


def test_a_function_that_breaks_its_contract_is_caught() -> None:
    wrong = conditional_from_function(
        lambda x, condition: condition, (2,), condition_names=("a", "b"), low=(0.0, 0.0), high=(1.0, 1.0)
    )
    with pytest.raises(EnergyError):
        checked_log_prob(wrong.given(torch.zeros(2)), torch.zeros(3, 2, dtype=torch.int64))
