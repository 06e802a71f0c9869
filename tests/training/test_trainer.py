"""A run: what it costs and records, that it repeats to the bit, and how it ends where it cannot go on."""

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import (
    CapabilityError,
    EnergyError,
    NonFiniteEnergyError,
    ObjectError,
    OptionError,
    StorageError,
    TrainingError,
)
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.policies import GFlowNet, MLPPolicy
from gfnmc.policies import Path as GFlowNetPath
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Target, TemperedFamily, from_function
from gfnmc.training import TrainingConfig, losses, resume_training, train
from gfnmc.training import run as training_run
from tests.exact.cases import Subsets
from tests.support import CountingTarget, is_identical, network_pair, random_numbers
from tests.training.cases import (
    GRID,
    GRID_TARGET,
    Interrupted,
    assert_same_training,
    distance,
    is_same_pair,
    learns,
    log_z_error,
    quick,
    run,
    stop_after_checkpoint,
    tables,
    tiny,
    unchecked,
    weights,
)

LOOKS = 3
"""Looks of a tiny run: after 5, 10 and 12 steps, of 16 draws each."""


def test_a_floor_that_is_impossible_is_learned_as_far_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch)
    environment, target = HyperGrid(2, 5), HyperGridTarget(2, 5, r0=0.0)
    config = learns(reward_schedule="annealed", anneal_until=0.3, log_reward_range=10.0, num_steps=400)
    result = run(environment, target, config, pair=tables(environment))
    assert distance(result.pair, target) < 0.1
    assert abs(log_z_error(result.pair, target)) < 0.1
    # Negative control: what few steps make.
    assert distance(run(environment, target, tiny(), pair=tables(environment)).pair, target) > 0.2


@pytest.mark.parametrize("seeding", ["none", "tempering"])
def test_history_and_cost(seeding: str) -> None:
    target = CountingTarget(GRID_TARGET)
    config = tiny(num_steps=102, check_every=40, reward_schedule="annealed", anneal_until=0.5, seeding=seeding)
    result = run(GRID, target, config)
    assert result.history["step"] == [0, 100, 101]
    assert result.history["reward_power"] == [0.0, 1.0, 1.0]
    assert {len(values) for values in result.history.values()} == {3}
    assert all(math.isfinite(value) for values in result.history.values() for value in values)
    assert [look["step"] for look in result.qualities] == [40, 80, 102]
    assert {key: value for key, value in result.qualities[-1].items() if key != "step"} == result.quality.to_dict()
    if seeding == "none":
        assert result.cost.target_calls == target.num_rows == 102 * 8 + LOOKS * 16
    assert result.cost.policy_calls > 0
    assert 0.0 < result.cost.seconds < 60.0
    assert result.pair.training_cost == result.cost
    assert isinstance(result.pair.forward, MLPPolicy) and result.pair.forward.hidden_size == 8
    assert not any(tensor.requires_grad for tensor in weights(result))


def test_seeds_are_charged_and_likelihood_costs_nothing_more() -> None:
    """The walk of the seeds, the pair's own objects after the likelihood phase, and the looks: all rows, counted."""
    target = CountingTarget(from_function(lambda x: random_numbers(2, 40)[x.sum(1)], (2,), name="walked"))
    seeded = run(GRID, target, tiny(seeding="tempering", likelihood_until=0.5, chain_batch_size=3))
    assert seeded.cost.target_calls == target.num_rows
    before = target.num_rows
    later = run(GRID, target, tiny(seeding="tempering", likelihood_until=1.0, chain_batch_size=3))
    assert later.cost.target_calls == target.num_rows - before
    # In the phase of likelihood nothing else is asked: six steps of eight objects, and at most three of chains.
    assert 6 * 8 <= seeded.cost.target_calls - later.cost.target_calls <= 6 * (8 + 3)


