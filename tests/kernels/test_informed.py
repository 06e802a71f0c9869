"""Informed kernels: what they ask of the target and report, what they keep and refuse, and how they are tuned."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.environments.subsets import Subsets
from gfnmc.kernels import Cycle, Info, Mixture, RandomWalk, Reason, State
from gfnmc.kernels.discrete_langevin import STEP_SIZES, DiscreteLangevin, tuned_step_size
from gfnmc.kernels.gibbs_with_gradients import GibbsWithGradients
from gfnmc.kernels.informed import InformedKernel, View
from gfnmc.kernels.locally_balanced import LocallyBalanced, SiteDeltas
from gfnmc.sampling import sample
from gfnmc.targets import HyperGrid as Grid
from gfnmc.targets import Ising, Potts, Target, from_function
from gfnmc.targets.noisy import NoisyCopy
from tests.support import Stairs, assert_close, chi_square, is_identical, stairs_target

ISING = Ising((3, 4), 0.4, field=0.1)
POTTS = Potts((2, 3), 3, 0.9)
NUM_CHAINS = 40


class Counted(Target):
    """Another target, with the objects that each of its methods saw counted."""

    def __init__(self, target: Target) -> None:
        self.inner = target
        self.name, self.event_shape, self.dtype = target.name, target.event_shape, target.dtype
        self.values = target.values
        self.evaluated = self.differed = self.derived = 0

    def log_prob(self, x: Tensor) -> Tensor:
        self.evaluated += len(x)
        return self.inner.log_prob(x)

    def log_prob_relaxed(self, weights: Tensor) -> Tensor:
        self.derived += len(weights)
        return self.inner.log_prob_relaxed(weights)


class CountedWithDeltas(Counted):
    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        self.differed += len(x)
        return self.inner.log_prob_delta(x, sites)


class Holed(Ising):
    """Ising spins of which some configurations are impossible."""

    def log_prob(self, x: Tensor) -> Tensor:
        is_hole = (x.flatten(1)[:, :2] == -1).all(1)
        return torch.where(is_hole, -torch.inf, super().log_prob(x))

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        return Target.log_prob_delta(self, x, sites)


HOLED = Holed((3, 3), 0.3)

KERNELS: dict[str, Callable[[Target], InformedKernel]] = {
    "locally balanced": lambda target: LocallyBalanced(Lattice.for_target(target), target),
    "gibbs with gradients": lambda target: GibbsWithGradients(Lattice.for_target(target), target),
    "langevin": lambda target: DiscreteLangevin(Lattice.for_target(target), target, 0.4),
}
BY_NAME = pytest.mark.parametrize("name", KERNELS)
BY_GRADIENT = pytest.mark.parametrize("name", ["gibbs with gradients", "langevin"])


def run(
    kernel: InformedKernel | Cycle, num_chains: int, num_steps: int, seed: int = 3, start: Tensor | None = None
) -> list[tuple[State, State, Info]]:
    """Steps of some chains, each with the states before and after."""
    draws = PhiloxDraws(seed, "run", num_chains)
    state = kernel.init(kernel.start(draws.role("start")) if start is None else start)
    steps = []
    for step in range(num_steps):
        after, info = kernel.step(draws.at(step), state)
        steps.append((state, after, info))
        state = after
    return steps


def counts(info: Info) -> dict[str, Tensor]:
    calls = {name: torch.as_tensor(getattr(info, name)) for name in ("target_calls", "delta_calls", "gradient_calls")}
    return {name: value.expand(len(info.target_calls)) for name, value in calls.items()}


@BY_NAME
def test_a_step_does_what_it_reports(name: str) -> None:
    for target in (ISING, POTTS):
        kernel = KERNELS[name](target)
        for before, after, info in run(kernel, NUM_CHAINS, 5):
            assert torch.equal(info.is_accepted, info.reason == Reason.ACCEPTED)
            moved = torch.where(info.is_accepted.reshape(-1, 1, 1), info.proposal, before.position)
            assert torch.equal(after.position, moved)
            num_changed = (info.proposal != before.position).flatten(1).sum(1)
            assert int(num_changed.max()) > 1 if name == "langevin" else (num_changed == 1).all()
            assert_close(info.acceptance_rate, info.log_ratio.clamp(max=0.0).exp(), 1e-15)
            for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
                assert not field.any()


@BY_NAME
def test_a_step_leaves_its_input_alone_and_repeats(name: str) -> None:
    kernel = KERNELS[name](ISING)
    state = run(kernel, NUM_CHAINS, 3)[-1][1]
    kept = [value.clone() for value in (*state[:2], *state.cache[1:])]
    one, two = (kernel.step(PhiloxDraws(8, "again", NUM_CHAINS), state) for _ in range(2))
    for value, was in zip((*state[:2], *state.cache[1:]), kept, strict=True):
        assert is_identical(value, was)
    assert is_identical(one[0].position, two[0].position) and is_identical(one[0].log_prob, two[0].log_prob)
    assert is_identical(one[1].log_ratio, two[1].log_ratio)


@BY_NAME
def test_what_other_frameworks_are_told_is_what_a_step_does(name: str) -> None:
    kernel = KERNELS[name](HOLED)
    start = torch.ones(NUM_CHAINS, 3, 3, dtype=torch.int8)
    for step, (before, _, info) in enumerate(run(kernel, NUM_CHAINS, 5, start=start)):
        position, log_hastings = kernel.propose(before.position, PhiloxDraws(3, "run", NUM_CHAINS).at(step))
        assert torch.equal(position, info.proposal)
        assert_close(info.log_ratio, HOLED.log_prob(position) - before.log_prob + log_hastings, 1e-11)


@pytest.mark.parametrize("target", [ISING, POTTS], ids=["ising", "potts"])
def test_differences_are_counted_as_they_are_asked(target: Target) -> None:
    counted = CountedWithDeltas(target)
    kernel = KERNELS["locally balanced"](counted)
    assert isinstance(kernel.surroundings, SiteDeltas)
    sites, others = math.prod(target.event_shape), len(target.values or ()) - 1
    assert kernel.calls_per_step == 2 * sites * others
    state = kernel.init(kernel.start(PhiloxDraws(0, "start", 7)))
    assert counted.evaluated == 7 and state.cache is None
    for step in range(4):
        counted.evaluated = counted.differed = 0
        state, info = kernel.step(PhiloxDraws(1, "x", 7, step), state)
        # The first step looks round both objects, the others round the proposal alone.
        looks = 2 if step == 0 else 1
        assert (info.target_calls == looks * sites * others).all()
        assert torch.equal(counts(info)["delta_calls"], info.target_calls)
        assert counted.differed == 7 * looks * sites and counted.evaluated == 0
        assert not counts(info)["gradient_calls"].any()


@pytest.mark.parametrize("name", ["grid", "stairs"])
def test_evaluated_neighbours_are_counted_as_they_are_asked(name: str) -> None:
    """Objects in the middle have more neighbours than those at the border, and that is what they cost."""
    environment = HyperGrid(2, 4) if name == "grid" else Stairs(5)
    counted = Counted(Grid(2, 4) if isinstance(environment, HyperGrid) else stairs_target(environment))
    kernel = LocallyBalanced(environment, counted)
    counted.evaluated = 0
    for step, (before, after, info) in enumerate(run(kernel, 30, 5)):
        wanted = environment.change_mask(info.proposal).sum(1)
        if step == 0:
            wanted = wanted + environment.change_mask(before.position).sum(1)
        assert torch.equal(info.target_calls, wanted)
        assert len(wanted.unique()) > 1
        assert (info.target_calls <= kernel.calls_per_step).all()
        assert not counts(info)["delta_calls"].any()
        assert isinstance(after.cache, View) and torch.equal(after.cache.position, after.position)
    total = sum(int(info.target_calls.sum()) for *_, info in run(LocallyBalanced(environment, counted.inner), 30, 5))
    assert counted.evaluated == 30 + total


@BY_GRADIENT
def test_gradients_are_counted_as_they_are_asked(name: str) -> None:
    counted = Counted(HOLED)
    kernel = KERNELS[name](counted)
    assert kernel.calls_per_step == 2
    draws = PhiloxDraws(5, "x", NUM_CHAINS)
    state = kernel.init(torch.ones(NUM_CHAINS, 3, 3, dtype=torch.int8))
    met = 0
    for step in range(30):
        counted.evaluated = counted.derived = 0
        before = state
        state, info = kernel.step(draws.at(step), state)
        leaves = (info.proposal != before.position).flatten(1).any(1)
        is_hole = HOLED.log_prob(info.proposal) == -math.inf
        first = int(step == 0)
        assert torch.equal(info.target_calls, first + leaves.long())
        assert torch.equal(counts(info)["gradient_calls"], first + (leaves & ~is_hole).long())
        assert not counts(info)["delta_calls"].any()
        # Value and gradient of one object are one call.
        assert counted.evaluated == int(leaves.sum())
        assert counted.derived == int(counts(info)["gradient_calls"].sum())
        assert (info.reason[is_hole] == Reason.REJECTED).all() and (info.log_ratio[is_hole] == -math.inf).all()
        assert (info.log_ratio[~leaves] == 0.0).all() and info.is_accepted[~leaves].all()
        met += int(is_hole.sum())
    assert met > 10


@BY_NAME
def test_rows_at_inverse_temperature_zero_ask_for_nothing_but_the_density(name: str) -> None:
    counted = CountedWithDeltas(ISING)
    power = torch.tensor([0.0, 1.0, 0.0, 0.5]).double()
    kernel = KERNELS[name](counted).tempered(power)
    state = kernel.init(torch.ones(4, 3, 4, dtype=torch.int8))
    counted.evaluated = 0
    state, info = kernel.step(PhiloxDraws(1, "x", 4), state)
    leaves = (info.proposal != 1).flatten(1).any(1)
    look = 12 if name == "locally balanced" else 1
    assert info.target_calls.tolist() == [
        int(leaf) if beta == 0.0 else look + look * int(leaf)
        for beta, leaf in zip(power.tolist(), leaves.tolist(), strict=True)
    ]
    other = "delta_calls" if name == "locally balanced" else "gradient_calls"
    assert not counts(info)[other][power == 0.0].any()
    assert (counts(info)[other][power > 0.0] > 0).all()
    assert not state.cache.is_seen[power == 0.0].any()
    # What is known holds at every temperature: where it is seen, only the proposal is looked round.
    cold = kernel.tempered(1.0)
    _, info = cold.step(PhiloxDraws(2, "x", 4), state)
    leaves = (info.proposal != state.position).flatten(1).any(1).long()
    assert torch.equal(info.target_calls, look * (leaves + (~state.cache.is_seen).long()))


@BY_NAME
def test_chains_that_another_kernel_moved_look_again(name: str) -> None:
    kernel = KERNELS[name](ISING)
    cycle = Cycle([kernel, RandomWalk(kernel.environment, ISING)])
    *_, (_, state, _) = run(cycle, NUM_CHAINS, 3)
    has_moved = (state.cache.position != state.position).flatten(1).any(1)
    assert has_moved.any() and not has_moved.all()
    _, info = kernel.step(PhiloxDraws(4, "x", NUM_CHAINS), state)
    leaves = (info.proposal != state.position).flatten(1).any(1)
    look = 12 if name == "locally balanced" else 1
    assert torch.equal(info.target_calls, look * (leaves.long() + has_moved.long()))
    # What another kernel saw, and what is no view at all, says nothing.
    for cache in (KERNELS[name](ISING).step(PhiloxDraws(4, "x", NUM_CHAINS), state)[0].cache, "kept", None):
        _, info = kernel.step(PhiloxDraws(4, "x", NUM_CHAINS), state._replace(cache=cache))
        assert torch.equal(info.target_calls, look * (leaves.long() + 1))
    assert kernel.refresh(state).cache is None
    with pytest.raises(OptionError, match="would overwrite each other's cache"):
        Mixture([kernel, KERNELS[name](ISING)])


@pytest.mark.parametrize("power", [1.0, 0.3, 0.0])
@BY_NAME
def test_the_density_that_is_carried_along_stays_true(name: str, power: float) -> None:
    for target in (ISING, POTTS):
        kernel = KERNELS[name](target).tempered(power)
        state = run(kernel, 20, 100)[-1][1]
        assert_close(state.log_prob, target.log_prob(state.position), 1e-11)


@BY_NAME
def test_a_chain_is_the_same_whatever_runs_beside_it(name: str) -> None:
    kernel = KERNELS[name](ISING)
    few = run(kernel, 5, 20)[-1][1]
    for num_chains in (1, 40, 300):
        many = run(kernel, num_chains, 20)[-1][1]
        rows = min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        assert_close(many.log_prob[:rows], few.log_prob[:rows], 1e-12)
    assert not torch.equal(run(kernel, 5, 20, seed=4)[-1][1].position, few.position)


@BY_NAME
def test_whole_runs_are_right(name: str) -> None:
    """Last draws of many chains, through the front door: every object as often as it should be, -inf never."""
    target = Holed((2, 2), 0.4)
    chains = sample(KERNELS[name](target), num_chains=6_000, num_samples=1, num_warmup=40, seed=1,
                    init=torch.ones(2, 2, dtype=torch.int8), progress_bar=False)  # fmt: skip
    solution = from_function(target.log_prob, target.event_shape, values=target.values, dtype=target.dtype).exact()
    assert solution is not None and solution.log_pmf is not None
    counted = torch.bincount(solution.index(chains.x[:, -1]), minlength=len(solution.log_pmf))
    statistic, limit = chi_square(counted, solution.log_pmf.exp())
    assert statistic < limit
    statistic, limit = chi_square(counted, (1.3 * solution.log_pmf).softmax(0))
    assert statistic > limit
    assert chains.sampling_cost.gradient_calls > 0 or name == "locally balanced"


def test_where_every_change_is_impossible_the_chain_waits() -> None:
    """An island: on 0, 1, 2, ... the places 0 and 4, 5 are possible."""
    log_prob = torch.tensor([0.0, -math.inf, -math.inf, -math.inf, 0.5, 0.2]).double()
    counted = Counted(from_function(lambda x: log_prob[x[:, 0]], (1,), values=tuple(range(6))))
    kernel = LocallyBalanced(Stairs(5), counted)
    state = kernel.init(torch.tensor([[0], [5], [0]]))
    after, info = kernel.step(PhiloxDraws(0, "x", 3), state)
    assert (info.reason == Reason.LAZY).tolist() == [True, False, True]
    assert after.position[[0, 2]].tolist() == [[0], [0]] and info.proposal[1].tolist() == [4]
    assert info.target_calls.tolist() == [1, 3, 1]
    assert info.log_ratio[[0, 2]].tolist() == [0.0, 0.0] and not info.acceptance_rate[[0, 2]].any()
    # It is known now that there is nowhere to go.
    _, info = kernel.step(PhiloxDraws(1, "x", 3), after)
    assert info.target_calls[[0, 2]].tolist() == [0, 0]


def test_starts_are_drawn_by_the_uniform_walk() -> None:
    for name in KERNELS:
        draws = PhiloxDraws(2, "start", 30)
        kernel = KERNELS[name](POTTS)
        assert torch.equal(
            kernel.start(draws), RandomWalk(kernel.environment, POTTS).start(PhiloxDraws(2, "start", 30))
        )


def test_what_informed_kernels_cannot_sample_is_refused() -> None:
    lattice = Lattice.for_target(ISING)
    noisy = NoisyCopy(ISING, [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(
        CapabilityError, match=r"is noisy, and locally balanced needs the densities around .* RandomWalk"
    ):
        LocallyBalanced(lattice, noisy)
    plain = from_function(lambda x: x.sum(1).double(), (3,), values=(0, 1), name="plain")
    for kind in (GibbsWithGradients, DiscreteLangevin):
        with pytest.raises(
            CapabilityError, match=r"plain has no relaxed log-density to take a gradient of: .* LocallyBal"
        ):
            kind(Lattice.for_target(plain), plain)
        with pytest.raises(CapabilityError, match="Subsets does not build every assignment of values to sites, and"):
            kind(Subsets(3, size=2), plain)
        with pytest.raises(CapabilityError, match="declares no `values`"):
            kind(lattice, from_function(lambda x: x.sum(1).double(), (3,)))
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(OptionError, match=f"a temperature of {wrong}; it must be finite and positive"):
            GibbsWithGradients(lattice, ISING, wrong)
        with pytest.raises(OptionError, match=f"a step size of {wrong}; it must be finite and positive"):
            DiscreteLangevin(lattice, ISING, wrong)
    # Users run without the tests' checks of annotations.
    with pytest.raises(OptionError, match="balancing is 'half'; choose one of 'sqrt', 'barker', 'min'"):
        inspect.unwrap(LocallyBalanced.__init__)(LocallyBalanced.__new__(LocallyBalanced), lattice, ISING, "half")


class Broken(Ising):
    """Spins whose differences and relaxed log-densities are spoilt before they are returned."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__((2, 2), 0.4)
        self.spoil = spoil

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        return self.spoil(super().log_prob_delta(x, sites))

    def log_prob_relaxed(self, weights: Tensor) -> Tensor:
        return self.spoil(super().log_prob_relaxed(weights))


