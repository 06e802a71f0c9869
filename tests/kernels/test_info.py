"""What a step reports is what it did: proposals, ratios, reasons and costs, against fresh evaluations."""

import functools
import math

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, PolicyError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import IndependenceMH, Info, RandomWalk, Reason, State, SuffixResampling, branch
from gfnmc.kernels.branch import PrefixLaw
from gfnmc.kernels.metropolis import MetropolisKernel
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.targets import Ising, Target, from_function
from tests.support import (
    CountingTarget,
    Stairs,
    assert_close,
    network_pair,
    random_numbers,
    random_pair,
    solved_pair,
    stairs_target,
)

GRID = HyperGrid(2, 4)
LATTICE = Lattice((2, 2), (-1, 1), dtype=torch.int8)
FIXED_ORDER = Lattice((2, 2), (-1, 1), dtype=torch.int8, order="fixed")
STAIRS = Stairs(6)
ENVIRONMENTS = {"grid": GRID, "lattice": LATTICE, "fixed order": FIXED_ORDER, "stairs": STAIRS}

LAWS = {
    "uniform": branch.Uniform(),
    "geometric": branch.Geometric(0.4),
    "fixed": branch.Fixed(2),
    "table": branch.Table({1: 0.5, 3: 0.5}),
    "restart": branch.FullRestart(),
    "prefix": branch.PrefixUniform(),
    "deep prefix": branch.PrefixTable({1: 0.5, 3: 0.5}),
}
NUM_CHAINS = 120


def grid_target() -> Target:
    """A bumpy law on the grid; the cells on its diagonal, but for the origin, are impossible."""
    table = random_numbers(1, 4, 4)
    table[1, 1] = table[2, 2] = table[3, 3] = -math.inf
    return from_function(lambda x: table[x[:, 0], x[:, 1]], (2,), values=(0, 1, 2, 3), name="bumpy grid")


def target_for(name: str) -> CountingTarget:
    if name == "grid":
        return CountingTarget(grid_target())
    if name == "stairs":
        return CountingTarget(stairs_target(STAIRS))
    return CountingTarget(Ising((2, 2), 0.6, field=0.1))


def kernel_for(name: str, kind: str, target: Target) -> MetropolisKernel:
    environment = ENVIRONMENTS[name]
    if kind == "random walk":
        return RandomWalk(environment, target)
    pair = random_pair(environment, seed=2)
    return IndependenceMH(pair, target) if kind == "independence" else SuffixResampling(pair, target, LAWS[kind])


def possible_start(kernel: MetropolisKernel) -> Tensor:
    environment = kernel.environment
    return environment.objects(environment.states(kernel.start(PhiloxDraws(0, "start", 400)))).clone()


def run(kernel: MetropolisKernel, target: CountingTarget, num_steps: int) -> list[tuple[State, State, Info, int, int]]:
    """Steps of some chains: before, after, report, objects evaluated, step."""
    start = possible_start(kernel)
    start = start[target.inner.log_prob(start) > -math.inf][:NUM_CHAINS]
    assert len(start) == NUM_CHAINS
    state, record = kernel.init(start), []
    draws = PhiloxDraws(3, "run", NUM_CHAINS)
    for step in range(num_steps):
        counted = target.num_rows
        after, info = kernel.step(draws.at(step), state)
        record.append((state, after, info, target.num_rows - counted, step))
        state = after
    return record


@functools.cache
def walked(name: str, kind: str) -> tuple[MetropolisKernel, CountingTarget, list[tuple[State, State, Info, int, int]]]:
    """Some steps of a kernel, for several tests to look at."""
    target = target_for(name)
    kernel = kernel_for(name, kind, target)
    return kernel, target, run(kernel, target, 8)


