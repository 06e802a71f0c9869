"""Ladders: rungs as far apart as asked for, resampling without bias, estimates of log Z, costs and what is refused."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Gibbs, ParallelTempering, RandomWalk, ladder, tempering_ladder
from gfnmc.kernels.ladder import systematic_resampling
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, from_function
from gfnmc.targets.noisy import NoisyCopy
from gfnmc.testing import enumerate_decisions
from tests.support import CountingTarget, assert_close, chi_square, is_identical, random_numbers

ISING = Ising((4, 4), 0.4407)
SWEEP = Gibbs(Lattice.for_target(ISING), ISING, "systematic")

WEIGHTS = {
    "bumpy": random_numbers(1, 7),
    "some zero": torch.tensor([-math.inf, 0.3, -math.inf, 2.0, 0.1, -math.inf]).double(),
    "one": torch.tensor([-math.inf, -1e5, -math.inf]).double(),
    "equal": torch.full((5,), 1e5).double(),
    "halves": torch.tensor([0.5, 0.25, 0.25, 1.0]).double().log(),
}


def counts_by_offset(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """How often each index is taken, for every outcome of the one decision, and the outcomes' probabilities."""

    def count(draws: Draws, rows: Tensor) -> Tensor:
        chosen = systematic_resampling(log_weights, draws)
        return torch.bincount(chosen, minlength=len(log_weights)).expand(len(rows), -1)

    found = enumerate_decisions(count, 1)
    return found.result, found.weight


@pytest.mark.parametrize("name", WEIGHTS)
def test_resampling_is_unbiased_and_as_even_as_can_be(name: str) -> None:
    log_weights = WEIGHTS[name]
    wanted = len(log_weights) * log_weights.softmax(0)
    counts, weight = counts_by_offset(log_weights)
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-12)
    assert (counts.sum(1) == len(log_weights)).all()
    assert not counts[:, log_weights == -math.inf].any()
    assert_close((weight[:, None] * counts).sum(0), wanted, 1e-12)
    # Outcomes as improbable as rounding makes them aside.
    assert float((counts[weight > 1e-9] - wanted).abs().max()) < 1.0


def test_resampling_without_a_random_offset_is_biased() -> None:
    """The negative control."""
    log_weights = WEIGHTS["bumpy"]
    fixed = systematic_resampling(log_weights, _Always(5))
    wanted = len(log_weights) * log_weights.softmax(0)
    assert float((torch.bincount(fixed, minlength=7) - wanted).abs().max()) > 0.1


class _Always(PhiloxDraws):
    """Draws whose shared decisions have one outcome."""

    def __init__(self, outcome: int) -> None:
        super().__init__(0, "x", 1)
        self.outcome = outcome

    def shared_categorical(self, log_probs: Tensor) -> int:
        return self.outcome


def test_the_population_arrives_at_the_target() -> None:
    """The magnetisation of one object of each of some independent runs, and log Z, against the exact ones."""
    solution = ISING.exact()
    assert solution is not None and solution.support is not None and solution.log_pmf is not None
    runs = [tempering_ladder(SWEEP, num_chains=200, num_moves=2, seed=seed) for seed in range(120)]
    # One object a run: those of one population share ancestors.
    which = PhiloxDraws(1, "which", len(runs)).integers(torch.full((len(runs),), 200))
    total = torch.stack([found.position[place].long().sum() for found, place in zip(runs, which, strict=True)])
    edges = torch.tensor([-10, 9])
    of_object = torch.bucketize(solution.support.long().sum((1, 2)), edges)
    counts = torch.bincount(torch.bucketize(total, edges), minlength=3)
    share = torch.zeros(3, dtype=torch.float64).index_add_(0, of_object, solution.log_pmf.exp())
    flat = torch.bincount(of_object, minlength=3) / len(of_object)
    statistic, limit = chi_square(counts, share)
    assert statistic < limit
    statistic, limit = chi_square(counts, flat)
    assert statistic > limit
    log_z = torch.tensor([found.log_z_ratio for found in runs], dtype=torch.float64) + 16 * math.log(2)
    # The mean of many estimates: 4.9 standard errors are a false alarm of 1e-6. A logarithm's bias is half a variance.
    bias = 0.5 * float(log_z.var())
    assert abs(float(log_z.mean()) + bias - solution.log_z) < 4.9 * float(log_z.std()) / len(runs) ** 0.5
    assert float(log_z.std()) < 0.25
    # Negative control: the same without the moves is not worth much.
    still = [tempering_ladder(SWEEP, num_chains=200, num_moves=0, seed=seed).log_z_ratio for seed in range(30)]
    assert float(torch.tensor(still).std()) > 2 * float(log_z.std())


