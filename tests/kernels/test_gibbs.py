"""Gibbs sampling: what it reports and costs, what it refuses, and that a chain does not depend on those beside it."""

import inspect
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError, NonFiniteEnergyError, OptionError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Gibbs, Reason, State
from gfnmc.sampling import Budget, sample
from gfnmc.targets import Ising, Target, from_function
from gfnmc.targets.noisy import NoisyCopy
from tests.support import CountingTarget, assert_close, chi_square, is_identical

ISING = Ising((3, 4), 0.4, field=0.1)
LATTICE = Lattice.for_target(ISING)
SCANS = ["random", "systematic"]
THREE = from_function(
    lambda x: torch.where((x == x.roll(1, 1)).all(1), -torch.inf, (0.3 * x).sum(1).double()), (4,), values=(0, 2, 5)
)


def walked(kernel: Gibbs, num_chains: int, num_steps: int, seed: int = 3) -> State:
    draws = PhiloxDraws(seed, "run", num_chains)
    state = kernel.init(kernel.start(draws.role("start")))
    for step in range(num_steps):
        state, _ = kernel.step(draws.at(step), state)
    return state


@pytest.mark.parametrize("scan", SCANS)
def test_a_step_does_what_it_reports(scan: str) -> None:
    kernel = Gibbs(LATTICE, ISING, scan)
    state = walked(kernel, 40, 2)
    kept = State(state.position.clone(), state.log_prob.clone())
    after, info = kernel.step(PhiloxDraws(1, "x", 40), state)
    assert torch.equal(state.position, kept.position) and torch.equal(state.log_prob, kept.log_prob)
    changed = (after.position != state.position).flatten(1).sum(1)
    assert int(changed.max()) == (1 if scan == "random" else int(changed.max())) > 0
    assert torch.equal(info.proposal, after.position)
    assert info.is_accepted.all() and (info.acceptance_rate == 1.0).all() and not info.log_ratio.any()
    assert (info.reason == Reason.ACCEPTED).all() and info.reason.dtype == torch.int8
    for field in (info.num_back_steps, info.num_forward_steps, info.policy_calls):
        assert not field.any()
    again, _ = kernel.step(PhiloxDraws(1, "x", 40), state)
    assert is_identical(again.position, after.position) and is_identical(again.log_prob, after.log_prob)


@pytest.mark.parametrize("scan", SCANS)
def test_a_visit_costs_a_call_for_each_other_value(scan: str) -> None:
    for target, others in ((ISING, 1), (THREE, 2)):
        sites = math.prod(target.event_shape)
        kernel = Gibbs(Lattice.for_target(target), target, scan)
        visits = 1 if scan == "random" else sites
        assert kernel.calls_per_step == others * visits
        draws = PhiloxDraws(1, "x", 7)
        position = torch.tensor(target.values)[torch.arange(sites) % 2].to(target.dtype)
        state = kernel.init(position.reshape(target.event_shape).expand(7, *target.event_shape))
        _, info = kernel.step(draws, state)
        assert (info.target_calls == others * visits).all()
        # At inverse temperature 0 the value needs no energy; where the chain stands then costs one.
        power = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0, 2.0, 1.0]).double()
        _, info = kernel.tempered(power).step(draws, state)
        assert info.target_calls.tolist() == [1 if beta == 0 else others * visits for beta in power.tolist()]
        delta = [0 if beta == 0 or not target.offers_delta else others * visits for beta in power.tolist()]
        assert torch.as_tensor(info.delta_calls).tolist() == delta
        _, info = kernel.tempered(0.0).step(draws, state)
        assert (info.target_calls == 1).all()


