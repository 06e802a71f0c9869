"""Adaptation: what is measured is what enumeration says, the choice is the best one, and what is frozen stays exact.

Means over 24 independent batches are held to 10 of their standard errors, which a correct package exceeds with
probability 1e-9 each (Student's t with 23 degrees of freedom).
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import Cycle, Gibbs, Kernel, Mixture, RandomWalk, Reach, Reason, SuffixResampling, suffix
from gfnmc.kernels.adaptation import BranchTuning, JumpTally, Unadapted
from gfnmc.kernels.base import Adaptation, Info, State
from gfnmc.kernels.branch import BranchLaw, Fixed, FullRestart, PrefixTable, PrefixUniform, SuffixLaw, Table, Uniform
from gfnmc.kernels.multiple_try import MultipleTrySuffix
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, from_function
from gfnmc.testing import enumerate_decisions, transition_matrix
from tests.exact.cases import PAIRS, balance_error, graph_of, invariance_error, table_target
from tests.support import assert_close, is_identical, random_pair, solved_pair

RING = Ising((5,), coupling=1.0)
RING_LATTICE = Lattice.for_target(RING, order="fixed")
GRID, GRID_TARGET = HyperGrid(2, 4), HyperGridTarget(2, 4)

NUM_BATCHES = 24
T_LIMIT = 10.0


def report(
    proposal: Tensor,
    acceptance: list[float],
    *,
    target_calls: list[int] | None = None,
    policy_calls: list[int] | None = None,
) -> Info:
    """What a step would say, as far as adaptation reads it."""
    zero = torch.zeros(len(proposal), dtype=torch.int64)
    rate = torch.tensor(acceptance, dtype=torch.float64)
    return Info(
        proposal=proposal,
        is_accepted=rate > 0.5,
        log_ratio=rate.log(),
        acceptance_rate=rate,
        num_back_steps=zero,
        num_forward_steps=zero,
        target_calls=zero + 1 if target_calls is None else torch.tensor(target_calls),
        policy_calls=zero if policy_calls is None else torch.tensor(policy_calls),
        reason=zero.to(torch.int8),
    )


def numbers(**statistics: Callable[[Tensor], Tensor]) -> Target:
    """A flat target on two digits, with statistics."""
    return from_function(
        lambda x: torch.zeros(len(x)).double(), (2,), values=tuple(range(10)), name="digits", statistics=statistics
    )


def tally_of(target: Target, num_kinds: int, **options: Any) -> JumpTally:
    return JumpTally(target, num_kinds, BranchTuning(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 0.0}, "floor is 0.0; it must lie between 0 and 1"),
        ({"floor": 1.0}, "floor is 1.0"),
        ({"floor": math.nan}, "floor is nan"),
        ({"target_cost": 0.0}, "costs of 0.0 a target call"),
        ({"target_cost": math.inf}, "costs of inf a target call"),
        ({"policy_cost": -0.1}, "and -0.1 a policy call"),
        ({"policy_cost": math.nan}, "and nan a policy call"),
        ({"min_tries": 0}, "min_tries is 0"),
        ({"objective": "fun"}, "objective is 'fun'; choose 'squared_jump' or 'mode_switches'"),
    ],
    ids=str,
)
def test_tunings_that_cannot_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match=message):
        BranchTuning(**options)


def test_sites_that_change_are_weighted_by_acceptance_where_there_are_no_statistics() -> None:
    tally = tally_of(numbers(), 3, target_cost=2.0, policy_cost=0.5)
    before = torch.tensor([[1, 2], [1, 2], [1, 2]])
    after = torch.tensor([[3, 4], [1, 9], [7, 7]])
    calls = {"target_calls": [1, 1, 0], "policy_calls": [4, 6, 2]}
    tally.add(torch.tensor([0, 0, 2]), before, report(after, [0.5, 0.25, 0.0], **calls))
    jump, cost = tally.means()
    assert_close(jump[[0, 2]], torch.tensor([(0.5 * 2 + 0.25 * 1) / 2, 0.0]))
    assert_close(cost[[0, 2]], torch.tensor([(2 * 2 + 0.5 * 10) / 2, 1.0]))
    assert jump[1].isnan() and cost[1].isnan()


def test_statistics_are_measured_by_their_own_spread() -> None:
    target = numbers(
        first=lambda x: 100.0 * x[:, 0].double(), second=lambda x: x[:, 1], fixed=lambda x: x[:, 0] * 0 + 7
    )
    tally = tally_of(target, 2)
    before = [torch.tensor([[0, 0], [4, 2]]), torch.tensor([[2, 6], [2, 6]])]
    after = [torch.tensor([[1, 0], [4, 5]]), torch.tensor([[2, 7], [5, 6]])]
    rates = [[1.0, 0.5], [0.25, 0.5]]
    for kinds, old, new, rate in zip(([0, 1], [1, 1]), before, after, rates, strict=True):
        tally.add(torch.tensor(kinds), old, report(new, rate))
    start = torch.cat(before).double()
    spread = start.var(0, correction=0)
    squares = (torch.cat(after) - start).square() / spread * torch.tensor(rates).flatten()[:, None]
    jump, _ = tally.means()
    assert_close(jump, torch.stack([squares[0].sum(), squares[1:].sum() / 3]))
    # Negative control: not by its raw size, in which the first would drown the second.
    assert float(((torch.cat(after) - start).square().sum(1)[0] - jump[0]).abs()) > 0.1


def test_a_statistic_that_is_not_finite_does_not_count() -> None:
    target = numbers(good=lambda x: x[:, 0], bad=lambda x: torch.where(x[:, 1] == 5, math.nan, x[:, 1].double()))
    alone = numbers(good=lambda x: x[:, 0])
    before, after = torch.tensor([[0, 5], [4, 2]]), torch.tensor([[1, 2], [6, 5]])
    means = []
    for each in (target, alone):
        tally = tally_of(each, 1)
        tally.add(torch.tensor([0, 0]), before, report(after, [1.0, 0.5]))
        means.append(tally.means()[0])
    assert_close(means[0], means[1])


def test_statistics_are_not_asked_of_what_is_never_accepted() -> None:
    def picky(x: Tensor) -> Tensor:
        assert not (x == 9).any()
        return x[:, 0]

    tally = tally_of(numbers(picky=picky), 1)
    before, after = torch.tensor([[0, 0], [4, 2]]), torch.tensor([[9, 9], [6, 5]])
    tally.add(torch.tensor([0, 0]), before, report(after, [0.0, 0.5]))
    assert_close(tally.means()[0], torch.tensor([0.5 * 4.0 / 4.0 / 2]))


def test_a_switch_leads_from_one_mode_into_another() -> None:
    ring = Ising((4,), coupling=1.0)
    up = torch.ones(4, dtype=torch.int8)
    none = torch.tensor([1, 1, -1, -1], dtype=torch.int8)
    before, after = torch.stack([up, up, up, none, -up]), torch.stack([-up, up, none, up, up])
    tally = tally_of(ring, 5, objective="mode_switches")
    tally.add(torch.arange(5), before, report(after, [0.5, 1.0, 1.0, 1.0, 0.75]))
    assert tally.means()[0].tolist() == [0.5, 0.0, 0.0, 0.0, 0.75]
    with pytest.raises(CapabilityError, match="digits knows no modes"):
        tally_of(numbers(), 2, objective="mode_switches")
    kernel = SuffixResampling(random_pair(Lattice((2,), tuple(range(10)))), numbers())
    with pytest.raises(CapabilityError, match="choose the objective 'squared_jump'"):
        kernel.adapting(BranchTuning("mode_switches"))


def filled(jumps: list[float], policy_calls: list[int], tries: list[int], **options: Any) -> JumpTally:
    """A tally of some tries of each kind, with jumps between 0 and 1 and a tenth of a unit for a policy call."""
    tally = tally_of(numbers(), len(jumps), **options)
    for kind, (jump, calls, times) in enumerate(zip(jumps, policy_calls, tries, strict=True)):
        if times:
            before = torch.zeros(times, 2, dtype=torch.int64)
            info = report(before + torch.tensor([1, 0]), [jump] * times, policy_calls=[calls] * times)
            tally.add(torch.full((times,), kind), before, info)
    return tally


def test_the_choice_is_the_best_of_all_laws() -> None:
    # A linear-fractional programme: no law on the simplex brings more for its cost than the best corner.
    generator = torch.Generator().manual_seed(0)
    chosen = set()
    for _ in range(40):
        jumps = torch.rand(5, generator=generator, dtype=torch.float64)
        calls = torch.randint(0, 60, (5,), generator=generator)
        tries = torch.randint(30, 90, (5,), generator=generator)
        tally = filled(jumps.tolist(), calls.tolist(), tries.tolist(), floor=0.3)
        best = tally.best()
        assert best is not None
        cost, measured = 1.0 + 0.1 * calls.double(), tries.double() / tries.sum()
        corners = torch.eye(5, dtype=torch.float64)
        others = torch.rand(300, 5, generator=generator, dtype=torch.float64).pow(4.0)
        others = others / others.sum(1, keepdim=True)
        laws = 0.3 * measured + 0.7 * torch.cat([corners, others])
        brings = (laws @ jumps) / (laws @ cost)
        assert float(brings[best]) >= float(brings.max()) - 1e-12
        chosen.add(best)
    assert len(chosen) > 2


def test_of_equals_the_smallest_is_chosen_and_what_is_hardly_known_is_not() -> None:
    assert filled([0.1, 0.5, 0.5, 0.2], [0, 0, 0, 0], [50, 50, 50, 50]).best() == 1
    assert filled([0.1, 0.5, 0.5, 0.2], [0, 0, 0, 0], [50, 29, 50, 50]).best() == 2
    assert filled([0.1, 0.5, 0.5, 0.2], [0, 9, 0, 0], [50, 50, 50, 50]).best() == 2
    assert filled([0.1, 0.5, 0.5, 0.2], [0, 0, 0, 0], [50, 0, 0, 50]).best() == 3
    assert filled([0.1, 0.5], [0, 0], [29, 29]).best() is None
    assert filled([0.1, 0.5], [0, 0], [29, 29], min_tries=29).best() == 1
    assert filled([0.0, 0.0], [0, 0], [50, 50]).best() is None
    assert tally_of(numbers(), 3).best() is None


def ring_kernel(law: BranchLaw | None = None, power: float = 1.5, **options: Any) -> SuffixResampling:
    """A kernel of a pair that is too sure of the modes."""
    graph = enumerate_states(RING_LATTICE)
    sharper = from_function(lambda x: power * RING.log_prob(x), (5,), values=(-1, 1), dtype=torch.int8, name="sharper")
    pair = solved_pair(graph.environment, sharper)
    return SuffixResampling(pair, RING, law, **options)


def grid_kernel(law: BranchLaw) -> SuffixResampling:
    return SuffixResampling(random_pair(GRID), GRID_TARGET, law)


def exact_means(kernel: SuffixResampling, law: BranchLaw) -> tuple[float, float]:
    """The mean squared jump and the mean cost of a move under a law of one place, from all its decisions."""
    made = copy.copy(kernel)
    made.branch = law
    made._log_pmf = made._log_pmf_of(law)
    solution = kernel.target.exact()
    assert solution is not None and solution.support is not None and solution.log_pmf is not None
    objects, pmf = solution.support, solution.log_pmf.exp()
    here = torch.stack([value.double() for value in kernel.target.statistics(objects).values()], 1)
    spread = (pmf @ here.square()) - (pmf @ here).square()

    def measured(draws: Draws, rows: Tensor) -> Tensor:
        info = made.step(draws, made.init(objects[rows]))[1]
        there = torch.stack([value.double() for value in kernel.target.statistics(info.proposal).values()], 1)
        squares = torch.where(spread > 0.0, (there - here[rows]).square() / spread, 0.0)
        jump = squares.sum(1) * info.acceptance_rate
        return torch.stack([jump, info.target_calls.double() + 0.1 * info.policy_calls.double()], 1)

    found = enumerate_decisions(measured, len(objects))
    jump, cost = ((pmf[found.row] * found.weight) @ found.result).tolist()
    return jump, cost


MEASURED = {
    "fixed length, steps back": (lambda: ring_kernel(), Fixed, range(1, 6)),
    "variable length, depths": (lambda: grid_kernel(PrefixUniform()), lambda m: PrefixTable({m: 1.0}), range(7)),
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_is_what_enumeration_says(name: str) -> None:
    make, law_of, places = MEASURED[name]
    kernel = make()
    solution = kernel.target.exact()
    assert solution is not None
    # Every step starts from exact draws, so all tries are independent.
    batches = []
    adaptation = kernel.adaptation()
    for batch in range(NUM_BATCHES):
        adaptation = kernel.adaptation()
        for step in range(2):
            draws = PhiloxDraws(batch, "measured", 400).at(step)
            adaptation.step(draws, kernel.init(solution.sample(draws.role("exact draws"))))
        batches.append(torch.stack(adaptation.tally.means()))
    found = torch.stack(batches)
    mean, error = found.mean(0), found.std(0) / math.sqrt(NUM_BATCHES)
    exact = {place: exact_means(kernel, law_of(place)) for place in places}
    for place, (jump, cost) in exact.items():
        assert abs(float(mean[0, place]) - jump) < max(T_LIMIT * float(error[0, place]), 1e-9)
        assert abs(float(mean[1, place]) - cost) < max(T_LIMIT * float(error[1, place]), 1e-9)
    # Negative control: the numbers of the next place do not fit.
    misfits = [
        abs(float(mean[0, place]) - exact[place + 1][0]) / float(error[0, place])
        for place in places
        if place + 1 in exact and float(error[0, place]) > 0
    ]
    assert max(misfits) > T_LIMIT
    brings, costs = torch.tensor(list(exact.values()), dtype=torch.float64).T
    worth = (0.2 * brings.mean() + 0.8 * brings) / (0.2 * costs.mean() + 0.8 * costs)
    best = adaptation.tally.best()
    assert best is not None
    assert float(worth[best - places[0]]) > 0.95 * float(worth.max())
    assert float(worth.median()) < 0.95 * float(worth.max())


def adapted(adaptation: Adaptation, num_steps: int = 12, num_chains: int = 64, seed: int = 0) -> Kernel:
    """The frozen kernel after some steps."""
    draws = PhiloxDraws(seed, "warm-up", num_chains)
    state = adaptation.kernel.init(adaptation.kernel.start(draws.role("start")))
    for step in range(num_steps):
        state, _ = adaptation.step(draws.at(step), state)
    return adaptation.frozen()


@pytest.mark.parametrize("branching", ["independent", "shared"])
def test_an_adapting_step_is_the_kernels_own_and_knows_its_decision(branching: suffix.Branching) -> None:
    kernel = ring_kernel(branching=branching)
    adaptation = kernel.adaptation()
    draws = PhiloxDraws(2, "same", 30)
    one = other = kernel.init(kernel.start(draws))
    for step in range(6):
        decided = kernel.branch_decisions(draws.at(step))
        one, wanted = kernel.step(draws.at(step), one)
        other, info = adaptation.step(draws.at(step), other)
        assert is_identical(one.position, other.position)
        assert is_identical(wanted.log_ratio, info.log_ratio)
        # With objects of one length, the report says how many steps were taken back, too.
        assert torch.equal(decided, info.num_back_steps)
    assert adaptation.kernel is kernel


def test_the_new_law_is_the_old_one_with_a_preference() -> None:
    for tuning in (BranchTuning(), BranchTuning("mode_switches", floor=0.5, policy_cost=0.0)):
        kernel = ring_kernel().adapting(tuning)
        assert kernel.tuning == tuning
        adaptation = kernel.adaptation()
        found = adapted(adaptation)
        assert isinstance(found, SuffixResampling)
        wanted = tuning.floor * kernel._log_pmf.exp()
        best = adaptation.tally.best()
        assert best is not None
        wanted[best] += 1.0 - tuning.floor
        assert_close(found._log_pmf.exp(), wanted)
        assert found.name == kernel.name and found.pair is kernel.pair
        assert kernel.branch == Uniform()
        # The one in use is what was measured, so it can be tuned again.
        assert isinstance(adapted(found.adaptation()), SuffixResampling)
    assert ring_kernel().tuning == BranchTuning()


def test_a_kernel_of_several_tries_is_tuned_as_such() -> None:
    graph = graph_of("words (tree)")
    target = table_target(graph)
    kernel = MultipleTrySuffix(PAIRS["tabular"](graph), target, PrefixUniform(), num_tries=3)
    found = adapted(kernel.adaptation())
    assert isinstance(found, MultipleTrySuffix) and found is not kernel
    assert (found.num_tries, found.calls_per_step) == (3, 2)
    assert isinstance(found.branch, PrefixTable)
    assert invariance_error(transition_matrix(found, graph.objects), target.pmf) < 1e-10


def test_where_too_little_is_known_the_kernel_stays() -> None:
    kernel = ring_kernel()
    assert adapted(kernel.adaptation(), num_steps=0) is kernel
    assert adapted(kernel.adaptation(), num_steps=1, num_chains=20) is kernel


@pytest.mark.parametrize(
    "law", [Uniform(), PrefixUniform(), Fixed(2), FullRestart(), Table({1: 1.0, 6: 1e-6})], ids=str
)
def test_reach_is_kept(law: BranchLaw) -> None:
    kernel = grid_kernel(law)
    found = adapted(kernel.adaptation())
    assert found is not kernel
    assert found.reach is kernel.reach


def test_tempered_and_shared_kernels_stay_so() -> None:
    kernel = ring_kernel(branching="shared").tempered(0.5)
    found = adapted(kernel.adaptation())
    assert isinstance(found, SuffixResampling) and found is not kernel
    assert found.inverse_temperature == 0.5
    assert found.branching == "shared"


EXACT = [
    ("lattice, any order", Uniform()),
    ("hypergrid", Uniform()),
    ("hypergrid", PrefixUniform()),
    ("jumps (not graded)", PrefixUniform()),
    ("subsets", Table({0: 1.0, 1: 1.0, 3: 1.0})),
]


@pytest.mark.parametrize(("environment", "law"), EXACT, ids=str)
def test_the_frozen_kernel_is_exact(monkeypatch: pytest.MonkeyPatch, environment: str, law: BranchLaw) -> None:
    graph = graph_of(environment)
    target = table_target(graph)
    kernel = SuffixResampling(PAIRS["tabular"](graph), target, law)
    found = adapted(kernel.adaptation())
    assert isinstance(found, SuffixResampling) and found is not kernel
    assert isinstance(found.branch, SuffixLaw) == isinstance(law, SuffixLaw)
    matrix = transition_matrix(found, graph.objects)
    assert invariance_error(matrix, target.pmf) < 1e-10
    assert balance_error(matrix, target.pmf) < 1e-12
    assert found.reach is Reach.EVERYWHERE and (matrix > 0).all()
    # Negative controls: a law that goes on looking at where the chain is, and a wrong ratio.
    looking = torch.where(
        (torch.arange(len(matrix)) % 2 == 0)[:, None], matrix, transition_matrix(kernel, graph.objects)
    )
    assert invariance_error(looking, target.pmf) > 1e-5
    monkeypatch.setattr(suffix, "log_hastings_ratio", lambda **terms: torch.zeros_like(terms["log_forward_new"]))
    assert invariance_error(transition_matrix(found, graph.objects), target.pmf) > 1e-5


@pytest.mark.parametrize("power", [1.0, 0.5, 1.5, 2.0])
def test_in_the_recommended_cycle_the_choice_forgets_faster(power: float) -> None:
    kernel = ring_kernel(power=power)
    found = adapted(kernel.adaptation(), num_steps=40)
    walk = transition_matrix(RandomWalk(RING_LATTICE, RING), enumerate_states(RING_LATTICE).objects)

    def relaxation_time(part: Kernel) -> float:
        cycle = transition_matrix(part, enumerate_states(RING_LATTICE).objects) @ walk
        return 1.0 / (1.0 - float(torch.linalg.eigvals(cycle).abs().sort().values[-2]))

    assert relaxation_time(found) < 0.99 * relaxation_time(kernel)


class Chatty(RandomWalk):
    """A random walk whose warm-up asks more of the target than its steps afterwards, and then less."""

    def __init__(self, calls_per_step: int) -> None:
        super().__init__(RING_LATTICE, RING)
        self.calls_per_step = calls_per_step

    def adaptation(self) -> Adaptation:
        class Falling(Adaptation):
            def __init__(self, kernel: Kernel) -> None:
                self.kernel = kernel

            def step(self, draws: Draws, state: State) -> tuple[State, Info]:
                stepped = self.kernel.step(draws, state)
                self.kernel = Chatty(self.kernel.calls_per_step - 1)
                return stepped

            def frozen(self) -> Kernel:
                return Chatty(1)

        return Falling(self)


@pytest.mark.parametrize("kind", [Cycle, Mixture])
def test_a_composition_adapts_its_parts(kind: type[Cycle] | type[Mixture]) -> None:
    parts = ring_kernel(), Gibbs(RING_LATTICE, RING), kind([ring_kernel(), RandomWalk(RING_LATTICE, RING)])
    kernel = kind(parts)
    adaptation = kernel.adaptation()
    assert adaptation is not None
    draws = PhiloxDraws(2, "same", 40)
    one = other = kernel.init(kernel.start(draws))
    for step in range(25):
        one, wanted = kernel.step(draws.at(step), one)
        other, info = adaptation.step(draws.at(step), other)
        assert is_identical(one.position, other.position)
        assert torch.equal(wanted.target_calls, info.target_calls)
        assert list(wanted.parts) == list(info.parts)
    found = adaptation.frozen()
    assert isinstance(found, kind)
    assert (found.name, found.calls_per_step, found.reach) == (kernel.name, kernel.calls_per_step, kernel.reach)
    large, gibbs, inner = found.kernels
    assert isinstance(large, SuffixResampling) and isinstance(large.branch, Table)
    assert gibbs is parts[1]
    assert isinstance(inner, kind) and inner.kernels[1] is parts[2].kernels[1]
    assert isinstance(inner.kernels[0], SuffixResampling) and isinstance(inner.kernels[0].branch, Table)
    # The parts were tuned by what they did themselves, and the composition that was tuned is as it was.
    assert kernel.kernels == parts and parts[0].branch == Uniform()


@pytest.mark.parametrize("kind", [Cycle, Mixture])
def test_a_composition_costs_what_its_adapting_parts_cost(kind: type[Cycle] | type[Mixture]) -> None:
    kernel = kind([RandomWalk(RING_LATTICE, RING), Chatty(20)])
    adaptation = kernel.adaptation()
    assert adaptation is not None
    walk = 1 if kind is Cycle else 0
    assert adaptation.kernel.calls_per_step == kernel.calls_per_step == walk + 20
    draws = PhiloxDraws(0, "calls", 4)
    state = kernel.init(kernel.start(draws))
    for step in range(12):
        state, _ = adaptation.step(draws.at(step), state)
        assert isinstance(adaptation.kernel, kind)
        assert adaptation.kernel.calls_per_step == walk + adaptation.kernel.kernels[1].calls_per_step
    assert adaptation.kernel.calls_per_step < kernel.calls_per_step
    assert adaptation.frozen().calls_per_step == walk + 1


def test_kernels_with_nothing_to_tune_say_so() -> None:
    walk, gibbs = RandomWalk(RING_LATTICE, RING), Gibbs(RING_LATTICE, RING)
    for kernel in (walk, gibbs, Cycle([walk, gibbs]), Mixture([walk, gibbs])):
        assert kernel.adaptation() is None
    unadapted = Unadapted(walk)
    draws = PhiloxDraws(0, "x", 4)
    state = walk.init(walk.start(draws))
    assert is_identical(unadapted.step(draws, state)[0].position, walk.step(draws, state)[0].position)
    assert unadapted.frozen() is walk


def test_lazy_steps_count_as_tries_that_brought_nothing() -> None:
    kernel = grid_kernel(PrefixUniform())
    adaptation = kernel.adaptation()
    draws = PhiloxDraws(0, "lazy", 500)
    state = kernel.init(torch.zeros(500, 2, dtype=torch.int64))
    _, info = adaptation.step(draws, state)
    depth = kernel.branch_decisions(draws)
    is_lazy = info.reason == Reason.LAZY
    # From the source every depth but 0 is out of reach.
    assert torch.equal(is_lazy, depth > 0) and is_lazy.any() and not is_lazy.all()
    jump, cost = adaptation.tally.means()
    assert (jump[1:] == 0.0).all() and float(jump[0]) == 0.0
    assert_close(cost[0], (info.target_calls.double() + 0.1 * info.policy_calls.double())[depth == 0].mean())
