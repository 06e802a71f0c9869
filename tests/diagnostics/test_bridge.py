"""Bridge sampling: the root by its definition, an error that repetition shows, and chains that are worth less."""

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.diagnostics import bridge as module
from gfnmc.diagnostics import bridge_log_z, importance_log_z
from gfnmc.diagnostics.bridge import Bridge, bridge, chain_weights
from gfnmc.diagnostics.evidence import CONDITIONAL
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.kernels import RandomWalk
from gfnmc.policies import GFlowNet
from gfnmc.sampling import Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, NoisyCopy, Target, from_function
from tests.support import CountingTarget, Stairs, random_numbers, random_pair, solved_pair, stairs_target

SPINS = Ising((4,), 0.5, field=0.2)
PROBLEMS: dict[str, Callable[[], tuple[DiscreteEnvironment, Target]]] = {
    "grid": lambda: (HyperGrid(2, 4), HyperGridTarget(2, 4)),
    "lattice": lambda: (Lattice.for_target(SPINS), SPINS),
    "stairs": lambda: (Stairs(5), stairs_target(Stairs(5))),
}
REPLICATIONS = 100


def exact_log_z(environment: DiscreteEnvironment, target: Target) -> float:
    return float(target.log_prob(enumerate_states(environment).objects).logsumexp(0))


@functools.cache
def walk(name: str, *, num_chains: int = 4, num_samples: int = 100, seed: int = 0) -> Chains:
    """Slow chains: a random walk, started in its law so that it has nothing to forget."""
    environment, target = PROBLEMS[name]()
    objects = enumerate_states(environment).objects
    starts = objects[PhiloxDraws(seed, "starts", num_chains).categorical(target.log_prob(objects).log_softmax(0))]
    options = {"num_chains": num_chains, "num_samples": num_samples, "num_warmup": 0, "progress_bar": False}
    return sample(RandomWalk(environment, target), init=starts, seed=seed, **options)


