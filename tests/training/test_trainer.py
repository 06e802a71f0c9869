"""Training finds the law, costs what it says, repeats to the bit, and goes on from a checkpoint as if never stopped."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import EnergyError, NonFiniteEnergyError, OptionError, StorageError, TrainingError
from gfnmc.environments import Direction, DiscreteEnvironment, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import GFlowNet, MLPPolicy, TabularPolicy
from gfnmc.policies import Path as GFlowNetPath
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, Target, from_function
from gfnmc.training import TrainingConfig, TrainingResult, resume_training, save_pair, train
from tests.support import CountingTarget, Stairs, is_identical, network_pair, random_pair, stairs_target, terminal_law

GRID, GRID_TARGET = HyperGrid(2, 8), HyperGridTarget(2, 8)
SMALL = TrainingConfig(
    num_steps=12,
    batch_size=8,
    replay_batch_size=4,
    buffer_size=30,
    hidden_size=8,
    checkpoint_every=5,
    lr_warmup_steps=3,
)
LEARNS = TrainingConfig(
    num_steps=200,
    batch_size=64,
    replay_batch_size=32,
    learning_rate=0.05,
    log_z_learning_rate=0.1,
    lr_warmup_steps=10,
    anneal_until=0.3,
    log_reward_range=10.0,
)


def ising_on_three_sites() -> tuple[DiscreteEnvironment, Target]:
    target = Ising((3,), 0.6, field=0.3)
    return Lattice.for_target(target), target


PROBLEMS: dict[str, Callable[[], tuple[DiscreteEnvironment, Target]]] = {
    "three sites": ising_on_three_sites,
    "grid": lambda: (HyperGrid(2, 4), HyperGridTarget(2, 4)),
    "grid with an impossible floor": lambda: (HyperGrid(2, 5), HyperGridTarget(2, 5, r0=0.0)),
    "stairs": lambda: (Stairs(5), stairs_target(Stairs(5))),
}


def tabular_pair(environment: DiscreteEnvironment) -> GFlowNet:
    return GFlowNet(TabularPolicy(enumerate_states(environment), Direction.FORWARD))


def quick(target: Target = GRID_TARGET, **options: object) -> TrainingResult:
    return train(GRID, target, **({"config": SMALL, "seed": 5, "progress_bar": False} | options))


def weights(result: TrainingResult) -> list[Tensor]:
    return [*result.pair.parameters(), result.pair.log_z]


def assert_same_training(a: TrainingResult, b: TrainingResult) -> None:
    assert all(is_identical(x, y) for x, y in zip(weights(a), weights(b), strict=True))
    assert a.history == b.history
    assert (a.cost.target_calls, a.cost.policy_calls) == (b.cost.target_calls, b.cost.policy_calls)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("three sites", 1e-2), ("grid", 1e-2), ("stairs", 1e-2), ("grid with an impossible floor", 0.1)],
)
def test_training_finds_the_law_and_its_constant(name: str, tolerance: float) -> None:
    environment, target = PROBLEMS[name]()
    pair = tabular_pair(environment)
    log_reward = target.log_prob(enumerate_states(environment).objects)
    exact = log_reward.softmax(0)

    def distance(trained: GFlowNet) -> float:
        return 0.5 * float((terminal_law(trained.forward) - exact).abs().sum())

    before = distance(pair)
    result = train(environment, target, pair=pair, config=LEARNS, progress_bar=False)
    assert distance(result.pair) < tolerance
    assert float(result.pair.log_z) == pytest.approx(float(log_reward.logsumexp(0)), abs=tolerance)
    # Negative control: what it started from is far away, and so is what few steps make.
    assert before > 2 * tolerance
    short = train(environment, target, pair=tabular_pair(environment), config=SMALL, progress_bar=False)
    assert distance(short.pair) > 2 * tolerance


def test_a_backward_policy_learns_too() -> None:
    environment, target = PROBLEMS["grid"]()
    pair = random_pair(environment)
    before = pair.backward.logits.detach().clone()
    result = train(environment, target, pair=pair, config=LEARNS, progress_bar=False)
    assert not torch.equal(pair.backward.logits, before)
    exact = target.log_prob(enumerate_states(environment).objects)
    assert 0.5 * float((terminal_law(result.pair.forward) - exact.softmax(0)).abs().sum()) < 1e-2


def test_the_default_network_learns_a_little() -> None:
    """The loss after some steps on the full reward is below the first one on it."""
    config = TrainingConfig(
        num_steps=101, batch_size=64, replay_batch_size=16, hidden_size=32, learning_rate=0.01, anneal_until=0.0
    )
    result = train(GRID, GRID_TARGET, config=config, progress_bar=False)
    assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
    assert isinstance(result.pair.forward, MLPPolicy)
    assert result.pair.forward.hidden_size == 32
    assert not any(tensor.requires_grad for tensor in weights(result))


def test_history_and_cost() -> None:
    target = CountingTarget(GRID_TARGET)
    config = TrainingConfig(num_steps=102, batch_size=6, replay_batch_size=3, hidden_size=4, anneal_until=0.5)
    result = train(GRID, target, config=config, progress_bar=False)
    assert result.history["step"] == [0, 100, 101]
    assert result.history["reward_power"] == [0.0, 1.0, 1.0]
    assert {len(values) for values in result.history.values()} == {3}
    assert all(math.isfinite(value) for values in result.history.values() for value in values)
    assert result.cost.target_calls == target.num_rows == 102 * 6
    assert result.cost.policy_calls > 0
    assert 0.0 < result.cost.seconds < 60.0
    assert result.pair.training_cost == result.cost


def test_training_on_costs_what_both_cost() -> None:
    pair = network_pair(GRID)
    pair.training_cost = Cost(1_000, 5_000, 2.0)
    result = quick(pair=pair)
    assert result.cost.target_calls == 1_000 + 12 * 8
    assert result.cost.seconds > 2.0
    assert pair.training_cost == result.cost


def test_without_replay_only_the_pairs_own_paths_count() -> None:
    result = quick(config=TrainingConfig.from_dict(SMALL.to_dict() | {"replay_batch_size": 0}))
    assert result.cost.target_calls == 12 * 8
    assert not all(is_identical(a, b) for a, b in zip(weights(result), weights(quick()), strict=True))


def test_the_same_seed_makes_the_same_pair() -> None:
    one = quick()
    assert_same_training(quick(), one)
    few = TrainingConfig.from_dict(SMALL.to_dict() | {"num_steps": 3})
    assert_same_training(quick(config=few, num_threads=2), quick(config=few))
    assert not is_identical(quick(seed=6).pair.forward.head, one.pair.forward.head)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_energy_that_is_not_finite_is_a_typed_error(bad: float) -> None:
    def spoil(x: Tensor, value: Tensor) -> Tensor:
        return torch.where(torch.arange(len(value)) == 3, bad, value)

    with pytest.raises(NonFiniteEnergyError, match="in row 3 for the object") as caught:
        quick(CountingTarget(GRID_TARGET, trap_at=7, trap=spoil))
    assert caught.value.row == 3
    with pytest.raises(EnergyError, match=r"return torch.float64"):
        quick(CountingTarget(GRID_TARGET, trap_at=7, trap=lambda x, value: value.float()))


def test_a_loss_that_is_not_finite_is_a_typed_error() -> None:
    class Broken(GFlowNet):
        def log_forward(self, path: GFlowNetPath) -> Tensor:
            return super().log_forward(path) * math.nan

    pair = network_pair(GRID)
    with pytest.raises(TrainingError, match=r"the loss is not finite in training step 0, .* object \[\d, \d\]; lower"):
        quick(pair=Broken(pair.forward, pair.backward))


def test_a_target_without_any_possible_object_says_so() -> None:
    target = from_function(lambda x: torch.full((len(x),), -math.inf), (2,), values=tuple(range(8)))
    with pytest.raises(TrainingError, match="no object of positive density"):
        quick(target)


def test_a_pair_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(OptionError, match="another environment object"):
        quick(pair=network_pair(HyperGrid(2, 8)))
    with pytest.raises(OptionError, match="the pair is frozen"):
        quick(pair=network_pair(GRID).frozen())
    with pytest.raises(OptionError, match="num_threads is 0"):
        quick(num_threads=0)


def stop_at(step: int) -> CountingTarget:
    """A target that is interrupted at a training step (each step evaluates one batch)."""

    def interrupt(x: Tensor, value: Tensor) -> Tensor:
        raise KeyboardInterrupt

    return CountingTarget(GRID_TARGET, trap_at=step, trap=interrupt)


@pytest.mark.parametrize("stop", [5, 7, 10, 11])
def test_a_stopped_run_goes_on_to_the_same_pair(stop: int, tmp_path: Path) -> None:
    whole = quick(checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quick(stop_at(stop), checkpoint=tmp_path / "run")
    resumed = resume_training(tmp_path / "run", HyperGrid(2, 8), GRID_TARGET, progress_bar=False)
    assert_same_training(resumed, whole)
    # Negative control: what had been learned by the last checkpoint alone is another pair.
    config = TrainingConfig.from_dict(SMALL.to_dict() | {"num_steps": 5 * (stop // 5)})
    assert not is_identical(quick(config=config).pair.forward.head, whole.pair.forward.head)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_going_on_twice_and_from_the_end(tmp_path: Path) -> None:
    whole = quick()
    with pytest.raises(KeyboardInterrupt):
        quick(stop_at(6), checkpoint=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        resume_training(tmp_path / "run", GRID, stop_at(6), progress_bar=False)
    assert_same_training(resume_training(tmp_path / "run", GRID, GRID_TARGET, progress_bar=False), whole)
    done = CountingTarget(GRID_TARGET)
    assert_same_training(resume_training(tmp_path / "run", GRID, done, progress_bar=False), whole)
    assert done.num_calls == 0


def test_a_pair_of_ones_own_goes_on_too(tmp_path: Path) -> None:
    whole = quick(pair=network_pair(GRID, seed=9))
    with pytest.raises(KeyboardInterrupt):
        quick(stop_at(8), pair=network_pair(GRID, seed=9), checkpoint=tmp_path / "run")
    # Its weights are overwritten, so any pair of the same make will do.
    resumed = resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=network_pair(GRID, seed=1), progress_bar=False)
    assert_same_training(resumed, whole)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    quick(checkpoint=tmp_path / "run")
    options = {"progress_bar": False}
    with pytest.raises(OptionError, match=r"was trained for hypergrid-2d-8, not for hypergrid-2d-9"):
        resume_training(tmp_path / "run", HyperGrid(2, 9), HyperGridTarget(2, 9), **options)
    with pytest.raises(OptionError, match="does not fit this pair; give the one it was made with"):
        resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=network_pair(GRID), **options)
    with pytest.raises(StorageError, match="cannot read"):
        resume_training(tmp_path / "missing", GRID, GRID_TARGET, **options)
    save_pair(network_pair(GRID), tmp_path / "pair")
    with pytest.raises(StorageError, match=r"is not a gfnmc.checkpoint/1 file, but gfnmc.pair/1"):
        resume_training(tmp_path / "pair", GRID, GRID_TARGET, **options)
    content = (tmp_path / "run").read_bytes()
    for broken in (b"", b"rubbish", content[:100], content[:-1]):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(StorageError, match="cannot read"):
            resume_training(tmp_path / "broken", GRID, GRID_TARGET, **options)


def test_a_checkpoint_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    target = CountingTarget(GRID_TARGET)
    with pytest.raises(StorageError, match="no folder"):
        quick(target, checkpoint=tmp_path / "missing" / "run")
    assert target.num_calls == 0