def test_seeding_in_vain_is_charged_and_said(caplog: pytest.LogCaptureFixture) -> None:
    needle = from_function(
        lambda x: torch.where((x == 3).all(1), 0.0, -math.inf), (12,), values=(0, 1, 2, 3), name="needle"
    )
    target = CountingTarget(needle)
    environment = Lattice((12,), (0, 1, 2, 3))
    with caplog.at_level(logging.WARNING, "gfnmc"), pytest.raises(TrainingError, match="no object of positive density"):
        run(environment, target, tiny(seeding="auto", reward_schedule="auto"))
    assert "training goes on without seeds: none of 512 objects is possible" in caplog.text
    with pytest.raises(EnergyError, match="none of 512 objects is possible"):
        run(environment, target, tiny(seeding="tempering"))


def test_without_seeds_auto_anneals_and_with_them_it_does_not() -> None:
    options: dict[str, Any] = {"reward_schedule": "auto", "anneal_until": 0.5, "num_steps": 10}
    assert quick(seeding="none", **options).history["reward_power"] == [0.0, 1.0]
    assert quick(seeding="auto", **options).history["reward_power"] == [1.0, 1.0]


@pytest.mark.parametrize("seeding", ["auto", "none"])
def test_a_number_of_steps_that_is_left_open_is_settled_and_kept(
    seeding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def settled(self: TrainingConfig, mean_length: float) -> TrainingConfig:
        lengths.append(mean_length)
        return dataclasses.replace(self, num_steps=9)

    monkeypatch.setattr(TrainingConfig, "with_num_steps", settled)
    options: dict[str, Any] = {"num_steps": None, "seeding": seeding, "reward_schedule": "auto", "checkpoint_every": 4}
    whole = quick(checkpoint=tmp_path / "whole", **options)
    assert whole.history["step"] == [0, 8]
    # No path on this grid has more than six actions, and not all have none.
    assert len(lengths) == 1 and 0.0 < lengths[0] <= 6.0
    assert_same_training(quick(**(options | {"num_steps": 9})), whole)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        quick(checkpoint=tmp_path / "run", **options)
    lengths.clear()
    assert_same_training(resume_training(tmp_path / "run", GRID, GRID_TARGET, progress_bar=False), whole)
    assert lengths == []


def test_an_environment_without_local_moves_is_trained_with_default_options_but_few_steps() -> None:
    environment = Subsets()
    target = from_function(lambda x: x.sum(1), (3,), values=(0, 1))
    result = train(environment, target, config=TrainingConfig(num_steps=3, hidden_size=8), progress_bar=False)
    assert result.quality.label == "conditional on the modes visited"


def test_training_on_costs_what_both_cost() -> None:
    pair = network_pair(GRID)
    pair.training_cost = Cost(1_000, 5_000, 2.0)
    result = quick(pair=pair)
    assert result.cost.target_calls == 1_000 + 12 * 8 + LOOKS * 16
    assert result.cost.policy_calls > 5_000
    assert result.cost.seconds > 2.0
    assert pair.training_cost == result.cost


def test_objects_to_judge_by_are_paid_once() -> None:
    target = CountingTarget(GRID_TARGET)
    result = quick(target, objects=GRID_TARGET.exact().support)
    assert result.cost.target_calls == target.num_rows == 12 * 8 + LOOKS * 16 + 16
    assert result.quality.label == "judged by the given objects"


def test_the_same_seed_makes_the_same_pair() -> None:
    one = quick(seeding="tempering", chain_batch_size=3)
    assert_same_training(quick(seeding="tempering", chain_batch_size=3), one)
    few = {"num_steps": 3}
    assert_same_training(quick(num_threads=2, **few), quick(**few))
    assert not is_same_pair(quick(seeding="tempering", chain_batch_size=3, seed=6), one)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_energy_that_is_not_finite_is_a_typed_error(bad: float) -> None:
    def spoil(x: Tensor, value: Tensor) -> Tensor:
        return torch.where(torch.arange(len(value)) == 3, bad, value)

    with pytest.raises(NonFiniteEnergyError, match="in row 3 for the object") as caught:
        quick(CountingTarget(GRID_TARGET, trap_at=3, trap=spoil))
    assert caught.value.row == 3
    with pytest.raises(EnergyError, match=r"return torch.float64"):
        quick(CountingTarget(GRID_TARGET, trap_at=3, trap=lambda x, value: value.float()))
    # Seeds do not hide it, even where they are not insisted on.
    with pytest.raises(NonFiniteEnergyError):
        quick(CountingTarget(GRID_TARGET, trap_at=0, trap=spoil), seeding="auto")


def test_a_target_without_any_possible_object_says_so() -> None:
    nothing = from_function(lambda x: torch.full((len(x),), -math.inf), (2,), values=tuple(range(4)))
    for seeding in ("none", "auto"):
        with pytest.raises(TrainingError, match=r"in 1 training steps P_F has made no object of positive density"):
            quick(nothing, seeding=seeding)


def spoil_from(step: int, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Let the loss of the second path, or its gradient, be NaN from a step on."""
    of, calls = losses.Losses.of, []

    def spoiled(self: losses.Losses, batch: losses.Batch, objective: str) -> Tensor:
        calls.append(objective)
        by_path = of(self, batch, objective)
        if len(calls) <= step:
            return by_path
        is_second = torch.arange(len(by_path)) == 1
        if what == "loss":
            return torch.where(is_second, by_path * math.nan, by_path)
        # Nothing is added, but by way of a root whose slope at zero is not finite.
        return by_path + torch.where(is_second, (by_path - by_path.detach()).sqrt(), 0.0)

    monkeypatch.setattr(losses.Losses, "of", spoiled)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_names_the_path_and_the_checkpoint(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick()
    with monkeypatch.context() as patch:
        spoil_from(7, patch, what)
        with pytest.raises(TrainingError) as caught:
            quick(checkpoint=tmp_path / "run", checkpoint_every=3)
    message = str(caught.value)
    assert message.startswith(f"the {what} is not finite in training step 7; the worst path leads to the object [")
    assert f"{tmp_path / 'run'} holds the last good checkpoint; lower learning_rate or max_grad_norm" in message
    found = path_in(message)
    assert GRID_TARGET.log_prob(torch.tensor([found["object"]])).item() == pytest.approx(found["log R"])
    end = [found["actions"].count(0), found["actions"].count(1)]
    assert end == found["object"]
    assert math.isnan(found["loss"]) == (what == "loss")
    # The checkpoint is that of six steps, and the run goes on from it once the cause is gone.
    resumed = resume_training(tmp_path / "run", GRID, GRID_TARGET, progress_bar=False)
    assert is_same_pair(resumed, whole)


def path_in(message: str) -> dict[str, Any]:
    """What a message says of the worst path."""
    import re

    pattern = r"object (\[.*?\]) by the actions (\[.*?\]), with log R (\S+) and loss (\S+);"
    found = re.search(pattern, message)
    assert found is not None, message
    x, actions = ([int(number) for number in re.findall(r"\d+", text)] for text in found.groups()[:2])
    return {"object": x, "actions": actions, "log R": float(found[3]), "loss": float(found[4])}


def test_a_bad_loss_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(GFlowNet):
        def log_forward(self, path: GFlowNetPath) -> Tensor:
            return super().log_forward(path) * math.nan

    pair = network_pair(GRID)
    with pytest.raises(TrainingError, match=r"the loss is not finite in training step 0; .*no checkpoint was asked"):
        quick(pair=Broken(pair.forward, pair.backward))
    with pytest.raises(TrainingError, match="no checkpoint was written yet"):
        quick(pair=Broken(pair.forward, pair.backward), checkpoint=tmp_path / "run")


def test_weights_that_are_no_longer_finite_are_not_written(tmp_path: Path) -> None:
    """A step size without bounds spoils the weights at once; what was written before is kept."""
    quick(checkpoint=tmp_path / "run", num_steps=5)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(TrainingError, match="the new weights are not finite in training step 0; the worst path leads"):
        quick(checkpoint=tmp_path / "run", learning_rate=math.inf, checkpoint_every=1)
    assert (tmp_path / "run").read_bytes() == before


def test_weights_too_large_to_draw_with_are_a_training_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no longer draw in training step 1: row \d .*lower learning_rate"):
        quick(learning_rate=1e30, checkpoint=tmp_path / "run", checkpoint_every=1)


def test_the_worst_path_is_the_one_of_the_largest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each loss is finite but what follows from them is not."""
    seen: list[Tensor] = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    of = losses.Losses.of
    monkeypatch.setattr(losses.Losses, "of", lambda *given: seen.append(of(*given)) or seen[-1])
    with pytest.raises(TrainingError, match="the gradient is not finite in training step 0") as caught:
        quick()
    assert path_in(str(caught.value))["loss"] == pytest.approx(float(seen[0].detach().max()))


@pytest.mark.parametrize(
    ("objects", "error", "message"),
    [
        (torch.zeros(0, 2, dtype=torch.int64), OptionError, "there are no objects to judge the pair by"),
        (torch.zeros(3, 5, dtype=torch.int64), ObjectError, r"objects have shape \(5,\)"),
        (torch.zeros(3, 2), ObjectError, "torch.float32"),
    ],
)
def test_objects_that_cannot_judge_are_refused_before_the_work(
    objects: Tensor, error: type[Exception], message: str
) -> None:
    target = CountingTarget(GRID_TARGET)
    with pytest.raises(error, match=message):
        quick(target, objects=objects, seeding="tempering")
    assert target.num_calls == 0


def test_impossible_objects_cannot_judge() -> None:
    half = from_function(
        lambda x: torch.where(x.sum(1) % 2 == 0, 0.0, -math.inf), (2,), values=(0, 1, 2, 3), name="half"
    )
    with pytest.raises(ObjectError, match=r"object 1, \[0, 1\], has density zero under half"):
        quick(half, objects=torch.tensor([[1, 1], [0, 1]]))


def test_objects_do_not_judge_a_family() -> None:
    family = TemperedFamily(GRID_TARGET, 0.5)
    with pytest.raises(OptionError, match="is a family of targets, and objects are spread as one of them"):
        run(GRID, family, tiny(), objects=GRID_TARGET.exact().support)


def test_a_checkpoint_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    for seeding in ("none", "tempering"):
        target = CountingTarget(GRID_TARGET)
        with pytest.raises(StorageError, match="no folder"):
            quick(target, checkpoint=tmp_path / "missing" / "run", seeding=seeding)
        assert target.num_calls == 0


def test_a_number_of_threads_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="num_threads is 0"):
        quick(num_threads=0)


class Biased(Target):
    name, event_shape, dtype, is_noisy = "biased", (2,), torch.int64, True

    def log_prob(self, x: Tensor) -> Tensor:
        raise AssertionError


def test_a_noisy_target_that_claims_nothing_is_refused() -> None:
    with pytest.raises(CapabilityError, match="biased is noisy and does not say that it is unbiased"):
        quick(Biased())


def test_progress_shows_the_figures(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gfnmc"):
        train(GRID, GRID_TARGET, config=tiny(), objects=GRID_TARGET.exact().support)
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("training: 12"))
    for figure in ("loss", "log_z", "acceptance", "ess", "elbo", "eubo"):
        assert f"  {figure} " in line
    assert training_run.logger.name == "gfnmc"


def test_log_z_has_a_step_size_of_its_own() -> None:
    """The first step of Adam is as long as the step size says, whatever the gradient."""

    def after_a_step(**options: Any) -> float:
        mine = {"num_steps": 1, "objective": "subtrajectory_balance", "lr_warmup_steps": 0}
        return float(quick(**(mine | options)).pair.log_z)

    short = after_a_step(log_z_learning_rate=1e-3)
    assert abs(after_a_step(log_z_learning_rate=0.5) - short) == pytest.approx(0.499, abs=1e-6)
    # In the rise of the step sizes it is shorter.
    assert abs(after_a_step(log_z_learning_rate=0.5, lr_warmup_steps=50) - short) == pytest.approx(0.009, abs=1e-6)


def test_the_first_log_z_fits_the_first_batch() -> None:
    """It is set where the first loss would be least, so that it need not be climbed to."""
    target = from_function(lambda x: 70.0 + 0.0 * x.sum(1), (2,), values=(0, 1, 2, 3))
    result = run(GRID, target, tiny(num_steps=1), pair=tables(GRID))
    assert float(result.pair.log_z) == pytest.approx(70.0 + math.log(16), abs=1.0)
    assert result.history["loss"][0] < 2.0
    again = quick(num_steps=1)
    assert is_identical(again.pair.log_z_weight, quick(num_steps=1).pair.log_z_weight)
