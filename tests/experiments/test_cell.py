"""One cell: where chains start, how much they run, what is counted."""

import math

import pytest
import torch

from gfnmc.core.cost import Cost
from gfnmc.core.errors import ObjectError
from gfnmc.environments import Lattice
from gfnmc.experiments import cell as cell_module
from gfnmc.experiments.cell import DISPERSED, ONE_MODE, Limits, run_cell, starts
from gfnmc.experiments.pricing import Prices
from gfnmc.kernels import Gibbs, RandomWalk
from gfnmc.targets import Ising, from_function

TARGET = Ising((3, 3), coupling=0.4)
LATTICE = Lattice.for_target(TARGET, order="fixed")
PRICES = Prices(full_microseconds=1.0, delta=0.25, gradient=None)


def run(kernel: RandomWalk | Gibbs, limits: Limits, *, start: str = ONE_MODE) -> dict:
    """A cell of 16 chains."""
    return run_cell("it", kernel, PRICES, limits, start=start, num_chains=16, num_warmup=10, seed=3, num_threads=1)


def test_adversarial_starts_are_one_object_and_dispersed_ones_many() -> None:
    together = starts(TARGET, LATTICE, ONE_MODE, 50, 0)
    assert together.shape == (50, 3, 3) and (together == -1).all()
    apart = starts(TARGET, LATTICE, DISPERSED, 400, 0)
    assert len(apart.flatten(1).unique(dim=0)) > 200
    assert abs(float(apart.double().mean())) < 5.0 / math.sqrt(400 * 9)
    assert not torch.equal(apart, starts(TARGET, LATTICE, DISPERSED, 400, 1))


def test_dispersed_starts_are_possible_objects() -> None:
    only_even = from_function(
        lambda x: torch.where(x.sum(1) % 2 == 0, 0.0, -math.inf), (4,), values=(0, 1), dtype=torch.int8
    )
    lattice = Lattice.for_target(only_even, order="fixed")
    found = starts(only_even, lattice, ONE_MODE, 100, 0)
    assert (found.sum(1) % 2 == 0).all() and len(found) == 100
    nothing = from_function(lambda x: torch.full((len(x),), -math.inf), (4,), values=(0, 1), dtype=torch.int8)
    with pytest.raises(ObjectError, match="impossible"):
        starts(nothing, lattice, DISPERSED, 8, 0)


def test_the_leading_sampler_runs_as_many_steps_as_it_is_told() -> None:
    cell = run(RandomWalk(LATTICE, TARGET), Limits(50, None, math.inf))
    assert cell["figures"]["num_samples"] == 50 and cell["figures"]["thinning"] == 1
    assert cell["ended_by"] == "samples"
    assert cell["calls"] == {"training": 0.0, "sampling": 16 * 61}
    movement = cell["movement"]
    # 49 of 60 steps lie between two kept draws.
    assert movement["calls"] == pytest.approx(49 / 60 * 16 * 61)
    assert movement["switches"] > 0
    assert cell["figures"]["switches_per_1000_steps"] == pytest.approx(1_000 * movement["switches"] / (16 * 49))


def test_others_run_for_the_calls_that_are_left_in_full_evaluations() -> None:
    calls = 8_000.0
    walk = run(RandomWalk(LATTICE, TARGET), Limits(50, calls, math.inf))
    assert walk["ended_by"] == "calls"
    assert 0.9 * calls < walk["calls"]["sampling"] <= calls
    # A difference costs a quarter of an energy here, so a heat bath makes more steps of them.
    gibbs = Gibbs(LATTICE, TARGET)
    heat_bath = run(gibbs, Limits(50, calls, math.inf))
    assert 0.9 * calls < heat_bath["calls"]["sampling"] <= calls
    steps = [each["figures"]["num_samples"] * each["figures"]["thinning"] for each in (walk, heat_bath)]
    assert steps[1] > 3 * steps[0]
    # What tuning cost is charged as training is.
    gibbs.training_cost = Cost(target_calls=6_000)
    tuned = run(gibbs, Limits(50, calls, math.inf))
    assert tuned["calls"]["training"] == 6_000.0
    assert tuned["calls"]["sampling"] <= 2_000.0


def test_seconds_end_a_run_too() -> None:
    cell = run(RandomWalk(LATTICE, TARGET), Limits(50, 1e12, 0.2))
    assert cell["ended_by"] == "seconds"
    assert cell["seconds"]["sampling"] < 2.0


def test_thinned_chains_are_watched_step_by_step_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "_MAX_KEPT", 40)
    monkeypatch.setattr(cell_module, "_AUDIT_STEPS", 100)
    cell = run(RandomWalk(LATTICE, TARGET), Limits(50, 16_000.0, math.inf))
    assert cell["figures"]["thinning"] > 1
    per_step = cell["figures"]["switches_per_1000_steps"] / 1_000
    movement = cell["movement"]
    watched = movement["switches"] / movement["calls"]
    assert watched >= 0.99 * per_step * 16 / (cell["calls"]["sampling"] / (
        cell["figures"]["num_warmup"] + cell["figures"]["num_samples"] * cell["figures"]["thinning"]
    ))  # fmt: skip


def test_every_mode_found_by_when() -> None:
    cell = run(RandomWalk(LATTICE, TARGET), Limits(400, None, math.inf))
    modes = cell["figures"]["modes"]
    assert all(mode["found_after_calls"] is not None for mode in modes)
    assert cell["discovery"]["calls"] == max(mode["found_after_calls"] for mode in modes)
    stuck = Ising((3, 3), coupling=20.0)
    cell = run(RandomWalk(Lattice.for_target(stuck), stuck), Limits(20, None, math.inf))
    assert cell["discovery"] is None and cell["movement"]["switches"] == 0
