"""Compositions, what they cost, and which kernels are refused because they would never reach the whole space."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import IrreducibilityError, OptionError
from gfnmc.environments import Direction, HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import Cycle, IndependenceMH, Kernel, Mixture, RandomWalk, Reach, SuffixResampling, branch
from gfnmc.kernels.base import check_irreducible
from gfnmc.policies import GFlowNet, TabularPolicy, UniformPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, from_function
from tests.support import CountingTarget, Stairs, chi_square, random_pair, stairs_target

GRID = HyperGrid(2, 4)
GRID_TARGET = HyperGridTarget(2, 4)
PAIR = random_pair(GRID)
FLAT = from_function(lambda x: torch.zeros(len(x)).double(), (2,), values=(0, 1, 2, 3), name="flat")


def uniform_pair(environment: HyperGrid | Lattice | Stairs, **options: object) -> GFlowNet:
    return GFlowNet(UniformPolicy(environment, Direction.FORWARD), **options)


def forgetful_pair() -> GFlowNet:
    """A pair that never raises the first coordinate."""
    graph = enumerate_states(GRID)
    logits = torch.zeros(graph.num_states, 3, dtype=torch.float64)
    logits[:, 0] = -torch.inf
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits))


def islands() -> HyperGrid:
    """A grid that does not say that its single changes connect it."""
    environment = HyperGrid(2, 4)
    environment.changes_connect = False
    return environment


def lattice_kernel(order: str, law: branch.BranchLaw) -> SuffixResampling:
    target = Ising((2, 2), 0.3)
    return SuffixResampling(uniform_pair(Lattice.for_target(target, order=order)), target, law)


def stairs_kernel(law: branch.BranchLaw) -> SuffixResampling:
    return SuffixResampling(uniform_pair(Stairs(5)), stairs_target(Stairs(5)), law)


REACH = {
    "random walk": (lambda: RandomWalk(GRID, GRID_TARGET), Reach.CONNECTED),
    "random walk on islands": (lambda: RandomWalk(islands(), GRID_TARGET), Reach.PARTIAL),
    "independence": (lambda: IndependenceMH(PAIR, GRID_TARGET), Reach.EVERYWHERE),
    "independence, forgetful": (lambda: IndependenceMH(forgetful_pair(), GRID_TARGET), Reach.PARTIAL),
    "uniform": (lambda: SuffixResampling(PAIR, GRID_TARGET), Reach.EVERYWHERE),
    "uniform, forgetful": (lambda: SuffixResampling(forgetful_pair(), GRID_TARGET), Reach.PARTIAL),
    "geometric": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.Geometric(0.5)), Reach.EVERYWHERE),
    "two back of six": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.Fixed(2)), Reach.PARTIAL),
    "six back of six": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.Fixed(6)), Reach.EVERYWHERE),
    "none back": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.Fixed(0)), Reach.PARTIAL),
    "restart": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.FullRestart()), Reach.EVERYWHERE),
    "prefix": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.PrefixUniform()), Reach.EVERYWHERE),
    "prefix without source": (lambda: SuffixResampling(PAIR, GRID_TARGET, branch.PrefixUniform(1)), Reach.PARTIAL),
    "stairs, uniform": (lambda: stairs_kernel(branch.Uniform()), Reach.EVERYWHERE),
    "stairs, one back": (lambda: stairs_kernel(branch.Fixed(1)), Reach.PARTIAL),
    "any order, one back": (lambda: lattice_kernel("uniform", branch.Fixed(1)), Reach.CONNECTED),
    "any order, three back": (lambda: lattice_kernel("uniform", branch.Fixed(3)), Reach.CONNECTED),
    "any order, all back": (lambda: lattice_kernel("uniform", branch.Fixed(4)), Reach.EVERYWHERE),
    "learned order, one back": (lambda: lattice_kernel("learned", branch.Fixed(1)), Reach.CONNECTED),
    "any order, last prefix": (lambda: lattice_kernel("uniform", branch.PrefixTable({3: 1.0})), Reach.CONNECTED),
    "any order, whole prefix": (lambda: lattice_kernel("uniform", branch.PrefixTable({4: 1.0})), Reach.PARTIAL),
    "fixed order, uniform": (lambda: lattice_kernel("fixed", branch.Uniform()), Reach.EVERYWHERE),
    "fixed order, one back": (lambda: lattice_kernel("fixed", branch.Fixed(1)), Reach.PARTIAL),
    "fixed order, never the first": (lambda: lattice_kernel("fixed", branch.PrefixUniform(1)), Reach.PARTIAL),
}


@pytest.mark.parametrize("name", REACH)
def test_what_a_kernel_reaches(name: str) -> None:
    make, reach = REACH[name]
    kernel = make()
    assert kernel.reach is reach
    if reach is not Reach.PARTIAL:
        check_irreducible(kernel)
        return
    with pytest.raises(IrreducibilityError, match=r"cannot reach every object .* RandomWalk\(environment, target\)"):
        check_irreducible(kernel)
    # What the message says to add makes it whole, as long as the kernel may stay where it is.
    walk = RandomWalk(GRID, kernel.target)
    walk.environment = kernel.environment
    if name != "random walk on islands":
        assert Cycle([kernel, walk]).reach is (Reach.CONNECTED if kernel.may_stay else Reach.PARTIAL)
        assert Mixture([kernel, walk]).reach is Reach.CONNECTED


def test_staying_put_decides_about_cycles() -> None:
    walk, two_back = RandomWalk(GRID, GRID_TARGET), SuffixResampling(PAIR, GRID_TARGET, branch.Fixed(2))
    assert not walk.may_stay
    assert two_back.may_stay
    assert not SuffixResampling(forgetful_pair(), GRID_TARGET).may_stay
    assert not IndependenceMH(forgetful_pair(), GRID_TARGET).may_stay
    assert Cycle([two_back, walk]).reach is Reach.CONNECTED
    assert Cycle([two_back, two_back]).reach is Reach.PARTIAL
    # On a flat target two walks in turn may keep a parity, as below.
    assert Cycle([walk, walk]).reach is Reach.PARTIAL
    assert Cycle([walk, RandomWalk(GRID, GRID_TARGET)]).reach is Reach.PARTIAL
    assert Cycle([walk]).reach is Reach.CONNECTED
    assert Cycle([walk, IndependenceMH(PAIR, GRID_TARGET)]).reach is Reach.EVERYWHERE
    assert not Cycle([two_back, walk]).may_stay
    assert Cycle([two_back, two_back]).may_stay
    assert Mixture([walk, walk]).reach is Reach.CONNECTED
    assert Mixture([two_back, walk]).may_stay
    assert not Mixture([walk, walk]).may_stay
    assert Mixture([two_back, two_back]).reach is Reach.PARTIAL


def test_two_walks_in_turn_keep_the_parity_on_a_flat_target() -> None:
    """The cycle that is refused above really is stuck; one walk alone is not."""
    lattice = Lattice((3,), (-1, 1), dtype=torch.int8)
    target = from_function(lambda x: torch.zeros(len(x)).double(), (3,), values=(-1, 1), dtype=torch.int8)
    walk = RandomWalk(lattice, target)
    for kernel, seen in ((Cycle([walk, walk]), {3, -1}), (walk, {-3, -1, 1, 3})):
        state, sums = kernel.init(torch.ones(50, 3, dtype=torch.int8)), set()
        for step in range(20):
            state, _ = kernel.step(PhiloxDraws(0, "x", 50).at(step), state)
            sums |= set(state.position.sum(1).tolist())
        assert sums == seen


def kernels() -> tuple[Kernel, Kernel, CountingTarget]:
    target = CountingTarget(GRID_TARGET)
    return SuffixResampling(PAIR, target), RandomWalk(GRID, target), target


@pytest.mark.parametrize("kind", [Cycle, Mixture])
def test_compositions_that_cannot_be_are_refused(kind: type) -> None:
    with pytest.raises(OptionError, match="needs at least one kernel"):
        kind([])
    same_law, other = RandomWalk(GRID, HyperGridTarget(2, 4)), RandomWalk(GRID, GRID_TARGET)
    with pytest.raises(OptionError, match="must share one target object"):
        kind([same_law, other])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], []])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    suffix, walk, _ = kernels()
    with pytest.raises(OptionError, match="must be positive, one for each of 2 kernels"):
        Mixture([suffix, walk], weights)


def test_a_cycle_applies_every_kernel_once_and_adds_their_costs() -> None:
    suffix, walk, target = kernels()
    cycle = Cycle([suffix, walk, walk])
    assert cycle.name == "suffix resampling + random walk + random walk"
    assert cycle.environment is GRID
    assert cycle.calls_per_step == 3
    draws = PhiloxDraws(4, "run", 60)
    start = cycle.start(draws.role("start"))
    assert torch.equal(start, suffix.start(draws.role("start")))
    state = cycle.init(start)
    counted = target.num_rows
    after, info = cycle.step(draws.at(7), state)
    assert list(info.parts) == ["suffix resampling", "random walk 1", "random walk 2"]
    by_hand, calls, evaluations = state, 0, 0
    for place, (kernel, part) in enumerate(zip((suffix, walk, walk), info.parts.values(), strict=True)):
        by_hand, wanted = kernel.step(draws.at(7).role(f"cycle{place}"), by_hand)
        for field in wanted._fields:
            if field not in ("parts", "extras"):
                seen, right = (torch.as_tensor(getattr(which, field)) for which in (part, wanted))
                assert torch.equal(seen, right), field
        calls = calls + wanted.target_calls
        evaluations = evaluations + wanted.policy_calls
    assert torch.equal(after.position, by_hand.position)
    assert torch.equal(after.log_prob, by_hand.log_prob)
    assert torch.equal(info.target_calls, calls)
    assert torch.equal(info.policy_calls, evaluations)
    assert target.num_rows - counted == 2 * int(calls.sum())
    # What is not a cost is what the first kernel says.
    assert torch.equal(info.log_ratio, info.parts["suffix resampling"].log_ratio)
    # The two walks decide by numbers of their own.
    first, second = info.parts["random walk 1"], info.parts["random walk 2"]
    assert not torch.equal(first.log_ratio, second.log_ratio)


def test_a_mixture_applies_one_kernel_to_all_chains() -> None:
    target = CountingTarget(FLAT)
    walk, suffix = RandomWalk(GRID, target), SuffixResampling(PAIR, target)
    mixture = Mixture([walk, suffix], [1.0, 3.0])
    assert mixture.name == "random walk | suffix resampling"
    assert mixture.calls_per_step == 1
    draws = PhiloxDraws(5, "run", 8)
    state = mixture.init(torch.ones(8, 2, dtype=torch.int64))
    chosen = []
    for step in range(150):
        _, info = mixture.step(draws.at(step), state)
        is_suffix = info.policy_calls > 0
        assert is_suffix.all() or not is_suffix.any()
        chosen.append(int(is_suffix[0]))
    statistic, limit = chi_square(torch.bincount(torch.tensor(chosen), minlength=2), [0.25, 0.75])
    assert statistic < limit
    statistic, limit = chi_square(torch.bincount(torch.tensor(chosen), minlength=2), [0.5, 0.5])
    assert statistic > limit
    assert Mixture([walk, suffix]).weights == (1.0, 1.0)


def test_a_mixture_reports_alike_at_every_step() -> None:
    """Whichever kernel was drawn: a record of some steps has a value at each of them."""
    suffix, walk, _ = kernels()
    mixture = Mixture([Cycle([suffix, walk]), walk])
    state = mixture.init(torch.ones(8, 2, dtype=torch.int64))
    draws = PhiloxDraws(5, "run", 8)
    reports = [mixture.step(draws.at(step), state)[1] for step in range(20)]
    assert {tuple(info.parts) for info in reports} == {()}
    assert {int(info.policy_calls[0] > 0) for info in reports} == {0, 1}
    assert mixture.calls_per_step == 2


def test_training_is_charged_once_where_kernels_share_a_pair() -> None:
    cost, other_cost = Cost(100, 1_000, 2.5), Cost(7, 70, 0.5)
    pair, other = uniform_pair(GRID, training_cost=cost), uniform_pair(GRID, training_cost=other_cost)
    suffix, independence = SuffixResampling(pair, GRID_TARGET), IndependenceMH(pair, GRID_TARGET)
    walk = RandomWalk(GRID, GRID_TARGET)
    assert suffix.training_cost == independence.training_cost == cost
    assert walk.training_cost == Cost()
    for kind in (Cycle, Mixture):
        assert kind([suffix, walk]).training_cost == cost
        assert kind([suffix, independence, walk]).training_cost == cost
        assert kind([kind([suffix, walk]), independence]).training_cost == cost
        assert kind([suffix, IndependenceMH(other, GRID_TARGET)]).training_cost == cost + other_cost
    assert replace(cost, seconds=3.0) + Cost() == Cost(100, 1_000, 3.0)


def test_starts_are_drawn_from_the_pair_or_built_at_random() -> None:
    for kernel in (
        SuffixResampling(PAIR, GRID_TARGET),
        IndependenceMH(PAIR, GRID_TARGET),
        RandomWalk(GRID, GRID_TARGET),
    ):
        draws = PhiloxDraws(1, "start", 300)
        start: Tensor = kernel.start(draws)
        assert start.shape == (300, 2)
        assert torch.equal(start, kernel.start(PhiloxDraws(1, "start", 300)))
        assert torch.equal(start[:7], kernel.start(PhiloxDraws(1, "start", 7)))
        assert len(start.unique(dim=0)) > 8
