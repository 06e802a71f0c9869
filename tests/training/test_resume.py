"""Long runs: stopped anywhere, by anything, and gone on with as if never stopped, to the bit."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from gfnmc.core.errors import OptionError, StorageError
from gfnmc.environments import DiscreteEnvironment, HyperGrid, Lattice
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.targets import ConditionalTarget, Ising, NoisyCopy, Target, TemperedFamily, from_function
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.training import TrainingResult, resume_training, save_pair
from gfnmc.training.checkpoints import read_checkpoint, write_checkpoint
from tests.support import CountingTarget, Stairs, network_pair, stairs_target
from tests.training.cases import (
    GRID,
    GRID_TARGET,
    Interrupted,
    assert_same_training,
    is_same_pair,
    quick,
    run,
    stop_after_checkpoint,
    tables,
    tiny,
    unchecked,
)

SPINS = Ising((2, 2), 0.5)
LATTICE = Lattice.for_target(SPINS)
FAMILY = TemperedFamily(GRID_TARGET, 0.2)
SEEDED = {"seeding": "tempering"}
WALKED = from_function(GRID_TARGET.log_prob, (2,), name="walked")
SHARP = from_function(lambda x: 4.0 * GRID_TARGET.log_prob(x), (2,), values=(0, 1, 2, 3), name="sharp")
ADAPTIVE = {"reward_schedule": "adaptive", "check_every": 2, "check_size": 64, "adaptive_ess": 0.4}
"""On the sharp target the power is still on its way when the run ends."""

RUNS: dict[str, tuple[DiscreteEnvironment, Target | ConditionalTarget, dict[str, Any]]] = {
    "plain": (GRID, GRID_TARGET, {}),
    "without replay": (GRID, GRID_TARGET, {"replay_batch_size": 0}),
    "a short memory": (GRID, GRID_TARGET, {"buffer_size": 5}),
    "novelty": (GRID, GRID_TARGET, {"replay_priority": "novelty"}),
    "seeds": (GRID, GRID_TARGET, SEEDED),
    "seeds by walking": (GRID, WALKED, SEEDED | {"seed_every": 3}),
    "likelihood to the end": (GRID, GRID_TARGET, SEEDED | {"objective": "maximum_likelihood"}),
    "chains": (GRID, GRID_TARGET, {"chain_batch_size": 5}),
    "seeds and chains": (GRID, GRID_TARGET, SEEDED | {"chain_batch_size": 5}),
    "annealed": (GRID, GRID_TARGET, {"reward_schedule": "annealed"}),
    "adaptive": (GRID, SHARP, ADAPTIVE),
    "adaptive with seeds and chains": (GRID, SHARP, ADAPTIVE | SEEDED | {"chain_batch_size": 5}),
    "a family": (GRID, FAMILY, {}),
    "a family with seeds": (GRID, FAMILY, SEEDED),
    "a noisy target": (GRID, NoisyCopy(GRID_TARGET, (0.5, 1.5), (0.5, 0.5)), {"chain_batch_size": 3}),
    "a learned way back": (GRID, GRID_TARGET, SEEDED | {"backward": "learned"}),
    "a way back that retraces": (GRID, GRID_TARGET, SEEDED | {"backward": "trajectory_likelihood"}),
    "learned counts": (Stairs(5), stairs_target(Stairs(5)), {"backward": "max_entropy"}),
    "flows": (GRID, GRID_TARGET, SEEDED | {"objective": "subtrajectory_balance"}),
    "flow matching": (GRID, GRID_TARGET, {"objective": "flow_matching", "backward": "flow"}),
    "log Z that is not learned": (GRID, GRID_TARGET, {"objective": "log_partition_variance"}),
    "a transformer": (LATTICE, SPINS, {"network": "transformer"}),
    "symmetries": (LATTICE, SPINS, SEEDED | {"symmetry": "average"}),
}


def stopped(name: str, number: int, path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Start a run and stop it once it has written so many checkpoints."""
    environment, target, its = RUNS[name]
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, number)
        run(environment, target, tiny(**(its | {"checkpoint_every": 2} | options)), seed=5, checkpoint=path)


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_goes_on_to_the_same_pair(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped early, where likelihood is still the objective if there are seeds, and late."""
    if name != "plain":
        unchecked(monkeypatch)
    environment, target, its = RUNS[name]
    whole = run(environment, target, tiny(**its), seed=5)
    for number in (1, 4):
        stopped(name, number, tmp_path / "run", monkeypatch)
        resumed = resume_training(tmp_path / "run", environment, target, progress_bar=False)
        assert_same_training(resumed, whole)
    # Negative control: what had been learned by then is another pair.
    short = run(environment, target, tiny(**(its | {"num_steps": 8})), seed=5)
    assert not is_same_pair(short, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_an_adaptive_power_is_on_its_way_when_the_run_stops() -> None:
    """What makes the cases above say something."""
    powers = run(GRID, SHARP, tiny(**ADAPTIVE), seed=5).history["reward_power"]
    assert powers[0] == 0.0 < powers[-1] < 1.0


@pytest.mark.parametrize("change", ["power", "best_log_prob", "has_log_z", "good_looks", "num_added"])
def test_everything_that_is_kept_is_needed(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of going on to the bit: each part of the checkpoint, spoiled, makes another pair."""
    options: dict[str, Any] = {"log_reward_range": 1.0, "check_every": 4}
    # Power 1 needs no waiting for, and an acceptance that any pair has ends the run at the second look.
    options |= {"stop_at_acceptance": 0.01} if change == "good_looks" else ADAPTIVE
    whole = quick(SHARP, **options)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        quick(SHARP, checkpoint=tmp_path / "run", checkpoint_every=6, **options)
    saved = read_checkpoint(tmp_path / "run")
    if change == "num_added":
        saved = dataclasses.replace(saved, num_added=3)
    else:
        spoiled = {"power": 0.9, "best_log_prob": 90.0, "has_log_z": False, "good_looks": 0}[change]
        assert saved.progress[change] != spoiled
        saved = dataclasses.replace(saved, progress=saved.progress | {change: spoiled})
    write_checkpoint(tmp_path / "spoiled", saved)
    assert_same_training(resume_training(tmp_path / "run", GRID, SHARP, progress_bar=False), whole)
    other = resume_training(tmp_path / "spoiled", GRID, SHARP, progress_bar=False)
    assert not is_same_pair(other, whole)


def stop_at(call: int) -> CountingTarget:
    """A target that is interrupted at one of its calls; each step makes one, and each look."""

    def interrupt(x: Any, value: Any) -> Any:
        raise KeyboardInterrupt

    return CountingTarget(GRID_TARGET, trap_at=call, trap=interrupt)


def test_going_on_twice_and_from_the_end(tmp_path: Path) -> None:
    whole = quick()
    with pytest.raises(KeyboardInterrupt):
        quick(stop_at(7), checkpoint=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        resume_training(tmp_path / "run", GRID, stop_at(6), progress_bar=False)
    assert_same_training(resume_training(tmp_path / "run", GRID, GRID_TARGET, progress_bar=False), whole)
    done = CountingTarget(GRID_TARGET)
    assert_same_training(resume_training(tmp_path / "run", GRID, done, progress_bar=False), whole)
    assert done.num_calls == 0


def test_seeds_are_not_sought_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped("seeds by walking", 1, tmp_path / "run", monkeypatch)
    target = CountingTarget(WALKED)
    resumed = resume_training(tmp_path / "run", GRID, target, progress_bar=False)
    assert target.num_rows < resumed.cost.target_calls / 5


def test_a_run_whose_seeds_were_sought_in_vain_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Possible in one of 4^7 corners only, which the pair knows but a random population does not.
    target = from_function(lambda x: torch.where((x == 3).all(1), 0.0, -torch.inf), (7,), values=(0, 1, 2, 3))
    environment = HyperGrid(7, 4)
    knowing = network_pair(environment)
    with torch.no_grad():
        knowing.forward.head_bias.fill_(20.0)
        knowing.forward.head_bias[environment.exit_action] = 0.0
    config = tiny(seeding="auto", reward_schedule="auto", batch_size=4, num_steps=6, checkpoint_every=2)
    whole = run(environment, target, config, pair=copy_of(knowing, environment), seed=5)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        run(environment, target, config, pair=copy_of(knowing, environment), seed=5, checkpoint=tmp_path / "run")
    resumed = resume_training(tmp_path / "run", environment, target, pair=network_pair(environment), progress_bar=False)
    assert_same_training(resumed, whole)
    assert whole.history["reward_power"] == [0.0, 1.0]


def copy_of(pair: Any, environment: DiscreteEnvironment) -> Any:
    other = network_pair(environment)
    other.forward.load_state_dict(pair.forward.state_dict())
    return other


def test_a_pair_of_ones_own_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quick(pair=network_pair(GRID, seed=9))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        quick(pair=network_pair(GRID, seed=9), checkpoint=tmp_path / "run")
    # Its weights are overwritten, so any pair of the same make will do.
    resumed = resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=network_pair(GRID, seed=1), progress_bar=False)
    assert_same_training(resumed, whole)


def test_a_pair_of_tables_with_flows_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"objective": "flow_matching", "backward": "flow", "seeding": "tempering"}
    whole = quick(pair=tables(GRID, from_flow=True), **options)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        quick(pair=tables(GRID, from_flow=True), checkpoint=tmp_path / "run", **options)
    again = tables(GRID, from_flow=True)
    resumed = resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=again, progress_bar=False)
    assert isinstance(resumed.pair.backward, FlowBackwardPolicy)
    assert_same_training(resumed, whole)


