"""Recycled means: what was recorded comes back by name, agrees with the truth, and is refused where it is not there."""

import functools
import math
from statistics import NormalDist

import pytest
import torch

from gfnmc.core.errors import CapabilityError
from gfnmc.diagnostics import convergence
from gfnmc.diagnostics.recycling import recycled_means
from gfnmc.environments import Lattice
from gfnmc.kernels import Cycle, RandomWalk, multiple_try
from gfnmc.kernels.multiple_try import MultipleTrySuffix
from gfnmc.sampling import Chains, sample
from gfnmc.targets import Ising
from tests.support import FALSE_ALARM, random_pair

TARGET = Ising((2, 2), 0.3)
LATTICE = Lattice.for_target(TARGET)
# Fixed seeds; wide by a half, for the standard error is itself an estimate.
LIMIT = 1.5 * NormalDist().inv_cdf(1.0 - FALSE_ALARM / 2)


@functools.cache
def run(*, recycle: bool, cycle: bool = False) -> Chains:
    kernel = MultipleTrySuffix(random_pair(LATTICE, scale=0.7), TARGET, num_tries=6, recycle=recycle)
    whole = Cycle([kernel, RandomWalk(LATTICE, TARGET)]) if cycle else kernel
    return sample(whole, num_chains=30, num_samples=60, num_warmup=8, seed=2, progress_bar=False)


@pytest.mark.parametrize("cycle", [False, True])
def test_recycled_means_are_those_of_the_recorded_values_and_near_the_truth(cycle: bool) -> None:
    chains = run(recycle=True, cycle=cycle)
    found = recycled_means(chains)
    assert list(found) == [*TARGET.statistics(chains.x[:, 0]), "occ[spins down]", "occ[spins up]"]
    solution = TARGET.exact()
    assert solution is not None and solution.mode_masses is not None
    wanted = dict(solution.expectations) | dict(
        zip(("occ[spins down]", "occ[spins up]"), solution.mode_masses, strict=True)
    )
    for name, mean in found.items():
        recorded = chains.samples.stats[f"recycled[{name}]"]
        assert recorded.shape == (30, 60) and recorded.dtype == torch.float64
        assert mean == convergence(recorded.numpy())
        assert mean.mcse is not None and mean.mcse < 0.05
        assert abs(mean.mean - wanted[name]) < LIMIT * mean.mcse


def test_means_of_candidates_that_are_not_weighted_are_seen_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiple_try, "candidate_weights", lambda log_weights: torch.full_like(log_weights, 1 / 6))
    energy, solution = recycled_means(run.__wrapped__(recycle=True))["energy_per_site"], TARGET.exact()
    assert solution is not None and energy.mcse is not None
    assert abs(energy.mean - solution.expectations["energy_per_site"]) > LIMIT * energy.mcse


def test_recycled_means_of_one_step_vary_less_than_the_chains_own() -> None:
    chains = run(recycle=True)
    found = recycled_means(chains)
    for name, draws in chains.statistics.items():
        if name != "log_prob":
            plain = convergence(draws)
            assert plain.mcse is not None and found[name].mcse is not None
            assert math.isclose(plain.mean, found[name].mean, abs_tol=8 * plain.mcse)
            assert float(chains.samples.stats[f"recycled[{name}]"].std()) < float(draws.std())


def test_what_was_not_recorded_is_refused() -> None:
    with pytest.raises(CapabilityError, match=r"multiple-try suffix hold no recycled values; .* recycle=True"):
        recycled_means(run(recycle=False))


def test_recording_changes_no_draw_and_is_kept_in_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    chains, plain = run(recycle=True), run(recycle=False)
    assert torch.equal(chains.x, plain.x) and chains.sampling_cost.target_calls == plain.sampling_cost.target_calls
    chains.save(tmp_path / "chains.nc")
    import xarray

    with xarray.open_datatree(tmp_path / "chains.nc", engine="h5netcdf") as tree:
        kept = torch.from_numpy(tree["sample_stats"]["recycled[occ[spins up]]"].values)
    assert torch.equal(kept, chains.samples.stats["recycled[occ[spins up]]"])
