"""Tempered kernels and kernels on noisy targets: what they report, what starts are legal, and what is refused."""

import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.environments import HyperGrid
from gfnmc.kernels import (
    Cycle,
    Gibbs,
    IndependenceMH,
    Kernel,
    Mixture,
    RandomWalk,
    Reason,
    State,
    SuffixResampling,
    branch,
)
from gfnmc.kernels.metropolis import MetropolisKernel
from gfnmc.sampling import Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Target, from_function
from gfnmc.targets.noisy import NoisyCopy, NoisyTarget
from tests.support import CountingTarget, Stairs, assert_close, is_identical, random_numbers, random_pair, stairs_target

GRID = HyperGrid(2, 4)
TABLE = random_numbers(1, 4, 4)
TABLE[1, 1] = TABLE[2, 2] = -math.inf
TARGET = from_function(lambda x: TABLE[x[:, 0], x[:, 1]], (2,), values=(0, 1, 2, 3), name="bumpy grid")
POWER = torch.tensor([1.0, 0.0, 0.4, 2.0, 0.0]).double()
START = torch.tensor([[0, 0], [1, 1], [3, 0], [0, 2], [2, 2]])


def kernels(target: Target = TARGET) -> dict[str, Kernel]:
    pair = random_pair(GRID)
    walk, suffix = RandomWalk(GRID, target), SuffixResampling(pair, target)
    return {
        "walk": walk,
        "suffix": suffix,
        "prefix": SuffixResampling(pair, target, branch.PrefixUniform()),
        "independence": IndependenceMH(pair, target),
        "cycle": Cycle([suffix, walk]),
        "mixture": Mixture([suffix, walk]),
    }


@pytest.mark.parametrize("name", kernels())
def test_impossible_objects_are_legal_at_inverse_temperature_zero_and_never_entered_above(name: str) -> None:
    tempered = kernels()[name].tempered(POWER)
    state = tempered.init(START)
    assert_close(state.log_prob, TARGET.log_prob(START), 0.0)
    draws, met = PhiloxDraws(1, "x", 5), 0
    for step in range(200):
        state, info = tempered.step(draws.at(step), state)
        assert_close(state.log_prob, TARGET.log_prob(state.position), 0.0)
        assert (state.log_prob[POWER > 0] > -math.inf).all()
        met += int((state.log_prob == -math.inf).sum())
        assert not info.log_ratio.isnan().any() and not info.acceptance_rate.isnan().any()
    # Two of 16 objects are impossible, and two chains are flat.
    assert 10 < met < 200


@pytest.mark.parametrize("name", [*kernels(), "gibbs"])
def test_an_impossible_start_is_refused_above_zero(name: str) -> None:
    kernel = (kernels() | {"gibbs": Gibbs(GRID, TARGET)})[name]
    with pytest.raises(ObjectError, match=r"chain 2 would start at \[1, 1\], where bumpy grid has density zero"):
        kernel.tempered(POWER).init(START[[0, 1, 1, 3, 4]])
    with pytest.raises(ObjectError, match="chain 1 would start"):
        kernel.init(START)
    with pytest.raises(OptionError, match="5 inverse temperatures for 3 chains"):
        kernel.tempered(POWER).init(START[:3])
    assert kernel.tempered(0.0).init(START).log_prob.isinf().sum() == 2


@pytest.mark.parametrize("name", ["walk", "suffix", "prefix", "independence"])
def test_a_tempered_step_reports_the_ratio_of_its_own_law(name: str) -> None:
    kernel = kernels()[name]
    assert isinstance(kernel, MetropolisKernel)
    power = POWER.repeat(40)
    position = START.repeat(40, 1)
    log_prob = TARGET.log_prob(position)
    draws = PhiloxDraws(2, "x", 200)
    after, info = kernel.tempered(power).step(draws, State(position, log_prob, cache="kept"))
    proposal, log_hastings = kernel.propose(position, draws)
    assert torch.equal(proposal, info.proposal)
    new = TARGET.log_prob(proposal)
    wanted = torch.where(power > 0, power * (new - log_prob), 0.0) + log_hastings
    lazy, active = info.reason == Reason.LAZY, log_hastings > -math.inf
    assert_close(info.log_ratio[active & ~lazy], wanted[active & ~lazy])
    assert torch.equal(info.target_calls, (active & ~lazy).long())
    # Tempering changes what is accepted, not what is proposed or kept.
    assert after.cache == "kept"
    assert torch.equal(kernel.step(draws, State(position, log_prob.clamp(min=-9.0)))[1].proposal, proposal)