def test_objects_to_judge_by_are_given_again_and_paid_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = GRID_TARGET.exact().support
    whole = quick(objects=objects)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_after_checkpoint(patch, 1)
        quick(objects=objects, checkpoint=tmp_path / "run")
    resumed = resume_training(tmp_path / "run", GRID, GRID_TARGET, objects=objects, progress_bar=False)
    assert is_same_pair(resumed, whole) and resumed.qualities == whole.qualities
    assert resumed.cost.target_calls == whole.cost.target_calls + len(objects)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    quick(checkpoint=tmp_path / "run")
    options = {"progress_bar": False}
    with pytest.raises(OptionError, match=r"was trained for hypergrid-2d-4, not for hypergrid-2d-9"):
        resume_training(tmp_path / "run", HyperGrid(2, 9), HyperGridTarget(2, 9), **options)
    with pytest.raises(OptionError, match="does not fit this pair; give the one it was made with"):
        resume_training(tmp_path / "run", GRID, GRID_TARGET, pair=network_pair(GRID), **options)
    with pytest.raises(StorageError, match="cannot read"):
        resume_training(tmp_path / "missing", GRID, GRID_TARGET, **options)
    save_pair(network_pair(GRID), tmp_path / "pair")
    with pytest.raises(StorageError, match=r"is not a gfnmc.checkpoint/2 file, but gfnmc.pair/2"):
        resume_training(tmp_path / "pair", GRID, GRID_TARGET, **options)
    content = (tmp_path / "run").read_bytes()
    for broken in (b"", b"rubbish", content[:100], content[:-1]):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(StorageError, match="cannot read"):
            resume_training(tmp_path / "broken", GRID, GRID_TARGET, **options)


