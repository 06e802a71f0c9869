"""Looks during training: what they see of a collapse, when they end a run, and how they raise an adaptive reward."""

import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.diagnostics import PairQuality
from gfnmc.diagnostics.quality import weights_of
from gfnmc.environments import Direction, Lattice
from gfnmc.kernels import Gibbs
from gfnmc.policies import GFlowNet, TabularPolicy
from gfnmc.targets import Ising, from_function
from gfnmc.training import resume_training
from gfnmc.training.looks import Judge, Look
from gfnmc.training.seeds import Seeds
from tests.support import random_pair, solved_pair
from tests.training.cases import (
    GRID,
    GRID_TARGET,
    assert_same_training,
    distance,
    learns,
    quick,
    run,
    tables,
    tiny,
    unchecked,
)

SPINS = Ising((4, 4), 0.8)
LATTICE = Lattice.for_target(SPINS)


def exact_draws(count: int = 256) -> Tensor:
    return SPINS.exact().sample(PhiloxDraws(0, "exact", count))


def good_pair() -> GFlowNet:
    """The exact pair of the small grid, free to learn."""
    exact = solved_pair(GRID, GRID_TARGET)
    logits = exact.forward.logits.detach().clamp(min=-50.0)
    pair = GFlowNet(TabularPolicy(exact.forward.graph, Direction.FORWARD, logits))
    with torch.no_grad():
        pair.log_z_weight.copy_(exact.log_z_weight)
    return pair


COLLAPSES: dict[str, Any] = {
    "num_steps": 120,
    "batch_size": 32,
    "epsilon": 0.0,
    "replay_batch_size": 0,
    "learning_rate": 1e-2,
    "log_z_learning_rate": 0.1,
    "max_grad_norm": 1_000.0,
    "hidden_size": 32,
    "check_every": 120,
    "check_size": 256,
}


def test_a_collapse_is_said_in_plain_words_if_the_objects_come_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On its own objects alone, at low temperature, P_F falls into one magnetisation; its own figures look perfect."""
    unchecked(monkeypatch)
    blind = run(LATTICE, SPINS, tiny(**COLLAPSES)).quality
    assert blind.warning is None and blind.lost is None and blind.eubo is None
    assert blind.label == "conditional on the modes visited"
    assert blind.ess_fraction > 0.95 and blind.acceptance > 0.95
    # Half of the mass is missing, and nothing above says so.
    assert blind.log_z < SPINS.exact().log_z - 0.5
    with caplog.at_level(logging.WARNING, "gfnmc"):
        seen = run(LATTICE, SPINS, tiny(**COLLAPSES), objects=exact_draws()).quality
    assert seen.warning is not None
    assert re.search(r"\('spins (up|down)' is [45]\d\.\d% of them and 0\.\d% of its own\)", seen.warning)
    assert "the pair has collapsed: P_F makes" in seen.warning and "of the given objects less than" in seen.warning
    assert seen.warning in caplog.text
    assert 0.35 < seen.lost < 0.65 and seen.acceptance < 0.65
    assert seen.eubo is None or seen.eubo > SPINS.exact().log_z + 5.0
    assert seen.label == "judged by the given objects"
    # What the pair says of itself is the same in both.
    assert (seen.log_z, seen.elbo, seen.ess_fraction) == (blind.log_z, blind.elbo, blind.ess_fraction)


def test_held_out_seeds_see_the_collapse_too_and_seeds_prevent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    seeded = {"seeding": "tempering", "seed_batch_size": 32, "seed_chains": 32, "seed_warmup": 10}
    good = run(LATTICE, SPINS, tiny(**COLLAPSES, **seeded, likelihood_until=0.4)).quality
    assert good.warning is None and good.lost < 0.02
    assert good.label == "judged by the held-out tempered objects"
    assert good.elbo < good.eubo
    assert abs(good.log_z - SPINS.exact().log_z) < 0.2
    # A pair that learned without seeds, judged by them.
    collapsed = run(LATTICE, SPINS, tiny(**COLLAPSES)).pair
    found = Judge(collapsed, SPINS, tiny(check_size=256), 0, None).look(0, begun_seeds()).quality
    assert found.warning is not None and "of the held-out tempered objects" in found.warning


def begun_seeds() -> Seeds:
    seeds = Seeds(Gibbs(LATTICE, SPINS, "systematic"), tiny(seed_chains=64, seed_warmup=10), 0)
    seeds.begin()
    for _ in range(10):
        seeds.advance()
    return seeds


def test_seeds_judge_by_those_that_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that has nothing else to give."""
    unchecked(monkeypatch)

    class HeldOut:
        def held(self, most: int) -> tuple[Tensor, Tensor]:
            assert most == 16
            corner = torch.full((5, 2), 3)
            return corner, GRID_TARGET.log_prob(corner)

    pair = random_pair(GRID)
    found = Judge(pair, GRID_TARGET, tiny(), 0, None).look(3, HeldOut())
    corner = torch.full((5, 2), 3)
    rows = PhiloxDraws(0, "look/given", 5).at(3)
    assert found.quality.eubo == pytest.approx(float(weights_of(pair, GRID_TARGET, corner, rows).detach().mean()))
    assert found.target_calls == 16


def test_a_good_pair_is_not_warned_of() -> None:
    """The negative control: the exact pair, by the same objects."""
    result = quick(pair=good_pair(), learning_rate=1e-9, log_z_learning_rate=1e-9, objects=GRID_TARGET.exact().support)
    assert result.quality.warning is None and result.quality.lost == 0.0
    own = quick(pair=good_pair(), learning_rate=1e-9, log_z_learning_rate=1e-9).quality
    assert own.acceptance == pytest.approx(1.0, abs=1e-3) and own.ess_fraction == pytest.approx(1.0, abs=1e-3)