def test_tempering_leaves_the_kernel_as_it_was() -> None:
    for kernel in (*kernels().values(), Gibbs(GRID, TARGET)):
        tempered = kernel.tempered(0.5)
        assert type(tempered) is type(kernel)
        assert kernel.inverse_temperature == 1.0 and tempered.inverse_temperature == 0.5
        assert (tempered.name, tempered.reach, tempered.may_stay) == (kernel.name, kernel.reach, kernel.may_stay)
        assert (tempered.calls_per_step, tempered.training_cost) == (kernel.calls_per_step, kernel.training_cost)
        with pytest.raises(OptionError, match="negative"):
            kernel.tempered(torch.tensor([0.5, -1.0]).double())
    cycle = kernels()["cycle"]
    assert isinstance(cycle, Cycle)
    assert [part.inverse_temperature for part in cycle.tempered(0.5).kernels] == [0.5, 0.5]
    assert [part.inverse_temperature for part in cycle.kernels] == [1.0, 1.0]


def test_a_users_kernel_that_cannot_be_tempered_says_so() -> None:
    class Still(RandomWalk):
        tempered = Kernel.tempered

    with pytest.raises(CapabilityError, match="random walk cannot be tempered; implement `tempered`"):
        Still(GRID, TARGET).tempered(0.5)
    with pytest.raises(CapabilityError, match="cannot be tempered"):
        Cycle([Still(GRID, TARGET)]).tempered(0.5)


