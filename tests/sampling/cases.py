"""What tests of sampling share: comparing records, and kernels of every kind that keep something from step to step."""

from collections.abc import Callable

import torch

from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import (
    Cycle,
    Gibbs,
    Kernel,
    LocallyBalanced,
    Mixture,
    MultipleTrySuffix,
    ParallelTempering,
    RandomWalk,
    SuffixResampling,
    branch,
)
from gfnmc.sampling import Chains, Record
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, NoisyCopy, Target
from tests.support import is_identical, network_pair, random_pair

GRID, GRID_TARGET = HyperGrid(2, 8), HyperGridTarget(2, 8)
SPINS = Ising((2, 3), 0.5)
LATTICE = Lattice.for_target(SPINS)
NOISY = NoisyCopy(GRID_TARGET, (0.5, 1.5), (0.5, 0.5))

KernelOf = Callable[[Target], Kernel]
STORED: dict[str, tuple[KernelOf, Target]] = {
    "a random walk": (lambda target: RandomWalk(GRID, target), GRID_TARGET),
    "suffix resampling": (lambda target: SuffixResampling(network_pair(LATTICE), target), SPINS),
    "several tries": (lambda target: MultipleTrySuffix(network_pair(GRID), target, recycle=True), GRID_TARGET),
    "a cycle": (
        lambda target: Cycle([SuffixResampling(network_pair(GRID), target), RandomWalk(GRID, target)]),
        GRID_TARGET,
    ),
    "a mixture": (
        lambda target: Mixture([SuffixResampling(random_pair(GRID), target), RandomWalk(GRID, target)]),
        GRID_TARGET,
    ),
    "parallel tempering": (
        lambda target: ParallelTempering(RandomWalk(GRID, target), (1.0, 0.6, 0.3, 0.0)),
        GRID_TARGET,
    ),
    "parallel tempering in a cycle": (
        lambda target: Cycle([Gibbs(LATTICE, target), ParallelTempering(LocallyBalanced(LATTICE, target), (1.0, 0.5))]),
        SPINS,
    ),
    "what was seen around": (lambda target: LocallyBalanced(LATTICE, target), SPINS),
    "estimates": (lambda target: RandomWalk(GRID, target), NOISY),
}
ADAPTING: tuple[KernelOf, Target] = (
    lambda target: Cycle(
        [SuffixResampling(random_pair(GRID), target, branch.PrefixUniform()), RandomWalk(GRID, target)]
    ),
    GRID_TARGET,
)


def assert_same_draws(a: Record, b: Record) -> None:
    """Bit for bit: objects, densities and everything the kernel said, clocks aside."""
    assert is_identical(a.position, b.position)
    assert is_identical(a.log_prob, b.log_prob)
    assert a.stats.keys() == b.stats.keys()
    for name, value in a.stats.items():
        assert is_identical(value, b.stats[name]), name


def assert_same_chains(a: Chains, b: Chains) -> None:
    """The same draws in both phases, and the same counted work."""
    assert_same_draws(a.warmup, b.warmup)
    assert_same_draws(a.samples, b.samples)
    for name in ("target_calls", "policy_calls", "delta_calls", "gradient_calls"):
        assert getattr(a.sampling_cost, name) == getattr(b.sampling_cost, name), name


def part(record: Record, *, chains: slice = slice(None), draws: slice = slice(None)) -> Record:
    """Some chains and some draws of a record."""
    stats = {name: value[chains, draws] for name, value in record.stats.items()}
    return Record(record.position[chains, draws], record.log_prob[chains, draws], stats, record.seconds[draws])


def is_prefix(a: Record, b: Record) -> bool:
    """Whether the draws of one record are the first ones of another."""
    num = a.log_prob.shape[1]
    return num == 0 or (
        torch.equal(a.position, b.position[:, :num])
        and torch.equal(a.log_prob, b.log_prob[:, :num])
        and all(torch.equal(value, b.stats[name][:, :num]) for name, value in a.stats.items())
    )