@pytest.mark.parametrize("power", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("scan", SCANS)
def test_the_density_that_is_carried_along_stays_true(scan: str, power: float) -> None:
    for target in (ISING, THREE):
        kernel = Gibbs(Lattice.for_target(target), target, scan)
        sites = math.prod(target.event_shape)
        draws = PhiloxDraws(3, "run", 20)
        position = torch.tensor(target.values)[torch.arange(sites) % 2].to(target.dtype)
        state = kernel.init(position.reshape(target.event_shape).expand(20, *target.event_shape))
        tempered = kernel.tempered(power)
        for step in range(300):
            state, _ = tempered.step(draws.at(step), state)
        assert_close(state.log_prob, target.log_prob(state.position), 1e-11)
        assert power == 0.0 or (state.log_prob > -math.inf).all()
        refreshed = tempered.refresh(state)
        assert_close(refreshed.log_prob, state.log_prob, 1e-11)


@pytest.mark.parametrize("scan", SCANS)
def test_a_chain_is_the_same_whatever_runs_beside_it(scan: str) -> None:
    kernel = Gibbs(LATTICE, ISING, scan)
    few = walked(kernel, 5, 20)
    for num_chains in (1, 40, 300):
        many = walked(kernel, num_chains, 20)
        rows = min(5, num_chains)
        assert is_identical(many.position[:rows], few.position[:rows])
        assert is_identical(many.log_prob[:rows], few.log_prob[:rows])
    assert not torch.equal(walked(kernel, 5, 20, seed=4).position, few.position)


def test_all_sites_are_visited_alike_by_a_random_scan() -> None:
    flat = from_function(lambda x: torch.zeros(len(x)).double(), (5,), values=(0, 1, 2), name="flat")
    kernel = Gibbs(Lattice.for_target(flat), flat)
    state = kernel.init(torch.zeros(30_000, 5, dtype=torch.int64))
    after, _ = kernel.step(PhiloxDraws(1, "x", 30_000), state)
    moved = (after.position != 0).sum(0)
    counts = torch.cat([moved, torch.tensor([30_000 - int(moved.sum())])])
    statistic, limit = chi_square(counts, [2 / 15] * 5 + [1 / 3])
    assert statistic < limit
    statistic, limit = chi_square(counts, [2 / 15 * 1.1] * 5 + [1 / 3 - 1 / 15])
    assert statistic > limit


def test_whole_runs_are_right() -> None:
    """Last draws of many chains, through the front door: every object as often as it should be, -inf never."""
    kernel = Gibbs(Lattice.for_target(THREE), THREE, "systematic")
    chains = sample(kernel, num_chains=8_000, num_samples=1, num_warmup=25, init=torch.tensor([0, 0, 0, 2]), seed=1,
                    progress_bar=False)  # fmt: skip
    solution = THREE.exact()
    assert solution is not None and solution.log_pmf is not None
    counts = torch.bincount(solution.index(chains.x[:, -1]), minlength=81)
    statistic, limit = chi_square(counts, solution.log_pmf.exp())
    assert statistic < limit
    tilted = (1.2 * solution.log_pmf).softmax(0)
    statistic, limit = chi_square(counts, tilted)
    assert statistic > limit
    assert chains.sampling_cost.target_calls == 8_000 * (1 + 26 * 8)


def test_budgets_of_target_calls_are_kept() -> None:
    kernel = Gibbs(LATTICE, ISING, "systematic")
    chains = sample(kernel, num_chains=4, num_samples=100, num_warmup=0, budget=Budget(target_calls=500), seed=1,
                    progress_bar=False)  # fmt: skip
    assert chains.num_samples == (500 - 4) // 48
    assert chains.sampling_cost.target_calls == 4 + 48 * chains.num_samples <= 500


def test_what_gibbs_cannot_sample_is_refused() -> None:
    with pytest.raises(CapabilityError, match="declares no `values`"):
        Gibbs(HyperGrid(2, 3), from_function(lambda x: x.sum(1).double(), (2,)))
    noisy = NoisyCopy(ISING, [0.5, 2.0], [2 / 3, 1 / 3])
    with pytest.raises(CapabilityError, match=r"is noisy, and Gibbs needs .* use RandomWalk"):
        Gibbs(LATTICE, noisy)
    # Users run without the tests' checks of annotations.
    with pytest.raises(OptionError, match="scan is 'checkerboard'; choose 'random', 'systematic' or 'chromatic'"):
        inspect.unwrap(Gibbs.__init__)(Gibbs.__new__(Gibbs), LATTICE, ISING, "checkerboard")


class Broken(CountingTarget):
    """Another target, whose differences are handed to a function before they are returned."""

    def __init__(self, target: Target, spoil: object) -> None:
        super().__init__(target)
        self.spoil = spoil

    def log_prob_delta(self, x: Tensor, sites: Tensor) -> Tensor:
        return self.spoil(self.inner.log_prob_delta(x, sites))  # type: ignore[operator]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_differences_that_are_not_finite_name_the_chain(bad: float) -> None:
    def spoil(delta: Tensor) -> Tensor:
        return torch.where(torch.arange(len(delta))[:, None] == 2, bad, delta)

    kernel = Gibbs(LATTICE, Broken(ISING, spoil))
    state = kernel.init(torch.ones(6, 3, 4, dtype=torch.int8))
    with pytest.raises(NonFiniteEnergyError, match=rf"returned {bad} in row 2 at site \d+ of the object") as caught:
        kernel.step(PhiloxDraws(0, "x", 6), state)
    assert caught.value.row == 2
    # Rows at inverse temperature 0 are not compared, and an error names the others as they stand in the batch.
    power = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).double()
    with pytest.raises(NonFiniteEnergyError, match=r"in row 4 ") as caught:
        kernel.tempered(power).step(PhiloxDraws(0, "x", 6), state)
    assert caught.value.row == 4


@pytest.mark.parametrize("spoil", [lambda delta: delta.float(), lambda delta: delta[:, :1], lambda delta: delta[:-1]])
def test_differences_of_the_wrong_kind_are_an_error(spoil: object) -> None:
    kernel = Gibbs(LATTICE, Broken(ISING, spoil))
    with pytest.raises(EnergyError, match=r"log_prob_delta returned torch.float.. of shape \(\d, \d\) for 6 objects"):
        kernel.step(PhiloxDraws(0, "x", 6), kernel.init(torch.ones(6, 3, 4, dtype=torch.int8)))