def test_a_place_that_cannot_be_written_is_said_before_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped("plain", 1, tmp_path / "run", monkeypatch)

    def refuse(path: Any) -> None:
        raise StorageError(f"{path} cannot be written")

    monkeypatch.setattr("gfnmc.training.trainer.check_writable", refuse)
    target = CountingTarget(GRID_TARGET)
    with pytest.raises(StorageError, match="cannot be written"):
        resume_training(tmp_path / "run", GRID, target, progress_bar=False)
    assert target.num_calls == 0


# A process of its own, which forks children that train and are killed: by themselves, at a moment that is exactly
# known, or from outside, whatever they are doing. One run goes through all of them, each child going on where the last
# one left off.
_KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path

    from gfnmc.core import storage
    from gfnmc.training import resume_training, run, train
    from tests.training.cases import GRID, tiny
    from tests.training.test_resume import KILLED, KILLED_TARGET

    path = Path(sys.argv[1])

    def go_on():
        if path.exists():
            resume_training(path, GRID, KILLED_TARGET, progress_bar=False)
        else:
            train(GRID, KILLED_TARGET, config=tiny(**KILLED), seed=5, checkpoint=path, progress_bar=False)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def at_call(module, name, number, when):
        real, calls = getattr(module, name), []

        def wrapped(*given, **options):
            calls.append(name)
            if len(calls) == number and when == "before":
                die()
            result = real(*given, **options)
            if len(calls) == number and when == "after":
                die()
            return result

        setattr(module, name, wrapped)

    def half_written(number):
        real, calls = storage._write_new, []

        def write(where, data):
            calls.append(where)
            if len(calls) == number:
                real(where, data[: len(data) // 2])
                die()
            real(where, data)

        storage._write_new = write

    moments = {
        "seeds": lambda: at_call(run.Run, "begin", 1, "after"),
        "mid-step": lambda: at_call(run.Sources, "draw_seeds", 3, "before"),
        # The first file that is written is the empty one that tries the folder.
        "half a file": lambda: half_written(3),
        "unnamed": lambda: at_call(storage.os, "replace", 2, "before"),
        "named": lambda: at_call(storage.os, "replace", 2, "after"),
        "a look": lambda: at_call(run.Judge, "look", 1, "before"),
        "after a look": lambda: at_call(run.Judge, "look", 1, "after"),
    }
    # Load once, before forking, what is loaded when first used.
    warm = run.Run(GRID, KILLED_TARGET, tiny(**KILLED), None, None, 0)
    warm.begin()
    warm.judge.look(0, warm.sources.seeds)
    run.write_checkpoint(path.with_name("warm"), warm.snapshot())
    path.with_name("warm").unlink()

    rng = random.Random(0)
    outside = [f"outside {place}" for place in range(4)]
    for moment in [*moments, *outside]:
        child = os.fork()
        if child == 0:
            if moment in moments:
                moments[moment]()
            go_on()
            os._exit(0)
        if moment in outside:
            before, begun = path.stat().st_mtime_ns, time.monotonic()
            while path.stat().st_mtime_ns == before and time.monotonic() < begun + 30:
                time.sleep(0.001)
            time.sleep(0.03 * rng.random())
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(moment, os.WIFSIGNALED(status) and os.WTERMSIG(status), path.exists(), flush=True)
"""

KILLED: dict[str, Any] = {
    "num_steps": 40,
    "seeding": "tempering",
    "chain_batch_size": 3,
    "reward_schedule": "adaptive",
    "adaptive_ess": 0.4,
    "likelihood_until": 0.1,
    "check_every": 6,
    "checkpoint_every": 1,
}
KILLED_TARGET = SHARP


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_that_is_killed_again_and_again_makes_the_same_pair(tmp_path: Path) -> None:
    """kill -9 in every place where it could do harm, and then at random; the last one goes on to the end."""
    whole = run(GRID, KILLED_TARGET, tiny(**KILLED), seed=5)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_KILLED), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert len(lines) == 11
    # Every child was killed in the middle of its work, and from the third on there was something to go on from.
    assert {signal_number for _, signal_number, _ in lines} == {str(int(signal.SIGKILL))}
    assert [exists for _, _, exists in lines] == ["False", "True"] + ["True"] * 9
    assert_same_training(finished(tmp_path / "run"), whole)
    # What a killed writer leaves behind is in the way of nobody.
    assert all(path.name == "run" or path.name.endswith(".partial") for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) > 1


def finished(path: Path) -> TrainingResult:
    return resume_training(path, GRID, KILLED_TARGET, progress_bar=False)
