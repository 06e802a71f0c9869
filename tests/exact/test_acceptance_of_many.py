"""The lines that make the kernels with an acceptance of their own exact, each against numbers worked out by hand.

Like test_acceptance.py, for multiple tries and delayed acceptance.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import NonFiniteEnergyError, ObjectError, PolicyError
from gfnmc.environments import DiscreteEnvironment, HyperGrid
from gfnmc.kernels import RandomWalk, Reason, State
from gfnmc.kernels.delayed_acceptance import DelayedAcceptance, log_second_hastings
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal
from gfnmc.kernels.multiple_try import MultipleTrySuffix, candidate_weights, log_multiple_try_ratio
from gfnmc.kernels.pair_memory import PairMemory
from gfnmc.policies import Path
from gfnmc.targets import NoisyCopy, Target, from_function
from tests.support import CountingTarget, Stairs, assert_close, is_identical

INF = math.inf
GRID = HyperGrid(1, 6)
HEIGHTS = torch.tensor([0.0, 1.0, -2.0, 0.5, -INF, 3.0], dtype=torch.float64)


def target() -> Target:
    return from_function(lambda x: HEIGHTS[x[:, 0]], (1,), values=tuple(range(6)), name="heights")


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def whole(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def tempered_heights(power: float, place: int) -> float:
    return 0.0 if power == 0.0 else power * float(HEIGHTS[place])


class Told(Draws):
    """Draws that decide what they are told, and remember what they were asked, by the name of the stream."""

    def __init__(self, num_rows: int, answers: dict[str, Tensor], role: str = "", asked: dict | None = None) -> None:
        self._num_rows, self._answers, self._role = num_rows, answers, role
        self.asked: dict[str, Any] = {} if asked is None else asked

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def role(self, name: str) -> "Told":
        return Told(self._num_rows, self._answers, f"{self._role}{name}", self.asked)

    def repeated(self, times: int) -> "Told":
        return Told(self._num_rows * times, self._answers, f"{self._role}*{times}", self.asked)

    def bernoulli(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._answer(log_probs, active) & (log_probs > -INF)

    def bernoulli_logits(self, logits: Tensor, active: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def categorical(self, log_probs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._answer(log_probs, active)

    def integers(self, highs: Tensor, active: Tensor | None = None) -> Tensor:
        return self._answer(highs, active)

    def permutation(self, length: int) -> Tensor:
        raise NotImplementedError

    def shared_categorical(self, log_probs: Tensor) -> int:
        raise NotImplementedError

    def _answer(self, question: Tensor, active: Tensor | None) -> Tensor:
        self.asked[self._role] = (question, active)
        answer = self._answers[self._role]
        return answer if active is None else torch.where(active, answer, torch.zeros_like(answer))


# Multiple tries


def test_many_tries_are_accepted_by_all_their_weights() -> None:
    log_weights = numbers(1.0, 2.0, 3.0, 4.0).log().expand(3, 4)
    ratio = log_multiple_try_ratio(log_weights, whole(1, 2, 3))
    assert_close(ratio, numbers(9 / 8, 9 / 7, 9 / 6).log(), 1e-14)
    # The current object without weight is always left, and one try is the ratio of two weights.
    assert_close(log_multiple_try_ratio(numbers(0.0, 1.0, 3.0).log()[None], whole(1)), numbers(4 / 3).log(), 1e-14)
    assert_close(log_multiple_try_ratio(numbers(-0.5, 1.25)[None], whole(1)), numbers(1.75), 1e-14)
    assert_close(candidate_weights(log_weights), numbers(0.1, 0.2, 0.3, 0.4).expand(3, 4), 1e-15)


# One row each: accepted, rejected, lazy, no try has a return, one has, P_F cannot build the current suffix, and
# tries that are impossible objects.
PLACES = whole(0, 1, 2, 3, 5, 0, 1)
TRIED = torch.tensor([[1, 3], [2, 5], [1, 1], [0, 1], [0, 2], [1, 3], [4, 4]])
IS_LAZY = torch.tensor([False, False, True, False, False, False, False])
TOLD = torch.tensor([True, False, True, True, True, True, True])
PICKED = whole(1, 0, 1, 1, 0, 1, 1)
DOWN_BACKWARD = numbers(-0.3, -0.6, -0.2, -0.7, -0.1, -0.4, -0.9)
DOWN_BRANCH = numbers(-1.0, -1.5, -0.5, -1.25, -0.75, -2.0, -0.25)
DOWN_FORWARD = numbers(-0.35, -0.8, -1.1, -0.15, -2.5, -INF, -0.45)
UP_BACKWARD = -torch.arange(1.0, 15.0, dtype=torch.float64).reshape(7, 2) / 7.0
UP_BRANCH = torch.tensor([[-1.0, -2.0]] * 3 + [[-INF, -INF], [-1.5, -INF]] + [[-0.5, -0.25]] * 2).double()
UP_FORWARD = -torch.arange(14.0, 0.0, -1.0, dtype=torch.float64).reshape(7, 2) / 9.0
DOWN_LENGTHS, UP_LENGTHS = torch.arange(7) + 1, torch.arange(14).reshape(7, 2) + 20


class Forgetful(PairMemory):
    """Remembers nothing but what it was asked."""

    def with_caches(self, pair: Any, down: Path) -> Path:
        self.looked_up = pair, down
        return down

    def keep(self, pair: Any, *paths: Path) -> None:
        self.kept = pair, *paths


class Written(MultipleTrySuffix):
    """Undoes and builds what is written above."""

    def __init__(self, target: Target, environment: DiscreteEnvironment = GRID, *, spoilt: float = 0.0) -> None:
        self.environment, self.target, self.num_tries, self.recycle = environment, target, 3, True
        self._memory = self.memory = Forgetful()
        none = torch.zeros(7, 0, dtype=torch.int64)
        start = torch.tensor([False] * 7)
        self.down = Path(PLACES[:, None, None], none, DOWN_LENGTHS, start, log_backward=DOWN_BACKWARD)
        up_states, up_none = TRIED.reshape(14, 1, 1), torch.zeros(14, 0, dtype=torch.int64)
        spoil = torch.zeros(14, dtype=torch.float64)
        spoil[9] = spoilt
        up_forward = UP_FORWARD.flatten() + spoil
        self.up = Path(up_states, up_none, UP_LENGTHS.flatten(), start.repeat(2), log_forward=up_forward)
        pair: Any = SimpleNamespace(log_forward={self.down: DOWN_FORWARD}.__getitem__)
        tries: Any = SimpleNamespace(log_backward={self.up: UP_BACKWARD.flatten()}.__getitem__)
        self.pair, self._pair_of_tries = pair, tries

    def _branch(self, states: Tensor, draws: Draws) -> tuple[Path, Tensor, Tensor]:
        self.branched = states, draws
        return self.down, IS_LAZY, torch.arange(7) + 100

    def _tries(self, down: Path, draws: Draws) -> Path:
        assert down is self.down
        self.built_by = draws
        return self.up

    def _log_branch(self, path: Path) -> Tensor:
        return {self.down: DOWN_BRANCH, self.up: UP_BRANCH.flatten()}[path]

    def _recycled(self, position: Tensor, tried: Tensor, weights: Tensor) -> dict[str, Tensor]:
        self.recycled = position, tried, weights
        return {"told": weights[:, 0]}


def weights_by_hand(row: int, power: float) -> tuple[list[float], list[bool]]:
    """The weights of a row's candidates, the current object's 1 where no try may be gone to; and which may."""
    builds = float(DOWN_FORWARD[row]) > -INF and not bool(IS_LAZY[row])
    may = [builds and float(UP_BRANCH[row, j]) > -INF for j in range(2)]
    if not any(may):
        return [1.0, 0.0, 0.0], may
    log_current = float(DOWN_BACKWARD[row] + DOWN_BRANCH[row] - DOWN_FORWARD[row])
    weights = [math.exp(log_current + tempered_heights(power, int(PLACES[row])))]
    for j in range(2):
        log_path = float(UP_BACKWARD[row, j] + UP_BRANCH[row, j] - UP_FORWARD[row, j])
        weights.append(math.exp(log_path + tempered_heights(power, int(TRIED[row, j]))) if may[j] else 0.0)
    return weights, may


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0, "one a row"])
def test_a_step_of_many_tries_is_what_their_weights_say(power: float | str) -> None:
    powers = [0.5, 1.0, 1.0, 0.0, 2.0, 0.25, 0.0] if power == "one a row" else [float(power)] * 7
    counted = CountingTarget(target())
    kernel = Written(counted)
    kernel.inverse_temperature = numbers(*powers) if power == "one a row" else float(power)
    draws, cache = Told(7, {"pick": PICKED, "accept": TOLD}), object()
    before = State(PLACES[:, None], HEIGHTS[PLACES], cache)
    state, info = kernel.step(draws, before)
    assert torch.equal(kernel.branched[0], PLACES[:, None]) and kernel.branched[1] is draws
    assert kernel.memory.looked_up == kernel.memory.kept == (kernel.pair, kernel.down)
    assert kernel.built_by is draws and set(draws.asked) == {"pick", "accept"}
    (pick_law, pick_active), (accept_law, accept_active) = draws.asked["pick"], draws.asked["accept"]
    reasons, moved = [], []
    for row in range(7):
        weights, may = weights_by_hand(row, powers[row])
        tries, all_others = weights[1:], sum(weights)
        has_choice = sum(tries) > 0.0
        assert bool(pick_active[row]) == bool(accept_active[row]) == has_choice, row
        picked = int(PICKED[row]) if has_choice else 0
        ratio = -INF
        if has_choice:
            assert_close(pick_law[row].exp(), numbers(*tries) / sum(tries), 1e-14)
            ratio = math.log(sum(tries) / (all_others - tries[picked]))
            assert float(accept_law[row]) == pytest.approx(min(0.0, ratio), abs=1e-13)
        assert float(info.log_ratio[row]) == pytest.approx(0.0 if IS_LAZY[row] else ratio, abs=1e-13)
        assert float(info.acceptance_rate[row]) == pytest.approx(math.exp(min(0.0, ratio)), abs=1e-13)
        assert_close(kernel.recycled[2][row], numbers(*weights) / sum(weights), 1e-14)
        is_accepted = has_choice and bool(TOLD[row])
        assert bool(info.is_accepted[row]) == is_accepted, row
        proposal = PLACES[row] if IS_LAZY[row] else TRIED[row, picked]
        assert int(info.proposal[row]) == int(proposal), row
        moved.append(int(proposal if is_accepted else PLACES[row]))
        assert int(info.num_forward_steps[row]) == (0 if IS_LAZY[row] else int(UP_LENGTHS[row, picked]))
        assert int(info.target_calls[row]) == sum(may), row
        rejected = Reason.REJECTED if any(may) else Reason.NO_REVERSE_MOVE
        reasons.append(Reason.LAZY if IS_LAZY[row] else Reason.ACCEPTED if is_accepted else rejected)
    assert is_identical(info.reason, torch.tensor(reasons, dtype=torch.int8))
    assert torch.equal(info.num_back_steps, DOWN_LENGTHS.masked_fill(IS_LAZY, 0))
    # The current suffix is undone and scored, each try is built and scored, and exits are scored or drawn.
    assert torch.equal(info.policy_calls, torch.arange(7) + 100 + DOWN_LENGTHS + 2 * UP_LENGTHS.sum(1) + 3)
    assert torch.equal(kernel.recycled[0], PLACES[:, None]) and torch.equal(kernel.recycled[1][:, :, 0], TRIED)
    assert set(info.extras) == {"told"}
    assert torch.equal(state.position[:, 0], whole(*moved))
    assert_close(state.log_prob, HEIGHTS[state.position[:, 0]], 0.0)
    assert state.cache is cache
    assert counted.num_calls == 1


def test_tries_without_exits_cost_no_exits_and_recycle_only_where_wanted() -> None:
    kernel = Written(target(), Stairs(5, exits=False))
    kernel.recycle = False
    draws = Told(7, {"pick": PICKED, "accept": TOLD})
    _, info = kernel.step(draws, State(PLACES[:, None], HEIGHTS[PLACES]))
    assert torch.equal(info.policy_calls, torch.arange(7) + 100 + DOWN_LENGTHS + 2 * UP_LENGTHS.sum(1))
    assert info.extras == {} and not hasattr(kernel, "recycled")


def test_tries_that_cannot_be_weighed_are_refused_with_the_chain() -> None:
    draws, state = Told(7, {"pick": PICKED, "accept": TOLD}), State(PLACES[:, None], HEIGHTS[PLACES])
    with pytest.raises(PolicyError) as unknown:
        Written(target(), spoilt=math.nan).step(draws, state)
    assert str(unknown.value) == (
        "chain 4: the probability of a proposed path is NaN; the weights of P_F or P_B are not finite, so train the "
        "pair again or load an earlier checkpoint"
    )
    trapped = CountingTarget(target(), trap_at=0, trap=lambda x, value: torch.where(x[:, 0] == 4, math.nan, value))
    with pytest.raises(NonFiniteEnergyError) as error:
        Written(trapped).step(draws, state)
    assert error.value.row == 6


# Delayed acceptance


class Scripted(MetropolisKernel):
    """Proposes what it is told."""

    name = "scripted"
    reach = property(lambda self: RandomWalk(GRID, self.target).reach)
    may_stay = property(lambda self: False)

    def __init__(self, target: Target, proposal: Proposal) -> None:
        self.environment, self.target, self.proposal = GRID, target, proposal

    def start(self, draws: Draws) -> Tensor:
        return torch.zeros(draws.num_rows, 1, dtype=torch.int64)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        self.asked = draws, position
        return self.proposal


SURROGATE = numbers(0.25, 1.5, -INF, 0.75, -0.5, 2.0)
# One row each: accepted by both, rejected by the second, rejected by the first, lazy, no return, impossible for the
# target, impossible for the surrogate, and a ratio above 1.
HERE, THERE = whole(0, 1, 5, 3, 1, 3, 3, 0), whole(1, 3, 0, 3, 0, 4, 2, 5)
FIRST_LAZY = torch.tensor([False, False, False, True, False, False, False, False])
FIRST_HASTINGS = numbers(-3.0, 0.5, 0.25, 0.0, -INF, -0.75, 0.5, 1.0)
PASSES = torch.tensor([True, True, False, True, True, True, True, True])
STAYS = torch.tensor([True, False, True, True, True, True, True, True])


def surrogate() -> Target:
    return from_function(lambda x: SURROGATE[x[:, 0]], (1,), name="cheap")


def two_stages(counted: Target, cheap: Target, power: float | Tensor = 1.0) -> DelayedAcceptance:
    zero = torch.zeros(8, dtype=torch.int64)
    proposal = Proposal(THERE[:, None], FIRST_HASTINGS, FIRST_LAZY, zero + 3, zero + 4, zero + 5)
    kernel = DelayedAcceptance(Scripted(counted, proposal), cheap)
    kernel.inverse_temperature = power
    return kernel


def test_the_second_stage_takes_back_what_the_first_has_weighed() -> None:
    assert_close(log_second_hastings(numbers(0.5, -2.0, 0.0)), numbers(-0.5, 2.0, 0.0), 0.0)


@pytest.mark.parametrize("power", [1.0, 0.5, "one a row"])
def test_two_stages_decide_what_their_ratios_say(power: float | str) -> None:
    powers = [0.5, 1.0, 2.0, 1.0, 1.0, 0.25, 0.75, 1.5] if power == "one a row" else [float(power)] * 8
    counted, cheap = CountingTarget(target()), CountingTarget(surrogate())
    kernel = two_stages(counted, cheap, numbers(*powers) if power == "one a row" else float(power))
    draws, cache = Told(8, {"surrogate": PASSES, "accept": STAYS}), object()
    before = State(HERE[:, None], HEIGHTS[HERE], cache)
    state, info = kernel.step(draws, before)
    inner: Any = kernel.kernel
    assert inner.asked[0] is draws and inner.asked[1] is before.position
    assert set(draws.asked) == {"surrogate", "accept"}
    (first_law, first_active), (second_law, second_active) = draws.asked["surrogate"], draws.asked["accept"]
    assert first_active.tolist() == [True, True, True, False, False, True, True, True]
    assert second_active.tolist() == [True, True, False, False, False, True, False, True]
    for row in range(8):
        cheaply = powers[row] * float(SURROGATE[THERE[row]] - SURROGATE[HERE[row]])
        dearly = powers[row] * float(HEIGHTS[THERE[row]] - HEIGHTS[HERE[row]])
        ratio = 0.0 if FIRST_LAZY[row] else cheaply + float(FIRST_HASTINGS[row])
        if first_active[row]:
            assert float(first_law[row]) == pytest.approx(min(0.0, ratio), abs=1e-14)
        if second_active[row]:
            assert float(second_law[row]) == pytest.approx(min(0.0, dearly - cheaply), abs=1e-14)
            ratio = dearly + float(FIRST_HASTINGS[row])
            assert float(info.acceptance_rate[row]) == pytest.approx(math.exp(min(0.0, dearly - cheaply)), abs=1e-14)
        else:
            assert float(info.acceptance_rate[row]) == 0.0
        assert float(info.log_ratio[row]) == pytest.approx(ratio, abs=1e-14), row
    assert info.is_accepted.tolist() == [True, False, False, False, False, False, False, True]
    assert torch.equal(state.position[:, 0], torch.where(info.is_accepted, THERE, HERE))
    assert_close(state.log_prob, HEIGHTS[state.position[:, 0]], 0.0)
    assert state.cache is cache
    rejected, taken = Reason.REJECTED, Reason.ACCEPTED
    reasons = [taken, rejected, rejected, Reason.LAZY, Reason.NO_REVERSE_MOVE, rejected, rejected, taken]
    assert is_identical(info.reason, torch.tensor(reasons, dtype=torch.int8))
    assert torch.equal(info.target_calls, second_active.to(torch.int64)) and counted.num_rows == 4
    assert set(info.extras) == {"surrogate_calls", "passed_surrogate"}
    assert is_identical(info.extras["surrogate_calls"], 2 * first_active.to(torch.int64)) and cheap.num_rows == 12
    assert is_identical(info.extras["passed_surrogate"], second_active.to(torch.int8))
    assert torch.equal(info.proposal[:, 0], THERE)
    for field, number in ((info.num_back_steps, 3), (info.num_forward_steps, 4), (info.policy_calls, 5)):
        assert (field == number).all()


def test_two_stages_ask_no_surrogate_where_nothing_may_be_accepted() -> None:
    cheap = CountingTarget(surrogate())
    kernel = two_stages(target(), cheap)
    inner: Any = kernel.kernel
    inner.proposal = inner.proposal._replace(log_hastings=torch.full((8,), -INF).double())
    _, info = kernel.step(Told(8, {"surrogate": PASSES, "accept": STAYS}), State(HERE[:, None], HEIGHTS[HERE]))
    assert cheap.num_calls == 0 and not info.is_accepted.any()


def test_a_surrogate_without_a_way_back_is_refused_with_the_chain() -> None:
    here = HERE.clone()
    # Of these, the lazy row asks nothing, and the cold one may come back from anywhere.
    here[3] = here[5] = here[6] = 2
    powers = numbers(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0)
    draws = Told(8, {"surrogate": PASSES, "accept": STAYS})
    with pytest.raises(ObjectError) as error:
        two_stages(target(), surrogate(), powers).step(draws, State(here[:, None], HEIGHTS[here]))
    assert str(error.value) == (
        "chain 6 is at [2], where the surrogate cheap has density zero and heights has not; the chain could not come "
        "back once it had left, so give a surrogate that is positive wherever the target is"
    )
    powers[6] = 0.0
    _, info = two_stages(target(), surrogate(), powers).step(draws, State(here[:, None], HEIGHTS[here]))
    assert_close(info.log_ratio[5:7], FIRST_HASTINGS[5:7], 1e-15)
    two_stages(target(), surrogate(), 0.0).step(draws, State(here[:, None], HEIGHTS[here]))
    with pytest.raises(ObjectError, match="chain 5 is at"):
        two_stages(target(), surrogate(), 0.25).step(draws, State(here[:, None], HEIGHTS[here]))


@pytest.mark.parametrize("place", [4, 5])
def test_what_a_surrogate_returns_is_named_by_its_chain(place: int) -> None:
    trapped = CountingTarget(
        surrogate(), trap_at=0, trap=lambda x, value: torch.where(x[:, 0] == place, math.nan, value)
    )
    with pytest.raises(NonFiniteEnergyError) as error:
        two_stages(target(), trapped).step(
            Told(8, {"surrogate": PASSES, "accept": STAYS}), State(HERE[:, None], HEIGHTS[HERE])
        )
    # 4 is where row 5 would go; 5 where row 7 would go, and where row 2 is, but proposals are looked at first.
    assert error.value.row == {4: 5, 5: 7}[place]


def test_a_noisy_target_is_estimated_by_the_streams_of_its_chains_after_a_surrogate() -> None:
    noisy = NoisyCopy(target(), tuple(0.1 * place for place in range(1, 20)), (1 / 19,) * 19)
    kernel = two_stages(noisy, surrogate())
    draws = PhiloxDraws(3, "x", 8)
    inner: Any = kernel.kernel
    proposal = inner.proposal
    inner.proposal = proposal._replace(log_hastings=FIRST_HASTINGS + 100.0)
    state, info = kernel.step(draws, State(HERE[:, None], HEIGHTS[HERE] - 100.0))
    wanted = noisy.estimate_log_prob(proposal.position, draws.role("estimate"))
    accepted = info.is_accepted
    assert accepted.tolist() == [True, True, True, False, False, False, False, True]
    assert is_identical(state.log_prob[accepted], wanted[accepted])