@pytest.mark.parametrize("min_ess", [0.3, 0.6, 0.9])
def test_rungs_are_as_far_apart_as_the_effective_size_allows(monkeypatch: pytest.MonkeyPatch, min_ess: float) -> None:
    seen = []
    resample = ladder.systematic_resampling

    def watching(log_weights: Tensor, draws: Draws) -> Tensor:
        seen.append(1.0 / float(log_weights.softmax(0).square().sum()) / len(log_weights))
        return resample(log_weights, draws)

    monkeypatch.setattr(ladder, "systematic_resampling", watching)
    found = tempering_ladder(SWEEP, num_chains=400, min_ess=min_ess, num_moves=2, seed=1)
    betas = found.inverse_temperatures
    assert betas[0] == 1.0 and betas[-1] == 0.0
    assert all(colder > hotter for colder, hotter in itertools.pairwise(betas))
    assert len(seen) == len(betas) - 1
    assert seen[:-1] == pytest.approx([min_ess] * (len(seen) - 1), abs=1e-6)
    assert seen[-1] >= min_ess
    assert ParallelTempering(SWEEP, betas).inverse_temperatures == betas


def test_the_same_seed_finds_the_same_ladder_and_population() -> None:
    one, two, other = (tempering_ladder(SWEEP, num_chains=100, num_moves=1, seed=seed) for seed in (4, 4, 5))
    assert one.inverse_temperatures == two.inverse_temperatures != other.inverse_temperatures
    assert is_identical(one.position, two.position) and is_identical(one.log_prob, two.log_prob)
    assert one.log_z_ratio == two.log_z_ratio != other.log_z_ratio
    assert_close(one.log_prob, ISING.log_prob(one.position), 1e-11)


def test_costs_are_counted() -> None:
    target = CountingTarget(HyperGridTarget(2, 6))
    found = tempering_ladder(RandomWalk(HyperGrid(2, 6), target), num_chains=50, num_moves=4)
    assert found.cost.target_calls == target.num_rows
    assert found.cost.target_calls <= 50 * (1 + 4 * len(found.inverse_temperatures))
    assert found.cost.policy_calls == 0
    assert 0.0 < found.cost.seconds < 60.0


def test_impossible_objects_have_weight_zero() -> None:
    target = HyperGridTarget(2, 8, r0=0.0)
    kernel = Gibbs(HyperGrid(2, 8), target, "systematic")
    assert (target.log_prob(kernel.start(PhiloxDraws(0, "x", 500))) == -math.inf).double().mean() > 0.5
    found = tempering_ladder(kernel, num_chains=4_000, num_moves=2, seed=3)
    assert (found.log_prob > -math.inf).all()
    solution = target.exact()
    assert solution is not None
    assert found.log_z_ratio + 2 * math.log(8) == pytest.approx(solution.log_z, abs=0.15)


def test_a_population_of_impossible_objects_is_an_error() -> None:
    nowhere = from_function(lambda x: torch.where(x.sum(1) == 9, 0.0, -math.inf).double(), (9,), values=(0, 1))
    kernel = Gibbs(Lattice.for_target(nowhere), nowhere)
    with pytest.raises(EnergyError, match="none of 10 objects is possible"):
        tempering_ladder(kernel, num_chains=10, num_moves=1)


@pytest.mark.parametrize("options", [{"num_chains": 1}, {"num_moves": -1}, {"max_rungs": 1}], ids=str)
def test_counts_that_cannot_work_are_refused(options: dict) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(OptionError, match=f"{name} is {value}; it must be at least"):
        tempering_ladder(SWEEP, **options)


@pytest.mark.parametrize("min_ess", [0.0, 1.0, -1.0, math.nan])
def test_effective_sizes_that_cannot_be_are_refused(min_ess: float) -> None:
    with pytest.raises(OptionError, match="threshold"):
        tempering_ladder(SWEEP, num_chains=10, min_ess=min_ess)


def test_a_ladder_that_does_not_arrive_is_an_error() -> None:
    with pytest.raises(
        OptionError, match=r"3 rungs lead only to inverse temperature 0\.\d+; allow more with max_rungs"
    ):
        tempering_ladder(SWEEP, num_chains=100, min_ess=0.9, num_moves=1, max_rungs=3)


def test_a_noisy_target_is_refused() -> None:
    noisy = NoisyCopy(HyperGridTarget(2, 4), [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(CapabilityError, match="a power of an unbiased estimate is a biased one"):
        tempering_ladder(RandomWalk(HyperGrid(2, 4), noisy))
