"""Energies that fail at a random call: never silent, whatever the kernel and whatever is wanted."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import CapabilityError, EnergyError, GfnmcError, NonFiniteEnergyError, OptionError
from gfnmc.kernels import Cycle, Gibbs, Info, Kernel, MultipleTrySuffix, ParallelTempering, RandomWalk, State
from gfnmc.kernels.recommended import recommended
from gfnmc.sampling import Chains, sample
from gfnmc.targets import Target, from_function
from gfnmc.targets.nonfinite import NonFiniteTally, rejecting_nonfinite, rows_per_chain
from tests.sampling.cases import GRID, GRID_TARGET, LATTICE, SPINS, assert_same_draws, is_prefix
from tests.support import CountingTarget, network_pair, random_pair

KERNELS: list[tuple[Callable[[Target], Kernel], Target]] = [
    (lambda target: RandomWalk(GRID, target), GRID_TARGET),
    (lambda target: recommended(network_pair(GRID), target), GRID_TARGET),
    (lambda target: MultipleTrySuffix(random_pair(GRID), target), GRID_TARGET),
    (lambda target: ParallelTempering(RandomWalk(GRID, target), (1.0, 0.5, 0.2)), GRID_TARGET),
    (lambda target: Cycle([Gibbs(LATTICE, target), RandomWalk(LATTICE, target)]), SPINS),
]


OPTIONS: dict[str, Any] = {"num_chains": 4, "num_samples": 6, "num_warmup": 3, "seed": 5, "progress_bar": False}


class Boom(Exception):
    """What the energy raises."""


def faulty_run(seed: int) -> str:
    """Let an energy fail at a random call of a random run, check what comes of it, and return that in a word."""
    rng = np.random.default_rng(seed)
    which = int(rng.integers(len(KERNELS)))
    make, target = KERNELS[which]
    sound, num_calls = sound_run(which)
    fault, mode = rng.choice(["nan", "inf", "exception"]), str(rng.choice(["raise", "reject"]))
    boom, rows = Boom("boom"), []

    def trap(x: Tensor, value: Tensor) -> Tensor:
        if fault == "exception":
            raise boom
        row = int(rng.integers(len(value)))
        rows.append(row)
        return torch.where(torch.arange(len(value)) == row, float(fault), value)

    at = int(rng.integers(num_calls))
    faulty = CountingTarget(target, trap_at=at, trap=trap)
    try:
        chains = sample(make(faulty), on_nonfinite=mode, **OPTIONS)
    except Exception as error:
        return judged_error(error, sound, fault, mode, boom)
    assert fault != "exception" and mode == "reject"
    assert int(chains.nonfinite_count.sum()) == 1
    return "counted"


@functools.cache
def sound_run(which: int) -> tuple[Chains, int]:
    """A run whose energy never fails, and the calls that it made."""
    make, target = KERNELS[which]
    counted = CountingTarget(target)
    return sample(make(counted), **OPTIONS), counted.num_calls


def judged_error(error: Exception, sound: Chains, fault: str, mode: str, boom: Boom) -> str:
    """Check an error that ended a run: of which kind it is, what it names and what it keeps."""
    kept = error.chains if hasattr(error, "chains") else None
    steps = 0 if kept is None else kept.num_warmup + kept.num_samples
    if kept is not None:
        assert mode == "reject" or (is_prefix(kept.warmup, sound.warmup) and is_prefix(kept.samples, sound.samples))
        assert kept.samples.log_prob.shape[0] == 4
    if fault == "exception":
        assert error is boom
        assert steps == 0 or any(note.startswith(f"in step {steps} of chains 0 to 3") for note in error.__notes__)
        return "passed on"
    assert isinstance(error, GfnmcError)
    if not isinstance(error, NonFiniteEnergyError):
        # Where the chain stands the energy was finite before: it cannot be told what a change of it is worth.
        assert mode == "reject" and isinstance(error, (EnergyError, ValueError))
        return "refused"
    assert 0 <= error.row < 4 and error.step == steps and error.state is not None
    assert str(error).startswith(f"chain {error.row}, step {steps}: ")
    assert str(error.state) in str(error)
    assert not math.isfinite(error.value)
    return "named"


def test_energies_that_fail_at_a_random_call_are_never_silent() -> None:
    found = [faulty_run(seed) for seed in range(50)]
    assert {"named", "passed on", "counted"} <= set(found)


def test_a_fault_that_nobody_looked_for_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: energies that are not looked at make a faulty run pass as a sound one."""
    monkeypatch.setattr("gfnmc.targets.base.checked_log_densities", lambda value, *given: value)
    with pytest.raises(AssertionError):
        for seed in range(40):
            faulty_run(seed)


