"""The few lines that make chains exact, each against numbers worked out by hand, so that no change of them goes unseen.

Enumeration proves the whole; these tests say which line is wrong. Mutation testing holds them to that:
docs/reference/mutants.md.
"""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, PolicyError
from gfnmc.core.tempering import tempered_change
from gfnmc.environments import HyperGrid
from gfnmc.kernels import ParallelTempering, RandomWalk, Reason, State, SuffixResampling, branch
from gfnmc.kernels.branch import log_branch_probability
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal, decide
from gfnmc.kernels.parallel_tempering import log_swap_ratio
from gfnmc.kernels.suffix import log_hastings_ratio
from gfnmc.targets import NoisyCopy, Target, from_function
from tests.support import CountingTarget, assert_close, is_identical, random_pair

INF = math.inf
GRID = HyperGrid(1, 6)
HEIGHTS = torch.tensor([0.0, 1.0, -2.0, 0.5, -INF, 3.0], dtype=torch.float64)


def target() -> Target:
    return from_function(lambda x: HEIGHTS[x[:, 0]], (1,), name="heights")


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Recorded(Draws):
    """Draws that accept what they are told to, and remember what they were asked."""

    def __init__(self, accepted: list[bool], role: str = "", asked: dict[str, Any] | None = None) -> None:
        self._accepted = torch.tensor(accepted)
        self._role = role
        self.asked = {} if asked is None else asked

    @property
    def num_rows(self) -> int:
        return len(self._accepted)

    def role(self, name: str) -> "Recorded":
        return Recorded(self._accepted.tolist(), name, self.asked)

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        self.asked[self._role] = (log_probs, active)
        return self._accepted & (log_probs > -INF) & (True if active is None else active)

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def permutation(self, length: int) -> Tensor:
        raise NotImplementedError

    def shared_categorical(self, log_probs: Tensor) -> int:
        raise NotImplementedError


