"""Delayed acceptance: what a step reports, what it asks of whom, what it refuses, and that chains are independent."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.experiments.compare import find_pair
from gfnmc.kernels import Info, RandomWalk, Reason, State, SuffixResampling, branch, delayed_acceptance
from gfnmc.kernels.delayed_acceptance import DelayedAcceptance
from gfnmc.kernels.metropolis import MetropolisKernel
from gfnmc.sampling import sample
from gfnmc.targets import Ising, Target, from_function
from gfnmc.targets.noisy import NoisyCopy
from tests.support import CountingTarget, assert_close, chi_square, is_identical, random_numbers, random_pair

GRID = HyperGrid(2, 4)
TABLE, OTHER = random_numbers(1, 4, 4), random_numbers(2, 4, 4)
TABLE[1, 1] = TABLE[2, 2] = -math.inf
NUM_CHAINS = 150


def grid_target(table: Tensor = TABLE, name: str = "bumpy grid") -> Target:
    return from_function(lambda x: table[x[:, 0], x[:, 1]], (2,), values=(0, 1, 2, 3), name=name)


def inner_kernels(target: Target) -> dict[str, MetropolisKernel]:
    pair = random_pair(GRID)
    return {
        "walk": RandomWalk(GRID, target),
        "suffix": SuffixResampling(pair, target, branch.Geometric(0.4)),
        "prefix": SuffixResampling(pair, target, branch.PrefixTable({1: 0.5, 3: 0.5})),
    }


def walked(kernel: DelayedAcceptance, num_chains: int, num_steps: int) -> State:
    draws = PhiloxDraws(3, "run", num_chains)
    state = kernel.init(torch.tensor([0, 3]).repeat(num_chains, 1))
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


def steps_of(name: str) -> tuple[DelayedAcceptance, list[tuple[State, State, Info, int, int, PhiloxDraws]]]:
    """Steps of some chains: before, after, report, objects that target and surrogate evaluated, draws."""
    target, surrogate = CountingTarget(grid_target()), CountingTarget(grid_target(OTHER, "surrogate"))
    kernel = DelayedAcceptance(inner_kernels(target)[name], surrogate)
    state, record = walked(kernel, NUM_CHAINS, 2), []
    for step in range(5):
        draws = PhiloxDraws(5, "run", NUM_CHAINS).at(step)
        counted = target.num_rows, surrogate.num_rows
        after, info = kernel.step(draws, state)
        record.append((state, after, info, target.num_rows - counted[0], surrogate.num_rows - counted[1], draws))
        state = after
    return kernel, record


@pytest.mark.parametrize("name", ["walk", "suffix", "prefix"])
def test_a_step_does_what_it_reports(name: str) -> None:
    kernel, record = steps_of(name)
    right, other = grid_target(), grid_target(OTHER)
    for before, after, info, evaluated, asked, draws in record:
        accepted, rejected, lazy, no_way_back = (info.reason == value for value in Reason)
        assert info.reason.dtype == torch.int8 and (accepted | rejected | lazy | no_way_back).all()
        assert torch.equal(info.is_accepted, accepted)
        assert torch.equal(after.position[accepted], info.proposal[accepted])
        assert torch.equal(after.position[~accepted], before.position[~accepted])
        assert torch.equal(after.log_prob, right.log_prob(after.position))
        # The target is asked where the surrogate passed, and nowhere else.
        passed = info.extras["passed_surrogate"] == 1
        assert torch.equal(info.target_calls, passed.long()) and int(passed.sum()) == evaluated
        assert torch.equal(info.extras["surrogate_calls"], 2 * (accepted | rejected).long())
        assert int(info.extras["surrogate_calls"].sum()) == asked
        assert not passed[lazy | no_way_back].any() and passed[accepted].all()
        # Both ratios, from the proposal that the same draws give and densities of our own.
        proposal, log_hastings = kernel.propose(before.position, draws)
        assert torch.equal(proposal, info.proposal)
        by_target = right.log_prob(proposal) - right.log_prob(before.position) + log_hastings
        by_surrogate = other.log_prob(proposal) - other.log_prob(before.position) + log_hastings
        wanted = torch.where(passed, by_target, by_surrogate)
        assert_close(info.log_ratio, torch.where(lazy, 0.0, wanted))
        second = torch.where(passed, (by_target - by_surrogate).clamp(max=0.0).exp(), 0.0)
        assert_close(info.acceptance_rate, second)
    assert sum(evaluated for *_, evaluated, _, _ in record) < 0.9 * sum(asked for *_, asked, _ in record) / 2


def test_the_surrogate_spares_the_target_what_it_would_reject() -> None:
    """A sharp law and a good surrogate: nearly every proposal that reaches the target is accepted."""
    sharp = grid_target(4.0 * TABLE)
    kernel = DelayedAcceptance(RandomWalk(GRID, sharp), grid_target(4.0 * TABLE + 0.1 * OTHER, "near"))
    calls, moves = 0, 0
    state, draws = walked(kernel, NUM_CHAINS, 5), PhiloxDraws(6, "run", NUM_CHAINS)
    for step in range(20):
        state, info = kernel.step(draws.at(step), state)
        calls, moves = calls + int(info.target_calls.sum()), moves + int(info.is_accepted.sum())
    assert 0.9 * calls < moves < calls < 0.6 * 20 * NUM_CHAINS


@pytest.mark.parametrize("name", ["walk", "suffix", "prefix"])
def test_a_chain_is_the_same_whatever_runs_beside_it(name: str) -> None:
    kernel = DelayedAcceptance(inner_kernels(grid_target())[name], grid_target(OTHER))
    few = walked(kernel, 5, 10)
    for num_chains in (1, 40, 300):
        many, rows = walked(kernel, num_chains, 10), min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        assert is_identical(many.log_prob[:rows], few.log_prob[:rows])


def test_exact_starts_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the front door; a correct kernel fails with probability 1e-6."""
    target, surrogate = grid_target(), grid_target(OTHER)
    kernel = DelayedAcceptance(inner_kernels(target)["suffix"], surrogate)
    solution = target.exact()
    assert solution is not None and solution.log_pmf is not None
    starts = solution.sample(PhiloxDraws(4, "starts", 4_000))
    pmf = solution.log_pmf.exp()

    def misfit() -> tuple[float, float]:
        chains = sample(kernel, num_chains=4_000, num_samples=1, num_warmup=11, init=starts, seed=1, progress_bar=False)
        assert chains.samples.stats["passed_surrogate"].shape == (4_000, 1)
        assert chains.samples.stats["surrogate_calls"].shape == (4_000, 1)
        return chi_square(torch.bincount(solution.index(chains.x[:, -1]), minlength=16), pmf)

    statistic, limit = misfit()
    assert statistic < limit
    monkeypatch.setattr(delayed_acceptance, "log_second_hastings", torch.zeros_like)
    statistic, limit = misfit()
    assert statistic > limit


