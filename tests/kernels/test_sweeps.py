"""Chromatic sweeps: what they report and cost, what they refuse, and that a chain is the same beside any others."""

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import ChromaticMetropolis, Gibbs, Kernel, ParallelTempering, Reason, State
from gfnmc.kernels.bond_sweep import _sums_over_sites, equal_bonds
from gfnmc.sampling import Budget, sample
from gfnmc.targets import EdwardsAnderson, Ising, Potts, Target, from_function
from gfnmc.targets.noisy import NoisyCopy
from tests.support import CountingTarget, assert_close, chi_square, is_identical, random_numbers


class Chain(Target):
    """Words whose neighbouring letters differ and have energies of their own; it offers nothing but `log_prob`."""

    name, event_shape, dtype, values = "chain", (4,), torch.int64, (0, 2, 5)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where((x[:, 1:] == x[:, :-1]).any(1), -math.inf, 0.3 * x.double().sum(1))

    def interactions(self) -> Tensor:
        return torch.tensor([[0, 1], [1, 2], [2, 3]])


TARGETS: dict[str, Target] = {
    "spins": Ising((3, 4), 0.4),
    "glass": EdwardsAnderson((4, 4), 0.5, seed=2),
    "free spins": Ising((3, 3), -0.5, periodic=False),
    "two colours": Potts((3, 4), 2, 0.7),
    "in a field": Ising((3, 4), 0.4, field=0.1),
    "colours": Potts((3, 4), 3, 0.7),
    "words": Chain(),
}
BY_BONDS = {"spins", "glass", "free spins", "two colours"}
KERNELS: dict[str, Callable[[Target], Kernel]] = {
    "Gibbs": lambda target: Gibbs(Lattice.for_target(target), target, "chromatic"),
    "Metropolis": lambda target: ChromaticMetropolis(Lattice.for_target(target), target),
}
BY_KERNEL = pytest.mark.parametrize("kind", KERNELS)
BY_TARGET = pytest.mark.parametrize("name", TARGETS)


def some_objects(target: Target, num_rows: int) -> Tensor:
    assert target.values is not None
    values = torch.tensor(target.values, dtype=target.dtype)
    if isinstance(target, Chain):
        return values[torch.arange(4) % 2].expand(num_rows, 4).clone()
    place = np.random.default_rng(1).integers(0, len(values), (num_rows, *target.event_shape))
    return values[torch.from_numpy(place)]


def walked(kernel: Kernel, num_chains: int, num_steps: int, seed: int = 3) -> State:
    draws = PhiloxDraws(seed, "run", num_chains)
    state = kernel.init(some_objects(kernel.target, 300)[:num_chains])
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


@BY_KERNEL
@BY_TARGET
def test_a_step_does_what_it_reports(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    state, cache = walked(kernel, 40, 2), object()
    kept = State(state.position.clone(), state.log_prob.clone(), cache)
    after, info = kernel.step(PhiloxDraws(1, "x", 40), State(state.position, state.log_prob, cache))
    assert torch.equal(state.position, kept.position) and torch.equal(state.log_prob, kept.log_prob)
    assert after.cache is cache and after.position.dtype == state.position.dtype
    assert torch.equal(info.proposal, after.position)
    num_sites = math.prod(kernel.target.event_shape)
    changed = (after.position != state.position).flatten(1).sum(1).double() / num_sites
    assert 0.0 < float(changed.mean()) < 1.0
    assert is_identical(info.acceptance_rate, torch.ones_like(changed) if kind == "Gibbs" else changed)
    assert info.is_accepted.dtype == torch.bool and info.is_accepted.all()
    assert info.log_ratio.dtype == torch.float64 and not info.log_ratio.any()
    assert (info.reason == Reason.ACCEPTED).all() and info.reason.dtype == torch.int8
    for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
        assert field.dtype == torch.int64 and len(field) == 40 and not field.any()
    again, _ = kernel.step(PhiloxDraws(1, "x", 40), state)
    assert is_identical(again.position, after.position) and is_identical(again.log_prob, after.log_prob)
    other, _ = kernel.step(PhiloxDraws(1, "y", 40), state)
    assert not torch.equal(other.position, after.position)


@BY_KERNEL
@BY_TARGET
def test_a_visit_costs_a_call_for_each_other_value(name: str, kind: str) -> None:
    target = TARGETS[name]
    assert target.values is not None
    kernel = KERNELS[kind](target)
    calls = math.prod(target.event_shape) * (len(target.values) - 1)
    assert kernel.calls_per_step == calls
    draws, state = PhiloxDraws(1, "x", 7), kernel.init(some_objects(target, 7))
    power = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0, 2.0, 1.0]).double()
    for tempered, rows in ((kernel, [1.0] * 7), (kernel.tempered(power), power), (kernel.tempered(0.0), [0.0] * 7)):
        _, info = tempered.step(draws, state)
        # Bonds are counted whatever the temperature; else a flat chain needs no changes, and its place costs one call.
        wanted = [calls if beta > 0.0 or name in BY_BONDS else 1 for beta in rows]
        assert info.target_calls.tolist() == wanted and info.target_calls.dtype == torch.int64
        delta = [calls if beta > 0.0 or name in BY_BONDS else 0 for beta in rows]
        assert torch.as_tensor(info.delta_calls).tolist() == (delta if target.offers_delta else [0] * 7)
        assert info.cost().target_calls == sum(wanted)


