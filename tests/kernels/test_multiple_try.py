"""Multiple tries: what a step reports and costs, what is recycled, what is refused, and that chains are independent."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, OptionError, PolicyError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import RandomWalk, Reason, State, branch
from gfnmc.kernels.delayed_acceptance import DelayedAcceptance
from gfnmc.kernels.multiple_try import MultipleTrySuffix
from gfnmc.policies import GFlowNet
from gfnmc.sampling import Budget, sample
from gfnmc.targets import Ising, Target, from_function
from gfnmc.targets.noisy import NoisyCopy
from tests.support import (
    CountingTarget,
    Stairs,
    assert_close,
    chi_square,
    is_identical,
    network_pair,
    random_numbers,
    random_pair,
    stairs_target,
)

GRID, STAIRS = HyperGrid(2, 4), Stairs(6)
LAWS = {
    "uniform": branch.Uniform(),
    "geometric": branch.Geometric(0.4),
    "restart": branch.FullRestart(),
    "deep prefix": branch.PrefixTable({1: 0.5, 3: 0.5}),
}
NUM_CHAINS = 60


def grid_target() -> Target:
    """A bumpy law on the grid; the cells on its diagonal, but for the origin, are impossible."""
    table = random_numbers(1, 4, 4)
    table[1, 1] = table[2, 2] = table[3, 3] = -math.inf
    return from_function(lambda x: table[x[:, 0], x[:, 1]], (2,), values=(0, 1, 2, 3), name="bumpy grid")


def kernel_for(name: str, law: str, num_tries: int) -> tuple[MultipleTrySuffix, CountingTarget]:
    environment = GRID if name == "grid" else STAIRS
    target = CountingTarget(grid_target() if name == "grid" else stairs_target(STAIRS))
    return MultipleTrySuffix(random_pair(environment, seed=2), target, LAWS[law], num_tries=num_tries), target


def walked(kernel: MultipleTrySuffix, num_chains: int, num_steps: int = 8) -> State:
    draws = PhiloxDraws(3, "run", num_chains)
    state = kernel.init(torch.zeros(num_chains, *kernel.target.event_shape, dtype=kernel.target.dtype))
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


@pytest.mark.parametrize("num_tries", [2, 5])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["grid", "stairs"])
def test_a_step_does_what_it_reports(name: str, law: str, num_tries: int) -> None:
    kernel, target = kernel_for(name, law, num_tries)
    state = walked(kernel, NUM_CHAINS, 2)
    draws = PhiloxDraws(5, "run", NUM_CHAINS)
    for step in range(4):
        counted = target.num_rows
        after, info = kernel.step(draws.at(step), state)
        accepted, rejected, lazy, no_way_back = (info.reason == value for value in Reason)
        assert info.reason.dtype == torch.int8 and (accepted | rejected | lazy | no_way_back).all()
        assert torch.equal(info.is_accepted, accepted)
        assert torch.equal(after.position[accepted], info.proposal[accepted])
        assert torch.equal(after.position[~accepted], state.position[~accepted])
        assert torch.equal(info.proposal[lazy], state.position[lazy])
        assert torch.equal(after.log_prob, target.inner.log_prob(after.position))
        assert (info.log_ratio[lazy] == 0.0).all() and (info.log_ratio[no_way_back] == -math.inf).all()
        assert_close(info.acceptance_rate[~lazy], info.log_ratio[~lazy].clamp(max=0.0).exp())
        assert not info.acceptance_rate[lazy].any()
        assert int(info.target_calls.sum()) == target.num_rows - counted
        assert (info.target_calls <= kernel.calls_per_step).all() and kernel.calls_per_step == num_tries - 1
        assert ((info.target_calls > 0) == (accepted | rejected)).all()
        for field in (info.num_back_steps, info.num_forward_steps):
            assert not field[lazy].any() and (field >= 0).all()
        # Both environments have an exit: scored once, drawn in every try.
        walked_and_scored = 2 * (info.num_back_steps + info.num_forward_steps) + num_tries
        assert (info.policy_calls >= walked_and_scored)[~lazy].all()
        assert dict(info.extras) == {}
        state = after


def test_more_tries_are_accepted_more_often_and_cost_as_many_calls() -> None:
    target = Ising((3, 3), 0.4)
    pair = network_pair(Lattice.for_target(target), seed=2)
    rates = []
    for num_tries in (2, 8, 32):
        kernel = MultipleTrySuffix(pair, target, num_tries=num_tries)
        state = kernel.init(kernel.start(PhiloxDraws(1, "start", 200)))
        _, info = kernel.step(PhiloxDraws(2, "x", 200), state)
        assert (info.target_calls == num_tries - 1).all()
        # The current suffix is undone and scored, each try is built and scored.
        assert torch.equal(info.policy_calls, 2 * num_tries * info.num_back_steps)
        rates.append(float(info.acceptance_rate.mean()))
    assert rates[0] + 0.1 < rates[1] < rates[2] - 0.05


@pytest.mark.parametrize("power", [None, torch.tensor([1.0, 0.0, 0.4, 2.0, 0.0]).double()])
def test_a_chain_is_the_same_whatever_runs_beside_it(power: Tensor | None) -> None:
    target = Ising((3, 3), 0.4)
    kernel = MultipleTrySuffix(network_pair(Lattice.for_target(target)), target, num_tries=3)

    def run(num_chains: int) -> State:
        tempered = kernel if power is None else kernel.tempered(power.repeat(60)[:num_chains])
        draws = PhiloxDraws(3, "run", num_chains)
        state = tempered.init(tempered.start(draws.role("start")))
        for step in range(6):
            state, _ = tempered.step(draws.at(step), state)
        return state

    few = run(5)
    for num_chains in (1, 40, 300):
        many, rows = run(num_chains), min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        assert is_identical(many.log_prob[:rows], few.log_prob[:rows])


def test_whole_runs_are_right() -> None:
    """Last draws of many chains, through the front door: every object as often as it should be, -inf never."""
    target = grid_target()
    kernel = MultipleTrySuffix(random_pair(GRID), target, num_tries=4)
    chains = sample(kernel, num_chains=3_000, num_samples=1, num_warmup=12, init=torch.tensor([0, 3]), seed=1,
                    progress_bar=False)  # fmt: skip
    solution = target.exact()
    assert solution is not None and solution.log_pmf is not None
    counts = torch.bincount(solution.index(chains.x[:, -1]), minlength=16)
    statistic, limit = chi_square(counts, solution.log_pmf.exp())
    assert statistic < limit
    statistic, limit = chi_square(counts, (1.3 * solution.log_pmf).softmax(0))
    assert statistic > limit


def test_budgets_of_target_calls_are_kept() -> None:
    target = Ising((3, 3), 0.4)
    kernel = MultipleTrySuffix(random_pair(STAIRS), stairs_target(STAIRS), num_tries=4)
    chains = sample(kernel, num_chains=5, num_samples=100, num_warmup=0, budget=Budget(target_calls=300), seed=1,
                    progress_bar=False)  # fmt: skip
    assert 300 - 15 < chains.sampling_cost.target_calls <= 300
    lattice = MultipleTrySuffix(network_pair(Lattice.for_target(target)), target, num_tries=4)
    chains = sample(lattice, num_chains=5, num_samples=100, num_warmup=0, budget=Budget(target_calls=300), seed=1,
                    progress_bar=False)  # fmt: skip
    assert chains.sampling_cost.target_calls == 5 + 15 * chains.num_samples and chains.num_samples == 19


def test_what_is_recycled_is_named_and_a_lazy_step_counts_its_object() -> None:
    target = Ising((2, 2), 0.4)
    pair = network_pair(Lattice.for_target(target))
    kernel = MultipleTrySuffix(pair, target, branch.PrefixTable({2: 0.5, 4: 0.5}), num_tries=3, recycle=True)
    state = kernel.init(kernel.start(PhiloxDraws(1, "start", 80)))
    _, info = kernel.step(PhiloxDraws(2, "x", 80), state)
    names = [*target.statistics(state.position), "occ[spins down]", "occ[spins up]"]
    assert list(info.extras) == [f"recycled[{name}]" for name in names]
    lazy = info.reason == Reason.LAZY
    assert 20 < int(lazy.sum()) < 60
    for name, value in target.statistics(state.position).items():
        assert_close(info.extras[f"recycled[{name}]"][lazy], value[lazy])
        assert not torch.equal(info.extras[f"recycled[{name}]"][~lazy], value[~lazy].double())
    up = info.extras["recycled[occ[spins up]]"]
    assert torch.equal(up[lazy], (state.position.sum((1, 2)) > 0)[lazy].double())
    assert ((up > 0.0) & (up < 1.0)).any()


def test_a_target_without_statistics_and_modes_has_nothing_to_recycle() -> None:
    kernel = MultipleTrySuffix(random_pair(STAIRS), stairs_target(STAIRS), recycle=True)
    _, info = kernel.step(PhiloxDraws(2, "x", 5), kernel.init(torch.zeros(5, 1, dtype=torch.int64)))
    assert dict(info.extras) == {}


def test_impossible_objects_are_legal_at_inverse_temperature_zero_and_never_entered_above() -> None:
    target = grid_target()
    power = torch.tensor([1.0, 0.0, 0.4, 2.0, 0.0]).double()
    tempered = MultipleTrySuffix(random_pair(GRID), target, num_tries=3, recycle=True).tempered(power)
    state, met = tempered.init(torch.tensor([[0, 0], [1, 1], [3, 0], [0, 2], [2, 2]])), 0
    draws = PhiloxDraws(1, "x", 5)
    for step in range(60):
        state, info = tempered.step(draws.at(step), state)
        assert_close(state.log_prob, target.log_prob(state.position), 0.0)
        assert (state.log_prob[power > 0] > -math.inf).all()
        met += int((state.log_prob == -math.inf).sum())
        assert not info.log_ratio.isnan().any() and not info.acceptance_rate.isnan().any()
    assert met > 5


def test_a_warm_up_tunes_its_branch_law() -> None:
    kernel = MultipleTrySuffix(random_pair(STAIRS), stairs_target(STAIRS), num_tries=3)
    warm_up = kernel.adaptation()
    state, draws = kernel.init(torch.zeros(40, 1, dtype=torch.int64)), PhiloxDraws(3, "run", 40)
    for step in range(20):
        state, _ = warm_up.step(draws.at(step), state)
    tuned = warm_up.frozen()
    assert isinstance(tuned, MultipleTrySuffix) and tuned.num_tries == 3
    assert tuned.branch != kernel.branch and tuned.reach is kernel.reach
    _, info = tuned.step(draws.at(20), state)
    assert int(info.target_calls.max()) == 2


def test_errors_name_the_chain() -> None:
    def poisoned(x: Tensor, value: Tensor) -> Tensor:
        return value.masked_fill(torch.arange(len(x)) == 7, math.nan)

    target = CountingTarget(Ising((2, 2), 0.4), trap_at=1, trap=poisoned)
    kernel = MultipleTrySuffix(network_pair(Lattice.for_target(target)), target, num_tries=4)
    state = kernel.init(kernel.start(PhiloxDraws(1, "start", 5)))
    with pytest.raises(NonFiniteEnergyError, match="in row 2 for the object") as caught:
        # The eighth try is the second of the third chain.
        kernel.step(PhiloxDraws(2, "x", 5), state)
    assert caught.value.row == 2


def test_a_pair_without_finite_weights_is_reported() -> None:
    class Broken(GFlowNet):
        def log_backward(self, path):  # type: ignore[no-untyped-def]
            return super().log_backward(path).index_fill(0, torch.tensor([5]), math.nan)

        def frozen(self) -> "Broken":
            return self

    pair = random_pair(STAIRS)
    kernel = MultipleTrySuffix(Broken(pair.forward, pair.backward), stairs_target(STAIRS), num_tries=3)
    with pytest.raises(PolicyError, match="chain 2: the probability of a proposed path is NaN"):
        kernel.step(PhiloxDraws(2, "x", 5), kernel.init(torch.zeros(5, 1, dtype=torch.int64)))


def test_what_multiple_tries_cannot_do_is_refused() -> None:
    target = grid_target()
    pair = random_pair(GRID)
    for num_tries in (1, 0, -3):
        with pytest.raises(OptionError, match=f"num_tries is {num_tries}; the current object is one of them"):
            MultipleTrySuffix(pair, target, num_tries=num_tries)
    noisy = NoisyCopy(target, [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(CapabilityError, match=r"is noisy, and the weights of several tries .* use SuffixResampling"):
        MultipleTrySuffix(pair, noisy)
    kernel = MultipleTrySuffix(pair, target)
    with pytest.raises(CapabilityError, match=r"weighs 4 candidates by the target .* use SuffixResampling"):
        kernel.propose(torch.zeros(3, 2, dtype=torch.int64), PhiloxDraws(0, "x", 3))
    with pytest.raises(CapabilityError, match="accepts in a way of its own"):
        DelayedAcceptance(kernel, target)
    assert isinstance(DelayedAcceptance(RandomWalk(GRID, target), target), DelayedAcceptance)