ONES = torch.ones(6, 2, 2, dtype=torch.int8)
FLAT_ROWS = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).double()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_differences_that_are_not_finite_name_the_chain(bad: float) -> None:
    def spoil(delta: Tensor) -> Tensor:
        # Row 2 of those asked, at its last site.
        return torch.where(torch.arange(len(delta))[:, None] == 11, bad, delta)

    kernel = KERNELS["locally balanced"](Broken(spoil))
    for power, row in ((1.0, 2), (FLAT_ROWS, 4)):
        with pytest.raises(NonFiniteEnergyError, match=rf"log_prob_delta returned {bad} in row {row} ") as caught:
            kernel.tempered(power).step(PhiloxDraws(0, "x", 6), kernel.init(ONES))
        assert caught.value.row == row


@BY_GRADIENT
def test_gradients_that_are_not_finite_name_the_chain(name: str) -> None:
    def spoil(value: Tensor) -> Tensor:
        steep = value[2:3] + (value[2:3] - value[2:3].detach()).abs().sqrt()
        return torch.cat([value[:2], steep, value[3:]])

    kernel = KERNELS[name](Broken(spoil))
    for power, row in ((1.0, 2), (FLAT_ROWS, 4)):
        with pytest.raises(NonFiniteEnergyError, match=rf"the gradient of .* is \S+ in row {row} for") as caught:
            kernel.tempered(power).step(PhiloxDraws(0, "x", 6), kernel.init(ONES))
        assert caught.value.row == row and not math.isfinite(caught.value.value)


