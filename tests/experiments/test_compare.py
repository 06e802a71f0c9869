"""Comparisons: equal budgets, equal starts, figures that are plain data, and the same figures for the same seed."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gfnmc
from gfnmc import Budget
from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.experiments import Comparison, compare
from gfnmc.experiments import compare as compare_function
from gfnmc.kernels import (
    Cycle,
    IndependenceMH,
    Info,
    Kernel,
    Mixture,
    ParallelTempering,
    RandomWalk,
    Reach,
    State,
    SuffixResampling,
)
from gfnmc.kernels.branch import PrefixUniform
from gfnmc.kernels.metropolis import Proposal
from gfnmc.policies import GFlowNet, UniformPolicy
from gfnmc.report import render
from gfnmc.sampling import Chains
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, from_function

compare_module = __import__("sys").modules[compare_function.__module__]

SAMPLER_KEYS = {
    "name",
    "kernel",
    "num_chains",
    "num_samples",
    "num_warmup",
    "thinning",
    "modes",
    "modes_found",
    "switches_per_1000_steps",
    "acceptance",
    "statistics",
    "worst",
    "total_variation",
    "log_z",
    "cost",
    "training",
    "curves",
    "status",
    "verdict",
}
QUIET: dict[str, Any] = {"num_warmup": 5, "progress_bar": False}


class Still(Kernel):
    """A kernel that says it reaches everything and never moves."""

    name = "still"

    def __init__(self, environment: DiscreteEnvironment, target: Target) -> None:
        self.environment = environment
        self.target = target

    def start(self, draws: Draws) -> Tensor:
        return RandomWalk(self.environment, self.target).start(draws)

    @property
    def reach(self) -> Reach:
        return Reach.EVERYWHERE

    @property
    def may_stay(self) -> bool:
        return True

    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        zero = torch.zeros(len(state.log_prob), dtype=torch.int64)
        rate = zero.double()
        return state, Info(state.position, zero > 0, rate, rate, zero, zero, zero + 1, zero, (zero + 1).to(torch.int8))


def untrained(environment: DiscreteEnvironment, training_cost: Cost | None = None) -> GFlowNet:
    return GFlowNet(UniformPolicy(environment, Direction.FORWARD), training_cost=training_cost)


def ising() -> tuple[Ising, Lattice]:
    target = Ising((2, 2), coupling=0.3)
    return target, Lattice.for_target(target)


def spent(chains: Chains) -> int:
    return chains.cost.target_calls


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    target, environment = ising()
    walk = RandomWalk(environment, target)
    pair = untrained(environment, Cost(700, 9_000, 3.0))
    kernels = {
        "hybrid": Cycle([SuffixResampling(pair, target), walk]),
        "walk": walk,
        "still": Still(environment, target),
    }
    return compare(kernels, target, num_chains=8, num_samples=40, command="compare", **QUIET)


# Budgets


def test_the_others_spend_what_the_first_spent_training_included(comparison: Comparison) -> None:
    first = comparison.chains["hybrid"]
    log_z = comparison.document["samplers"][0]["log_z"]["target_calls"]
    assert spent(first) == 700 + 8 + 8 * 2 * 45
    for name in ("walk", "still"):
        other = comparison.chains[name]
        assert spent(other) <= spent(first) + log_z
        # Nothing is left for one more step of all chains.
        assert spent(other) + 8 > spent(first) + log_z - 8
        assert other.training_cost == Cost()


@pytest.mark.parametrize("calls", [300, 999])
def test_a_given_budget_binds_every_sampler(calls: int) -> None:
    target, environment = ising()
    pair = untrained(environment, Cost(100, 0, 0.0))
    lazy = SuffixResampling(pair, target, PrefixUniform())
    kernels = {"walk": RandomWalk(environment, target), "restarts": IndependenceMH(pair, target), "lazy": lazy}
    found = compare(kernels, target, budget=Budget(target_calls=calls), num_chains=16, **QUIET)
    for name, chains in found.chains.items():
        assert calls - 32 < spent(chains) or name == "lazy"
        assert spent(chains) <= calls


def test_a_budget_of_seconds_ends_runs() -> None:
    target, environment = ising()
    found = compare({"walk": RandomWalk(environment, target)}, target, budget=Budget(seconds=0.2), **QUIET)
    assert 0.2 <= found.chains["walk"].sampling_cost.seconds < 5.0


def test_long_runs_are_thinned_to_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_MAX_KEPT", 50)
    target, environment = ising()
    kernels = {"walk": RandomWalk(environment, target)}
    found = compare(kernels, target, budget=Budget(target_calls=4_000), num_chains=4, **QUIET).chains["walk"]
    assert found.num_samples <= 50
    assert found.thinning == 20
    assert spent(found) > 3_800


def test_training_spends_the_budget_and_then_there_is_none() -> None:
    target, environment = ising()
    dear = SuffixResampling(untrained(environment, Cost(1_000, 0, 0.0)), target)
    slow = SuffixResampling(untrained(environment, Cost(0, 0, 1_000.0)), target)
    walk = RandomWalk(environment, target)
    with pytest.raises(OptionError, match="1000 target calls"):
        compare({"dear": dear}, target, budget=Budget(target_calls=1_000), **QUIET)
    with pytest.raises(OptionError, match="1000 s"):
        compare({"slow": slow}, target, budget=Budget(seconds=900.0), **QUIET)
    with pytest.raises(OptionError, match="1000 target calls"):
        compare({"walk": walk, "dear": dear}, target, num_chains=4, num_samples=10, **QUIET)


def test_long_training_leaves_a_second_sampler_its_seconds() -> None:
    target, environment = ising()
    pair = untrained(environment, Cost(50, 0, 10_000.0))
    kernels = {"suffix": SuffixResampling(pair, target), "restarts": IndependenceMH(pair, target)}
    found = compare(kernels, target, num_chains=64, num_samples=20, max_seconds=30.0, **QUIET)
    assert found.chains["restarts"].num_samples >= 20


# Starts


def test_all_chains_start_at_the_best_object_of_the_first_mode(comparison: Comparison) -> None:
    assert (comparison.chains["still"].x == -1).all()
    assert comparison.document["setup"]["start"] == "all chains at one object of spins down"


def test_given_starts_and_samplers_own_starts() -> None:
    target, environment = ising()
    kernels = {"still": Still(environment, target)}
    up = torch.ones(4, 2, 2, dtype=torch.int8)
    given = compare(kernels, target, init=up, num_chains=4, num_samples=5, **QUIET)
    assert (given.chains["still"].x == 1).all()
    assert given.document["setup"]["start"] == "the objects given"
    plain = from_function(target.log_prob, (2, 2), values=(-1, 1), dtype=torch.int8)
    own = compare({"still": Still(environment, plain)}, plain, num_chains=64, num_samples=5, **QUIET)
    assert len(own.chains["still"].x.flatten(0, 1).unique(dim=0)) > 4
    assert own.document["setup"]["start"] == "each sampler's own start"


# Figures


def test_the_document_has_every_figure(comparison: Comparison) -> None:
    document = comparison.document
    assert document["schema"] == "gfnmc.comparison/1"
    heads = {"schema", "title", "created_at", "command", "target", "setup"}
    assert set(document) == heads | {"verdict", "bought", "cautions", "worth", "samplers"}
    assert document["title"] == document["target"]["name"] == "ising-2x2"
    assert document["command"] == "compare"
    assert document["target"]["num_states"] == 16
    assert [mode["name"] for mode in document["target"]["modes"]] == ["spins down", "spins up"]
    assert [sampler["name"] for sampler in document["samplers"]] == ["hybrid", "walk", "still"]
    for sampler in document["samplers"]:
        assert set(sampler) == SAMPLER_KEYS
        assert len(sampler["modes"]) == 2
        names = [statistic["name"] for statistic in sampler["statistics"]]
        assert names == ["log_prob", "energy_per_site", "magnetisation", "abs_magnetisation"]
    assert set(document["samplers"][0]["acceptance"]["parts"]) == {"suffix resampling", "random walk"}
    assert document["samplers"][1]["log_z"] is None


def test_the_figures_are_those_of_the_chains(comparison: Comparison) -> None:
    target = comparison.target
    for sampler in comparison.document["samplers"]:
        chains = comparison.chains[sampler["name"]]
        means = {statistic["name"]: statistic["mean"] for statistic in sampler["statistics"]}
        assert means["log_prob"] == pytest.approx(float(chains.samples.log_prob.mean()))
        assert means["magnetisation"] == pytest.approx(float(chains.x.double().mean()))
        up = (chains.x.flatten(2).sum(-1) > 0).double().mean()
        assert sampler["modes"][1]["mass"] == pytest.approx(float(up))
        assert sampler["cost"]["sampling"]["target_calls"] == chains.sampling_cost.target_calls
        exact = target.exact()
        assert exact is not None
        assert sampler["modes"][0]["exact_mass"] == pytest.approx(exact.mode_masses[0])  # type: ignore[index]


def test_chains_that_never_move_have_no_effective_draws(comparison: Comparison) -> None:
    still = comparison.document["samplers"][2]
    assert still["status"] == "stuck"
    assert still["worst"]["ess_bulk"] is None
    assert still["modes"][1]["found_after_calls"] is None
    assert all(statistic["ess_bulk"] is None for statistic in still["statistics"])
    assert "spins up" in still["verdict"]


@pytest.mark.parametrize(("tilt", "worst"), [(60.0, {"log_prob", "second"}), (4.0, {"first"})])
def test_a_statistic_that_should_not_move_is_not_the_worst(tilt: float, worst: set[str]) -> None:
    # The first bit is 1 but for one time in e^tilt; a run that never sees its 0 is right at 60 and wrong at 4.
    target = from_function(
        lambda x: tilt * x[:, 0] + 0.5 * x[:, 1],
        (2,),
        values=(0, 1),
        statistics={"first": lambda x: x[:, 0], "second": lambda x: x[:, 1]},
    )
    second_bit_only = from_second_bit(target)
    figures = compare(
        {"it": second_bit_only}, target, num_chains=8, num_samples=200, init=torch.tensor([1, 0]), progress_bar=False
    ).document["samplers"][0]
    assert figures["worst"]["statistic"] in worst
    assert ("never moved" in figures["verdict"]) == (worst == {"first"})


def from_second_bit(target: Target) -> Kernel:
    """A kernel that flips the second bit only, and claims to reach everything."""
    lattice = Lattice.for_target(target, order="fixed")

    class Half(RandomWalk):
        def _propose(self, draws: Draws, position: Tensor) -> Proposal:
            proposal = super()._propose(draws, position)
            return proposal._replace(position=torch.stack([position[:, 0], 1 - position[:, 1]], 1))

    return Half(lattice, target)


def test_the_first_mode_is_found_after_training_and_the_first_step(comparison: Comparison) -> None:
    assert comparison.document["samplers"][0]["modes"][0]["found_after_calls"] == 700 + 8 + 16
    assert comparison.document["samplers"][1]["modes"][0]["found_after_calls"] == 8 + 8


def _cases() -> dict[str, Callable[[], Comparison]]:
    def on_ising(num_samples: int = 20, **options: Any) -> Comparison:
        target, environment = ising()
        walk = RandomWalk(environment, target)
        kernels = {"restarts": IndependenceMH(untrained(environment), target), "walk": walk}
        return compare(kernels, target, num_chains=32, num_samples=num_samples, **(QUIET | options))

    def on_function() -> Comparison:
        target = from_function(lambda x: -x.sum(1).double(), (40,), values=(0, 1))
        kernels = {"walk": RandomWalk(Lattice.for_target(target), target)}
        return compare(kernels, target, num_chains=4, num_samples=20, **QUIET)

    def with_impossible_objects() -> Comparison:
        target = HyperGridTarget(2, 8, r0=0.0, r1=0.0)
        environment = HyperGrid.for_target(target)
        kernels = {"restarts": IndependenceMH(untrained(environment), target)}
        return compare(kernels, target, num_chains=4, num_samples=20, **QUIET)

    def standing_apart() -> Comparison:
        target, environment = ising()
        corners = torch.tensor([[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]], dtype=torch.int8).repeat(2, 1, 1)
        return compare(
            {"still": Still(environment, target)}, target, init=corners, num_chains=4, num_samples=9, **QUIET
        )

    def on_a_grid() -> Comparison:
        target = HyperGridTarget(2, 8)
        environment = HyperGrid.for_target(target)
        lazy = SuffixResampling(untrained(environment), target, PrefixUniform())
        mixture = Mixture([lazy, RandomWalk(environment, target)], [1.0, 2.0])
        return compare({"mixture": mixture, "lazy": lazy}, target, num_chains=64, num_samples=20, **QUIET)

    return {
        "ordinary": on_ising,
        "one draw": lambda: on_ising(1),
        "three draws": lambda: on_ising(3),
        "no warm-up": lambda: on_ising(num_warmup=0),
        "no modes and nothing exact": on_function,
        "impossible objects": with_impossible_objects,
        "chains that stand apart": standing_apart,
        "lazy steps and a mixture": on_a_grid,
    }


@pytest.mark.parametrize("case", _cases())
def test_every_document_is_json_and_makes_a_page(case: str) -> None:
    document = _cases()[case]().document
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert render(document).startswith("<!doctype html>")


def test_a_target_without_modes_and_truth_has_no_figures_for_them() -> None:
    document = _cases()["no modes and nothing exact"]().document
    assert document["target"]["modes"] == []
    assert document["target"]["log_z"] is None
    walk = document["samplers"][0]
    assert walk["modes"] == []
    assert walk["total_variation"] is None
    assert walk["switches_per_1000_steps"] is None
    assert walk["curves"]["mode_raster"]["mode"] == []
    assert "modes" not in walk["verdict"]


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    def figures(seed: int) -> Any:
        target, environment = ising()
        walk = RandomWalk(environment, target)
        kernels = {"hybrid": Cycle([SuffixResampling(untrained(environment), target), walk]), "walk": walk}
        found = compare(kernels, target, num_chains=32, num_samples=20, seed=seed, **QUIET)
        return _without_time(found.document)

    first = figures(0)
    assert figures(0) == first
    assert figures(1)["samplers"] != first["samplers"]


def _without_time(value: Any) -> Any:
    """Return a document without what the clock decided."""
    if isinstance(value, dict):
        return {
            key: _without_time(entry) for key, entry in value.items() if "second" not in key and key != "created_at"
        }
    return [_without_time(entry) for entry in value] if isinstance(value, list) else value


# Saving and errors


def test_save_writes_a_page_or_the_figures(comparison: Comparison, tmp_path: Path) -> None:
    comparison.save(tmp_path / "r.html")
    assert "ising-2x2" in (tmp_path / "r.html").read_text(encoding="utf-8")
    comparison.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == comparison.document
    with pytest.raises(OptionError, match="ends in"):
        comparison.save(tmp_path / "r.txt")
    with pytest.raises(StorageError, match="no folder"):
        comparison.save(tmp_path / "nowhere" / "r.html")


def test_nothing_to_compare_and_foreign_targets_are_refused() -> None:
    target, environment = ising()
    other, _ = ising()
    with pytest.raises(OptionError, match="nothing to compare"):
        compare({}, target)
    with pytest.raises(OptionError, match="'b' samples another target"):
        compare({"a": RandomWalk(environment, target), "b": RandomWalk(environment, other)}, target)


def test_an_error_keeps_the_draws_of_every_sampler() -> None:
    class Breaking(Still):
        """Stands still for seven steps and then cannot go on."""

        num_steps = 0

        def step(self, draws: Draws, state: State) -> tuple[State, Info]:
            self.num_steps += 1
            if self.num_steps > 7:
                raise ZeroDivisionError
            return super().step(draws, state)

    target, environment = ising()
    kernels = {"walk": RandomWalk(environment, target), "breaking": Breaking(environment, target)}
    with pytest.raises(ZeroDivisionError) as caught:
        compare(kernels, target, num_chains=4, num_samples=20, **QUIET)
    runs = caught.value.runs  # type: ignore[attr-defined]
    assert {name: chains.num_samples for name, chains in runs.items()} == {"walk": 20, "breaking": 2}
    assert any("walk, breaking" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("option", ["num_chains", "num_samples"])
def test_counts_that_make_no_sense_are_refused(option: str) -> None:
    target, environment = ising()
    options: dict[str, Any] = {option: 0}
    with pytest.raises(OptionError, match=option):
        compare({"walk": RandomWalk(environment, target)}, target, progress_bar=False, **options)


def test_a_pair_is_found_wherever_it_is_in_a_composition() -> None:
    target, environment = ising()
    walk = RandomWalk(environment, target)
    suffix = SuffixResampling(untrained(environment), target)
    nested = Mixture([walk, Cycle([walk, Mixture([suffix])])])
    assert compare_module.find_pair(nested) is suffix.pair
    assert compare_module.find_pair(ParallelTempering(suffix, (1.0, 0.5))) is suffix.pair
    assert compare_module.find_pair(walk) is None
    assert compare_module.find_pair(ParallelTempering(walk, (1.0, 0.5))) is None


def test_compare_is_the_public_name() -> None:
    assert gfnmc.compare is compare
    assert gfnmc.Comparison is Comparison
    assert len(set(itertools.chain(gfnmc.__all__))) == len(gfnmc.__all__)