def log_weights(seed: int, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Log-weights of two normal laws whose weight is exp(x + c): N(0, 1) and N(1, 1), so log Z = c + 1/2."""
    x, y = random_numbers(seed, n), 1.0 + random_numbers(seed + 1_000, 4, m // 4)
    return x + 3.0, y + 3.0


def test_the_root_is_that_of_the_definition() -> None:
    own, chain = log_weights(0, 300, 200)
    found = bridge(own, chain)
    # Independent draws: they are worth what arviz says, at most as many as they are.
    s1 = module._effective_draws(chain) / (module._effective_draws(chain) + 300)

    def difference(log_r: float) -> float:
        v, u = np.exp(own.numpy() - log_r), np.exp(chain.numpy() - log_r)
        return float((v / (s1 * v + 1 - s1)).mean() - (1 / (s1 * u + 1 - s1)).mean())

    assert found.log_z == pytest.approx(brentq(difference, -5.0, 10.0, xtol=1e-13), abs=1e-10)
    v, u = np.exp(own.numpy() - found.log_z), np.exp(chain.numpy() - found.log_z)
    ours, theirs = v / (s1 * v + 1 - s1), 1 / (s1 * u + 1 - s1)
    variance = ours.var(ddof=1) / ours.mean() ** 2 / 300 + theirs.var(ddof=1) / theirs.mean() ** 2 / found.chain_ess
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_it_is_meng_and_wongs_iteration() -> None:
    own, chain = log_weights(3, 500, 400)
    s1 = module._effective_draws(chain) / (module._effective_draws(chain) + 500)
    r = 1.0
    for _ in range(500):
        v, u = own.exp(), chain.exp()
        r = float((v / (s1 * v + (1 - s1) * r)).mean() / (1 / (s1 * u + (1 - s1) * r)).mean())
    assert bridge(own, chain).log_z == pytest.approx(math.log(r), abs=1e-10)


def test_adding_a_constant_adds_it() -> None:
    own, chain = log_weights(1, 100, 80)
    one, other = bridge(own, chain), bridge(own + 700.0, chain + 700.0)
    assert other.log_z == pytest.approx(one.log_z + 700.0, abs=1e-9)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-9)


def test_impossible_objects_on_either_side_count() -> None:
    own, chain = torch.zeros(100).double(), torch.zeros(4, 25).double()
    # Half of what P_F makes is impossible, so Z is half of what the other weights say.
    own[::2] = -math.inf
    assert bridge(own, chain).log_z == pytest.approx(math.log(0.5), abs=1e-9)
    # Of the chain's objects P_F cannot make a half, so the weights that it sees are of half of Z.
    chain[:, ::2] = math.inf
    assert bridge(torch.zeros(100).double(), chain).log_z > 0.3


def test_nothing_in_common_is_no_bridge() -> None:
    some, none = torch.zeros(4, 5).double(), torch.full((4, 5), math.inf).double()
    with pytest.raises(CapabilityError, match="no object in common"):
        bridge(torch.zeros(9).double(), none)
    with pytest.raises(CapabilityError, match="no object in common"):
        bridge(torch.full((9,), -math.inf).double(), some)


def test_a_chain_whose_weight_never_changed_has_no_error_to_give() -> None:
    own, _ = log_weights(0, 100, 80)
    assert bridge(own, torch.zeros(4, 20).double()).standard_error == math.inf
    exact = bridge(torch.full((50,), 2.0).double(), torch.full((4, 20), 2.0).double())
    assert exact.log_z == pytest.approx(2.0, abs=1e-12) and exact.standard_error < 1e-12


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_solved_pair_knows_it_without_error(name: str) -> None:
    environment, target = PROBLEMS[name]()
    found = bridge_log_z(walk(name), solved_pair(environment, target), num_draws=100)
    assert found.log_z == pytest.approx(exact_log_z(environment, target), abs=1e-10)
    assert found.standard_error < 1e-10
    assert found.method == "bridge sampling" and found.label == CONDITIONAL


def covered(truth: float, found: list[Bridge]) -> int:
    return sum(abs(one.log_z - truth) <= 1.959964 * one.standard_error for one in found)


@functools.cache
def replications(name: str) -> tuple[tuple[Tensor, Tensor], ...]:
    """Log-weights of a mediocre pair and of slow chains, again and again."""
    environment, target = PROBLEMS[name]()
    pair = random_pair(environment, 3, scale=0.7)
    # One run of many chains, a few at a time, is as many runs.
    whole = walk(name, num_chains=4 * REPLICATIONS, num_samples=150)
    weights = chain_weights(whole, pair, 10**9, 0).reshape(REPLICATIONS, 4, 150, -1)
    path = pair.sample_forward(environment.source(300 * REPLICATIONS), PhiloxDraws(0, "own", 300 * REPLICATIONS))
    assert path.log_forward is not None
    own = target.log_prob(environment.objects(path.end)) + pair.log_backward(path) - path.log_forward
    return tuple(zip(own.detach().reshape(REPLICATIONS, 300), weights.detach(), strict=True))


@pytest.mark.parametrize("name", ["grid", "lattice"])
def test_intervals_cover_the_truth_as_often_as_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = exact_log_z(*PROBLEMS[name]())
    found = [bridge(own, chain) for own, chain in replications(name)]
    assert 90 <= covered(truth, found) <= 99
    # Chains are worth less than they have draws, or the test would say nothing of the correction.
    assert np.mean([one.chain_ess for one in found]) < 0.5 * 600
    # Negative controls: the weights turned upside down, and every draw of the chain counted in full.
    inverted = [bridge(-own, -chain) for own, chain in replications(name)[:50]]
    assert covered(truth, inverted) < 35
    monkeypatch.setattr(module, "_effective_draws", lambda values: float(values.numel()))
    assert covered(truth, [bridge(own, chain) for own, chain in replications(name)]) < 90


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_is_better_than_importance_sampling_with_as_many_draws(name: str) -> None:
    environment, target = PROBLEMS[name]()
    pair = random_pair(environment, 3)
    alone = importance_log_z(pair, target, num_draws=600)
    together = bridge_log_z(walk(name, num_chains=50), pair, num_draws=600)
    assert together.standard_error < alone.standard_error
    assert abs(together.log_z - exact_log_z(environment, target)) < 4.9 * together.standard_error
    low, high = together.interval
    assert high - low == pytest.approx(2 * 1.959964 * together.standard_error, rel=1e-6)


def test_it_costs_a_call_for_each_draw_of_the_pair_and_repeats() -> None:
    environment, target = PROBLEMS["grid"]()
    counted = CountingTarget(target)
    pair = random_pair(environment)
    chains = sample(RandomWalk(environment, counted), num_chains=4, num_samples=20, progress_bar=False)
    before = counted.num_rows
    one = bridge_log_z(chains, pair, num_draws=70, seed=1)
    assert counted.num_rows == before + 70
    assert bridge_log_z(chains, pair, num_draws=70, seed=1, num_threads=2) == one
    assert bridge_log_z(chains, pair, num_draws=70, seed=2) != one


def test_draws_are_taken_evenly_at_least_four_a_chain() -> None:
    pair = random_pair(PROBLEMS["grid"]()[0])
    for most, wanted in ((10**6, 100), (40, 10), (1, 4)):
        assert chain_weights(walk("grid"), pair, most, 0).shape == (4, wanted, module.NUM_PATHS)


def test_what_has_no_bridge_is_refused() -> None:
    environment, target = PROBLEMS["lattice"]()
    pair = solved_pair(environment, target)
    with pytest.raises(OptionError, match="num_draws is 1; it must be at least 2"):
        bridge_log_z(walk("lattice"), pair, num_draws=1)
    with pytest.raises(OptionError, match="3 draws a chain tell nothing"):
        bridge_log_z(walk("lattice", num_samples=3), pair)
    noisy = NoisyCopy(target, (0.25, 1.75), (0.5, 0.5))
    chains = sample(RandomWalk(environment, noisy), num_chains=4, num_samples=5, progress_bar=False)
    with pytest.raises(CapabilityError, match="is noisy, and chains hold estimates"):
        bridge_log_z(chains, pair)


def test_impossible_objects_of_the_pair_are_no_trouble() -> None:
    half = from_function(lambda x: torch.where(x.sum(1) % 2 == 0, 0.0, -math.inf).double(), (2,), values=(0, 1, 2))
    grid = HyperGrid(2, 3)
    pair: GFlowNet = random_pair(grid, scale=0.3)
    objects = enumerate_states(grid).objects
    possible = objects[half.log_prob(objects) == 0.0]
    from gfnmc.kernels import IndependenceMH

    options = {"num_chains": 5, "num_samples": 80, "num_warmup": 0, "progress_bar": False}
    chains = sample(IndependenceMH(pair, half), init=possible, **options)
    found = bridge_log_z(chains, pair, num_draws=1_000)
    assert abs(found.log_z - math.log(5)) < 4.9 * found.standard_error
    assert 0.0 < found.standard_error < 0.2