@BY_GRADIENT
def test_relaxed_densities_of_the_wrong_kind_are_an_error(name: str) -> None:
    for spoil, message in (
        (lambda value: value.float(), r"log_prob_relaxed returned torch.float32"),
        (lambda value: value[:-1], r"log_prob_relaxed returned shape \(5,\)"),
        (lambda value: value.detach(), "returned something without a gradient; compute it from the weights in torch"),
        (lambda value: torch.ones(6, requires_grad=True).double(), "returned something without a gradient"),
        (lambda value: value * math.nan, "log_prob_relaxed returned nan in row 0"),
    ):
        kernel = KERNELS[name](Broken(spoil))
        with pytest.raises(EnergyError, match=message):
            inspect.unwrap(type(kernel).step)(kernel, PhiloxDraws(0, "x", 6), kernel.init(ONES))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda delta: delta.float(), "log_prob_delta returned torch.float32"),
        (lambda delta: delta[:, :1], r"log_prob_delta returned shape \(24, 1\) for 24 objects"),
        (lambda delta: delta[:-1], r"log_prob_delta returned shape \(23, 2\) for 24 objects"),
    ],
)
def test_differences_of_the_wrong_kind_are_an_error(spoil: Callable[[Tensor], Tensor], message: str) -> None:
    kernel = KERNELS["locally balanced"](Broken(spoil))
    with pytest.raises(EnergyError, match=message):
        kernel.step(PhiloxDraws(0, "x", 6), kernel.init(ONES))


