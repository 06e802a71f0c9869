"""Parallel tempering: its accounts, what it costs, its starts, its errors, and that chains do not feel each other."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.diagnostics import acceptance_summary
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import (
    Cycle,
    Gibbs,
    IndependenceMH,
    Kernel,
    Mixture,
    ParallelTempering,
    RandomWalk,
    Reach,
    Reason,
    State,
    SuffixResampling,
)
from gfnmc.sampling import Budget, Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising
from gfnmc.targets.noisy import NoisyCopy
from tests.support import CountingTarget, assert_close, chi_square, is_identical, random_pair

ISING = Ising((2, 3), 0.6)
LATTICE = Lattice.for_target(ISING)
GRID, GRID_TARGET = HyperGrid(2, 4), HyperGridTarget(2, 4)
LADDER = (1.0, 0.6, 0.3, 0.0)


def tempered(ladder: tuple[float, ...] = LADDER, scan: str = "systematic", **options: int) -> ParallelTempering:
    return ParallelTempering(Gibbs(LATTICE, ISING, scan), ladder, **options)


def run(kernel: Kernel, num_chains: int = 4, num_samples: int = 10, **options: object) -> Chains:
    options = {"num_warmup": 0, "progress_bar": False, "seed": 3} | options
    return sample(kernel, num_chains=num_chains, num_samples=num_samples, **options)


KERNELS: dict[str, Callable[[], ParallelTempering]] = {
    "gibbs": tempered,
    "walk": lambda: ParallelTempering(RandomWalk(GRID, GRID_TARGET), (1.0, 0.5, 0.1)),
    "suffix": lambda: ParallelTempering(SuffixResampling(random_pair(GRID), GRID_TARGET), (1.0, 0.4)),
    "cycle": lambda: ParallelTempering(
        Cycle([IndependenceMH(random_pair(GRID), GRID_TARGET), RandomWalk(GRID, GRID_TARGET)]), (1.0, 0.5, 0.0)
    ),
    "mixture": lambda: ParallelTempering(
        Mixture([IndependenceMH(random_pair(GRID), GRID_TARGET), RandomWalk(GRID, GRID_TARGET)]), (1.0, 0.5, 0.0)
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_chain_is_the_same_whatever_runs_beside_it(name: str) -> None:
    few = run(KERNELS[name](), 4, 8)
    for num_chains in (1, 40, 300):
        many = run(KERNELS[name](), num_chains, 8)
        rows = min(4, num_chains)
        assert is_identical(many.x[:rows], few.x[:rows])
        assert is_identical(many.samples.log_prob[:rows], few.samples.log_prob[:rows])
        for stat, value in few.samples.stats.items():
            assert is_identical(many.samples.stats[stat][:rows], value[:rows]), stat
    assert not torch.equal(run(KERNELS[name](), 4, 8, seed=4).x, few.x)


@pytest.mark.parametrize("name", KERNELS)
def test_a_step_leaves_its_input_alone_and_carries_true_densities(name: str) -> None:
    kernel = KERNELS[name]()
    draws = PhiloxDraws(1, "x", 30)
    state = kernel.init(kernel.start(draws.role("start")))
    for step in range(6):
        before = kernel.replicas(state)
        kept = [value.clone() for value in (*before[:2], *state.cache)]
        after, _ = kernel.step(draws.at(step), state)
        for value, was in zip((*kernel.replicas(state)[:2], *state.cache), kept, strict=True):
            assert torch.equal(value, was)
        replicas = kernel.replicas(after)
        assert torch.equal(replicas.position[:, 0], after.position)
        assert_close(replicas.log_prob.flatten(), kernel.target.log_prob(replicas.position.flatten(0, 1)), 1e-12)
        assert replicas.inverse_temperatures.tolist() == list(kernel.inverse_temperatures)
        state = after


def test_each_replica_starts_by_the_kernel_as_at_its_own_rung() -> None:
    kernel = tempered()
    start = kernel.start(PhiloxDraws(1, "start", 50))
    assert start.shape == (50, 4, 2, 3)
    assert torch.equal(kernel.start(PhiloxDraws(1, "start", 7)), start[:7])
    state = kernel.init(start)
    assert torch.equal(kernel.replicas(state).position, start)
    assert not torch.equal(start[:, 0], start[:, 1])
    assert torch.equal(kernel.refresh(state).cache.position, state.cache.position)


def test_one_object_a_chain_is_copied_to_all_rungs() -> None:
    kernel = tempered()
    start = torch.where(torch.arange(5)[:, None, None] % 2 == 0, 1, -1).to(torch.int8).expand(5, 2, 3)
    state = kernel.init(start)
    replicas = kernel.replicas(state)
    assert torch.equal(replicas.position, start[:, None].expand(5, 4, 2, 3))
    assert torch.equal(replicas.log_prob, ISING.log_prob(start)[:, None].expand(5, 4))
    # The state of another kernel is taken the same way, so a composition may begin with any kernel.
    other, _ = kernel.step(PhiloxDraws(2, "x", 5), State(start, ISING.log_prob(start)))
    own, _ = kernel.step(PhiloxDraws(2, "x", 5), state)
    assert torch.equal(other.position, own.position)
    assert torch.equal(other.cache.position, own.cache.position)


def test_starts_of_another_shape_are_refused() -> None:
    kernel = tempered()
    for shape in ((5, 3, 2, 3), (2, 3), (5, 4, 1, 2, 3)):
        with pytest.raises(ObjectError, match=r"give one object a chain, or 4, one a rung"):
            kernel.init(torch.ones(shape, dtype=torch.int8))
    with pytest.raises(ObjectError, match="outside the values"):
        kernel.init(torch.zeros(5, 4, 2, 3, dtype=torch.int8))
    assert run(kernel, init=torch.ones(2, 3, dtype=torch.int8)).num_samples == 10


def test_an_impossible_start_is_refused_but_at_inverse_temperature_zero() -> None:
    target = HyperGridTarget(2, 8, r0=0.0)
    kernel = ParallelTempering(RandomWalk(HyperGrid(2, 8), target), (1.0, 0.5, 0.0))
    start = target.modes().examples[0].expand(3, 3, 2).clone()
    impossible = torch.tensor([3, 3])
    assert float(target.log_prob(impossible[None])) == -math.inf
    start[:, 2] = impossible
    state = kernel.init(start)
    draws = PhiloxDraws(1, "x", 3)
    for step in range(30):
        state, _ = kernel.step(draws.at(step), state)
        assert (kernel.replicas(state).log_prob[:, :2] > -math.inf).all()
    start[2, 1] = impossible
    with pytest.raises(ObjectError, match=r"chain 2 would start its replica at inverse temperature 0.5 at \[3, 3\]"):
        kernel.init(start)
    with pytest.raises(ObjectError, match=r"chain 0 would start at \[3, 3\]"):
        kernel.init(impossible.expand(3, 2))


@pytest.mark.parametrize("swap_every", [1, 3])
@pytest.mark.parametrize("ladder", [(1.0, 0.4), (1.0, 0.6, 0.3), LADDER, (1.0, 0.9, 0.8, 0.7, 0.6)])
def test_accounts_are_those_of_the_replicas_that_were_followed(ladder: tuple[float, ...], swap_every: int) -> None:
    """Replicas followed one by one through the swaps that the same numbers decide, and what they did added up."""
    kernel = tempered(ladder, swap_every=swap_every)
    num_chains, num_rungs = 25, len(ladder)
    draws = PhiloxDraws(5, "x", num_chains)
    state = kernel.init(kernel.start(draws.role("start")))
    tried = torch.zeros(num_chains, num_rungs - 1, dtype=torch.int64)
    rates = torch.zeros(num_chains, num_rungs - 1, dtype=torch.float64)
    # Which replica is where, and the end of the ladder that each has been to last.
    replica = torch.arange(num_rungs).repeat(num_chains, 1)
    last_end = [["cold" if rung == 0 else "none" for rung in range(num_rungs)] for _ in range(num_chains)]
    trips = [0] * num_chains
    power = torch.tensor(ladder, dtype=torch.float64)
    for step in range(120):
        before = kernel.replicas(state)
        moved, local = kernel._move(draws.at(step).role("local").repeated(num_rungs), before)
        after, info = kernel.step(draws.at(step), state)
        turn = [pair for pair in range(num_rungs - 1) if (pair - step // swap_every) % 2 == 0 or num_rungs == 2]
        turn = turn if step % swap_every == 0 else []
        ratio = (power[:-1] - power[1:]) * (moved.log_prob[:, 1:] - moved.log_prob[:, :-1])
        found = kernel.replicas(after)
        decides = draws.at(step).role("swap").repeated(num_rungs - 1)
        decided = decides.bernoulli(ratio.clamp(max=0.0).flatten()).unflatten(0, (num_chains, -1))
        swapped = torch.zeros_like(decided)
        for pair in turn:
            tried[:, pair] += 1
            rates[:, pair] += ratio[:, pair].clamp(max=0.0).exp()
            swapped[:, pair] = decided[:, pair]
        place = torch.arange(num_rungs).repeat(num_chains, 1)
        for chain, pair in swapped.nonzero().tolist():
            place[chain, [pair, pair + 1]] = place[chain, [pair + 1, pair]]
        rows = torch.arange(num_chains)[:, None]
        assert torch.equal(found.position, moved.position[rows, place])
        assert torch.equal(found.log_prob, moved.log_prob[rows, place])
        replica = replica[rows, place]
        for chain in range(num_chains):
            cold, hot = int(replica[chain, 0]), int(replica[chain, -1])
            trips[chain] += last_end[chain][cold] == "hot, after cold"
            last_end[chain][cold] = "cold"
            if last_end[chain][hot] == "cold":
                last_end[chain][hot] = "hot, after cold"
        # The report: of the first replica what the kernel said, of the swap what became of the first pair.
        first = info.parts[kernel.kernel.name]
        assert torch.equal(first.proposal, local.proposal.unflatten(0, (num_chains, num_rungs))[:, 0])
        swap = info.parts["swap"]
        is_first = 0 in turn
        assert torch.equal(swap.is_accepted, swapped[:, 0])
        assert torch.equal(swap.proposal, moved.position[:, 1])
        assert ((swap.reason == Reason.LAZY) == (not is_first)).all()
        assert ((swap.reason == Reason.ACCEPTED) == swapped[:, 0]).all()
        assert_close(swap.log_ratio, ratio[:, 0] if is_first else torch.zeros(num_chains), 0.0)
        assert_close(swap.acceptance_rate, ratio[:, 0].clamp(max=0.0).exp() if is_first else torch.zeros(num_chains))
        assert info.extras["round_trips"].tolist() == trips == kernel.round_trips(after).tolist()
        assert_close(info.extras["swap_acceptance"], rates.sum(1) / tried.sum(1))
        state = after
    assert_close(kernel.swap_rates(state), rates.sum(0) / tried.sum(0))
    assert sum(trips) > 20
    assert torch.equal(state.cache.swaps_tried, tried)


def test_costs_of_all_replicas_are_counted() -> None:
    target = CountingTarget(GRID_TARGET)
    suffix = SuffixResampling(random_pair(GRID), target)
    kernel = ParallelTempering(Cycle([suffix, RandomWalk(GRID, target)]), (1.0, 0.5, 0.2))
    assert kernel.calls_per_step == 6
    chains = run(kernel, 5, 8, num_warmup=3)
    assert chains.sampling_cost.target_calls == target.num_rows
    per_step = torch.cat([chains.warmup.stats["target_calls"], chains.samples.stats["target_calls"]], 1)
    assert 5 * 3 + int(per_step.sum()) == target.num_rows
    assert int(per_step.max()) <= 6
    assert chains.sampling_cost.policy_calls > 0
    assert chains.training_cost == suffix.training_cost
    # Copies of one object are evaluated once a chain.
    target.num_rows = 0
    copied = run(kernel, 5, 2, init=torch.tensor([0, 3]))
    assert copied.sampling_cost.target_calls == target.num_rows
    assert target.num_rows == 5 + int(copied.samples.stats["target_calls"].sum())


def test_budgets_thinning_and_records_work() -> None:
    target = CountingTarget(GRID_TARGET)
    kernel = ParallelTempering(RandomWalk(GRID, target), (1.0, 0.5, 0.2))
    chains = run(kernel, 5, 100, num_warmup=2, budget=Budget(target_calls=200))
    assert target.num_rows == chains.sampling_cost.target_calls <= 200
    assert chains.num_samples == (200 - 15 * 3) // 15
    every, third = run(kernel, 4, 24), run(kernel, 4, 8, thinning=3)
    assert is_identical(third.x, every.x[:, 2::3])
    assert is_identical(third.samples.stats["round_trips"], every.samples.stats["round_trips"][:, 2::3])
    stats = every.samples.stats
    assert {"local_acceptance", "swap_acceptance", "round_trips", "acceptance_rate[swap]", "reason[swap]"} <= set(stats)
    assert stats["round_trips"].dtype == torch.int64 and (stats["round_trips"].diff(dim=1) >= 0).all()
    parts = acceptance_summary(every.samples)["parts"]
    assert isinstance(parts, dict) and set(parts) == {"random walk", "swap"}
    assert 0.0 < parts["swap"] <= 1.0
    assert "swap_acceptance" in every.to_arviz()["sample_stats"]


def test_it_finds_both_modes_where_the_kernel_alone_does_not() -> None:
    """Whole runs from one mode: exact with swaps, and visibly stuck without."""
    target = Ising((3, 3), 1.2)
    lattice = Lattice.for_target(target)
    local = Gibbs(lattice, target, "systematic")
    up = torch.ones(3, 3, dtype=torch.int8)
    solution = target.exact()
    assert solution is not None and solution.log_pmf is not None
    is_up = solution.support.sum((1, 2)) > 0
    wanted = [float(solution.log_pmf.exp()[~is_up].sum()), float(solution.log_pmf.exp()[is_up].sum())]
    shares = {}
    for name, kernel in (("alone", local), ("tempered", ParallelTempering(local, (1.0, 0.7, 0.45, 0.25, 0.1)))):
        chains = run(kernel, 3_000, 1, num_warmup=60, init=up)
        ups = int((chains.x[:, -1].sum((1, 2)) > 0).sum())
        shares[name] = chi_square([3_000 - ups, ups], wanted)
    assert shares["tempered"][0] < shares["tempered"][1]
    assert shares["alone"][0] > shares["alone"][1]


def test_compositions_carry_the_replicas_along() -> None:
    walk = RandomWalk(GRID, GRID_TARGET)
    suffix = SuffixResampling(random_pair(GRID), GRID_TARGET)
    kernel = KERNELS["walk"]()
    kernel.target = GRID_TARGET
    for composed in (
        Cycle([suffix, kernel]),
        Cycle([kernel, suffix]),
        Mixture([kernel, walk]),
        Mixture([walk, kernel]),
    ):
        chains = run(composed, 4, 40)
        assert chains.num_samples == 40
        assert ("round_trips" in chains.samples.stats) == isinstance(composed, Cycle)
        if isinstance(composed, Cycle):
            assert int(chains.samples.stats["round_trips"].max()) > 0
    for composed in (Cycle([suffix, kernel]), Mixture([kernel, suffix])):
        state = kernel.init(kernel.start(PhiloxDraws(1, "x", 6)))
        assert torch.equal(composed.refresh(state).cache.position, state.cache.position)
    with pytest.raises(OptionError, match="would overwrite each other's cache; put only one of them"):
        Cycle([kernel, suffix, KERNELS["walk"]()])
    with pytest.raises(OptionError, match="would overwrite each other's cache"):
        Mixture([Cycle([kernel, suffix]), Cycle([suffix, KERNELS["walk"]()])])


def test_what_it_reaches_is_what_its_kernel_reaches() -> None:
    for local in (RandomWalk(GRID, GRID_TARGET), SuffixResampling(random_pair(GRID), GRID_TARGET)):
        kernel = ParallelTempering(local, (1.0, 0.5))
        assert kernel.reach is local.reach is not Reach.PARTIAL
        assert not kernel.may_stay
        assert kernel.name == f"parallel tempering ({local.name})"


@pytest.mark.parametrize(
    "ladder",
    [
        (),
        (1.0,),
        (0.9, 0.5),
        (1.0, 1.0),
        (1.0, 0.5, 0.6),
        (1.0, 0.5, -0.1),
        (1.0, 0.0, 0.0),
        (1.0, math.nan),
        (2.0, 1.0),
    ],
    ids=str,
)
def test_ladders_that_cannot_be_are_refused(ladder: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="are no ladder; give at least two, the first 1, each below the one before"):
        tempered(ladder)


def test_what_cannot_be_tempered_is_refused() -> None:
    with pytest.raises(OptionError, match="swap_every is 0"):
        tempered(swap_every=0)
    noisy = NoisyCopy(GRID_TARGET, [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(CapabilityError, match=r"is noisy, .* would not have the laws that swaps need"):
        ParallelTempering(RandomWalk(GRID, noisy), (1.0, 0.5))
    with pytest.raises(CapabilityError, match=r"parallel tempering \(Gibbs\) cannot be tempered"):
        ParallelTempering(tempered(), (1.0, 0.5))


@pytest.mark.parametrize("trap_at", [0, 3])
def test_an_energy_that_is_not_finite_names_the_chain_and_the_rung(trap_at: int) -> None:
    def spoil(x: Tensor, value: Tensor) -> Tensor:
        return torch.where(torch.arange(len(value)) == 3 * 2 + 1, math.nan, value)

    target = CountingTarget(GRID_TARGET, trap_at=trap_at, trap=spoil)
    kernel = ParallelTempering(RandomWalk(GRID, target), (1.0, 0.5, 0.2))
    with pytest.raises(NonFiniteEnergyError) as caught:
        run(kernel, 4, 10)
    assert caught.value.row == 2
    assert str(caught.value).startswith(f"chain 2, step {max(trap_at - 1, 0)}: ")
    assert "this was chain 2, its replica at inverse temperature 0.5" in "".join(caught.value.__notes__)


def test_a_record_of_the_chain_does_not_keep_all_replicas_alive() -> None:
    kernel = tempered()
    state = kernel.init(kernel.start(PhiloxDraws(1, "x", 6)))
    state, _ = kernel.step(PhiloxDraws(1, "x", 6), state)
    assert state.position.untyped_storage().nbytes() == state.position.numel()
