"""Branch laws: probabilities, what lies beyond the longest path, and the hazards that MATH.md writes them as."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.kernels.branch import (
    Fixed,
    FullRestart,
    Geometric,
    PrefixLaw,
    PrefixTable,
    PrefixUniform,
    SuffixLaw,
    Table,
    Uniform,
    checked_max_depth,
    half_restarts,
    log_branch_probability,
    preferring,
)
from tests.support import Stairs, assert_close

SUFFIX = [Fixed(1), Fixed(3), Fixed(99), Uniform(), Uniform(low=2), Uniform(high=2), Uniform(2, 50), Geometric(0.3)]
SUFFIX += [Geometric(0.999), Table({1: 1.0, 4: 3.0}), Table({1: 0.2, 2: 0.0, 30: 0.8, 50: 1.0})]
PREFIX = [FullRestart(), PrefixUniform(), PrefixUniform(low=1), PrefixUniform(1, 99), PrefixUniform(high=1)]
PREFIX += [PrefixTable({0: 1.0, 1: 3.0})]
SIZES = [(first, max_depth) for first in (0, 1) for max_depth in (1, 2, 5, 12)]


def suffix_pmf(law: SuffixLaw, first: int, max_depth: int) -> Tensor:
    """The pmf by its definition, from the law of K on all integers, what lies above counted into the last entry."""
    weights = {}
    if isinstance(law, Fixed):
        weights = {law.num_steps: 1.0}
    elif isinstance(law, Uniform):
        low = first if law.low is None else law.low
        weights = dict.fromkeys(range(low, (max_depth if law.high is None else law.high) + 1), 1.0)
    elif isinstance(law, Geometric):
        weights = {first + k: law.stop * (1 - law.stop) ** k for k in range(20_000)}
    elif isinstance(law, Table):
        weights = law.weights
    pmf = torch.zeros(max_depth + 1, dtype=torch.float64)
    for steps, weight in weights.items():
        pmf[min(steps, max_depth)] += weight
    return pmf / pmf.sum()


@pytest.mark.parametrize(("first", "max_depth"), SIZES)
@pytest.mark.parametrize("law", SUFFIX, ids=str)
def test_suffix_laws_are_what_they_say(law: SuffixLaw, first: int, max_depth: int) -> None:
    if law == Uniform(low=2) and max_depth < 2:
        with pytest.raises(OptionError, match="is empty"):
            law.log_pmf(first, max_depth)
        return
    log_pmf = law.log_pmf(first, max_depth)
    assert log_pmf.shape == (max_depth + 1,)
    assert log_pmf.dtype == torch.float64
    assert float(log_pmf.exp().sum()) == pytest.approx(1.0, abs=1e-14)
    assert (log_pmf[:first] == -math.inf).all()
    assert_close(log_pmf.exp(), suffix_pmf(law, first, max_depth), 1e-13)


@pytest.mark.parametrize(("first", "max_depth"), SIZES)
@pytest.mark.parametrize("law", [law for law in SUFFIX if law != Uniform(low=2)], ids=str)
def test_branch_probabilities_are_products_of_hazards(law: SuffixLaw, first: int, max_depth: int) -> None:
    log_pmf = law.log_pmf(first, max_depth)
    pmf = log_pmf.exp()
    survival = pmf.flip(0).cumsum(0).flip(0)
    hazard = torch.where(survival > 0, pmf / survival.clamp(min=1e-300), 0.0)
    steps = torch.arange(max_depth + 1)
    everywhere = torch.ones(max_depth + 1, dtype=torch.bool)
    goes_on = torch.cat([torch.ones(1), (1 - hazard).cumprod(0)[:-1]]).double()
    assert_close(log_branch_probability(log_pmf, steps, ~everywhere).exp(), hazard * goes_on, 1e-13)
    # At the source the walk has to stop, so the factor h(k) is missing: at least k.
    assert_close(log_branch_probability(log_pmf, steps, everywhere).exp(), goes_on, 1e-13)


@pytest.mark.parametrize(("first", "max_depth"), SIZES)
@pytest.mark.parametrize("law", [law for law in SUFFIX if law != Uniform(low=2)], ids=str)
def test_branches_of_a_path_have_probabilities_that_sum_to_one(law: SuffixLaw, first: int, max_depth: int) -> None:
    log_pmf = law.log_pmf(first, max_depth)
    for depth in range(first, max_depth + 1):
        steps = torch.arange(depth + 1)
        at_source = steps == depth
        b = log_branch_probability(log_pmf, steps, at_source).exp()
        assert float(b.sum()) == pytest.approx(1.0, abs=1e-13)
        # Negative control: the law of K alone does not see that the source stops it.
        if float(log_pmf[depth + 1 :].exp().sum()) > 0.01:
            naive = log_branch_probability(log_pmf, steps, torch.zeros_like(at_source)).exp()
            assert float(naive.sum()) < 0.995


@pytest.mark.parametrize("max_depth", [1, 2, 5])
@pytest.mark.parametrize("law", PREFIX, ids=str)
def test_prefix_laws_are_what_they_say(law: PrefixLaw, max_depth: int) -> None:
    log_pmf = law.log_pmf(max_depth)
    assert log_pmf.shape == (max_depth + 1,)
    assert float(log_pmf.exp().sum()) == pytest.approx(1.0, abs=1e-14)
    weights = torch.zeros(max_depth + 1, dtype=torch.float64)
    if isinstance(law, FullRestart):
        weights[0] = 1.0
    elif isinstance(law, PrefixUniform):
        weights[law.low : (max_depth if law.high is None else law.high) + 1] = 1.0
    elif isinstance(law, PrefixTable):
        weights[:2] = torch.tensor([1.0, 3.0])
    assert_close(log_pmf.exp(), weights / weights.sum(), 1e-14)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Fixed(0), "needs at least 1 step"),
        (Uniform(low=0), "needs at least 1 step"),
        (Table({0: 0.5, 1: 0.5}), "needs at least 1 step"),
        (Uniform(3, 2), "over 3 ... 2 steps back is empty"),
        (Uniform(high=0), "over 1 ... 0 steps back is empty"),
        (Table({}), "positive weight somewhere"),
        (Table({1: 0.0}), "positive weight somewhere"),
        (Table({1: -1.0, 2: 2.0}), "weight -1.0 at 1"),
        (Table({2: math.nan}), "weight nan at 2"),
        (Table({2: math.inf}), "weight inf at 2"),
        (Table({-1: 0.0, 1: 1.0}), "weight 0.0 at -1"),
        (Fixed(-1), "needs at least 1 step"),
    ],
    ids=str,
)
def test_suffix_laws_that_cannot_work_are_refused(law: SuffixLaw, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        law.log_pmf(1, 5)


def test_an_object_that_can_be_extended_may_be_left_whole() -> None:
    for law in (Fixed(0), Uniform(low=0), Table({0: 0.5, 1: 0.5})):
        assert float(law.log_pmf(0, 5)[0]) > -math.inf
    assert Table({0: 0.0, 1: 1.0}).log_pmf(1, 5).exp().tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("stop", [0.0, 1.0, -0.5, 2.0, math.nan])
def test_a_geometric_law_stops_with_a_probability(stop: float) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        Geometric(stop)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (PrefixUniform(3, 2), "positive weight somewhere"),
        (PrefixUniform(low=6), "positive weight somewhere"),
        (PrefixUniform(low=-1), "weight 1.0 at -1"),
        (PrefixTable({6: 1.0}), "a depth of 6 is beyond the longest path, 5"),
        (PrefixTable({-1: 1.0}), "weight 1.0 at -1"),
        (PrefixTable({}), "positive weight somewhere"),
        (PrefixTable({1: -2.0}), "weight -2.0 at 1"),
    ],
    ids=str,
)
def test_prefix_laws_that_cannot_work_are_refused(law: PrefixLaw, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        law.log_pmf(5)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        (Lattice((4,), (0, 1)), [0.0, 1 / 6, 1 / 6, 1 / 6, 1 / 2]),
        (Lattice((2,), (0, 1), order="fixed"), [0.0, 1 / 2, 1 / 2]),
        (Lattice((1,), (0, 1)), [1.0, 0.0]),
        (HyperGrid(2, 3), [1 / 2, 1 / 6, 1 / 6, 1 / 6, 0.0]),
        (Stairs(1), [1.0, 0.0]),
    ],
    ids=["four sites", "two sites", "one site", "grid", "one stair"],
)
def test_half_of_the_moves_restart(environment: DiscreteEnvironment, wanted: list[float]) -> None:
    law = half_restarts(environment)
    max_depth = checked_max_depth(environment)
    log_pmf = law.log_pmf(1, max_depth) if isinstance(law, SuffixLaw) else law.log_pmf(max_depth)
    assert_close(log_pmf.exp(), torch.tensor(wanted, dtype=torch.float64), 1e-14)
    # A prefix law cancels where lengths differ.
    assert isinstance(law, PrefixLaw) or environment.is_fixed_length


def test_a_law_needs_the_longest_path() -> None:
    endless = HyperGrid(2, 3)
    endless.max_depth = None
    for ask in (half_restarts, checked_max_depth):
        with pytest.raises(CapabilityError, match="HyperGrid has no max_depth; declare the longest path"):
            ask(endless)


@pytest.mark.parametrize("floor", [0.2, 0.9])
@pytest.mark.parametrize("law", [Uniform(), Geometric(0.3), Table({1: 1.0, 30: 3.0}), Fixed(2)], ids=str)
def test_a_preference_keeps_its_share_of_a_suffix_law(law: SuffixLaw, floor: float) -> None:
    log_pmf = law.log_pmf(1, 5)
    for place in (1, 5):
        preferred = preferring(law, log_pmf, place, floor)
        assert isinstance(preferred, SuffixLaw)
        wanted = floor * log_pmf.exp()
        wanted[place] += 1.0 - floor
        assert_close(preferred.log_pmf(1, 5).exp(), wanted, 1e-14)


@pytest.mark.parametrize("law", [PrefixUniform(), PrefixUniform(high=2), FullRestart()], ids=str)
def test_a_preference_keeps_its_share_of_a_prefix_law(law: PrefixLaw) -> None:
    log_pmf = law.log_pmf(5)
    preferred = preferring(law, log_pmf, 3, 0.25)
    assert isinstance(preferred, PrefixLaw)
    wanted = 0.25 * log_pmf.exp()
    wanted[3] += 0.75
    assert_close(preferred.log_pmf(5).exp(), wanted, 1e-14)