def mean_acceptance(kernel: DiscreteLangevin, num_chains: int = 100, num_steps: int = 60) -> float:
    rates = [info.acceptance_rate.mean() for *_, info in run(kernel, num_chains, num_steps, seed=11)[20:]]
    return float(torch.stack(rates).mean())


def test_tuning_finds_the_step_size_of_the_wanted_acceptance() -> None:
    target = Ising((6, 6), 0.3)
    kernel = DiscreteLangevin(Lattice.for_target(target), target, 1.7)
    tuned, _ = tuned_step_size(kernel, seed=2)
    assert kernel.step_size == 1.7 and tuned.target is target and tuned.name == kernel.name
    # 4000 rates have a mean known to 0.01 or so, and the seeds are fixed.
    assert abs(mean_acceptance(tuned) - 0.574) < 0.04
    assert abs(mean_acceptance(kernel) - 0.574) > 0.1
    higher, _ = tuned_step_size(kernel, target_acceptance=0.8, seed=2)
    assert abs(mean_acceptance(higher) - 0.8) < 0.04 and higher.step_size < tuned.step_size
    one, two, other = (tuned_step_size(kernel, num_steps=20, seed=seed) for seed in (2, 2, 3))
    assert one[0].step_size == two[0].step_size != other[0].step_size
    assert one[1].target_calls == two[1].target_calls