def test_default_changes_are_asked_site_by_site_and_counted_so() -> None:
    counted = CountingTarget(TARGETS["words"])
    counted.interactions = TARGETS["words"].interactions  # type: ignore[method-assign]
    kernel = KERNELS["Gibbs"](counted)
    state = kernel.init(some_objects(TARGETS["words"], 5))
    counted.num_rows = 0
    kernel.step(PhiloxDraws(0, "x", 5), state)
    # What is there is evaluated as well, as by the systematic scan.
    assert counted.num_rows == 5 * 4 * 3


@pytest.mark.parametrize("power", [1.0, 0.3, 0.0, "one a chain"])
@BY_KERNEL
@BY_TARGET
def test_the_density_that_is_carried_along_stays_true(name: str, kind: str, power: float | str) -> None:
    target = TARGETS[name]
    kernel = KERNELS[kind](target)
    draws, state = PhiloxDraws(3, "run", 21), kernel.init(some_objects(target, 21))
    powers = torch.tensor([1.0, 0.0, 0.4]).double().repeat(7) if isinstance(power, str) else power
    tempered = kernel.tempered(powers)
    for step in range(60):
        state, _ = tempered.step(draws.at(step), state)
    assert_close(state.log_prob, target.log_prob(state.position), 1e-11)
    assert (state.log_prob[torch.as_tensor(powers).expand(21) > 0.0] > -math.inf).all()


