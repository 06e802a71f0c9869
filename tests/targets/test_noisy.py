"""Targets that are only estimated: unbiased where they say so, refused where they do not."""

import math

import jaxtyping
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, OptionError
from gfnmc.targets import Ising, NoisyCopy, NoisyTarget, noisy_from_function
from gfnmc.targets.base import check_usable, checked_estimate, checked_log_prob, product_space
from gfnmc.testing import enumerate_decisions

MULTIPLIERS, PROBABILITIES = (0.25, 1.0, 2.5), (0.5, 0.25, 0.25)
ISING = Ising((2, 2), 0.6)
X = product_space((-1, 1), (2, 2), torch.int8)


def noisy() -> NoisyCopy:
    return NoisyCopy(ISING, MULTIPLIERS, PROBABILITIES)


def coin(x: Tensor, draws: Draws) -> Tensor:
    heads = draws.role("coin").bernoulli(torch.full((len(x),), -math.log(2), dtype=torch.float64))
    return x.double().sum(1) + (0.5 + heads.double()).log()


def test_the_mean_of_the_estimates_is_the_density() -> None:
    target = noisy()
    found = enumerate_decisions(lambda draws, rows: checked_estimate(target, X[rows], draws), len(X))
    mean = torch.zeros(len(X), dtype=torch.float64)
    mean.index_add_(0, found.row, found.weight * found.result.exp())
    assert torch.allclose(mean, ISING.log_prob(X).exp(), rtol=1e-12, atol=0)
    # Negative control: the mean of the estimates themselves is less than the log-density.
    mean_estimate = torch.zeros(len(X), dtype=torch.float64).index_add_(0, found.row, found.weight * found.result)
    assert (mean_estimate < ISING.log_prob(X) - 0.1).all()


def test_a_noisy_copy_is_the_target_in_all_but_its_energy() -> None:
    target = noisy()
    assert (target.name, target.event_shape, target.dtype, target.values) == (
        "noisy-ising-2x2",
        (2, 2),
        torch.int8,
        (-1, 1),
    )
    assert target.exact() is ISING.exact()
    assert target.modes().names == ISING.modes().names
    assert torch.equal(target.statistics(X)["magnetisation"], ISING.statistics(X)["magnetisation"])
    assert target.symmetries() == ()
    for call in (
        lambda: target.log_prob(X),
        lambda: checked_log_prob(target, X),
        lambda: target.log_prob_delta(X, torch.zeros(16, dtype=torch.int64)),
    ):
        with pytest.raises(CapabilityError, match="estimate_log_prob"):
            call()


@pytest.mark.parametrize(
    ("multipliers", "probabilities"),
    [
        ((), ()),
        ((1.0,), (0.5, 0.5)),
        ((0.5, 2.0), (0.5, 0.5)),
        ((0.5, 1.5), (0.6, 0.6)),
        ((0.0, 2.0), (0.5, 0.5)),
        ((1.0, 1.0), (1.0, 0.0)),
        ((1.0, math.inf), (0.5, 0.5)),
    ],
)
def test_noise_that_is_no_law_of_mean_one_is_refused(multipliers: tuple, probabilities: tuple) -> None:
    with pytest.raises(OptionError):
        NoisyCopy(ISING, multipliers, probabilities)


def test_noise_upon_noise_is_refused() -> None:
    with pytest.raises(OptionError, match="noisy already"):
        NoisyCopy(noisy(), MULTIPLIERS, PROBABILITIES)


def test_an_estimate_does_not_depend_on_which_others_are_made() -> None:
    target = noisy()
    x = X.repeat(20, 1, 1)
    draws = PhiloxDraws(1, "test", len(x))
    everything = checked_estimate(target, x, draws)
    rows = torch.tensor([3, 77, 300])
    assert torch.equal(checked_estimate(target, x[rows], PhiloxDraws(1, "test", len(x)), rows=rows), everything[rows])
    assert everything.std() > 0
    assert torch.equal(checked_estimate(ISING, x, draws), ISING.log_prob(x))


def test_draws_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match="one row an object"):
        checked_estimate(noisy(), X, PhiloxDraws(1, "test", 3))


def test_a_function_of_objects_and_draws() -> None:
    target = noisy_from_function(
        coin, (3,), is_unbiased=True, values=(0, 1), name="coin", statistics={"total": lambda x: x.sum(1)}
    )
    assert target.is_noisy
    assert target.is_unbiased
    assert isinstance(target, NoisyTarget)
    assert (target.name, target.event_shape, target.dtype, target.values) == ("coin", (3,), torch.int64, (0, 1))
    assert target.exact() is None
    x = product_space((0, 1), (3,), torch.int64)
    assert target.statistics(x)["total"].tolist() == x.sum(1).tolist()
    found = enumerate_decisions(lambda draws, rows: checked_estimate(target, x[rows], draws), len(x))
    mean = torch.zeros(8, dtype=torch.float64).index_add_(0, found.row, found.weight * found.result.exp())
    assert torch.allclose(mean, x.sum(1).double().exp(), rtol=1e-12, atol=0)
    with pytest.raises(CapabilityError, match="coin is noisy"):
        target.log_prob(x)


@pytest.mark.parametrize("returned", [1.0, None, torch.zeros(3, 1), torch.zeros(())])
def test_what_is_no_batch_of_numbers_is_refused(returned: object) -> None:
    target = noisy_from_function(lambda x, draws: returned, (3,), is_unbiased=True, name="mine")
    with pytest.raises(EnergyError, match="the estimate of mine"):
        checked_estimate(target, torch.zeros(2, 3, dtype=torch.int64), PhiloxDraws(0, "test", 2))


def test_estimates_are_held_to_the_contract_of_log_densities() -> None:
    x = torch.zeros(2, 3, dtype=torch.int64)
    for value in (math.nan, math.inf):
        target = noisy_from_function(lambda x, draws, value=value: torch.tensor([0.0, value]), (3,), is_unbiased=True)
        with pytest.raises(NonFiniteEnergyError, match=r"user.estimate_log_prob .* row 7") as caught:
            checked_estimate(target, x, PhiloxDraws(0, "test", 9), rows=torch.tensor([2, 7]))
        assert caught.value.row == 7
    impossible = noisy_from_function(lambda x, draws: torch.full((len(x),), -math.inf), (3,), is_unbiased=True)
    assert checked_estimate(impossible, x, PhiloxDraws(0, "test", 2)).tolist() == [-math.inf] * 2


def test_a_biased_target_is_refused_and_the_others_are_not() -> None:
    check_usable(ISING)
    check_usable(noisy())
    check_usable(noisy_from_function(coin, (3,), is_unbiased=True))
    with pytest.raises(CapabilityError, match=r"mine is noisy .* is_unbiased = True only if"):
        check_usable(noisy_from_function(coin, (3,), is_unbiased=False, name="mine"))


@pytest.mark.parametrize(
    "options",
    [{"fn": 3}, {"event_shape": ()}, {"dtype": "int64"}, {"values": (1, 0)}, {"statistics": {"a": 1}}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError):
        noisy_from_function(**({"fn": coin, "event_shape": (3,), "is_unbiased": True} | options))