def test_tuning_counts_its_cost() -> None:
    counted = Counted(ISING)
    kernel = DiscreteLangevin(Lattice.for_target(ISING), counted, 0.4)
    start = torch.ones(5, 3, 4, dtype=torch.int8)
    _, cost = tuned_step_size(kernel, num_chains=5, num_steps=10, init=start)
    # Of the objects where chains start, value and first gradient are asked one after the other.
    assert cost.target_calls == counted.evaluated + 5
    assert cost.gradient_calls == counted.derived
    assert cost.seconds > 0.0 and (start == 1).all()


def test_tuning_stays_in_range_and_within_its_temperatures() -> None:
    flat = Ising((3,), 0.0)
    kernel = DiscreteLangevin(Lattice.for_target(flat), flat, 0.5)
    # On a flat target everything is accepted, whatever the step size.
    tuned, _ = tuned_step_size(kernel, num_chains=4, num_steps=600)
    assert 100.0 < tuned.step_size <= STEP_SIZES[1] * (1 + 1e-12)
    hot = DiscreteLangevin(Lattice.for_target(ISING), ISING).tempered(torch.tensor([0.2, 0.1]).double())
    found, _ = tuned_step_size(hot, num_chains=2, num_steps=100)
    assert torch.equal(torch.as_tensor(found.inverse_temperature), torch.tensor([0.2, 0.1]).double())
    assert found.step_size > tuned_step_size(hot.tempered(1.0), num_steps=100)[0].step_size
    with pytest.raises(OptionError, match="2 inverse temperatures for 3 chains"):
        tuned_step_size(hot, num_chains=3)
    for options in ({"target_acceptance": 0.0}, {"target_acceptance": 1.0}, {"num_chains": 0}, {"num_steps": 1}):
        with pytest.raises(OptionError, match="must lie between 0 and 1"):
            tuned_step_size(kernel, **options)  # type: ignore[arg-type]