@BY_KERNEL
@BY_TARGET
def test_a_chain_is_the_same_whatever_runs_beside_it(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    few = walked(kernel, 5, 20)
    for num_chains in (1, 2, 40, 64, 65, 300):
        many = walked(kernel, num_chains, 20)
        rows = min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        assert is_identical(many.log_prob[:rows], few.log_prob[:rows])
    assert not torch.equal(walked(kernel, 5, 20, seed=4).position, few.position)


@BY_KERNEL
@BY_TARGET
def test_one_temperature_a_chain_is_the_same_as_one_for_all(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    for power in (1.0, 0.4):
        one = kernel.tempered(power)
        several = kernel.tempered(torch.full((40,), power, dtype=torch.float64))
        assert is_identical(walked(several, 40, 5).position, walked(one, 40, 5).position)
    mixed = kernel.tempered(torch.tensor([1.0, 0.4]).double().repeat(20))
    assert is_identical(walked(mixed, 40, 5).position[1::2], walked(one, 40, 5).position[1::2])


@BY_KERNEL
@BY_TARGET
def test_where_objects_lie_in_memory_does_not_matter(name: str, kind: str) -> None:
    kernel = KERNELS[kind](TARGETS[name])
    x = some_objects(kernel.target, 30)
    axes = tuple(range(x.dim()))
    layouts = (
        x,
        x.flatten(1).T.contiguous().T.unflatten(1, x.shape[1:]),
        x.permute(axes[::-1]).contiguous().permute(axes[::-1]),
    )
    ends = [kernel.step(PhiloxDraws(1, "x", 30), kernel.init(layout))[0] for layout in layouts]
    for end in ends[1:]:
        assert is_identical(end.position, ends[0].position) and is_identical(end.log_prob, ends[0].log_prob)
    # The next step takes what a step has left.
    assert torch.equal(ends[0].position.contiguous(), ends[0].position)


@BY_KERNEL
@pytest.mark.parametrize("name", ["two colours", "in a field", "words"])
def test_whole_runs_are_right(name: str, kind: str) -> None:
    """Last draws of many chains, through the front door: every object as often as it should be, -inf never."""
    target = {"two colours": Potts((3, 2), 2, 0.7), "in a field": Ising((2, 3), 0.4, field=0.2)}.get(
        name, TARGETS[name]
    )
    kernel = KERNELS[kind](target)
    chains = sample(kernel, num_chains=6_000, num_samples=1, num_warmup=60, init=some_objects(target, 1)[0], seed=1,
                    progress_bar=False)  # fmt: skip
    solution = target.exact()
    if solution is None:
        possible = torch.cartesian_prod(*[torch.tensor(target.values)] * 4)
        log_pmf = target.log_prob(possible).log_softmax(0)
        counts = (chains.x[:, -1, None] == possible).all(-1).sum(0)
    else:
        assert solution.log_pmf is not None
        log_pmf = solution.log_pmf
        counts = torch.bincount(solution.index(chains.x[:, -1]), minlength=len(log_pmf))
    statistic, limit = chi_square(counts, log_pmf.exp())
    assert statistic < limit
    statistic, limit = chi_square(counts, (1.3 * log_pmf).softmax(0))
    assert statistic > limit


def test_budgets_of_target_calls_are_kept() -> None:
    kernel = KERNELS["Metropolis"](TARGETS["colours"])
    chains = sample(kernel, num_chains=4, num_samples=100, num_warmup=0, budget=Budget(target_calls=500), seed=1,
                    progress_bar=False)  # fmt: skip
    assert chains.num_samples == (500 - 4) // (4 * 24)
    assert chains.sampling_cost.target_calls == 4 + 96 * chains.num_samples <= 500


@BY_KERNEL
@pytest.mark.parametrize("name", ["spins", "colours"])
def test_replicas_are_moved_by_sweeps(name: str, kind: str) -> None:
    kernel = ParallelTempering(KERNELS[kind](TARGETS[name]), (1.0, 0.5, 0.0))
    chains = sample(kernel, num_chains=6, num_samples=20, num_warmup=5, seed=1, progress_bar=False)
    assert_close(chains.samples.log_prob.flatten(), TARGETS[name].log_prob(chains.x.flatten(0, 1)), 1e-11)


def test_laziness_leaves_that_many_sites_alone() -> None:
    flat = Ising((10, 10), 0.0)
    for laziness in (0.0, 0.1, 0.75):
        kernel = ChromaticMetropolis(Lattice.for_target(flat), flat, laziness)
        _, info = kernel.step(PhiloxDraws(1, "x", 500), kernel.init(some_objects(flat, 500)))
        moved = float(info.acceptance_rate.sum()) * 100
        # 5 standard deviations of 50,000 sites.
        assert abs(moved - 50_000 * (1.0 - laziness)) <= 5.0 * math.sqrt(50_000 * laziness * (1.0 - laziness))


def test_what_sweeps_cannot_sample_is_refused() -> None:
    grid = from_function(lambda x: x.sum(1).double(), (2,))
    with pytest.raises(CapabilityError, match=r"declares no two `values` of a site.* use RandomWalk"):
        ChromaticMetropolis(HyperGrid(2, 3), grid)
    one = from_function(lambda x: x.sum(1).double(), (2,), values=(1,))
    with pytest.raises(CapabilityError, match="declares no two `values`"):
        ChromaticMetropolis(HyperGrid(2, 3), one)
    ising = Ising((2, 2), 0.3)
    lattice = Lattice.for_target(ising)
    with pytest.raises(CapabilityError, match=r"is noisy, and a sweep needs .* use RandomWalk"):
        ChromaticMetropolis(lattice, NoisyCopy(ising, [0.5, 2.0], [2 / 3, 1 / 3]))
    with pytest.raises(CapabilityError, match=r"is noisy, and Gibbs needs"):
        Gibbs(lattice, NoisyCopy(ising, [0.5, 2.0], [2 / 3, 1 / 3]), "chromatic")
    unknown = from_function(lambda x: x.sum(1).double(), (2, 2), values=(0, 1))
    for kind in KERNELS:
        with pytest.raises(CapabilityError, match=r"does not say which of its sites .* scan='systematic'"):
            KERNELS[kind](unknown)
    # Users run without the tests' checks of annotations.
    for laziness in (-0.1, 1.0, math.nan):
        with pytest.raises(OptionError, match=rf"laziness is {laziness}; it must be at least 0 and below 1"):
            inspect.unwrap(ChromaticMetropolis.__init__)(
                ChromaticMetropolis.__new__(ChromaticMetropolis), lattice, ising, laziness
            )


@BY_KERNEL
def test_impossible_starts_are_refused_above_inverse_temperature_zero(kind: str) -> None:
    kernel = KERNELS[kind](TARGETS["words"])
    stuck = torch.zeros(3, 4, dtype=torch.int64)
    for tempered in (kernel, kernel.tempered(torch.tensor([0.0, 0.5, 0.0]).double())):
        with pytest.raises(ObjectError, match="has density zero"):
            tempered.init(stuck)
    flat = kernel.tempered(0.0)
    state, _ = flat.step(PhiloxDraws(0, "x", 3), flat.init(stuck))
    assert_close(state.log_prob, TARGETS["words"].log_prob(state.position), 0.0)


class Broken(Potts):
    """A Potts model whose differences are handed to a function before they are returned."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__((3, 4), 3, 0.7)
        self.spoil = spoil

    def log_prob_deltas(self, x: Tensor, sites: Tensor) -> Tensor:
        return self.spoil(super().log_prob_deltas(x, sites))


@BY_KERNEL
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_differences_that_are_not_finite_name_chain_and_site(bad: float, kind: str) -> None:
    def spoil(delta: Tensor) -> Tensor:
        is_bad = (torch.arange(len(delta)) == 2)[:, None, None] & (torch.arange(delta.shape[1]) == 1)[:, None]
        return torch.where(is_bad, bad, delta)

    kernel = KERNELS[kind](Broken(spoil))
    state = kernel.init(torch.ones(6, 3, 4, dtype=torch.int8))
    # The second site of the first colour of a checkerboard of three rows and four columns.
    with pytest.raises(NonFiniteEnergyError, match=rf"log_prob_deltas returned {bad} in row 2 at site 2 of") as caught:
        kernel.step(PhiloxDraws(0, "x", 6), state)
    assert caught.value.row == 2 and str(caught.value.value) == str(bad)
    # Rows at inverse temperature 0 are not compared, and an error names the others as they stand in the batch.
    power = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).double()
    with pytest.raises(NonFiniteEnergyError, match=r"in row 4 at site 2 ") as caught:
        kernel.tempered(power).step(PhiloxDraws(0, "x", 6), state)
    assert caught.value.row == 4
    kernel.tempered(0.0).step(PhiloxDraws(0, "x", 6), state)


@BY_KERNEL
@pytest.mark.parametrize(
    "spoil",
    [lambda delta: delta.float(), lambda delta: delta[:, :, :1], lambda delta: delta[:-1], lambda delta: delta[:, 1:]],
)
def test_differences_of_the_wrong_kind_are_an_error(
    spoil: Callable[[Tensor], Tensor], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = KERNELS[kind](Broken(spoil))
    with pytest.raises(EnergyError, match=r"log_prob_deltas returned torch.float.. of shape \(.*\) for 6 objects and"):
        kernel.step(PhiloxDraws(0, "x", 6), kernel.init(torch.ones(6, 3, 4, dtype=torch.int8)))


def test_an_error_names_the_chain_whose_flat_density_is_broken() -> None:
    words = TARGETS["words"]
    trapped = CountingTarget(words, trap_at=1, trap=lambda x, value: value * math.nan)
    trapped.interactions = words.interactions  # type: ignore[method-assign]
    kernel = KERNELS["Metropolis"](trapped).tempered(0.0)
    with pytest.raises(NonFiniteEnergyError) as caught:
        kernel.step(PhiloxDraws(0, "x", 3), kernel.init(some_objects(words, 3)))
    assert caught.value.row == 0


def test_which_targets_go_by_bonds() -> None:
    for name, target in TARGETS.items():
        assert (equal_bonds(target) is not None) == (name in BY_BONDS)
    assert equal_bonds(Ising((2, 2), random_numbers(1, 4))) is None
    assert equal_bonds(Ising((1,), 0.3)) is None
    assert equal_bonds(Potts((3, 3), 2, -0.3)) is None
    assert equal_bonds(Ising((2, 2), torch.tensor([0.3, -0.3, 0.3, 0.3]).double())) is not None

    class Sloped(Ising):
        """With a term of its own, which a table of bonds would leave out."""

        def log_prob(self, x: Tensor) -> Tensor:
            return super().log_prob(x) + x.flatten(1)[:, 0]

    assert equal_bonds(Sloped((2, 2), 0.3)) is None


@pytest.mark.parametrize("bound", [1, 2, 8, 40, 63, 64, 127])
@pytest.mark.parametrize("num_sites", [1, 2, 31, 32, 33, 500, 1_024])
def test_sums_over_sites_do_not_overflow(num_sites: int, bound: int) -> None:
    rng = np.random.default_rng(num_sites + bound)
    for low in (-bound, bound):
        counts = rng.integers(low, bound + 1, (num_sites, 3)).astype(np.int8)
        assert np.array_equal(_sums_over_sites(counts, bound), counts.sum(0, dtype=np.int64))
    wide = np.full((num_sites, 3), 1_000, dtype=np.int64)
    assert np.array_equal(_sums_over_sites(wide, 1_000), wide.sum(0))
