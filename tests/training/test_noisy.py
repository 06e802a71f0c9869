"""Targets that can only be estimated: trained on estimates, and sampled by chains that keep theirs."""

import math

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError
from gfnmc.environments import DiscreteEnvironment, Lattice
from gfnmc.kernels import IndependenceMH
from gfnmc.policies import GFlowNet
from gfnmc.targets import Ising, NoisyCopy, Target, noisy_from_function
from gfnmc.training import TrainingResult
from tests.support import chi_square
from tests.training.cases import GRID, distance, learns, log_z_error, run, tables, tiny, unchecked

MULTIPLIERS, PROBABILITIES = (0.25, 1.75), (0.5, 0.5)
SPINS = Ising((3,), 0.6, field=0.3)
MEAN_LOG = 0.5 * (math.log(0.25) + math.log(1.75))
"""The mean of log m: as much as a pair that learns from logarithms sees of the noise, on every object alike."""


def noisy() -> NoisyCopy:
    return NoisyCopy(SPINS, MULTIPLIERS, PROBABILITIES)


def trained(target: Target, **options: object) -> tuple[DiscreteEnvironment, TrainingResult]:
    environment = Lattice.for_target(target)
    config = learns(**({"batch_size": 128} | options))
    return environment, run(environment, target, config, pair=tables(environment))


def test_noise_that_is_not_declared_unbiased_is_refused() -> None:
    environment = Lattice.for_target(SPINS)
    options = {"values": (-1, 1), "dtype": torch.int8, "name": "shaky"}
    for is_unbiased in (False, True):
        target = noisy_from_function(lambda x, draws: x.sum(1).double(), (3,), is_unbiased=is_unbiased, **options)
        if is_unbiased:
            run(environment, target, tiny())
        else:
            with pytest.raises(CapabilityError, match="shaky is noisy and does not say that it is unbiased"):
                run(environment, target, tiny())


def test_what_needs_densities_is_refused() -> None:
    environment = Lattice.for_target(SPINS)
    with pytest.raises(CapabilityError, match="cannot be tempered"):
        run(environment, noisy(), tiny(seeding="tempering"))
    with pytest.raises(CapabilityError, match="modified detailed balance needs the density of each state"):
        run(GRID, noisy(), tiny(objective="modified_detailed_balance"))
    with pytest.raises(CapabilityError, match="has no energy of unfinished objects"):
        run(environment, noisy(), tiny(objective="forward_looking_subtrajectory_balance"))
    with pytest.raises(CapabilityError, match="judged by objects with their densities, not estimates of them"):
        run(environment, noisy(), tiny(), objects=SPINS.exact().support)


@pytest.mark.parametrize("objective", ["trajectory_balance", "log_partition_variance", "subtrajectory_balance"])
def test_a_pair_finds_the_law_through_the_noise(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned is the mean of the log-estimates: the target's law, and log Z short by the mean of log m."""
    unchecked(monkeypatch)
    _, result = trained(noisy(), objective=objective)
    assert distance(result.pair, SPINS) < 2e-2
    learned = log_z_error(result.pair, SPINS)
    if objective == "log_partition_variance":
        # Estimated by weights, not by their logarithms: unbiased, from 1,024 draws of relative deviation 0.75.
        assert abs(learned) < 4.9 * 0.75 / 32.0
    else:
        assert learned == pytest.approx(MEAN_LOG, abs=5e-2)
    assert abs(result.quality.log_z - SPINS.exact().log_z) < 4.9 * 0.75 / 32.0
    assert result.quality.label == "conditional on the modes visited"


class Skewed(NoisyCopy):
    """Noise that claims to be unbiased, and is not: larger where the first spin is up."""

    def estimate_log_prob(self, x: Tensor, draws: Draws) -> Tensor:
        return super().estimate_log_prob(x, draws) + 1.0 * (x[:, 0] > 0)


def test_a_false_claim_is_learned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the distance above sees a bias."""
    unchecked(monkeypatch)
    _, result = trained(Skewed(SPINS, MULTIPLIERS, PROBABILITIES))
    assert distance(result.pair, SPINS) > 5e-2


def test_chains_of_the_pair_are_pseudo_marginal(monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end: estimates all the way, and the law of the target at the end."""
    unchecked(monkeypatch)
    # Few steps, so that the pair is off and the accept step has something to put right.
    environment, result = trained(noisy(), num_steps=15, check_every=15)
    assert distance(result.pair, SPINS) > 5e-2
    law = SPINS.exact()
    chains = gfnmc.sample(
        IndependenceMH(result.pair, noisy()), num_chains=8_000, num_samples=1, num_warmup=40, seed=1, progress_bar=False
    )
    counts = torch.bincount(law.index(chains.x[:, 0]), minlength=8)
    statistic, limit = chi_square(counts, law.log_pmf.exp())
    assert statistic < limit
    # Negative control: objects of P_F, not accepted or rejected.
    own = result.pair.sample_forward(environment.source(8_000), PhiloxDraws(0, "own", 8_000))
    counts = torch.bincount(law.index(environment.objects(own.end)), minlength=8)
    statistic, limit = chi_square(counts, law.log_pmf.exp())
    assert statistic > limit


def test_chains_that_estimate_anew_sample_another_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the chain: forgetting the estimate makes every object as likely to be left."""
    unchecked(monkeypatch)
    _, result = trained(noisy(), num_steps=15, check_every=15)
    kernel, law = IndependenceMH(result.pair, noisy()), SPINS.exact()
    draws = PhiloxDraws(3, "chains", 8_000)
    state = kernel.init(kernel.start(draws.role("start")), draws.role("init"))
    for step in range(40):
        state = kernel.init(state.position, draws.at(step).role("anew"))
        state, _ = kernel.step(draws.at(step), state)
    statistic, limit = chi_square(torch.bincount(law.index(state.position), minlength=8), law.log_pmf.exp())
    assert statistic > limit


def test_noise_runs_repeat_and_count() -> None:
    class Counted(NoisyCopy):
        num_rows = 0

        def estimate_log_prob(self, x: Tensor, draws: Draws) -> Tensor:
            self.num_rows += len(x)
            return super().estimate_log_prob(x, draws)

    environment = Lattice.for_target(SPINS)
    results = []
    for _ in range(2):
        target = Counted(SPINS, MULTIPLIERS, PROBABILITIES)
        results.append(run(environment, target, tiny(chain_batch_size=4)))
        assert results[-1].cost.target_calls == target.num_rows
    one, other = results
    assert one.history == other.history and isinstance(one.pair, GFlowNet)
