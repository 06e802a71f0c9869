"""Recycled kernels: the same chain draw for draw, with means that are right, and of less variance a step."""

import functools

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError
from gfnmc.diagnostics import recycled_means, recycling_gains
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import (
    Cycle,
    DelayedAcceptance,
    Gibbs,
    IndependenceMH,
    Kernel,
    RandomWalk,
    Recycled,
    SuffixResampling,
    branch,
)
from gfnmc.kernels.recycled import mean_over_coin
from gfnmc.sampling import Chains, sample
from gfnmc.targets import Ising, from_function
from gfnmc.testing import assert_invariant
from tests.support import is_identical, random_pair

TARGET = Ising((2, 2), 0.3)
LATTICE = Lattice.for_target(TARGET)
KERNELS = {
    "suffix": lambda: SuffixResampling(random_pair(LATTICE, scale=0.7), TARGET),
    "prefix": lambda: SuffixResampling(random_pair(LATTICE, scale=0.7), TARGET, branch.PrefixUniform()),
    "independence": lambda: IndependenceMH(random_pair(LATTICE, scale=0.7), TARGET),
    "walk": lambda: RandomWalk(LATTICE, TARGET),
    "delayed": lambda: DelayedAcceptance(RandomWalk(LATTICE, TARGET), Ising((2, 2), 0.1)),
}
OPTIONS = {"num_chains": 60, "num_samples": 40, "num_warmup": 4, "seed": 2, "progress_bar": False}
DEVIATIONS = 1.5 * 4.9
"""Standard errors, and a half more: they are estimates themselves."""


@functools.cache
def run(name: str) -> Chains:
    return sample(Recycled(KERNELS[name]()), **OPTIONS)


@pytest.mark.parametrize("name", KERNELS)
def test_no_draw_changes(name: str) -> None:
    chains, plain = run(name), sample(KERNELS[name](), **OPTIONS)
    assert is_identical(chains.x, plain.x) and is_identical(chains.samples.log_prob, plain.samples.log_prob)
    assert chains.kernel_name == plain.kernel_name
    assert chains.sampling_cost.target_calls == plain.sampling_cost.target_calls
    for stat, value in plain.samples.stats.items():
        assert is_identical(chains.samples.stats[stat], value)


@pytest.mark.parametrize("name", KERNELS)
def test_the_means_are_the_targets(name: str) -> None:
    exact, found = TARGET.exact(), recycled_means(run(name))
    assert exact is not None and exact.mode_masses is not None
    wanted = dict(exact.expectations) | dict(zip(("occ[spins down]", "occ[spins up]"), exact.mode_masses, strict=True))
    assert set(found) == set(wanted)
    for statistic, mean in found.items():
        assert mean.mcse is not None and abs(mean.mean - wanted[statistic]) < DEVIATIONS * mean.mcse


def test_means_of_the_proposals_alone_are_seen_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from gfnmc.kernels import recycled

    monkeypatch.setattr(recycled, "mean_over_coin", lambda rate, values: values.double().chunk(2)[1])
    energy, exact = recycled_means(run.__wrapped__("independence"))["energy_per_site"], TARGET.exact()
    assert exact is not None and energy.mcse is not None
    assert abs(energy.mean - exact.expectations["energy_per_site"]) > DEVIATIONS * energy.mcse


@pytest.mark.parametrize("name", KERNELS)
def test_a_step_varies_less_and_the_gain_is_told(name: str) -> None:
    chains = run(name)
    rows = {row["name"]: row for row in recycling_gains(chains)}
    for statistic, draws in chains.statistics.items():
        if statistic != "log_prob":
            assert float(chains.samples.stats[f"recycled[{statistic}]"].std()) < float(draws.std())
            assert rows[statistic]["gain"] > 0.8
    assert recycling_gains(sample(KERNELS[name](), **{**OPTIONS, "num_samples": 5})) == []


def test_the_mean_over_the_coin() -> None:
    rate = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    values = torch.tensor([1.0, 2.0, 3.0, float("inf"), 6.0, 7.0])
    assert mean_over_coin(rate, values).tolist() == [1.0, 3.0, 7.0]
    assert mean_over_coin(rate, torch.tensor([True, False, True, True, True, False])).tolist() == [1.0, 0.25, 0.0]


def test_each_step_is_the_mean_over_where_it_may_end() -> None:
    kernel = KERNELS["suffix"]()
    draws, start = PhiloxDraws(0, "x", 30), LATTICE.objects(LATTICE.states(TARGET.exact().support[:1].expand(30, 2, 2)))
    _, info = Recycled(kernel).step(draws, kernel.init(start))

    def energy(x: Tensor) -> Tensor:
        return TARGET.statistics(x)["energy_per_site"].double()

    wanted = (1 - info.acceptance_rate) * energy(start) + info.acceptance_rate * energy(info.proposal)
    assert torch.allclose(info.extras["recycled[energy_per_site]"], wanted, rtol=0, atol=1e-14)
    assert (info.acceptance_rate > 0.0).all() and (info.acceptance_rate < 1.0).any()


def test_it_is_invariant_in_a_cycle_too() -> None:
    pair = Ising((2,), 0.3, field=0.2)
    walk = RandomWalk(Lattice.for_target(pair), pair)
    assert assert_invariant(Cycle([Recycled(walk), walk])).claim == "invariant"
    cycle: Kernel = Cycle([Recycled(KERNELS["suffix"]()), RandomWalk(LATTICE, TARGET)])
    assert set(recycled_means(sample(cycle, **{**OPTIONS, "num_samples": 8}))) >= {"energy_per_site"}


def test_it_is_tempered_and_tuned_as_what_it_is_around() -> None:
    warm = Recycled(KERNELS["walk"]()).tempered(0.5)
    assert isinstance(warm, Recycled) and warm.inverse_temperature == warm.kernel.inverse_temperature == 0.5
    assert Recycled(KERNELS["walk"]()).adaptation() is None
    chains = sample(Recycled(KERNELS["suffix"]()), adapt=True, **OPTIONS)
    plain = sample(KERNELS["suffix"](), adapt=True, **OPTIONS)
    assert is_identical(chains.x, plain.x)
    assert isinstance(chains.adapted_kernel, Recycled)
    assert "recycled[energy_per_site]" in chains.warmup.stats


def test_a_target_without_statistics_has_nothing_to_record() -> None:
    plain = from_function(lambda x: x.sum(1).double(), (2,), values=(0, 1, 2))
    grid = HyperGrid(2, 3)
    chains = sample(Recycled(RandomWalk(grid, plain)), **{**OPTIONS, "num_samples": 5})
    with pytest.raises(CapabilityError, match=r"hold no recycled values; .* Recycled\(kernel\)"):
        recycled_means(chains)


def test_what_accepts_otherwise_is_refused() -> None:
    for kernel in (Gibbs(LATTICE, TARGET), Cycle([RandomWalk(LATTICE, TARGET)])):
        with pytest.raises(CapabilityError, match=r"no coin to average over; .* of a Cycle, recycle its parts"):
            Recycled(kernel)