class SpyPair:
    """A pair that writes down what it is given, and walks by another."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.pair = random_pair(GRID)
        self.environment, self.training_cost, self.is_positive = GRID, self.pair.training_cost, True
        self.condition_names = names
        self.conditions: list[Tensor] = []
        for name in ("sample_forward", "sample_backward", "log_forward", "log_backward"):
            setattr(self, name, getattr(self.pair, name))

    def given(self, condition: Tensor) -> "SpyPair":
        self.conditions.append(condition)
        return self


@pytest.mark.parametrize("kind", [SuffixResampling, IndependenceMH])
def test_a_pair_of_many_temperatures_is_given_those_of_the_chains(kind: type) -> None:
    pair = SpyPair(("inverse_temperature",))
    kernel = kind(pair, TARGET)
    kernel.tempered(POWER)
    kernel.tempered(0.25)
    one, each, all_rows = pair.conditions
    assert one.dtype == each.dtype == all_rows.dtype == torch.float64
    assert (one.tolist(), all_rows.tolist()) == ([1.0], [0.25])
    assert torch.equal(each, POWER[:, None])
    for names in ((), ("field",), ("inverse_temperature", "field")):
        other = SpyPair(names)
        assert kind(other, TARGET).tempered(POWER).pair is other
        assert other.conditions == []


def noisy(target: Target = TARGET) -> NoisyCopy:
    return NoisyCopy(target, [0.25, 2.0], [4 / 7, 3 / 7])


def run(kernel: Kernel, num_chains: int = 4, num_samples: int = 12, **options: object) -> Chains:
    return sample(
        kernel, num_chains=num_chains, num_samples=num_samples, num_warmup=0, seed=3, progress_bar=False,
        init=torch.tensor([0, 3]), **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", kernels())
def test_chains_of_a_noisy_target_do_not_feel_each_other(name: str) -> None:
    few = run(kernels(noisy())[name], 4)
    for num_chains in (1, 40, 300):
        many = run(kernels(noisy())[name], num_chains)
        rows = min(4, num_chains)
        assert is_identical(many.x[:rows], few.x[:rows])
        assert is_identical(many.samples.log_prob[:rows], few.samples.log_prob[:rows])


@pytest.mark.parametrize("name", [name for name in kernels() if name not in ("cycle", "mixture")])
def test_an_estimate_is_kept_until_another_is_accepted(name: str) -> None:
    chains = run(kernels(noisy())[name], 30, 40)
    log_prob, accepted = chains.samples.log_prob, chains.samples.stats["accepted"]
    multiplier = (log_prob - TARGET.log_prob(chains.x.flatten(0, 1)).unflatten(0, (30, 40))).exp()
    assert_close((multiplier - 0.25).abs().minimum((multiplier - 2.0).abs()), torch.zeros(30, 40))
    stays = ~accepted[:, 1:]
    assert stays.any() and torch.equal(log_prob[:, 1:][stays], log_prob[:, :-1][stays])
    # The noise of the chain is size-biased: its mean is E[w^2] / E[w] = 4/7 / 16 + 3/7 * 4 = 1.75, not 1.
    assert 1.4 < float(multiplier[:, 10:].mean()) < 2.0


def test_estimates_are_drawn_for_the_rows_that_need_one_and_counted() -> None:
    class Counting(NoisyCopy):
        rows = 0

        def estimate_log_prob(self, x: Tensor, draws: Draws) -> Tensor:
            self.rows += len(x)
            return super().estimate_log_prob(x, draws)

    stairs = Stairs(6)
    target = Counting(stairs_target(stairs), [0.25, 2.0], [4 / 7, 3 / 7])
    kernel = SuffixResampling(random_pair(stairs), target, branch.PrefixUniform())
    chains = sample(kernel, num_chains=50, num_samples=8, num_warmup=0, seed=3, progress_bar=False)
    assert chains.sampling_cost.target_calls == target.rows
    assert target.rows < 50 * 9


def test_a_noisy_target_starts_with_draws_alone() -> None:
    for kernel in kernels(noisy()).values():
        with pytest.raises(
            CapabilityError, match=r"is noisy, so chains start with a random estimate; give `init` draws"
        ):
            kernel.init(START[[0, 2, 3]])
        draws = PhiloxDraws(1, "x", 3)
        state = kernel.init(START[[0, 2, 3]], draws)
        with pytest.raises(CapabilityError, match="with estimates drawn anew the chains would sample another law"):
            kernel.refresh(state)
        with pytest.raises(CapabilityError, match="a power of an unbiased estimate is a biased one"):
            kernel.tempered(0.5)
        # The estimate at the start is not the one that the first step draws with the same numbers.
        first = {float(kernel.init(START[:1], PhiloxDraws(seed, "x", 1)).log_prob) for seed in range(20)}
        assert len(first) == 2
    with pytest.raises(ObjectError, match="chain 1 would start"):
        RandomWalk(GRID, noisy()).init(START[:2], PhiloxDraws(1, "x", 2))


class Biased(NoisyTarget):
    """Noise of unknown mean."""

    name, event_shape, dtype, values = "biased", (2,), torch.int64, (0, 1, 2, 3)

    def estimate_log_prob(self, x: Tensor, draws: Draws) -> Tensor:
        raise AssertionError("evaluated")


@pytest.mark.parametrize("name", kernels())
def test_a_noisy_target_that_does_not_say_it_is_unbiased_is_refused(name: str) -> None:
    kernel = kernels(Biased())[name]
    with pytest.raises(CapabilityError, match="does not say that it is unbiased"):
        run(kernel)
    with pytest.raises(CapabilityError, match="does not say that it is unbiased"):
        kernel.init(START, PhiloxDraws(1, "x", 5))


def test_what_is_not_noisy_needs_no_draws_and_is_evaluated_once_a_step() -> None:
    target = CountingTarget(HyperGridTarget(2, 4))
    kernel = RandomWalk(GRID, target)
    state = kernel.init(torch.zeros(7, 2, dtype=torch.int64))
    kernel.step(PhiloxDraws(1, "x", 7), state)
    assert (target.num_calls, target.num_rows) == (2, 14)
