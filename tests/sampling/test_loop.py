"""Runs repeat whatever stands beside a chain, are prefixes of longer ones, counted exactly, never lost to an error."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import (
    CapabilityError,
    EnergyError,
    GfnmcError,
    IrreducibilityError,
    NonFiniteEnergyError,
    ObjectError,
    OptionError,
)
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Cycle, IndependenceMH, Info, Kernel, Mixture, RandomWalk, State, SuffixResampling, branch
from gfnmc.kernels.base import Adaptation
from gfnmc.policies import GFlowNet, Path
from gfnmc.sampling import Budget, Chains, Record, loop, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, from_function
from tests.sampling.cases import assert_same_draws, part
from tests.support import CountingTarget, Stairs, chi_square, is_identical, network_pair, random_pair, stairs_target

GRID, GRID_TARGET = HyperGrid(2, 8), HyperGridTarget(2, 8)
ISING = Ising((3, 3), 0.4)
LATTICE = Lattice.for_target(ISING)


def run(kernel: Kernel, num_chains: int = 4, num_samples: int = 12, num_warmup: int = 0, **options: object) -> Chains:
    options = {"progress_bar": False, "seed": 3} | options
    return sample(kernel, num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup, **options)


def grid_cycle(target: Target = GRID_TARGET) -> Kernel:
    return Cycle([SuffixResampling(network_pair(GRID), target), RandomWalk(GRID, target)])


KERNELS: dict[str, Callable[[], Kernel]] = {
    "lattice, float32": lambda: SuffixResampling(network_pair(LATTICE, hidden_size=128), ISING),
    "lattice, float64": lambda: SuffixResampling(network_pair(LATTICE, dtype=torch.float64), ISING),
    "grid in a cycle, float32": grid_cycle,
    "grid, float64": lambda: SuffixResampling(network_pair(GRID, dtype=torch.float64), GRID_TARGET),
    "stairs by prefixes, float32": lambda: SuffixResampling(
        network_pair(Stairs(6)), stairs_target(Stairs(6)), branch.PrefixUniform()
    ),
    "independence, float32": lambda: IndependenceMH(network_pair(GRID), GRID_TARGET),
    "mixture of tables": lambda: Mixture(
        [IndependenceMH(random_pair(GRID), GRID_TARGET), RandomWalk(GRID, GRID_TARGET)]
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_chain_is_the_same_whatever_runs_beside_it(name: str) -> None:
    kernel = KERNELS[name]()
    few = run(kernel, 4, 6, 2)
    for num_chains in (1, 64, 300):
        many = run(kernel, num_chains, 6, 2)
        chains = slice(0, min(4, num_chains))
        assert_same_draws(part(many.samples, chains=chains), part(few.samples, chains=chains))
        assert_same_draws(part(many.warmup, chains=chains), part(few.warmup, chains=chains))
    # The chains differ from each other, and another seed makes others.
    assert len(many.x[:, -1].flatten(1).unique(dim=0)) > 4
    assert not torch.equal(run(kernel, 4, 6, 2, seed=4).x, few.x)


def test_a_chain_is_the_same_on_any_number_of_threads() -> None:
    kernel = KERNELS["lattice, float32"]()
    one, two = (run(kernel, 64, 2, num_threads=num_threads) for num_threads in (1, 2))
    assert_same_draws(two.samples, one.samples)


def test_arithmetic_that_depends_on_the_batch_would_show() -> None:
    """The negative control: an error of 1e-13 nats a chain beside, where matrix products may bring 1e-6."""

    class Crowded(GFlowNet):
        def frozen(self) -> "Crowded":
            return self

        def log_backward(self, path: Path) -> Tensor:
            return super().log_backward(path) + 1e-13 * len(path.lengths)

    pair = random_pair(GRID)
    kernel = SuffixResampling(Crowded(pair.forward, pair.backward), GRID_TARGET)
    few, many = run(kernel, 4), run(kernel, 300)
    assert torch.equal(few.x, many.x[:4])
    with pytest.raises(AssertionError, match=r"log_ratio|acceptance_rate"):
        assert_same_draws(part(many.samples, chains=slice(0, 4)), few.samples)


@pytest.mark.parametrize("name", ["grid in a cycle, float32", "mixture of tables"])
def test_a_run_is_steps_of_its_kernel_each_with_numbers_of_its_own(name: str) -> None:
    kernel = KERNELS[name]()
    chains = run(kernel, 4, 30, 5)
    draws = PhiloxDraws(3, "chain", 4)
    state = kernel.init(kernel.start(draws.role("start")))
    positions, log_ratios = [], []
    for step in range(35):
        state, info = kernel.step(draws.at(step), state)
        positions.append(state.position)
        log_ratios.append(info.log_ratio)
    assert torch.equal(torch.cat([chains.warmup.position, chains.x], 1), torch.stack(positions, 1))
    found = torch.cat([chains.warmup.stats["log_ratio"], chains.samples.stats["log_ratio"]], 1)
    assert torch.equal(found, torch.stack(log_ratios, 1))


@pytest.mark.parametrize("name", ["grid in a cycle, float32", "stairs by prefixes, float32", "mixture of tables"])
def test_the_same_seed_repeats_a_run_and_a_short_run_is_a_prefix(name: str) -> None:
    kernel = KERNELS[name]()
    long = run(kernel, num_samples=14, num_warmup=4)
    assert_same_draws(run(KERNELS[name](), num_samples=14, num_warmup=4).samples, long.samples)
    short = run(kernel, num_samples=5, num_warmup=4)
    assert_same_draws(short.samples, part(long.samples, draws=slice(0, 5)))
    assert_same_draws(short.warmup, long.warmup)
    # Warm-up only says which steps are set aside.
    whole = run(kernel, num_samples=18)
    assert_same_draws(part(whole.samples, draws=slice(0, 4)), long.warmup)
    assert_same_draws(part(whole.samples, draws=slice(4, None)), long.samples)


def test_thinning_keeps_every_third_draw_and_adds_up_costs() -> None:
    kernel = grid_cycle()
    every, third = run(kernel, num_samples=24, num_warmup=2), run(kernel, num_samples=8, num_warmup=2, thinning=3)
    assert third.thinning == 3
    wanted = part(every.samples, draws=slice(2, None, 3))
    summed = {
        name: value.unflatten(1, (8, 3)).sum(2) for name, value in every.samples.stats.items() if name.endswith("calls")
    }
    assert_same_draws(third.samples, Record(wanted.position, wanted.log_prob, wanted.stats | summed, wanted.seconds))
    assert_same_draws(third.warmup, every.warmup)
    assert third.sampling_cost.target_calls == every.sampling_cost.target_calls


@pytest.mark.parametrize("thinning", [1, 3])
@pytest.mark.parametrize("num_warmup", [0, 4])
def test_costs_are_counted_exactly(thinning: int, num_warmup: int) -> None:
    environment = Stairs(6)
    target = CountingTarget(stairs_target(environment))
    pair = network_pair(environment)
    pair.training_cost = Cost(1_000, 20_000, 5.0)
    # Lazy steps and steps without a way back cost no target call.
    lazy = SuffixResampling(pair, target, branch.PrefixUniform())
    kernel = Cycle([lazy, SuffixResampling(pair, target, branch.Fixed(2)), RandomWalk(environment, target)])
    chains = run(kernel, 50, 8, num_warmup, thinning=thinning)
    assert chains.sampling_cost.target_calls == target.num_rows
    per_step = chains.samples.stats["target_calls"].sum()
    policy = chains.samples.stats["policy_calls"].sum()
    if num_warmup:
        per_step = per_step + chains.warmup.stats["target_calls"].sum()
        policy = policy + chains.warmup.stats["policy_calls"].sum()
    assert 50 + int(per_step) == target.num_rows
    assert int(per_step) < 50 * 3 * (num_warmup + 8 * thinning)
    assert chains.sampling_cost.policy_calls == int(policy)
    assert chains.training_cost == Cost(1_000, 20_000, 5.0)
    assert chains.cost == chains.training_cost + chains.sampling_cost
    assert 0.0 < chains.sampling_cost.seconds < 60.0
    seconds = torch.cat([chains.warmup.seconds, chains.samples.seconds])
    assert (seconds[1:] >= seconds[:-1]).all()
    assert float(seconds[-1]) <= chains.sampling_cost.seconds


@pytest.mark.parametrize("calls", [100, 101, 149, 150, 1_000])
def test_a_budget_of_calls_is_kept(calls: int) -> None:
    target = CountingTarget(GRID_TARGET)
    kernel = RandomWalk(GRID, target)
    wanted = run(RandomWalk(GRID, GRID_TARGET), 10, 30, 4)
    chains = run(kernel, 10, 30, 4, budget=Budget(target_calls=calls))
    assert target.num_rows == chains.sampling_cost.target_calls <= calls
    # A start of 10 calls, 4 steps of warm-up at 10 each, and then as many steps as fit.
    assert chains.num_samples == min(30, (calls - 50) // 10)
    assert_same_draws(chains.samples, part(wanted.samples, draws=slice(0, chains.num_samples)))
    assert_same_draws(chains.warmup, wanted.warmup)


def test_a_budget_counts_what_a_cycle_costs() -> None:
    target = CountingTarget(GRID_TARGET)
    chains = run(grid_cycle(target), 10, 30, budget=Budget(target_calls=155))
    assert target.num_rows == chains.sampling_cost.target_calls <= 155
    assert chains.num_samples >= (155 - 10) // 20


@pytest.mark.parametrize("calls", [1, 9, 10, 19, 59])
def test_a_budget_too_small_for_a_draw_is_refused(calls: int) -> None:
    target = CountingTarget(GRID_TARGET)
    with pytest.raises(OptionError, match=r"the budget ended after . steps, before the first kept draw"):
        run(RandomWalk(GRID, target), 10, 30, 4, budget=Budget(target_calls=calls))
    assert target.num_rows <= max(10, calls)


def test_a_budget_of_seconds_ends_with_the_last_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    chains = run(RandomWalk(GRID, GRID_TARGET), 4, 1_000, budget=Budget(seconds=20.0))
    monkeypatch.undo()
    assert 5 <= chains.num_samples <= 20
    assert float(chains.samples.seconds[-1]) <= 20.0
    wanted = run(RandomWalk(GRID, GRID_TARGET), 4, chains.num_samples)
    assert_same_draws(chains.samples, wanted.samples)


@pytest.mark.parametrize("options", [{"target_calls": 0}, {"seconds": -1.0}, {"seconds": math.nan}], ids=str)
def test_a_budget_allows_some_work(options: dict) -> None:
    with pytest.raises(OptionError, match="allows no work"):
        Budget(**options)


def test_chains_start_where_they_are_told() -> None:
    walk = RandomWalk(LATTICE, ISING)
    up = torch.ones(3, 3, dtype=torch.int8)
    each = torch.where(torch.arange(5)[:, None, None] % 2 == 0, up, -up)
    kept = each.clone()
    one, many = run(walk, 5, 1, init=up), run(walk, 5, 1, init=each)
    assert torch.equal(each, kept)
    # One step of a walk changes one site at most.
    assert int((one.x[:, 0] != up).sum((1, 2)).max()) == 1
    assert int((many.x[:, 0] != each).sum((1, 2)).max()) <= 1
    assert_same_draws(run(walk, 5, 6, init=up).samples, run(walk, 5, 6, init=up.expand(5, 3, 3)).samples)
    drawn = walk.start(PhiloxDraws(3, "chain", 5).role("start"))
    assert_same_draws(run(walk, 5, 6).samples, run(walk, 5, 6, init=drawn).samples)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (torch.ones(3, 3, 3, dtype=torch.int8), "init has 3 objects for 5 chains"),
        (torch.ones(5, 9, dtype=torch.int8), "shape"),
        (torch.ones(5, 3, 3, dtype=torch.int64), "int64"),
        (torch.zeros(5, 3, 3, dtype=torch.int8), "outside the values"),
        (torch.ones(9, dtype=torch.int8), "init has 9 objects for 5 chains"),
        (torch.ones((), dtype=torch.int8), "init"),
    ],
    ids=["too few", "flat", "dtype", "values", "one flat object", "a number"],
)
def test_starts_that_do_not_fit_are_refused(init: Tensor, message: str) -> None:
    with pytest.raises(ObjectError, match=message) as caught:
        run(RandomWalk(LATTICE, ISING), 5, 1, init=init)
    assert caught.value.chains is None


def test_a_start_of_density_zero_is_refused() -> None:
    target = HyperGridTarget(2, 8, r0=0.0)
    with pytest.raises(ObjectError, match=r"chain 0 would start at .* density zero"):
        run(RandomWalk(GRID, target), 3, init=torch.tensor([3, 3]))


@pytest.mark.parametrize(
    "options",
    [
        {"num_chains": 0},
        {"num_samples": 0},
        {"num_warmup": -1},
        {"thinning": 0},
        {"num_threads": 0},
        {"num_chains": -2},
    ],
    ids=str,
)
def test_counts_that_cannot_work_are_refused(options: dict) -> None:
    target = CountingTarget(GRID_TARGET)
    (name, value), *_ = options.items()
    with pytest.raises(OptionError, match=f"{name} is {value}"):
        run(RandomWalk(GRID, target), **options)
    assert target.num_calls == 0


def test_a_kernel_that_cannot_reach_everything_is_refused_before_any_work() -> None:
    target = CountingTarget(GRID_TARGET)
    suffix = SuffixResampling(random_pair(GRID), target, branch.Fixed(2))
    with pytest.raises(IrreducibilityError, match="suffix resampling cannot reach every object"):
        run(suffix)
    assert target.num_calls == 0
    assert run(Cycle([suffix, RandomWalk(GRID, target)])).num_samples == 12


def failing(trap_at: int, trap: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    return RandomWalk(GRID, CountingTarget(GRID_TARGET, trap_at=trap_at, trap=trap))


def spoil_row_two(bad: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, value: torch.where(torch.arange(len(value)) == 2, bad, value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [0, 3, 5, 6, 11])
def test_an_energy_that_is_not_finite_stops_the_run_and_keeps_its_draws(bad: float, step: int) -> None:
    # Call 0 is the start, and a walk calls once a step. Steps 0 to 4 are warm-up.
    wanted = run(RandomWalk(GRID, GRID_TARGET), 5, 10, 5)
    with pytest.raises(NonFiniteEnergyError) as caught:
        run(failing(step + 1, spoil_row_two(bad)), 5, 10, 5)
    error = caught.value
    assert (error.row, error.step) == (2, step)
    assert error.value == bad or math.isnan(error.value)
    assert str(error).startswith(f"chain 2, step {step}: ")
    assert "for the object [" in str(error)
    if step == 0:
        assert error.chains is None
        return
    chains = error.chains
    assert isinstance(chains, Chains)
    assert (chains.num_warmup, chains.num_samples, chains.num_chains) == (min(step, 5), max(step - 5, 0), 5)
    assert_same_draws(chains.warmup, part(wanted.warmup, draws=slice(0, min(step, 5))))
    if step > 5:
        assert_same_draws(chains.samples, part(wanted.samples, draws=slice(0, step - 5)))
        assert chains.to_arviz().posterior["x"].shape == (5, step - 5, 2)
    assert chains.x.dtype == GRID_TARGET.dtype
    assert chains.sampling_cost.target_calls == 5 * (step + 1)
    assert "are kept in this error's `chains`" in "".join(error.__notes__)


def test_an_energy_that_is_not_finite_at_the_start_names_the_chain() -> None:
    with pytest.raises(NonFiniteEnergyError, match="chain 2, step 0: ") as caught:
        run(failing(0, spoil_row_two(math.nan)), 5, 10, 5)
    assert caught.value.chains is None


def test_minus_infinity_is_no_error() -> None:
    chains = run(failing(4, spoil_row_two(-math.inf)), 5, 10)
    wanted = run(RandomWalk(GRID, GRID_TARGET), 5, 10)
    assert torch.equal(chains.x[[0, 1, 3, 4]], wanted.x[[0, 1, 3, 4]])
    assert torch.equal(chains.x[2, 3], chains.x[2, 2])
    assert float(chains.samples.stats["log_ratio"][2, 3]) == -math.inf
    assert not chains.samples.stats["accepted"][2, 3]


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), KeyboardInterrupt(), MemoryError("boom")], ids=repr)
def test_whatever_an_energy_raises_passes_through_with_the_draws(error: BaseException) -> None:
    def fail(x: Tensor, value: Tensor) -> Tensor:
        raise error

    threads = torch.get_num_threads()
    with pytest.raises(type(error)) as caught:
        run(failing(9, fail), 5, 10, 5, num_threads=threads + 1)
    assert caught.value is error
    assert torch.get_num_threads() == threads
    assert not isinstance(error, GfnmcError)
    wanted = run(RandomWalk(GRID, GRID_TARGET), 5, 10, 5)
    assert_same_draws(error.chains.samples, part(wanted.samples, draws=slice(0, 3)))
    assert_same_draws(error.chains.warmup, wanted.warmup)


def test_an_energy_of_the_wrong_kind_is_an_error_with_the_draws() -> None:
    with pytest.raises(EnergyError, match=r"torch.float32; return torch.float64") as caught:
        run(failing(9, lambda x, value: value.float()), 5, 10, 5)
    assert caught.value.chains.num_samples == 3


def test_a_users_function_is_sampled_right() -> None:
    """A whole run through the front door: frequencies on a small space are the exact ones."""
    target = from_function(lambda x: 0.7 * x[:, 0].double() - 0.4 * x[:, 1] ** 2, (2,), values=(0, 1, 2))
    environment = HyperGrid.for_target(target)
    kernel = Cycle([SuffixResampling(random_pair(environment, seed=1), target), RandomWalk(environment, target)])
    # Every chain is independent of the others, so its last draw is one independent draw.
    chains = run(kernel, 4_000, 1, 40, init=torch.zeros(2, dtype=torch.int64))
    solution = target.exact()
    counts = torch.bincount(solution.index(chains.x[:, -1]), minlength=9)
    statistic, limit = chi_square(counts, solution.log_pmf.exp())
    assert statistic < limit
    statistic, limit = chi_square(counts, torch.full((9,), 1 / 9))
    assert statistic > limit


@pytest.mark.parametrize("seed", [-1, 0, 2**31, 2**63, 2**100])
def test_any_integer_names_a_run(seed: int) -> None:
    walk = RandomWalk(GRID, GRID_TARGET)
    assert_same_draws(run(walk, seed=seed).samples, run(walk, seed=seed).samples)
    assert not torch.equal(run(walk, seed=seed).x, run(walk, seed=seed + 1).x)
    assert run(walk, seed=seed).seed == seed


RING = Ising((4,), 0.4)
CHAIN = Lattice.for_target(RING, order="fixed")
ADAPTING: dict[str, Callable[[], Kernel]] = {
    "grid in a cycle": lambda: Cycle(
        [SuffixResampling(random_pair(GRID), GRID_TARGET, branch.PrefixUniform()), RandomWalk(GRID, GRID_TARGET)]
    ),
    "ring in a mixture": lambda: Mixture([SuffixResampling(random_pair(CHAIN), RING), RandomWalk(CHAIN, RING)]),
    "ring, shared": lambda: SuffixResampling(network_pair(CHAIN), RING, branching="shared"),
}


@pytest.mark.parametrize("name", ADAPTING)
def test_an_adapting_warm_up_is_followed_by_steps_of_the_frozen_kernel(name: str) -> None:
    kernel = ADAPTING[name]()
    chains = run(kernel, 40, 6, 20, adapt=True)
    plain = run(kernel, 40, 6, 20)
    # A law is tuned after the warm-up, which is what it would have been.
    assert_same_draws(chains.warmup, plain.warmup)
    assert not torch.equal(chains.x, plain.x)
    assert plain.adapted_kernel is None
    frozen = chains.adapted_kernel
    assert frozen is not None and frozen is not kernel
    assert chains.kernel_name == plain.kernel_name == kernel.name == frozen.name
    draws = PhiloxDraws(3, "chain", 40)
    adaptation = kernel.adaptation()
    assert adaptation is not None
    state = kernel.init(kernel.start(draws.role("start")))
    for step in range(20):
        state, _ = adaptation.step(draws.at(step), state)
    by_hand = adaptation.frozen()
    for step in range(6):
        state, _ = by_hand.step(draws.at(20 + step), state)
        assert is_identical(state.position, chains.x[:, step])
    # What was kept says how the kernel is to be used again.
    again = run(frozen, 40, 1, init=chains.x[:, -1])
    assert again.num_samples == 1


@pytest.mark.parametrize("name", ADAPTING)
def test_adaptation_repeats_and_knows_no_clock(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    wanted = run(ADAPTING[name](), 30, 8, 15, adapt=True)
    clock = iter(range(0, 10_000_000, 977))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    again = run(ADAPTING[name](), 30, 8, 15, adapt=True)
    assert_same_draws(again.warmup, wanted.warmup)
    assert_same_draws(again.samples, wanted.samples)
    short = run(ADAPTING[name](), 30, 3, 15, adapt=True)
    assert_same_draws(short.samples, part(wanted.samples, draws=slice(0, 3)))


@pytest.mark.parametrize("thinning", [1, 3])
def test_the_costs_of_an_adapting_run_are_counted_exactly(thinning: int) -> None:
    target = CountingTarget(GRID_TARGET)
    kernel = Cycle([SuffixResampling(random_pair(GRID), target, branch.PrefixUniform()), RandomWalk(GRID, target)])
    chains = run(kernel, 30, 5, 10, thinning=thinning, adapt=True)
    assert chains.adapted_kernel is not None
    assert chains.sampling_cost.target_calls == target.num_rows


def test_adapting_without_a_warm_up_or_anything_to_adapt_is_refused() -> None:
    target = CountingTarget(GRID_TARGET)
    with pytest.raises(OptionError, match="adapts in the warm-up, but num_warmup is 0"):
        run(grid_cycle(target), adapt=True)
    with pytest.raises(CapabilityError, match="random walk has nothing to adapt; sample with adapt=False"):
        run(RandomWalk(GRID, target), num_warmup=5, adapt=True)
    assert target.num_calls == 0


class Trying(Adaptation):
    """Steps of a walk; each says that the next asks one call less; `found` is what is frozen."""

    def __init__(self, kernel: Kernel, found: Kernel, calls_per_step: int) -> None:
        self.kernel = Claiming(kernel.target, found, calls_per_step)
        self.found = found

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        stepped = self.kernel.step(draws, state)
        self.kernel = Claiming(self.kernel.target, self.found, max(self.kernel.calls_per_step - 1, 1))
        return stepped

    def frozen(self) -> Kernel:
        return self.found


class Claiming(RandomWalk):
    """A walk that claims to ask a number of calls a step."""

    def __init__(self, target: Target, found: Kernel, calls_per_step: int) -> None:
        super().__init__(GRID, target)
        self.found = found
        self.calls_per_step = calls_per_step

    def adaptation(self) -> Adaptation:
        return Trying(self, self.found, self.calls_per_step)


@pytest.mark.parametrize(("first", "calls", "num_warmup"), [(6, 600, 4), (6, 70, 1), (2, 1_000, 8)])
def test_a_budget_counts_what_the_adapting_kernel_may_cost(first: int, calls: int, num_warmup: int) -> None:
    # 10 chains: a start of 10 calls, then steps of 10 that are only begun where what they claim still fits.
    target = CountingTarget(GRID_TARGET)
    kernel = Claiming(target, RandomWalk(GRID, target), first)
    chains = run(kernel, 10, 200, num_warmup, adapt=True, budget=Budget(calls))
    assert chains.sampling_cost.target_calls == target.num_rows <= calls
    # The frozen kernel claims one call a step, so nothing is left over.
    assert chains.num_samples == min(200, (calls - 10) // 10 - num_warmup)
    with pytest.raises(OptionError, match="the budget ended after 0 steps"):
        run(kernel, 10, 200, num_warmup, adapt=True, budget=Budget(10 + 10 * first - 1))


def test_an_error_in_an_adapting_warm_up_keeps_its_draws() -> None:
    with pytest.raises(NonFiniteEnergyError) as caught:
        target = CountingTarget(GRID_TARGET, trap_at=4, trap=spoil_row_two(math.nan))
        run(Claiming(target, RandomWalk(GRID, target), 1), 5, 10, 6, adapt=True)
    assert caught.value.step == 3
    assert (caught.value.chains.num_warmup, caught.value.chains.num_samples) == (3, 0)
    assert caught.value.chains.adapted_kernel is None


def test_a_frozen_kernel_that_lost_its_reach_is_refused_with_the_warm_up() -> None:
    stuck = SuffixResampling(random_pair(GRID), GRID_TARGET, branch.Fixed(2))
    with pytest.raises(IrreducibilityError, match="suffix resampling cannot reach every object") as caught:
        run(Claiming(GRID_TARGET, stuck, 1), 5, 10, 6, adapt=True)
    assert caught.value.chains.num_warmup == 6
