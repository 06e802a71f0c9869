"""Seeds: which moves can be tempered, the right shares of every mode, what is held out, what it costs, and going on."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, EnergyError
from gfnmc.environments import DiscreteEnvironment, GraphBuilding, Lattice, enumerate_states
from gfnmc.kernels import Gibbs, Kernel, RandomWalk, State
from gfnmc.targets import Ising, NoisyCopy, Target, TemperedFamily, conditional_from_function, from_function
from gfnmc.training import seeds as seeds_module
from gfnmc.training import train
from gfnmc.training.config import TrainingConfig
from gfnmc.training.seeds import Seeds, local_kernel, seeds_for
from tests.exact.cases import Subsets, table_target
from tests.support import CountingTarget, Stairs, assert_close, chi_square, is_identical, random_numbers, stairs_target
from tests.training.cases import GRID, GRID_TARGET, tiny, unchecked

SPINS = Ising((3, 3), 0.7)
"""Two modes: a chain of single flips at this coupling hardly ever leaves its sign."""


def config(**options: object) -> TrainingConfig:
    return tiny(**({"seeding": "tempering", "seed_warmup": 10, "seed_ess": 0.5} | options))


def begun(kernel: Kernel, *, seed: int = 0, lowest: float = 1.0, sweeps: int = 0, **options: object) -> Seeds:
    seeds = Seeds(kernel, config(**options), seed, lowest=lowest)
    seeds.begin()
    for _ in range(sweeps):
        seeds.advance()
    return seeds


def spins() -> Gibbs:
    return Gibbs(Lattice.for_target(SPINS), SPINS, "systematic")


def walk(counted: bool = False) -> RandomWalk:
    environment = Stairs(5)
    target = stairs_target(environment)
    return RandomWalk(environment, CountingTarget(target) if counted else target)


def noisy(target: Target) -> NoisyCopy:
    return NoisyCopy(target, (0.5, 1.5), (0.5, 0.5))


def graph_target() -> Target:
    return from_function(lambda x: 0.3 * x.flatten(1).sum(1).double(), (3, 3), dtype=torch.int8)


KERNELS: dict[str, tuple[Callable[[], tuple[DiscreteEnvironment, Target]], type[Kernel] | None]] = {
    "lattice": (lambda: (Lattice.for_target(SPINS), SPINS), Gibbs),
    "lattice, fixed order": (lambda: (Lattice.for_target(SPINS, order="fixed"), SPINS), Gibbs),
    "hypergrid": (lambda: (GRID, GRID_TARGET), Gibbs),
    "hypergrid, values not declared": (
        lambda: (GRID, from_function(lambda x: x.sum(1).double(), (2,))),
        RandomWalk,
    ),
    "single changes": (lambda: (Stairs(5), stairs_target(Stairs(5))), RandomWalk),
    "graphs": (lambda: (GraphBuilding(3, dtype=torch.int8), graph_target()), RandomWalk),
    "no single changes": (lambda: (Subsets(), table_target(enumerate_states(Subsets()))), None),
    "noisy, on a lattice": (lambda: (Lattice.for_target(SPINS), noisy(SPINS)), None),
    "noisy, with single changes": (lambda: (Stairs(5), noisy(stairs_target(Stairs(5)))), None),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_local_moves_of_a_target(name: str) -> None:
    make, kind = KERNELS[name]
    environment, target = make()
    kernel = local_kernel(environment, target)
    if kind is None:
        assert kernel is None
        assert seeds_for(environment, target, config(seeding="auto"), 0) is None
        with pytest.raises(CapabilityError, match=r"cannot be tempered on \w+: seeds need .* choose seeding='none'"):
            seeds_for(environment, target, config(), 0)
        return
    assert type(kernel) is kind
    assert (kernel.environment, kernel.target) == (environment, target)
    assert isinstance(seeds_for(environment, target, config(seeding="auto"), 0), Seeds)
    if kind is Gibbs:
        assert kernel.scan == "systematic"


def test_changes_that_do_not_connect_are_no_local_moves() -> None:
    class Islands(Stairs):
        changes_connect = False

    class Claims(Subsets):
        changes_connect = True

    assert local_kernel(Islands(5), stairs_target(Islands(5))) is None
    # Said to connect, but there are none.
    assert local_kernel(Claims(), table_target(enumerate_states(Claims()))) is None


def test_no_seeds_where_none_are_wanted() -> None:
    assert seeds_for(GRID, GRID_TARGET, config(seeding="none"), 0) is None
    assert seeds_for(GRID, GRID_TARGET, config(seed_batch_size=0), 0) is None


def test_families_that_can_have_seeds() -> None:
    assert isinstance(seeds_for(GRID, TemperedFamily(GRID_TARGET, 0.2), config(), 0), Seeds)
    of_the_users_own = conditional_from_function(
        lambda x, c: c[:, 0] * x.sum(1), (2,), condition_names=("a",), low=(0.0,), high=(1.0,), values=(0, 1, 2, 3)
    )
    for family in (TemperedFamily(GRID_TARGET, 0.2, 0.8), TemperedFamily(GRID_TARGET, 0.2, 2.0), of_the_users_own):
        assert seeds_for(GRID, family, config(seeding="auto"), 0) is None
        with pytest.raises(CapabilityError, match="cannot be tempered"):
            seeds_for(GRID, family, config(), 0)


def energy_levels(target: Target) -> tuple[Tensor, Tensor]:
    """The possible pairs of energy and sign of the magnetisation, and the exact probability of each."""
    support, log_pmf = target.exact().support, target.exact().log_pmf
    levels, where = labels(target, support).unique(dim=0, return_inverse=True)
    return levels, torch.zeros(len(levels), dtype=torch.float64).index_add_(0, where, log_pmf.exp())


def labels(target: Target, x: Tensor) -> Tensor:
    return torch.stack([target.log_prob(x).round(decimals=6), x.flatten(1).sum(1).sign().double()], 1)


def level_counts(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """Counts by level and their exact law; the rare levels count as one."""
    levels, law = energy_levels(target)
    counts = (labels(target, x)[:, None] == levels).all(-1).sum(0).double()
    rare = len(x) * law < 5.0
    grouped = [torch.cat([values[~rare], values[rare].sum()[None]]) for values in (counts, law)]
    return grouped[0], grouped[1]


def test_seeds_cover_both_modes_in_the_right_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep of many chains: independent but for the population that they started from, long ago."""
    unchecked(monkeypatch)
    seeds = begun(spins(), seed_chains=2_000, seed_warmup=30, seed=1)
    taught, log_prob, _ = seeds.newest()
    assert len(taught) == 1_500
    held, held_log_prob = seeds.held(10_000)
    assert len(held) == 500
    for x, value in ((taught, log_prob), (held, held_log_prob)):
        assert_close(SPINS.log_prob(x), value, 1e-10)
        counts, law = level_counts(SPINS, x)
        assert len(law) > 4
        statistic, limit = chi_square(counts, law)
        assert statistic < limit