def holed(bad: float) -> Target:
    """Some bumpy law whose energy fails on a quarter of the objects."""

    def log_prob(x: Tensor) -> Tensor:
        value = torch.sin(2.0 * x[:, 0] + x[:, 1]).double()
        return torch.where((x[:, 0] + x[:, 1]) % 4 == 3, bad, value)

    return from_function(log_prob, (2,), values=tuple(range(8)), name="holed")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rejection_samples_the_target_where_it_is_finite(bad: float) -> None:
    """Bit for bit as a target does that says itself what is impossible, and that tests/exact/ has proved."""
    target, restricted = holed(bad), holed(-math.inf)
    options: dict[str, Any] = {"num_samples": 20, "num_warmup": 5, "init": torch.tensor([0, 0]), "progress_bar": False}
    kernels = [
        lambda target: recommended(random_pair(GRID), target),
        lambda target: ParallelTempering(RandomWalk(GRID, target), (1.0, 0.4)),
    ]
    for make in kernels:
        chains = sample(make(target), num_chains=5, on_nonfinite="reject", **options)
        wanted = sample(make(restricted), num_chains=5, **options)
        nothing = {name: value for name, value in chains.samples.stats.items() if name != "nonfinite"}
        assert nothing.keys() == wanted.samples.stats.keys()
        assert torch.equal(chains.x, wanted.x)
        assert int(chains.nonfinite_count.min()) > 0
        assert int(wanted.nonfinite_count.sum()) == 0
        with pytest.raises(NonFiniteEnergyError):
            sample(make(target), num_chains=5, **options)


def test_counts_belong_to_their_chains() -> None:
    target = holed(math.nan)
    options: dict[str, Any] = {"num_samples": 30, "num_warmup": 0, "init": torch.tensor([0, 0]), "progress_bar": False}
    for make in (
        lambda: RandomWalk(GRID, target),
        lambda: MultipleTrySuffix(random_pair(GRID), target),
        lambda: ParallelTempering(RandomWalk(GRID, target), (1.0, 0.5)),
    ):
        many = sample(make(), num_chains=6, on_nonfinite="reject", **options)
        few = sample(make(), num_chains=2, on_nonfinite="reject", **options)
        assert torch.equal(few.nonfinite_count, many.nonfinite_count[:2])
        assert len(many.nonfinite_count.unique()) > 1


def test_a_start_that_is_not_finite_is_an_error_all_the_same() -> None:
    with pytest.raises(NonFiniteEnergyError, match="chain 0, step 0"):
        sample(RandomWalk(GRID, holed(math.nan)), init=torch.tensor([1, 2]), on_nonfinite="reject", progress_bar=False)
    with pytest.raises(OptionError, match="on_nonfinite is 'ignore'"):
        sample(RandomWalk(GRID, GRID_TARGET), on_nonfinite="ignore", progress_bar=False)


class Careless(RandomWalk):
    """A walk that goes wherever it likes."""

    def step(self, draws: Any, state: State) -> tuple[State, Info]:
        state, info = super().step(draws, state)
        position = torch.full_like(state.position, 3)
        return State(position, torch.full_like(state.log_prob, -torch.inf)), info


def test_a_kernel_that_moves_where_the_energy_fails_is_stopped() -> None:
    kernel = Careless(GRID, GRID_TARGET)
    with pytest.raises(EnergyError, match=r"chain 0, step 0: random walk moved to \[3, 3\]"):
        sample(kernel, on_nonfinite="reject", progress_bar=False)


def test_tallies_nest_and_end() -> None:
    tally = NonFiniteTally(2)
    with rejecting_nonfinite(tally), rows_per_chain(3), rows_per_chain(2):
        tally.add(torch.tensor([0, 5, 6, 11]))
    tally.add(torch.tensor([1]))
    assert tally.take().tolist() == [2, 3]
    assert tally.take().tolist() == [0, 0]
    with rows_per_chain(4):
        pass
    target = CountingTarget(GRID_TARGET, trap_at=0, trap=lambda x, value: value * torch.nan)
    with rejecting_nonfinite(tally), rejecting_nonfinite(None), pytest.raises(NonFiniteEnergyError):
        RandomWalk(GRID, target).init(torch.zeros(2, 2, dtype=torch.int64))


def test_caches_are_for_kernels_that_keep_one() -> None:
    walk = RandomWalk(GRID, GRID_TARGET)
    assert walk.cache_tensors(None) == {} and walk.cache_from({}) is None
    with pytest.raises(CapabilityError, match="keeps no cache"):
        walk.cache_from({"something": torch.zeros(1)})


def test_the_default_is_what_it_was() -> None:
    walk = RandomWalk(GRID, GRID_TARGET)
    options: dict[str, Any] = {"num_samples": 10, "num_warmup": 0, "progress_bar": False}
    plain, rejecting = sample(walk, **options), sample(walk, on_nonfinite="reject", **options)
    assert "nonfinite" not in plain.samples.stats
    assert int(rejecting.samples.stats.pop("nonfinite").sum()) == 0
    assert_same_draws(rejecting.samples, plain.samples)
