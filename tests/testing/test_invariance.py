"""The proof kit tells right kernels from wrong ones, on small spaces and large, and says when it cannot tell."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, EnergyError, ObjectError, OptionError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import (
    Cycle,
    Gibbs,
    Info,
    Kernel,
    Mixture,
    ParallelTempering,
    RandomWalk,
    Reach,
    State,
    SuffixResampling,
)
from gfnmc.kernels.branch import Fixed
from gfnmc.kernels.metropolis import MetropolisKernel, Proposal
from gfnmc.policies import GFlowNet, UniformPolicy
from gfnmc.targets import Ising, NoisyCopy, Target, from_function
from gfnmc.testing import NoPowerError, assert_invariant, assert_reversible
from gfnmc.testing.by_sampling import FALSE_ALARM, InvarianceJudge, ReversibilityJudge
from tests.exact.cases import TableTarget, graph_of, table_target
from tests.support import Stairs, random_pair, stairs_target

GRID, GRID_TARGET = HyperGrid(2, 4), gfnmc.targets.HyperGrid(2, 4)
NINE, NINE_TARGET = HyperGrid(2, 3), gfnmc.targets.HyperGrid(2, 3)
SMALL = Ising((3, 2), 0.5)
SMALL_LATTICE = Lattice.for_target(SMALL, order="fixed")
LARGE = Ising((6, 6), 0.4)
LARGE_LATTICE = Lattice.for_target(LARGE, order="fixed")


def uniform_pair(environment: DiscreteEnvironment) -> GFlowNet:
    return GFlowNet(UniformPolicy(environment, Direction.FORWARD))


class Biased(RandomWalk):
    """A random walk that forgets how many changes there are at the other end."""

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        proposal = super()._propose(draws, position)
        return proposal._replace(log_hastings=torch.zeros_like(proposal.log_hastings))


class Overheated(Gibbs):
    """A Gibbs sampler of another temperature than it says."""

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        return Gibbs.step(self._hot(), draws, state)

    def _hot(self) -> Gibbs:
        return Gibbs(self.environment, self.target, self.scan).tempered(0.9)


class Leaky(MetropolisKernel):
    """Proposes anything, and accepts impossible objects as well."""

    name = "leaky"

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        self.environment, self.target = environment, target
        self._objects = enumerate_states(environment).objects

    def start(self, draws: Draws) -> Tensor:
        return self._objects[: draws.num_rows]

    reach = property(lambda self: Reach.EVERYWHERE)
    may_stay = property(lambda self: False)

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        zero = torch.zeros(len(position), dtype=torch.int64)
        chosen = self._objects[draws.integers(zero + len(self._objects))]
        return Proposal(chosen, zero.double(), zero > 0, zero, zero, zero)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        _, info = super().step(draws, state)
        return State(info.proposal, self.target.log_prob(info.proposal)), info


class Lost(Kernel):
    """Decides by a law that does not add up to 1, and cannot be tempered."""

    name = "lost"

    def __init__(self, log_probs: Tensor) -> None:
        self.environment, self.target, self._log_probs = SMALL_LATTICE, SMALL, log_probs

    reach = property(lambda self: Reach.PARTIAL)
    may_stay = property(lambda self: True)

    def start(self, draws: Draws) -> Tensor:
        return Gibbs(self.environment, self.target).start(draws)

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        draws.categorical(self._log_probs)
        return state, Gibbs(self.environment, self.target).step(draws, state)[1]


RIGHT = {
    "random walk, symmetric": lambda: RandomWalk(SMALL_LATTICE, SMALL),
    "random walk, corrected": lambda: RandomWalk(GRID, GRID_TARGET),
    "suffix": lambda: SuffixResampling(random_pair(NINE), NINE_TARGET),
    "suffix, variable length": lambda: SuffixResampling(random_pair(Stairs(4)), stairs_target(Stairs(4))),
    "tempered": lambda: RandomWalk(GRID, GRID_TARGET).tempered(0.3),
    "Gibbs": lambda: Gibbs(SMALL_LATTICE, SMALL),
    "mixture": lambda: Mixture([RandomWalk(NINE, NINE_TARGET), SuffixResampling(random_pair(NINE), NINE_TARGET)]),
}
BROKEN_TWINS = {
    "random walk, symmetric": ("every proposal accepted",),
    "Gibbs": ("the target to the power 0.5",),
    "mixture": ("the target to the power 0.5",),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_of_small_spaces_are_proved(name: str) -> None:
    twins = BROKEN_TWINS.get(name, ("no correction", "the correction inverted"))
    for check, claim in ((assert_invariant, "invariant"), (assert_reversible, "reversible")):
        proof = check(RIGHT[name]())
        assert proof.claim == claim
        assert proof.twins == twins
        assert "by enumeration of" in proof.method
        assert float(proof.figure.removeprefix("to ")) < 1e-12
        number = "1 broken twin fails" if len(twins) == 1 else "2 broken twins fail"
        assert str(proof).startswith(f"{claim} {proof.figure} {proof.method}; {number} ({', '.join(twins)})")


def test_a_cycle_is_proved_as_a_whole_and_in_its_parts() -> None:
    cycle = Cycle([SuffixResampling(random_pair(NINE), NINE_TARGET), RandomWalk(NINE, NINE_TARGET)])
    proof = assert_invariant(cycle)
    assert [part.kernel for part in proof.parts] == ["suffix resampling", "random walk"]
    assert all(part.twins == ("no correction", "the correction inverted") for part in proof.parts)
    assert "; random walk: invariant" in str(proof)
    with pytest.raises(AssertionError, match=r"suffix resampling \+ random walk is not reversible"):
        assert_reversible(cycle)
    # A wrong part is named, although the other one comes after it.
    wrong = Cycle([Biased(NINE, NINE_TARGET), SuffixResampling(random_pair(NINE), NINE_TARGET)])
    with pytest.raises(AssertionError, match="random walk is not invariant under"):
        assert_invariant(wrong)


@pytest.mark.parametrize("check", [assert_invariant, assert_reversible])
def test_a_wrong_kernel_of_a_small_space_fails_with_its_worst_object(check: object) -> None:
    assert callable(check)
    with pytest.raises(AssertionError) as failure:
        check(Biased(GRID, GRID_TARGET))
    message = str(failure.value)
    assert "by enumeration of 16 objects" in message
    # A corner has two changes and its neighbour three, so flow from corners is too small.
    assert "from [" in message and "] flows " in message
    assert "look at the acceptance ratio" in message
    with pytest.raises(AssertionError, match="look at the laws that it draws from"):
        check(Overheated(SMALL_LATTICE, SMALL))


def test_a_systematic_scan_is_invariant_and_not_reversible() -> None:
    sweep = Gibbs(SMALL_LATTICE, SMALL, "systematic")
    assert assert_invariant(sweep).twins == ("the target to the power 0.5",)
    with pytest.raises(AssertionError, match=r"is not reversible .* unbalanced by"):
        assert_reversible(sweep)


def test_the_law_may_be_another_than_the_kernels_own() -> None:
    kernel = RandomWalk(GRID, GRID_TARGET)
    assert assert_invariant(kernel, GRID_TARGET)
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(kernel.tempered(0.9), GRID_TARGET)
    assert assert_invariant(kernel.tempered(0.9))
    # At inverse temperature 0 the law is flat: impossible objects count, and no accept step can be wrong.
    with pytest.raises(NoPowerError, match="no power here"):
        assert_invariant(RandomWalk(SMALL_LATTICE, SMALL).tempered(0.0))


def test_objects_can_be_given_and_impossible_ones_are_left_out() -> None:
    graph = graph_of("hypergrid")
    target = table_target(graph)
    target.table[1] = -math.inf
    kernel = SuffixResampling(random_pair(graph.environment), target)
    assert "of 8 objects" in assert_invariant(kernel).method
    assert "of 8 objects" in assert_invariant(kernel, objects=graph.objects).method
    with pytest.raises(AssertionError, match=r"the 7 objects of positive density\. Either they are not all"):
        assert_invariant(kernel, objects=graph.objects[:-1])
    with pytest.raises(AssertionError, match="accepts impossible objects"):
        assert_invariant(Leaky(graph.environment, target))
    with pytest.raises(ObjectError):
        assert_invariant(kernel, objects=graph.objects[:, :1])
    with pytest.raises(EnergyError, match="density zero to all 1 objects"):
        assert_invariant(kernel, objects=graph.objects[1:2])


def test_laws_that_are_not_normalised_are_found() -> None:
    with pytest.raises(AssertionError, match=r"add up to 0.9, not to 1; the kernel decides by laws"):
        assert_invariant(Lost(torch.tensor([0.5, 0.4], dtype=torch.float64).log()))


def test_a_kernel_without_a_broken_twin_is_not_vouched_for() -> None:
    with pytest.raises(CapabilityError, match=r"no broken twin of lost can be made.*implement `tempered`"):
        assert_invariant(Lost(torch.tensor([0.5, 0.5], dtype=torch.float64).log()))


def test_a_check_without_power_says_so() -> None:
    flat = from_function(lambda x: torch.zeros(len(x)), (3,), values=(0, 1), name="flat")
    lattice = Lattice.for_target(flat, order="fixed")
    # All moves are accepted, rightly, and no twin does anything else.
    for kernel in (RandomWalk(lattice, flat), Gibbs(lattice, flat)):
        with pytest.raises(NoPowerError, match="no power here: no broken twin"):
            assert_invariant(kernel)


# Large spaces


LARGE_KERNELS = {
    "random walk": lambda: RandomWalk(LARGE_LATTICE, LARGE),
    "Gibbs": lambda: Gibbs(LARGE_LATTICE, LARGE),
    "suffix": lambda: SuffixResampling(uniform_pair(LARGE_LATTICE), LARGE, Fixed(3)),
}


@pytest.mark.parametrize("name", LARGE_KERNELS)
def test_right_kernels_of_large_spaces_pass_by_exact_starts(name: str) -> None:
    # Chance of a false alarm: 1e-6 for each of the two.
    proof = assert_invariant(LARGE_KERNELS[name](), num_chains=2_048, num_steps=8)
    assert "statistics of 2,048 exact draws after 8 steps" in proof.method
    assert "statistics of" in assert_reversible(LARGE_KERNELS[name](), num_chains=8_192).method


def test_wrong_kernels_of_large_spaces_fail() -> None:
    with pytest.raises(AssertionError, match=r"Gibbs is not invariant .* is wrong .p = .* new exact draws"):
        assert_invariant(Overheated(LARGE_LATTICE, LARGE, "systematic"))
    with pytest.raises(AssertionError, match=r"Gibbs is not reversible .* the other way"):
        assert_reversible(Overheated(LARGE_LATTICE, LARGE, "systematic"))


def test_a_small_space_with_too_many_decisions_is_sampled() -> None:
    # 64 objects, and each is taken apart and rebuilt in any order.
    lattice = Lattice.for_target(SMALL)
    proof = assert_invariant(SuffixResampling(uniform_pair(lattice), SMALL), num_chains=1_024, num_steps=4)
    assert "statistics of" in proof.method and proof.twins == ("every proposal accepted",)
    # Where the target has no exact solution, that of the listed objects serves, at any temperature.
    table = TableTarget(SMALL.exact().support, SMALL.exact().log_pmf)
    kernel = SuffixResampling(uniform_pair(lattice), table).tempered(0.8)
    assert "statistics of" in assert_invariant(kernel, num_chains=1_024, num_steps=4).method
    with pytest.raises(AssertionError, match="suffix resampling is not invariant"):
        assert_invariant(kernel, table)


def test_parallel_tempering_starts_from_exact_replicas() -> None:
    right = ParallelTempering(RandomWalk(SMALL_LATTICE, SMALL), (1.0, 0.5, 0.0))
    assert assert_invariant(right).twins == ("every rung at half its inverse temperature",)
    wrong = copy.copy(right)
    # Replicas that are moved as on one ladder and swapped as on another.
    wrong.kernel = ParallelTempering(RandomWalk(SMALL_LATTICE, SMALL), (1.0, 0.5, 0.0)).kernel
    vars(wrong)["_at_rungs"] = lambda num_chains: wrong.kernel.tempered(
        torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64).repeat(num_chains)
    )
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(wrong)
    with pytest.raises(CapabilityError, match="at every temperature"):
        assert_invariant(ParallelTempering(RandomWalk(LARGE_LATTICE, LARGE), (1.0, 0.5)))


@pytest.mark.parametrize("judge", [InvarianceJudge, ReversibilityJudge])
def test_p_values_are_as_large_as_they_say(judge: type) -> None:
    # The smallest of 9 p-values is below 0.1 / 9 in a tenth of 200 runs at most: more than 45 have probability 2e-7.
    gibbs = Gibbs(SMALL_LATTICE, SMALL, "random")
    steps = {"num_steps": 2} if judge is InvarianceJudge else {}
    small = 0
    for seed in range(200):
        found = judge(gibbs, SMALL, SMALL.exact(), num_chains=600, seed=seed, **steps)(gibbs)
        small += float(found.figure.removeprefix("smallest p ")) < 0.1 / 9
    assert small <= 45
    assert FALSE_ALARM == 1e-6


# What cannot be judged


def test_what_cannot_be_judged_is_refused_with_what_to_give() -> None:
    unknown = from_function(lambda x: x.sum(1).double(), (40,), values=(0, 1), name="unknown")
    with pytest.raises(CapabilityError, match="Give `objects=`, all objects of a smaller case"):
        assert_invariant(RandomWalk(Lattice.for_target(unknown), unknown))
    noisy = NoisyCopy(SMALL, (0.5, 1.5), (0.5, 0.5))
    with pytest.raises(CapabilityError, match="a target without noise"):
        assert_invariant(RandomWalk(SMALL_LATTICE, noisy))
    walk = RandomWalk(SMALL_LATTICE, SMALL)
    with pytest.raises(OptionError, match="an inverse temperature a chain"):
        assert_invariant(walk.tempered(torch.tensor([1.0, 0.5], dtype=torch.float64)))
    with pytest.raises(CapabilityError, match="judge its parts one by one"):
        assert_invariant(Cycle([walk, ParallelTempering(walk, (1.0, 0.5))]))
    for option in ("num_chains", "num_steps"):
        with pytest.raises(OptionError, match=f"{option} is 0"):
            assert_invariant(walk, **{option: 0})


def test_the_kit_needs_no_pytest() -> None:
    code = "import sys, gfnmc.testing.invariance, gfnmc.testing.check; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0  # noqa: S603 - our interpreter