@pytest.mark.parametrize("kind", [*LAWS, "independence", "random walk"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_step_does_what_it_reports(name: str, kind: str) -> None:
    kernel, target, steps = walked(name, kind)
    for before, after, info, evaluated, step in steps:
        reason = info.reason
        assert reason.dtype == torch.int8
        accepted, rejected, lazy, no_way_back = (reason == value for value in Reason)
        assert (accepted | rejected | lazy | no_way_back).all()
        assert torch.equal(info.is_accepted, accepted)
        # Positions and densities: the true proposal is reported, and taken where it was accepted.
        assert torch.equal(after.position[accepted], info.proposal[accepted])
        assert torch.equal(after.position[~accepted], before.position[~accepted])
        assert torch.equal(info.proposal[lazy], before.position[lazy])
        assert torch.equal(after.log_prob, target.inner.log_prob(after.position))
        # The ratio, from the proposal that the same draws give and densities of our own.
        proposal, log_hastings = kernel.propose(before.position, PhiloxDraws(3, "run", NUM_CHAINS).at(step))
        assert torch.equal(proposal, info.proposal)
        change = target.inner.log_prob(proposal) - target.inner.log_prob(before.position)
        wanted = torch.where(log_hastings == -math.inf, -math.inf, change + log_hastings)
        assert_close(info.log_ratio, torch.where(lazy, 0.0, wanted), 1e-12)
        assert_close(info.acceptance_rate, torch.where(lazy, 0.0, wanted.clamp(max=0.0).exp()), 1e-12)
        # Reasons and costs.
        assert (log_hastings[no_way_back] == -math.inf).all()
        assert (log_hastings[accepted | rejected] > -math.inf).all()
        assert torch.equal(info.target_calls, (accepted | rejected).long())
        assert int(info.target_calls.sum()) == evaluated
        for field in (info.num_back_steps, info.num_forward_steps):
            assert not field[lazy].any()
            assert (field >= 0).all()
        # A lazy row has walked before it was known to be lazy, and that was not free.
        assert (info.policy_calls >= 0).all()
        assert info.parts == {}


@pytest.mark.parametrize("kind", [*LAWS, "independence", "random walk"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_lazy_steps_are_those_of_deep_prefixes_alone(name: str, kind: str) -> None:
    *_, steps = walked(name, kind)
    lazy = sum(int((info.reason == Reason.LAZY).sum()) for _, _, info, _, _ in steps)
    may_be_lazy = kind == "prefix" or (kind == "deep prefix" and not ENVIRONMENTS[name].is_fixed_length)
    assert (lazy > 0) == may_be_lazy
    calls = sum(evaluated for *_, evaluated, _ in steps)
    # Objects that are impossible or have no way back aside, what is not lazy is evaluated.
    stuck = sum(int((info.reason == Reason.NO_REVERSE_MOVE).sum()) for _, _, info, _, _ in steps)
    assert calls == len(steps) * NUM_CHAINS - lazy - stuck


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_way_back_is_reported(name: str) -> None:
    """From a path of two actions, two back is the source; a new path of three is not two back from anywhere."""
    for kind in LAWS:
        *_, steps = walked(name, kind)
        stuck = [info.reason == Reason.NO_REVERSE_MOVE for _, _, info, _, _ in steps]
        is_certain = kind in ("fixed", "table") and not ENVIRONMENTS[name].is_fixed_length
        assert any(rows.any() for rows in stuck) == is_certain, kind
        for rows, (before, after, info, _, _) in zip(stuck, steps, strict=True):
            assert torch.equal(after.position[rows], before.position[rows])
            assert (info.log_ratio[rows] == -math.inf).all()
            assert not info.target_calls[rows].any()
            assert not info.acceptance_rate[rows].any()


def test_an_impossible_object_is_rejected_and_counted() -> None:
    target = CountingTarget(grid_target())
    met = 0
    for kernel in (RandomWalk(GRID, target), IndependenceMH(random_pair(GRID), target)):
        for _, after, info, _, _ in run(kernel, target, 10):
            impossible = target.inner.log_prob(info.proposal) == -math.inf
            met += int(impossible.sum())
            assert (info.reason[impossible] == Reason.REJECTED).all()
            assert (info.log_ratio[impossible] == -math.inf).all()
            assert (info.target_calls[impossible] == 1).all()
            assert not info.acceptance_rate[impossible].any()
            assert (after.log_prob > -math.inf).all()
    assert met > 100


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_numbers_of_steps_are_those_of_the_paths(name: str) -> None:
    """Undone and redone actions, and a policy evaluation for each: drawn once, scored once, exits forward."""
    environment = ENVIRONMENTS[name]
    exits = 2 if environment.exit_action is not None else 0
    for kind in (*LAWS, "independence"):
        for before, _, info, _, _ in walked(name, kind)[2]:
            active = info.reason != Reason.LAZY
            wanted = 2 * (info.num_back_steps + info.num_forward_steps) + exits
            if environment.is_graded or not isinstance(LAWS.get(kind), PrefixLaw):
                assert torch.equal(info.policy_calls[active], wanted[active])
            else:
                # The whole path was walked down before it was cut, and what is left of it scored again.
                assert (info.policy_calls[active] >= wanted[active] + info.num_back_steps[active]).all()
            if environment.is_graded:
                change = environment.depth(environment.states(info.proposal))
                change -= environment.depth(environment.states(before.position))
                assert torch.equal(change, info.num_forward_steps - info.num_back_steps)
            if kind in ("restart", "independence"):
                fewest = torch.full_like(info.num_back_steps, environment.max_depth)
                if environment.is_graded:
                    fewest = environment.depth(environment.states(before.position))
                assert (info.num_back_steps <= environment.max_depth).all()
                assert torch.equal(info.num_back_steps, fewest) or not environment.is_graded
    for _, _, info, _, _ in walked(name, "random walk")[2]:
        assert not info.policy_calls.any()
        assert not info.num_back_steps.any()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("grid", "uniform"), ("stairs", "prefix"), ("lattice", "independence"), ("fixed order", "random walk")],
)
def test_the_density_that_is_carried_along_stays_true(name: str, kind: str) -> None:
    target = target_for(name)
    kernel = kernel_for(name, kind, target)
    state = run(kernel, target, 200)[-1][1]
    assert_close(state.log_prob, target.inner.log_prob(state.position), 0.0)
    again = kernel.refresh(state)
    assert torch.equal(again.position, state.position)
    assert_close(again.log_prob, state.log_prob, 0.0)


@pytest.mark.parametrize("kind", ["uniform", "prefix", "independence", "random walk"])
def test_a_step_leaves_its_input_alone_and_repeats(kind: str) -> None:
    target = target_for("grid")
    kernel = kernel_for("grid", kind, target)
    state = run(kernel, target, 3)[-1][1]
    kept = State(state.position.clone(), state.log_prob.clone())
    one, two = (kernel.step(PhiloxDraws(8, "again", NUM_CHAINS), state) for _ in range(2))
    assert torch.equal(state.position, kept.position)
    assert torch.equal(state.log_prob, kept.log_prob)
    assert torch.equal(one[0].position, two[0].position)
    assert torch.equal(one[1].log_ratio, two[1].log_ratio)


def test_a_solved_pair_is_always_accepted_under_a_prefix_law() -> None:
    for name, environment in ENVIRONMENTS.items():
        target = from_function(lambda x: torch.sin(x.flatten(1).double().sum(1)), (2,), values=(0, 1, 2, 3))
        if name != "grid":
            target = target_for(name).inner
        kernel = SuffixResampling(solved_pair(environment, target), target, branch.PrefixUniform())
        moved = 0
        for _, _, info, _, _ in run(kernel, CountingTarget(target), 8):
            active = info.reason != Reason.LAZY
            assert_close(info.log_ratio[active], torch.zeros(int(active.sum())), 1e-11)
            moved += int(info.is_accepted.sum())
        assert moved > 0
    # Negative control: a suffix law on variable length pays for lengths that differ.
    target = from_function(lambda x: torch.sin(x.flatten(1).double().sum(1)), (2,), values=(0, 1, 2, 3))
    kernel = SuffixResampling(solved_pair(GRID, target), target)
    assert min(float(info.acceptance_rate.min()) for _, _, info, _, _ in run(kernel, CountingTarget(target), 8)) < 0.9


def test_a_kernel_keeps_the_pair_as_it_was() -> None:
    pair = network_pair(GRID)
    target = target_for("grid")
    suffix, independence = SuffixResampling(pair, target), IndependenceMH(pair, target)
    start = possible_start(suffix)[:50]
    with torch.no_grad():
        before = [kernel.propose(start, PhiloxDraws(1, "x", 50)) for kernel in (suffix, independence)]
        for parameter in pair.parameters():
            parameter.mul_(-1.5)
        after = [kernel.propose(start, PhiloxDraws(1, "x", 50)) for kernel in (suffix, independence)]
    for (x, ratio), (y, other) in zip(before, after, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(ratio, other)
    assert not torch.equal(before[0][0], SuffixResampling(pair, target).propose(start, PhiloxDraws(1, "x", 50))[0])


def test_starts_that_cannot_be_are_refused() -> None:
    target = target_for("grid")
    kernel = RandomWalk(GRID, target)
    with pytest.raises(ObjectError, match=r"chain 1 would start at \[2, 2\], where bumpy grid has density zero"):
        kernel.init(torch.tensor([[0, 0], [2, 2]]))
    # The wrapper hands objects on to a target that holds them to its shape.
    with pytest.raises(ObjectError, match="outside the values"):
        kernel.init(torch.tensor([[0, 4]]))
    with pytest.raises(ObjectError, match=r"torch.int32"):
        kernel.init(torch.zeros(1, 2, dtype=torch.int32))
    with pytest.raises(ObjectError, match="shape"):
        kernel.init(torch.zeros(1, 3, dtype=torch.int64))


def test_an_energy_that_is_not_finite_names_the_chain_not_the_row_evaluated() -> None:
    """Lazy rows are not evaluated, so the energy sees fewer rows than there are chains."""

    def spoil(x: Tensor, value: Tensor) -> Tensor:
        seen.append(x)
        return torch.where(torch.arange(len(value)) == len(value) - 1, math.nan, value)

    seen: list[Tensor] = []
    target = CountingTarget(stairs_target(STAIRS), trap_at=1, trap=spoil)
    kernel = SuffixResampling(random_pair(STAIRS), target, branch.PrefixTable({0: 0.3, 5: 0.7}))
    state = kernel.init(torch.ones(40, 1, dtype=torch.int64) * 3)
    with pytest.raises(NonFiniteEnergyError) as caught:
        kernel.step(PhiloxDraws(1, "x", 40), state)
    target.trap = None
    _, info = kernel.step(PhiloxDraws(1, "x", 40), state)
    last = int((info.target_calls == 1).nonzero()[-1, 0])
    assert len(seen[0]) < 40
    assert caught.value.row == last
    assert f"row {last}" in str(caught.value)


def test_suffix_resampling_needs_to_know_the_longest_path() -> None:
    class Endless(Stairs):
        max_depth = None

        def __init__(self) -> None:
            super().__init__(4)
            self.max_depth = None

    endless = Endless()
    with pytest.raises(CapabilityError, match="Endless has no max_depth; declare the longest path, a bound will do"):
        SuffixResampling(random_pair(endless), stairs_target(endless))


def test_a_walk_where_no_change_applies_is_lazy() -> None:
    class Lonely(Stairs):
        def change_mask(self, objects: Tensor) -> Tensor:
            return super().change_mask(objects) & (objects != 2)

    target = CountingTarget(stairs_target(STAIRS))
    kernel = RandomWalk(Lonely(6), target)
    state = kernel.init(torch.tensor([[2], [4], [2]]))
    counted = target.num_rows
    after, info = kernel.step(PhiloxDraws(0, "x", 3), state)
    assert (info.reason == Reason.LAZY).tolist() == [True, False, True]
    assert after.position[[0, 2]].tolist() == [[2], [2]]
    assert info.log_ratio[[0, 2]].tolist() == [0.0, 0.0]
    assert target.num_rows - counted == 1


def test_weights_that_are_not_numbers_are_an_error_not_a_rejection() -> None:
    environment = Lattice((3,), (0, 1))
    target = from_function(lambda x: x.sum(-1).double(), (3,), values=(0, 1))
    network = MLPPolicy(environment, hidden_size=4)
    with torch.no_grad():
        network.embedding_bias[0] = math.nan
    kernel = SuffixResampling(GFlowNet(network), target)
    state = kernel.init(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(PolicyError, match=r"row 0 has nothing to choose from: .*nan"):
        kernel.step(PhiloxDraws(0, "test", 2), state)


def test_a_proposal_of_unknown_probability_is_an_error_not_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SuffixResampling(random_pair(GRID), from_function(lambda x: x.sum(-1).double(), (2,)))
    monkeypatch.setattr(kernel.pair, "log_backward", lambda path: torch.full((2,), math.nan, dtype=torch.float64))
    objects = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(PolicyError, match="chain 0: the probability of a proposed path is NaN"):
        kernel.step(PhiloxDraws(0, "test", 2), kernel.init(objects))
    with pytest.raises(PolicyError, match="chain 0: the probability of a proposed path is NaN"):
        kernel.propose(objects, PhiloxDraws(0, "test", 2))