def test_without_tempering_a_mode_stays_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: as many sweeps at inverse temperature 1 alone, from one of the modes."""
    unchecked(monkeypatch)
    kernel = spins()
    up = torch.ones(1_500, 3, 3, dtype=torch.int8)
    state: State = kernel.init(up)
    for step in range(31):
        state, _ = kernel.step(PhiloxDraws(1, "plain", 1_500).at(step), state)
    statistic, limit = chi_square(*level_counts(SPINS, state.position))
    assert statistic > limit


def test_seeds_of_a_walk_have_the_law_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    kernel = walk()
    x, _, _ = begun(kernel, seed_chains=2_000, seed_warmup=20).newest()
    law = kernel.target.exact().log_pmf.exp()
    counts = torch.bincount(x[:, 0], minlength=6)
    statistic, limit = chi_square(counts, law)
    assert statistic < limit
    statistic, limit = chi_square(counts, torch.full((6,), 1 / 6))
    assert statistic > limit


def test_what_is_held_out_is_never_taught() -> None:
    seeds = begun(walk(), seed_chains=12)
    taught, held = [], []
    for _ in range(6):
        cold = seeds.tensors()["position"]
        held.append(cold[:3])
        taught.append(cold[3:])
        assert torch.equal(seeds.newest()[0].sort(0).values, cold[3:].sort(0).values)
        assert torch.equal(seeds.held(1_000)[0], torch.cat(held))
        seeds.advance()
    pool = seeds.tensors()
    assert torch.equal(pool["taught.objects"][:54], torch.cat(taught))
    # What is drawn to learn from is drawn from the pool of the taught, and from all of it.
    marked = pool["taught.log_prob"]
    marked[:63] = torch.arange(63).double()
    drawn = seeds.sample(PhiloxDraws(0, "x", 5_000))
    assert set(drawn[1].tolist()) == set(range(63))
    assert torch.equal(drawn[0], pool["taught.objects"][drawn[1].long()])


def test_held_objects_are_spread_evenly_over_the_run() -> None:
    seeds = begun(walk(), seed_chains=4, sweeps=20)
    assert len(seeds.held(1_000)[0]) == 21
    pool = seeds.tensors()["held.log_prob"]
    pool[:21] = torch.arange(21).double()
    assert seeds.held(5)[1].tolist() == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert seeds.held(1)[1].tolist() == [0.0]


def test_only_the_newest_seeds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds_module, "_CAPACITY", 20)
    seeds = begun(walk(), seed_chains=12)
    newest = []
    for _ in range(7):
        newest.append(seeds.newest()[0])
        seeds.advance()
    newest.append(seeds.newest()[0])
    pool = seeds.tensors()["taught.objects"]
    assert len(pool) == 20
    assert sorted(pool[:, 0].tolist()) == sorted(torch.cat([newest[5][:2], newest[6], newest[7]])[:, 0].tolist())


def test_every_call_of_a_walk_is_counted() -> None:
    kernel = walk(counted=True)
    seeds = begun(kernel, seed_warmup=3)
    first = seeds.take_cost()
    assert first.target_calls == kernel.target.num_rows > 512
    assert seeds.take_cost().target_calls == 0
    for _ in range(4):
        seeds.advance()
    assert seeds.take_cost().target_calls == kernel.target.num_rows - first.target_calls > 0


def test_a_visit_by_gibbs_counts_each_other_value_once() -> None:
    """Of two values a visit counts one call; the default difference evaluates both, and at temperature 0 it is one."""
    target = CountingTarget(SPINS)
    seeds = begun(Gibbs(Lattice.for_target(SPINS), target, "systematic"), seed_warmup=4, sweeps=2)
    counted = seeds.take_cost().target_calls
    num_rungs = len(seeds.counters()["ladder"])
    # The population and its moves before the first rung; the starts of all replicas; the hottest replica's sweeps.
    at_zero = 512 * (1 + 3) + 8 * num_rungs + 8 * (4 + 2)
    assert target.num_rows == at_zero + 2 * (counted - at_zero)
    assert (counted - at_zero) % 9 == 0


@pytest.mark.parametrize("kind", [Gibbs, RandomWalk])
def test_a_search_in_vain_is_counted_too(kind: type[Kernel]) -> None:
    needle = from_function(
        lambda x: torch.where((x == 3).all(1), 0.0, -math.inf), (12,), values=(0, 1, 2, 3), name="needle"
    )
    target = CountingTarget(needle)
    seeds = Seeds(kind(Lattice((12,), (0, 1, 2, 3)), target), config(), 0)
    if kind is Gibbs:
        seeds = Seeds(Gibbs(Lattice((12,), (0, 1, 2, 3)), target, "systematic"), config(), 0)
    with pytest.raises(EnergyError, match="none of 512 objects is possible"):
        seeds.begin()
    assert seeds.take_cost().target_calls == target.num_rows > 512


def test_a_family_keeps_the_condition_of_each_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    seeds = begun(spins(), lowest=0.2, seed_chains=1_200, seed_warmup=20)
    ladder = seeds.counters()["ladder"]
    kept = [rung for rung in ladder if rung >= 0.2]
    assert 1 < len(kept) < len(ladder)
    x, log_prob, condition = seeds.newest()
    assert_close(SPINS.log_prob(x), log_prob, 1e-10)
    for rung in kept:
        here = condition[:, 0] == rung
        assert here.sum() == 900
        target = TemperedFamily(SPINS, 0.2).given(torch.tensor([rung], dtype=torch.float64))
        statistic, limit = chi_square(*level_counts(target, x[here]))
        assert statistic < limit
    # Negative control: the hottest rung does not have the law of the coldest.
    statistic, limit = chi_square(*level_counts(SPINS, x[condition[:, 0] == kept[-1]]))
    assert statistic > limit
    # Drawn seeds keep theirs as well, and only the coldest judge.
    drawn, drawn_log_prob, drawn_condition = seeds.sample(PhiloxDraws(0, "x", 2_000))
    assert set(drawn_condition[:, 0].tolist()) == set(kept)
    assert_close(SPINS.log_prob(drawn), drawn_log_prob, 1e-10)
    assert len(seeds.held(10_000)[0]) == 300


@pytest.mark.parametrize("lowest", [1.0, 0.0])
def test_restored_chains_go_on_to_the_bit(lowest: float) -> None:
    first = begun(spins(), lowest=lowest, sweeps=5)
    counters = json.loads(json.dumps(first.counters()))
    tensors = {name: value.clone() for name, value in first.tensors().items()}
    second = Seeds(spins(), config(), 0, lowest=lowest)
    second.restore(counters, tensors)
    for _ in range(3):
        first.advance()
        second.advance()
        assert first.counters() == second.counters()
        for name, value in first.tensors().items():
            assert is_identical(value, second.tensors()[name]), name
        for one, other in zip(first.newest(), second.newest(), strict=True):
            assert is_identical(one, other)
    draws = PhiloxDraws(9, "x", 50)
    assert all(is_identical(a, b) for a, b in zip(first.sample(draws), second.sample(draws.at(0)), strict=True))
    assert all(is_identical(a, b) for a, b in zip(first.held(10), second.held(10), strict=True))
    # Negative control: without what was restored, another seed's chains go elsewhere.
    other = begun(spins(), lowest=lowest, sweeps=8, seed=1)
    assert not torch.equal(other.tensors()["position"], first.tensors()["position"])


def test_impossible_objects_at_temperature_zero_are_worth_one() -> None:
    """A family down to inverse temperature 0 keeps replicas that may be anywhere; their log R is then 0."""
    half = from_function(
        lambda x: torch.where(x.sum(1) % 2 == 0, random_numbers(1, 10)[x.sum(1)], -math.inf),
        (2,),
        values=(0, 1, 2, 3),
    )
    family = TemperedFamily(half, 0.0)
    seeds = begun(local_kernel(GRID, half), lowest=0.0, sweeps=5)
    _, log_prob, condition = seeds.newest()
    assert (log_prob[condition[:, 0] == 0.0] == -math.inf).any()
    result = train(GRID, family, config=config(num_steps=4, seed_batch_size=32), progress_bar=False)
    assert all(math.isfinite(loss) for loss in result.history["loss"])