# One row each: accepted, rejected, lazy, no way back, impossible object, and a ratio above 1.
LOG_HASTINGS = numbers(-0.25, 0.5, 0.0, -INF, 0.75, 2.0)
IS_LAZY = torch.tensor([False, False, True, False, False, False])
OLD = numbers(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
NEW = numbers(0.5, -1.0, INF, INF, -INF, 7.0)
TOLD = [True, False, True, True, True, True]
PROPOSAL = Proposal(
    position=torch.arange(6)[:, None] + 10,
    log_hastings=LOG_HASTINGS,
    is_lazy=IS_LAZY,
    num_back_steps=torch.arange(6) + 20,
    num_forward_steps=torch.arange(6) + 30,
    policy_calls=torch.arange(6) + 40,
)


@pytest.mark.parametrize("power", [1.0, 0.5, "one a row"])
def test_a_decision_is_what_the_ratio_says(power: float | str) -> None:
    powers = numbers(0.5, 1.0, 1.0, 0.5, 2.0, 0.25) if power == "one a row" else torch.full((6,), power).double()
    given = powers if power == "one a row" else power
    draws, cache = Recorded(TOLD), object()
    before = State(torch.arange(6)[:, None], OLD, cache)
    state, info = decide(draws, before, PROPOSAL, NEW, given)
    ratio = powers * (NEW - OLD) + LOG_HASTINGS
    # Decided by a stream of its own, by min(1, ratio), where there is something to decide.
    assert set(draws.asked) == {"accept"}
    asked, active = draws.asked["accept"]
    evaluated = torch.tensor([True, True, False, False, True, True])
    assert torch.equal(active, evaluated)
    wanted = torch.where(evaluated, ratio, -INF)
    assert_close(asked[evaluated], wanted.clamp(max=0.0)[evaluated], 1e-15)
    is_accepted = torch.tensor([True, False, False, False, False, True])
    assert torch.equal(info.is_accepted, is_accepted)
    assert torch.equal(state.position[:, 0], torch.where(is_accepted, torch.arange(6) + 10, torch.arange(6)))
    assert_close(state.log_prob, torch.where(is_accepted, NEW, OLD), 0.0)
    assert state.cache is cache
    # What is reported.
    log_ratio = torch.where(IS_LAZY, 0.0, wanted)
    assert_close(info.log_ratio, log_ratio, 1e-15)
    assert_close(info.acceptance_rate, torch.where(IS_LAZY, 0.0, log_ratio.clamp(max=0.0).exp()), 1e-15)
    reasons = [
        Reason.ACCEPTED,
        Reason.REJECTED,
        Reason.LAZY,
        Reason.NO_REVERSE_MOVE,
        Reason.REJECTED,
        Reason.ACCEPTED,
    ]
    assert is_identical(info.reason, torch.tensor(reasons, dtype=torch.int8))
    assert is_identical(info.target_calls, evaluated.to(torch.int64))
    for name in ("num_back_steps", "num_forward_steps", "policy_calls"):
        assert is_identical(getattr(info, name), getattr(PROPOSAL, name))
    assert torch.equal(info.proposal, PROPOSAL.position)


@pytest.mark.parametrize("power", [0.0, 0.5, 3.0])
def test_powers_of_a_density_change_by_powers(power: float) -> None:
    new, old = numbers(1.0, -2.0, -INF, -INF, 0.0), numbers(0.25, 1.0, 0.0, -INF, -INF)
    finite = [0, 1]
    for given in (power, torch.full((5,), power, dtype=torch.float64)):
        change = tempered_change(given, new, old)
        assert change.dtype == torch.float64
        assert_close(change[finite], power * numbers(0.75, -3.0), 1e-15)
        if power == 0.0:
            assert_close(change, torch.zeros(5), 0.0)
        else:
            assert float(change[2]) == -INF
    mixed = tempered_change(numbers(0.0, 1.0, 0.0, 0.0, 2.0), new, numbers(0.25, 1.0, 0.0, -INF, 0.0))
    assert_close(mixed, numbers(0.0, -3.0, 0.0, 0.0, 0.0), 0.0)


def test_the_ratio_of_suffixes_has_three_terms_each_way() -> None:
    terms = {
        "log_backward_new": numbers(1.0),
        "log_branch_new": numbers(10.0),
        "log_forward_old": numbers(100.0),
        "log_backward_old": numbers(1_000.0),
        "log_branch_old": numbers(10_000.0),
        "log_forward_new": numbers(100_000.0),
    }
    assert float(log_hastings_ratio(**terms)) == 111.0 - 111_000.0
    # A branch that the law would never have made is no way back.
    assert float(log_hastings_ratio(**(terms | {"log_branch_new": numbers(-INF)}))) == -INF


def test_a_branch_at_the_source_is_as_likely_as_all_that_would_have_gone_further() -> None:
    law = numbers(0.1, 0.2, 0.3, 0.4).log()
    steps = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    at_source = torch.tensor([False] * 4 + [True] * 4)
    found = log_branch_probability(law, steps, at_source).exp()
    assert_close(found, numbers(0.1, 0.2, 0.3, 0.4, 1.0, 0.9, 0.7, 0.4), 1e-15)


def test_a_swap_weighs_the_difference_of_energies_by_the_difference_of_temperatures() -> None:
    ratio = log_swap_ratio(numbers(1.0, 0.5), numbers(0.5, 0.0), numbers(3.0, -1.0)[None], numbers(5.0, -INF)[None])
    assert_close(ratio, numbers(0.5 * 2.0, -INF)[None], 0.0)
    # b_i log R(x_j) + b_j log R(x_i) - b_i log R(x_i) - b_j log R(x_j), by hand.
    assert_close(
        log_swap_ratio(numbers(0.9), numbers(0.2), numbers(-4.0)[None], numbers(1.5)[None]),
        numbers(0.9 * 1.5 + 0.2 * -4.0 - 0.9 * -4.0 - 0.2 * 1.5)[None],
        1e-14,
    )


# The kernel around the decision


class Scripted(MetropolisKernel):
    """Proposes what it is told."""

    name = "scripted"
    reach = property(lambda self: RandomWalk(GRID, self.target).reach)
    may_stay = property(lambda self: False)

    def __init__(self, target: Target, proposal: Proposal) -> None:
        self.environment, self.target, self.proposal = GRID, target, proposal
        self.positions: list[Tensor] = []

    def start(self, draws: Draws) -> Tensor:
        return torch.zeros(draws.num_rows, 1, dtype=torch.int64)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        self.positions.append(position)
        return self.proposal


def scripted(target: Target, *, log_hastings: Tensor, is_lazy: list[bool]) -> Scripted:
    zero = torch.zeros(4, dtype=torch.int64)
    return Scripted(
        target, Proposal(torch.tensor([[1], [2], [3], [5]]), log_hastings, torch.tensor(is_lazy), zero, zero, zero)
    )


@pytest.mark.parametrize(
    ("log_hastings", "is_lazy", "asked"),
    [
        (numbers(0.5, 0.5, 0.5, 0.5), [False] * 4, [1, 2, 3, 5]),
        (numbers(0.5, -INF, 0.0, 0.5), [False, False, True, False], [1, 5]),
        (numbers(-INF, -INF, -INF, -INF), [False] * 4, []),
        (numbers(0.0, 0.0, 0.0, 0.0), [True] * 4, []),
    ],
)
def test_only_what_may_be_accepted_is_evaluated(log_hastings: Tensor, is_lazy: list[bool], asked: list[int]) -> None:
    met: list[Tensor] = []

    def trap(x: Tensor, value: Tensor) -> Tensor:
        met.append(x[:, 0])
        return value

    kernel = scripted(target(), log_hastings=log_hastings, is_lazy=is_lazy)
    start = torch.tensor([[0], [0], [0], [1]])
    state = kernel.init(start)
    for place in range(2):
        counted = CountingTarget(target(), trap_at=0, trap=trap)
        kernel.target = counted
        after, info = kernel.step(Recorded([True] * 4), state)
        assert counted.num_calls == bool(asked)
        assert int(info.target_calls.sum()) == len(asked)
        assert [met.pop().tolist()] == [asked] if asked else not met
        moved = torch.isin(kernel.proposal.position[:, 0], torch.tensor(asked, dtype=torch.int64))
        assert torch.equal(after.position, torch.where(moved[:, None], kernel.proposal.position, start)), place
        assert_close(after.log_prob, target().log_prob(after.position), 0.0)
        assert is_identical(kernel.positions[-1], start)


def test_an_error_names_the_chain() -> None:
    def trap(x: Tensor, value: Tensor) -> Tensor:
        return torch.where(x[:, 0] == 5, math.nan, value)

    for is_lazy, calls in (([False] * 4, 0), ([True, False, False, False], 0)):
        kernel = scripted(target(), log_hastings=numbers(0.0, 0.0, 0.0, 0.0), is_lazy=is_lazy)
        state = kernel.init(torch.zeros(4, 1, dtype=torch.int64))
        kernel.target = CountingTarget(target(), trap_at=calls, trap=trap)
        with pytest.raises(NonFiniteEnergyError) as error:
            kernel.step(Recorded([True] * 4), state)
        assert error.value.row == 3


def test_a_noisy_target_is_estimated_by_the_streams_of_its_chains() -> None:
    noisy = NoisyCopy(target(), (0.5, 1.5), (0.5, 0.5))
    estimates = {}
    for name, is_lazy in (("all", [False] * 4), ("some", [True, False, True, False])):
        kernel = scripted(noisy, log_hastings=numbers(INF, INF, INF, INF), is_lazy=is_lazy)
        draws = PhiloxDraws(3, "x", 4)
        state = kernel.init(torch.zeros(4, 1, dtype=torch.int64), draws)
        after, info = kernel.step(draws.at(1), state)
        assert torch.equal(info.is_accepted, ~torch.tensor(is_lazy))
        estimates[name] = after.log_prob
    # Which chains ask does not change what a chain is told.
    wanted = noisy.estimate_log_prob(kernel.proposal.position, PhiloxDraws(3, "x", 4).at(1).role("estimate"))
    assert is_identical(estimates["all"], wanted)
    assert is_identical(estimates["some"][[1, 3]], wanted[[1, 3]])


def test_unknown_probabilities_are_refused_with_the_chain() -> None:
    kernel = scripted(target(), log_hastings=numbers(0.0, 0.0, math.nan, math.nan), is_lazy=[False] * 4)
    message = (
        "chain 2: the probability of a proposed path is NaN; the weights of P_F or P_B are not finite, so train the "
        "pair again or load an earlier checkpoint"
    )
    state = kernel.init(torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(PolicyError) as error:
        kernel.step(Recorded([True] * 4), state)
    assert str(error.value) == message
    with pytest.raises(PolicyError, match="chain 2"):
        kernel.propose(state.position, Recorded([True] * 4))


def test_a_proposal_is_handed_to_other_frameworks_as_it_is() -> None:
    kernel = scripted(target(), log_hastings=numbers(0.5, -INF, 0.0, 2.0), is_lazy=[False] * 4)
    draws, x = Recorded([True] * 4), torch.zeros(4, 1, dtype=torch.int64)
    position, log_hastings = kernel.propose(x, draws)
    assert position is kernel.proposal.position and log_hastings is kernel.proposal.log_hastings
    assert kernel.positions[-1] is x
    assert not draws.asked


def test_the_draws_of_a_step_reach_the_proposal() -> None:
    # A kernel that proposes by draws: the same step as its own proposal followed by the decision.
    walk = RandomWalk(GRID, target())
    draws = PhiloxDraws(5, "x", 64)
    state = walk.init(torch.full((64, 1), 1))
    after, info = walk.step(draws, state)
    position, log_hastings = walk.propose(state.position, draws)
    assert torch.equal(info.proposal, position)
    assert 0 < int(info.is_accepted.sum()) < 64
    change = target().log_prob(position) - state.log_prob
    accepted = draws.role("accept").bernoulli((change + log_hastings).clamp(max=0.0))
    assert torch.equal(info.is_accepted, accepted)
    assert torch.equal(after.position, torch.where(accepted[:, None], position, state.position))


def test_a_tempered_kernel_is_a_copy_at_that_power() -> None:
    walk = RandomWalk(GRID, target())
    tempered = walk.tempered(0.25)
    assert tempered is not walk and type(tempered) is RandomWalk
    assert (walk.inverse_temperature, tempered.inverse_temperature) == (1.0, 0.25)
    assert tempered.target is walk.target
    state = tempered.init(torch.tensor([[0], [0]]))
    _, info = tempered.step(PhiloxDraws(0, "x", 2), state)
    change = target().log_prob(info.proposal) - state.log_prob
    # From the end there is one way, and from its neighbour two.
    assert_close(info.log_ratio, 0.25 * change - math.log(2.0), 1e-15)
    noisy = RandomWalk(GRID, NoisyCopy(target(), (0.5, 1.5), (0.5, 0.5)))
    with pytest.raises(CapabilityError) as error:
        noisy.tempered(0.25)
    assert str(error.value) == (
        f"{noisy.target.name} is noisy, and a power of an unbiased estimate is a biased one, so random walk cannot be "
        "tempered; sample the target itself"
    )


# Where the terms come from


def test_suffix_resampling_puts_each_term_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The six terms of a step are the numbers of the two paths, whichever law the branch has."""
    pair = random_pair(GRID).frozen()
    terms: dict[str, Tensor] = {}

    def recorded(**given: Tensor) -> Tensor:
        terms.update(given)
        return log_hastings_ratio(**given)

    monkeypatch.setattr("gfnmc.kernels.suffix.log_hastings_ratio", recorded)
    for law in (branch.Uniform(), branch.PrefixUniform()):
        kernel = SuffixResampling(pair, target(), law)
        start = torch.tensor([[3]]).expand(400, 1)
        _, info = kernel.step(PhiloxDraws(2, "x", 400), kernel.init(start))
        moved = (info.reason != Reason.LAZY) & (info.num_forward_steps > 0)
        assert moved.any()
        is_prefix = isinstance(law, branch.PrefixLaw)
        # On a line every object has one path: nothing is chosen backward, and the branch law says the rest.
        assert_close(terms["log_backward_new"], torch.zeros(400), 1e-12)
        assert_close(terms["log_backward_old"], torch.zeros(400), 1e-12)
        back = info.num_back_steps
        old = log_branch_probability(kernel._log_pmf, back, back == 3)
        assert_close(terms["log_branch_old"], torch.zeros(400).double() if is_prefix else old, 1e-12)
        assert torch.equal(info.proposal[moved][:, 0], (3 - back + info.num_forward_steps)[moved])


def test_replicas_are_exchanged_by_the_ratio_of_their_own_energies() -> None:
    ladder = (1.0, 0.5, 0.25)
    kernel = ParallelTempering(copy.copy(RandomWalk(GRID, target())), ladder)
    state = kernel.init(torch.tensor([[[0], [1], [3]]]).expand(200, 3, 1))
    _, info = kernel.step(PhiloxDraws(4, "x", 200), state)
    swap = info.parts["swap"]
    cold, hot = HEIGHTS[info.parts[RandomWalk.name].proposal[:, 0]], HEIGHTS[swap.proposal[:, 0]]
    stayed = ~info.parts[RandomWalk.name].is_accepted
    cold = torch.where(stayed, HEIGHTS[0], cold)
    assert_close(swap.log_ratio, 0.5 * (hot - cold), 1e-15)
    assert 0 < int(swap.is_accepted.sum()) < 200