def test_what_the_inner_kernel_is_shows() -> None:
    target = grid_target()
    for inner in inner_kernels(target).values():
        kernel = DelayedAcceptance(inner, grid_target(OTHER))
        assert (kernel.reach, kernel.may_stay) == (inner.reach, inner.may_stay)
        assert (kernel.target, kernel.environment, kernel.training_cost) == (target, GRID, inner.training_cost)
        assert kernel.name == f"{inner.name}, delayed acceptance" and kernel.calls_per_step == 1
        assert find_pair(kernel) is find_pair(inner)
        assert torch.equal(kernel.start(PhiloxDraws(1, "start", 9)), inner.start(PhiloxDraws(1, "start", 9)))
        tempered = kernel.tempered(0.5)
        assert (tempered.inverse_temperature, tempered.kernel.inverse_temperature) == (0.5, 0.5)
        assert (kernel.inverse_temperature, kernel.kernel.inverse_temperature) == (1.0, 1.0)


def test_a_surrogate_that_is_zero_where_the_chain_is_says_so() -> None:
    holed = OTHER.clone()
    holed[0, 3] = -math.inf
    kernel = DelayedAcceptance(RandomWalk(GRID, grid_target()), grid_target(holed, "holed"))
    position = torch.tensor([[0, 0], [3, 3], [0, 3]])
    with pytest.raises(ObjectError, match=r"chain 2 is at \[0, 3\], where the surrogate holed has density zero"):
        kernel.step(PhiloxDraws(1, "x", 3), kernel.init(position))
    # At inverse temperature 0 no density matters.
    power = torch.tensor([1.0, 1.0, 0.0]).double()
    tempered = kernel.tempered(power)
    _, info = tempered.step(PhiloxDraws(1, "x", 3), tempered.init(position))
    assert (info.extras["surrogate_calls"] == 2).all() and not info.log_ratio.isnan().any()


def test_where_the_surrogate_is_zero_nothing_is_asked() -> None:
    nowhere = torch.full((4, 4), -math.inf).double()
    nowhere[0, 0] = 0.0
    target = CountingTarget(grid_target())
    kernel = DelayedAcceptance(RandomWalk(GRID, target), grid_target(nowhere))
    state = kernel.init(torch.zeros(6, 2, dtype=torch.int64))
    after, info = kernel.step(PhiloxDraws(1, "x", 6), state)
    assert (info.reason == Reason.REJECTED).all() and (info.log_ratio == -math.inf).all()
    assert torch.equal(after.position, state.position) and target.num_rows == 6
    assert (info.extras["surrogate_calls"] == 2).all() and not info.extras["passed_surrogate"].any()


def test_a_surrogate_that_is_not_finite_names_the_chain() -> None:
    spoilt = CountingTarget(grid_target(OTHER, "spoilt"), trap_at=0, trap=lambda x, value: value.index_fill(
        0, torch.tensor([4]), math.nan))  # fmt: skip
    kernel = DelayedAcceptance(RandomWalk(GRID, grid_target()), spoilt)
    with pytest.raises(NonFiniteEnergyError, match=r"spoilt.log_prob returned nan in row 4"):
        kernel.step(PhiloxDraws(1, "x", 6), kernel.init(torch.zeros(6, 2, dtype=torch.int64)))


def test_what_cannot_be_delayed_is_refused() -> None:
    target, surrogate = grid_target(), grid_target(OTHER)
    walk = RandomWalk(GRID, target)
    with pytest.raises(CapabilityError, match=r"accepts in a way of its own, .* RandomWalk, SuffixResampling"):
        DelayedAcceptance(DelayedAcceptance(walk, surrogate), surrogate)
    with pytest.raises(CapabilityError, match="is noisy; give one that is a function of the object"):
        DelayedAcceptance(walk, NoisyCopy(surrogate, [0.5, 2.0], [2 / 3, 1 / 3]))
    ising = Ising((2,), 0.3)
    with pytest.raises(OptionError, match=r"the surrogate ising-2 is defined on .* bumpy grid on .* must be the same"):
        DelayedAcceptance(walk, ising)
    noisy = NoisyCopy(ising, [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(CapabilityError, match="cannot be tempered; sample the target itself"):
        DelayedAcceptance(RandomWalk(Lattice.for_target(ising), noisy), ising).tempered(0.5)
