"""What a kernel remembers of P_F changes the time a step takes and nothing else."""

from typing import Any

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Cycle, MultipleTrySuffix, RandomWalk, SuffixResampling
from gfnmc.kernels.branch import FullRestart, PrefixUniform, Uniform
from gfnmc.kernels.pair_memory import PairMemory
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.targets import HyperGrid as GridTarget
from gfnmc.targets import Ising
from tests.policies.test_filled import make_pair
from tests.support import is_identical, network_pair

TARGET = Ising((4, 4), 0.3)
LATTICE = Lattice.for_target(TARGET)


class Forgetful(PairMemory):
    """A memory that keeps nothing."""

    def keep(self, *args: Any) -> None:
        return None


def make_kernel(dtype: torch.dtype, **options: Any) -> SuffixResampling:
    return SuffixResampling(make_pair(LATTICE, dtype), TARGET, Uniform(1, 16), **options)


KERNELS = {
    "independent": lambda pair: SuffixResampling(pair, TARGET, Uniform(1, 16)),
    "shared": lambda pair: SuffixResampling(pair, TARGET, Uniform(1, 16), branching="shared"),
    "prefix law": lambda pair: SuffixResampling(pair, TARGET, PrefixUniform()),
    "restarts": lambda pair: SuffixResampling(pair, TARGET, FullRestart()),
    "multiple tries": lambda pair: MultipleTrySuffix(pair, TARGET, Uniform(1, 16), num_tries=3),
    "tempered": lambda pair: SuffixResampling(pair, TARGET).tempered(0.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("walks", [False, True])
def test_chains_are_the_same_with_and_without_a_memory(kind: str, dtype: torch.dtype, walks: bool) -> None:
    runs = []
    for memory in (PairMemory(), Forgetful()):
        suffix = KERNELS[kind](make_pair(LATTICE, dtype))
        suffix._memory = memory
        kernel = Cycle([suffix, RandomWalk(LATTICE, TARGET)]) if walks else suffix
        draws = PhiloxDraws(1, "chain", 40)
        state, infos = kernel.init(kernel.start(draws)), []
        for step in range(12):
            state, info = kernel.step(draws.at(step), state)
            infos.append(torch.stack([info.log_ratio, state.log_prob]))
        runs.append((state.position, torch.stack(infos)))
        assert (memory._last is not None) == isinstance(memory, PairMemory) * (not isinstance(memory, Forgetful))
    assert torch.equal(runs[0][0], runs[1][0])
    assert is_identical(runs[0][1], runs[1][1])


def test_caches_are_those_begun_afresh_wherever_the_chains_are() -> None:
    kernel = make_kernel(torch.float32)
    memory, pair = kernel._memory, kernel.pair
    draws = PhiloxDraws(2, "chain", 30)
    state = kernel.init(kernel.start(draws))
    state, _ = kernel.step(draws, state)
    states = LATTICE.states(state.position)
    for where in (states, states.flip(0), 1 - states, states[:, torch.randperm(16)]):
        found = memory._at(pair, pair.forward.filler(), where)
        assert found is not None
        assert is_identical(found, pair.forward.begin(where))
    # Other chains, or more of them, are nothing it knows.
    assert memory._at(pair, pair.forward.filler(), states[:7]) is None


def test_another_pair_is_not_taken_for_this_one() -> None:
    kernel, other = make_kernel(torch.float32), make_kernel(torch.float32)
    draws = PhiloxDraws(2, "chain", 30)
    state, _ = kernel.step(draws, kernel.init(kernel.start(draws)))
    states = LATTICE.states(state.position)
    assert kernel._memory._at(other.pair, other.pair.forward.filler(), states) is None
    assert kernel._memory._at(kernel.pair, kernel.pair.forward.filler(), states) is not None


def test_pairs_without_a_use_for_it_have_no_caches() -> None:
    environment = HyperGrid(2, 4)
    kernel = SuffixResampling(network_pair(environment), GridTarget(2, 4))
    draws = PhiloxDraws(2, "chain", 5)
    kernel.step(draws, kernel.init(kernel.start(draws)))
    assert kernel._memory._last is None
    learned = Lattice.for_target(TARGET, order="learned")
    kernel = SuffixResampling(GFlowNet(MLPPolicy(learned, hidden_size=8)), TARGET)
    kernel.step(draws, kernel.init(kernel.start(draws)))
    assert kernel._memory._last is None