def scripted(acceptances: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the looks of a run predict these acceptances, one after the other."""
    script = iter(acceptances)
    look = Judge.look

    def scripted_look(self: Judge, step: int, seeds: Any) -> Look:
        seen = look(self, step, seeds)
        figures = seen.quality.to_dict() | {"acceptance": next(script)}
        return seen._replace(quality=PairQuality.from_dict(figures))

    monkeypatch.setattr(Judge, "look", scripted_look)


@pytest.mark.parametrize(
    ("acceptances", "looks_taken"),
    [
        ([0.91, 0.9, 0.0], 2),
        ([0.2, 0.95, 0.99, 0.0], 3),
        ([0.95, 0.5, 0.95, 0.95, 0.0], 4),
        ([0.95, 0.899, 0.95, 0.899, 0.95], 5),
        ([math.nan, 1.0, math.nan, 1.0, 0.0], 5),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 5),
    ],
)
def test_training_ends_at_two_good_looks_in_a_row(
    acceptances: list[float], looks_taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(acceptances, monkeypatch)
    result = quick(num_steps=10, check_every=2, stop_at_acceptance=0.9)
    assert [look["step"] for look in result.qualities] == [2 * place for place in range(1, looks_taken + 1)]
    assert result.cost.target_calls == 2 * looks_taken * 8 + looks_taken * 16


def test_a_good_pair_stops_early_and_any_other_does_not() -> None:
    options = {"num_steps": 30, "check_every": 4, "check_size": 256, "learning_rate": 1e-6, "stop_at_acceptance": 0.97}
    assert [look["step"] for look in quick(pair=good_pair(), **options).qualities] == [4, 8]
    assert len(quick(**options).qualities) == 8
    assert len(quick(pair=good_pair(), **(options | {"stop_at_acceptance": 1.5})).qualities) == 8


def test_no_end_before_the_full_reward_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted([1.0] * 8, monkeypatch)
    result = quick(num_steps=16, check_every=2, stop_at_acceptance=0.9, reward_schedule="annealed", anneal_until=0.5)
    # After 10 steps the last one was on the full reward; a second look confirms it.
    assert result.history["reward_power"][0] == 0.0
    assert [look["step"] for look in result.qualities][-1] == 12


def test_no_end_before_likelihood_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted([1.0] * 8, monkeypatch)
    result = quick(num_steps=16, check_every=2, stop_at_acceptance=0.9, seeding="tempering", likelihood_until=0.5)
    assert [look["step"] for look in result.qualities][-1] == 8


def test_an_early_end_is_kept_by_the_checkpoint(tmp_path: Path) -> None:
    options = {"num_steps": 30, "check_every": 4, "check_size": 256, "learning_rate": 1e-6, "stop_at_acceptance": 0.97}
    whole = quick(pair=good_pair(), checkpoint=tmp_path / "run", **options)
    again = resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=good_pair(), progress_bar=False)
    assert_same_training(again, whole)


def test_an_adaptive_reward_waits_for_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts flat, is never lowered, and ends at the full reward with the law found."""
    unchecked(monkeypatch)
    sharp = from_function(lambda x: 4.0 * GRID_TARGET.log_prob(x), (2,), values=(0, 1, 2, 3), name="sharp")
    options = {"reward_schedule": "adaptive", "adaptive_ess": 0.6, "check_every": 10, "check_size": 256}
    result = run(GRID, sharp, learns(**options, num_steps=401, lr_decay_from=0.5), pair=tables(GRID))
    powers = result.history["reward_power"]
    assert powers[0] == 0.0 and powers[-1] == 1.0
    assert powers == sorted(powers)
    assert distance(result.pair, sharp) < 2e-2
    # Negative control: asked for more even weights than it can have so soon, it is still on its way.
    slow = run(GRID, sharp, learns(**(options | {"adaptive_ess": 0.999}), num_steps=101), pair=tables(GRID))
    assert 0.0 < slow.history["reward_power"][-1] < 1.0


def test_log_z_of_objectives_that_do_not_learn_it_is_the_last_estimate() -> None:
    result = quick(objective="log_partition_variance")
    assert float(result.pair.log_z) == result.quality.log_z == result.qualities[-1]["log_z"]
    learned = quick(objective="trajectory_balance")
    assert float(learned.pair.log_z) != learned.quality.log_z


def test_a_run_that_ended_knows_its_figures_even_where_one_is_infinite(tmp_path: Path) -> None:
    """No object of the last look possible: log Z is -inf, in the checkpoint as in memory."""
    rare = from_function(lambda x: torch.where((x == 0).all(1), 0.0, -math.inf), (2,), values=(0, 1, 2, 3), name="rare")
    pair = tables(GRID)
    with torch.no_grad():
        pair.forward.logits[:, GRID.exit_action] = -3.0
    options = {
        "num_steps": 1,
        "batch_size": 200,
        "check_size": 8,
        "learning_rate": 1e-9,
        "checkpoint": tmp_path / "run",
    }
    whole = quick(rare, pair=pair, **options)
    assert whole.quality.log_z == -math.inf and whole.quality.acceptance == 0.0
    again = resume_training(tmp_path / "run", GRID, rare, pair=tables(GRID), progress_bar=False)
    assert again.quality == whole.quality
