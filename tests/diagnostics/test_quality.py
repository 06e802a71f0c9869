"""The quality of a pair: bounds that hold, the acceptance that chains have, and a collapse that few objects show.

Everything is compared with sums over all paths of small environments, so nothing is judged by another estimate.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics import PairQuality, pair_quality
from gfnmc.diagnostics.quality import LOST_FACTOR, describe_modes, judged
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_paths, enumerate_states
from gfnmc.kernels import IndependenceMH
from gfnmc.policies import GFlowNet, Path, TabularPolicy
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, NoisyCopy, Target, from_function
from tests.support import (
    CountingTarget,
    Stairs,
    assert_close,
    is_identical,
    random_numbers,
    random_pair,
    solved_pair,
    stairs_target,
)

SPINS = Ising((3,), 0.5, field=0.2)
PROBLEMS: dict[str, Callable[[], tuple[DiscreteEnvironment, Target]]] = {
    "grid": lambda: (HyperGrid(2, 3), HyperGridTarget(2, 3)),
    "lattice": lambda: (Lattice.for_target(SPINS), SPINS),
    "stairs": lambda: (Stairs(5), stairs_target(Stairs(5))),
}
NUM_DRAWS = 4_000
DEVIATIONS = 4.9
"""Standard errors that a mean is off by with probability 1e-6."""


class Exact(NamedTuple):
    """What the figures of a pair are in truth, by summing over all paths."""

    log_z: float
    elbo: float
    eubo: float
    acceptance: float
    ess_fraction: float
    spread_own: float
    spread_given: float


def exact_figures(pair: GFlowNet, target: Target) -> Exact:
    graph = enumerate_states(pair.environment)
    found = enumerate_paths(graph)
    path = Path(graph.states[found.states], found.actions, found.lengths, torch.ones(len(found.lengths)) > 0)
    log_reward = target.log_prob(pair.environment.objects(path.end))
    with torch.no_grad():
        log_own, log_back = pair.log_forward(path), pair.log_backward(path)
    own = log_own.exp()
    assert float(own.sum()) == pytest.approx(1.0, abs=1e-12)
    log_z = float(target.log_prob(graph.objects).logsumexp(0))
    given = (log_reward + log_back - log_z).exp()
    assert float(given.sum()) == pytest.approx(1.0, abs=1e-12)
    log_weight = log_reward + log_back - log_own
    accepted = (log_weight[:, None] - log_weight).clamp(max=0.0).exp()
    elbo, eubo = float(own @ log_weight), float(given @ log_weight)
    return Exact(
        log_z=log_z,
        elbo=elbo,
        eubo=eubo,
        acceptance=float(own @ accepted @ given),
        ess_fraction=float((own @ log_weight.exp()) ** 2 / (own @ (2 * log_weight).exp())),
        spread_own=float((own @ (log_weight - elbo).square()).sqrt()),
        spread_given=float((given @ (log_weight - eubo).square()).sqrt()),
    )


def exact_draws(environment: DiscreteEnvironment, target: Target, count: int, seed: int = 0) -> Tensor:
    objects = enumerate_states(environment).objects
    log_pmf = target.log_prob(objects).log_softmax(0)
    return objects[PhiloxDraws(seed, "exact", count).categorical(log_pmf)]


def figures(pair: GFlowNet, target: Target, *, num_draws: int = NUM_DRAWS, **options: object) -> PairQuality:
    objects = exact_draws(pair.environment, target, num_draws)
    return pair_quality(pair, target, objects, num_draws=num_draws, **options)


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_exact_pair_has_exact_figures(name: str) -> None:
    environment, target = PROBLEMS[name]()
    pair = solved_pair(environment, target)
    log_z = float(target.log_prob(enumerate_states(environment).objects).logsumexp(0))
    found = figures(pair, target, num_draws=300)
    assert_close(found.elbo, log_z, 1e-10)
    assert_close(found.eubo, log_z, 1e-10)
    assert_close(found.log_z, log_z, 1e-10)
    assert_close(found.acceptance, 1.0, 1e-10)
    assert_close(found.ess_fraction, 1.0, 1e-10)
    assert found.lost == 0.0 and found.warning is None
    assert found.label == "judged by the given objects"
    own = pair_quality(pair, target, num_draws=300)
    assert_close(own.acceptance, 1.0, 1e-10)
    assert (own.eubo, own.lost, own.warning) == (None, None, None)
    assert own.label == "conditional on the modes visited"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_bounds_hold_and_the_figures_are_those_of_all_paths(name: str, seed: int) -> None:
    environment, target = PROBLEMS[name]()
    pair = random_pair(environment, seed=seed, scale=0.7)
    truth = exact_figures(pair, target)
    assert truth.elbo < truth.log_z - 1e-3 and truth.eubo > truth.log_z + 1e-3
    found = figures(pair, target, seed=seed)
    error = DEVIATIONS / math.sqrt(NUM_DRAWS)
    assert abs(found.elbo - truth.elbo) < error * truth.spread_own
    assert abs(found.eubo - truth.eubo) < error * truth.spread_given
    # A mean of numbers in [0, 1] over all pairs of two samples.
    assert abs(found.acceptance - truth.acceptance) < error * math.sqrt(0.5)
    assert found.ess_fraction == pytest.approx(truth.ess_fraction, abs=0.1)
    # Negative control: each bound lies on its own side, further from log Z than its error.
    assert found.elbo < truth.log_z < found.eubo
    assert found.eubo - found.elbo > 0.02


@pytest.mark.parametrize("name", PROBLEMS)
def test_without_objects_the_acceptance_is_estimated_by_weights(name: str) -> None:
    """Right as long as P_F makes everything now and then."""
    environment, target = PROBLEMS[name]()
    pair = random_pair(environment, seed=3, scale=0.5)
    found = pair_quality(pair, target, num_draws=NUM_DRAWS)
    assert found.acceptance == pytest.approx(exact_figures(pair, target).acceptance, abs=0.05)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_chain_accepts_as_often_as_predicted(name: str) -> None:
    """One full restart from exact draws: the rate is that of all pairs of paths, and the predicted one."""
    environment, target = PROBLEMS[name]()
    pair = random_pair(environment, seed=1, scale=0.7)
    truth = exact_figures(pair, target).acceptance
    kernel = IndependenceMH(pair, target)
    draws = PhiloxDraws(7, "chain", 10_000)
    _, info = kernel.step(draws, kernel.init(exact_draws(environment, target, 10_000, seed=9)))
    predicted = figures(pair, target).acceptance
    bound = DEVIATIONS * 0.5 * math.sqrt(2 / NUM_DRAWS + 1 / 10_000)
    assert abs(float(info.is_accepted.double().mean()) - predicted) < bound
    assert abs(float(info.acceptance_rate.mean()) - truth) < DEVIATIONS * 0.5 / 100.0
    # Negative control: a pair that is twice as far off accepts visibly less.
    assert exact_figures(random_pair(environment, seed=1, scale=2.0), target).acceptance < truth - bound


def pairwise(own: Tensor, given: Tensor) -> float:
    """The acceptance, pair by pair."""
    return sum(math.exp(min(0.0, float(o - g))) for o in own for g in given) / (len(own) * len(given))


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_acceptance_is_the_mean_over_all_pairs(spread: float) -> None:
    own, given = spread * random_numbers(1, 40), spread * random_numbers(2, 25)
    own[:3], given[:2] = given[:3].clone(), math.inf
    assert_close(judged(own, given, "x").acceptance, pairwise(own, given), 1e-12)
    own[5:9] = -math.inf
    assert_close(judged(own, given, "x").acceptance, pairwise(own, given), 1e-12)
    weights = own.exp()
    by_hand = sum(min(float(a), float(b)) for a in weights for b in weights) / (len(own) * float(weights.sum()))
    assert judged(own, None, "").acceptance == pytest.approx(by_hand, rel=1e-10)


def test_many_draws_need_no_table_of_pairs() -> None:
    own, given = random_numbers(1, 200_000), random_numbers(2, 300_000)
    few = judged(own[:2_000], given[:3_000], "x").acceptance
    assert judged(own, given, "x").acceptance == pytest.approx(few, abs=0.03)
    assert judged(own, None, "").acceptance == pytest.approx(judged(own[:5_000], None, "").acceptance, abs=0.03)


TWO_MODES = Ising((4,), 1.2)
MODES_LATTICE = Lattice.for_target(TWO_MODES, order="fixed")


def falls_into_spins_down(by: float) -> GFlowNet:
    """The exact pair, but for the first spin, which all but decides on the mode: it is up e^by times too rarely."""
    exact = solved_pair(MODES_LATTICE, TWO_MODES)
    logits = exact.forward.logits.detach().clone()
    graph = exact.forward.graph
    logits[graph.index(MODES_LATTICE.source(1)), 1] -= by
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits), exact.backward)


def test_a_lost_mode_is_named() -> None:
    found = figures(falls_into_spins_down(10.0), TWO_MODES)
    mass_up = float(TWO_MODES.exact().mode_masses[1])
    assert found.lost == pytest.approx(0.5, abs=0.06)
    share = f"{found.lost:.0%}"
    assert found.warning is not None
    assert f"P_F makes {share} of the given objects less than a hundredth as often as it should" in found.warning
    assert re.search(r"\('spins up' is [45]\d\.\d% of them and 0\.\d% of its own\)", found.warning)
    for advice in ("exact", "hardly reach", "Train longer", "seed_chains", "ParallelTempering"):
        assert advice in found.warning
    # Half of all restarts would have to cross, and do not.
    assert found.acceptance < 0.6
    assert found.eubo > found.elbo + 4.0
    assert found.eubo == pytest.approx(TWO_MODES.exact().log_z + 10.0 * mass_up, abs=0.7)


def test_of_the_lost_mode_its_own_objects_say_nothing() -> None:
    """The point of it all: without objects from elsewhere the figures look fine, and are labelled for what they are."""
    found = pair_quality(falls_into_spins_down(10.0), TWO_MODES, num_draws=NUM_DRAWS)
    assert found.warning is None and found.lost is None and found.eubo is None
    assert found.acceptance > 0.99 and found.ess_fraction > 0.99
    assert found.label == "conditional on the modes visited"
    # And log Z, which looks as sure, is that of the mode that it makes.
    assert found.log_z == pytest.approx(TWO_MODES.exact().log_z - math.log(2), abs=0.1)
    assert found.elbo == pytest.approx(found.log_z, abs=1e-3)


@pytest.mark.parametrize("by", [0.0, 1.0, 3.0])
def test_a_pair_that_makes_every_mode_now_and_then_is_not_warned_of(by: float) -> None:
    """The negative control: up to twenty times too rarely is slow, but not lost."""
    found = figures(falls_into_spins_down(by), TWO_MODES)
    assert found.lost == 0.0 and found.warning is None


def test_the_label_says_where_objects_come_from() -> None:
    objects = exact_draws(MODES_LATTICE, TWO_MODES, 100)
    found = pair_quality(falls_into_spins_down(10.0), TWO_MODES, objects, objects_from="my tempered chains")
    assert found.label == "judged by my tempered chains"
    assert "of my tempered chains less than" in found.warning


def test_lost_is_a_matter_of_a_factor_of_a_hundred() -> None:
    own = torch.zeros(100, dtype=torch.float64)
    for log_factor, lost in ((math.log(LOST_FACTOR) - 0.01, 0.0), (math.log(LOST_FACTOR) + 0.01, 0.25)):
        given = torch.where(torch.arange(40) < 10, log_factor, 0.0).double()
        found = judged(own, given, "others")
        assert found.lost == lost
        assert (found.warning is None) == (lost == 0.0)
    # One in fifty may be, two may not.
    for count, is_warned in ((1, False), (2, True)):
        given = torch.where(torch.arange(50) < count, 9.0, 0.0).double()
        assert (judged(own, given, "others").warning is not None) == is_warned


def test_objects_that_p_f_cannot_make_are_lost() -> None:
    graph = enumerate_states(MODES_LATTICE)
    exact = solved_pair(MODES_LATTICE, TWO_MODES)
    logits = exact.forward.logits.detach().clone()
    logits[graph.index(MODES_LATTICE.source(1)), 1] = -math.inf
    found = figures(GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits), exact.backward), TWO_MODES)
    assert found.eubo is None and found.lost == pytest.approx(0.5, abs=0.06)
    assert found.warning is not None and "spins up" in found.warning
    assert 0.0 < found.acceptance < 0.6


def test_impossible_objects_of_p_f() -> None:
    half = from_function(lambda x: torch.where(x.sum(1) % 2 == 0, 0.0, -math.inf), (2,), values=(0, 1, 2))
    grid = HyperGrid(2, 3)
    pair = random_pair(grid, scale=0.3)
    objects = exact_draws(grid, half, 200)
    found = pair_quality(pair, half, objects, num_draws=500)
    assert found.elbo is None and math.isfinite(found.log_z) and math.isfinite(found.eubo)
    assert 0.0 < found.ess_fraction < 1.0 and 0.0 < found.acceptance < 1.0
    never = from_function(lambda x: torch.where(x.sum(1) == 4, 0.0, -math.inf), (2,), values=(0, 1, 2))
    found = pair_quality(stays_at_home(grid), never, torch.tensor([[2, 2]]), num_draws=20)
    assert found.log_z == -math.inf
    assert (found.elbo, found.ess_fraction, found.acceptance, found.k_hat) == (None, 0.0, 0.0, None)
    assert found.lost == 1.0 and found.warning is not None
    assert pair_quality(stays_at_home(grid), never, num_draws=20).acceptance == 0.0


def stays_at_home(grid: HyperGrid) -> GFlowNet:
    """P_F leaves at the source but for one in e^30."""
    graph = enumerate_states(grid)
    logits = torch.zeros(graph.num_states, grid.num_actions, dtype=torch.float64)
    logits[:, grid.exit_action] = 30.0
    return GFlowNet(TabularPolicy(graph, Direction.FORWARD, logits))


def test_modes_that_are_missing_are_described() -> None:
    x = torch.tensor([[1, 1, 1, 1], [-1, -1, -1, -1], [1, -1, 1, -1]], dtype=torch.int8)
    up, down, neither = x[:1], x[1:2], x[2:]
    both = torch.cat([up.repeat(3, 1), down])
    assert describe_modes(TWO_MODES, down, both) == "'spins up' is 75.0% of them and 0.0% of its own"
    assert describe_modes(TWO_MODES, neither, both) == (
        "'spins down' is 25.0% of them and 0.0% of its own; 'spins up' is 75.0% of them and 0.0% of its own"
    )
    assert describe_modes(TWO_MODES, both, both) == describe_modes(TWO_MODES, both, down) == ""
    # A mode of one in a thousand is not missed, and a target without modes has none to miss.
    rare = torch.cat([down.repeat(999, 1), up])
    assert describe_modes(TWO_MODES, down, rare) == ""
    assert describe_modes(SPINS, down[:, :3], up[:, :3]) == ""


def test_figures_are_plain_data_and_come_back() -> None:
    found = figures(falls_into_spins_down(10.0), TWO_MODES, num_draws=200)
    again = PairQuality.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    assert set(found.to_dict()) == {field.name for field in dataclasses.fields(PairQuality)}
    nothing = judged(torch.full((9,), -math.inf).double(), None, "")
    assert nothing.to_dict()["log_z"] is None
    assert PairQuality.from_dict(nothing.to_dict()) == nothing


def test_it_costs_a_call_for_each_draw_and_object_and_repeats() -> None:
    environment, target = PROBLEMS["grid"]()
    counted = CountingTarget(target)
    pair, objects = random_pair(environment), exact_draws(environment, target, 70)
    one = pair_quality(pair, counted, objects, num_draws=50, seed=3)
    assert counted.num_rows == 120
    assert pair_quality(pair, target, objects, num_draws=50, seed=3, num_threads=2) == one
    with thread_limit(2):
        assert pair_quality(pair, target, objects, num_draws=50, seed=3, num_threads=None) == one
    assert pair_quality(pair, target, objects, num_draws=50, seed=4) != one
    assert pair_quality(pair, counted, num_draws=50).eubo is None
    assert counted.num_rows == 170


def test_the_pair_is_left_as_it_was() -> None:
    environment, target = PROBLEMS["grid"]()
    pair = random_pair(environment)
    before = [parameter.detach().clone() for parameter in pair.parameters()]
    figures(pair, target, num_draws=50)
    assert all(is_identical(a, b) for a, b in zip(before, pair.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in pair.parameters())


def test_what_cannot_be_judged_is_refused() -> None:
    environment, target = PROBLEMS["grid"]()
    pair = random_pair(environment)
    for num_draws in (-1, 0, 1):
        with pytest.raises(OptionError, match=f"num_draws is {num_draws}; it must be at least 2"):
            pair_quality(pair, target, num_draws=num_draws)
    with pytest.raises(OptionError, match="there are no objects to judge the pair by"):
        pair_quality(pair, target, torch.zeros(0, 2, dtype=torch.int64))
    with pytest.raises(ObjectError, match=r"objects have shape \(3,\)"):
        pair_quality(pair, target, torch.zeros(4, 3, dtype=torch.int64))
    half = from_function(lambda x: torch.where(x.sum(1) % 2 == 0, 0.0, -math.inf), (2,), name="half")
    with pytest.raises(ObjectError, match=r"object 1, \[0, 1\], has density zero under half"):
        pair_quality(pair, half, torch.tensor([[1, 1], [0, 1]]))
    spoiled = CountingTarget(target, trap_at=0, trap=lambda x, value: value * math.nan)
    with pytest.raises(NonFiniteEnergyError):
        pair_quality(pair, spoiled)


def test_a_noisy_target_is_judged_without_objects() -> None:
    environment, target = PROBLEMS["lattice"]()
    noisy = NoisyCopy(target, (0.25, 1.75), (0.5, 0.5))
    pair = solved_pair(environment, target)
    found = pair_quality(pair, noisy, num_draws=NUM_DRAWS)
    assert abs(found.log_z - target.exact().log_z) < DEVIATIONS * 0.75 / math.sqrt(NUM_DRAWS)
    # Of two values of the weight, one or both on either side: E[min(w, w')] / E[w] with w' = 1/4 or 7/4.
    assert found.acceptance == pytest.approx(0.25 * 1.75 + 0.75 * 0.25, abs=0.05)
    with pytest.raises(CapabilityError, match=r"noisy-ising-3 is noisy, .*judge it without objects"):
        pair_quality(pair, noisy, target.exact().support)


@pytest.mark.parametrize("num_draws", [2, 3, 5, 9])
def test_few_draws_are_no_trouble(num_draws: int) -> None:
    environment, target = PROBLEMS["stairs"]()
    found = figures(random_pair(environment), target, num_draws=num_draws)
    assert all(math.isfinite(value) for value in (found.elbo, found.eubo, found.log_z, found.acceptance))
    assert 0.0 < found.ess_fraction <= 1.0 + 1e-12
