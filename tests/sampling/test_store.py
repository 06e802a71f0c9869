"""Run directories: stopped anywhere and gone on with, to the draws of a run that was not stopped, bit for bit."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray
from torch import Tensor

import gfnmc
from gfnmc.core import storage
from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import (
    CapabilityError,
    GfnmcError,
    MismatchError,
    NonFiniteEnergyError,
    OptionError,
    StorageError,
)
from gfnmc.environments import HyperGrid
from gfnmc.kernels import Cycle, Info, Kernel, RandomWalk, State, SuffixResampling
from gfnmc.sampling import Budget, Chains, Store, open_run, resume, sample
from gfnmc.sampling.arrays import DrawArrays
from gfnmc.sampling.recorder import Mark, Recorder
from gfnmc.sampling.store import RunDirectory, locked
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Target
from tests.sampling.cases import (
    ADAPTING,
    GRID,
    GRID_TARGET,
    STORED,
    assert_same_chains,
    assert_same_draws,
    is_prefix,
    part,
)
from tests.support import CountingTarget, network_pair, random_pair

WALK = RandomWalk(GRID, GRID_TARGET)


def run(kernel: Kernel, num_samples: int = 9, num_warmup: int = 4, **options: Any) -> Chains:
    options = {"num_chains": 3, "seed": 3, "progress_bar": False} | options
    return sample(kernel, num_samples=num_samples, num_warmup=num_warmup, **options)


def go_on(path: Path, kernel: Kernel, num_samples: int | None = None, **options: Any) -> Chains:
    return resume(path, kernel, num_samples=num_samples, **({"progress_bar": False} | options))


@pytest.mark.parametrize(("name", "block_size"), [*((name, 4) for name in STORED), ("a cycle", 1)])
def test_a_run_in_pieces_is_the_run_in_one(name: str, block_size: int, tmp_path: Path) -> None:
    make, target = STORED[name]
    whole = run(make(target))
    first = run(make(target), 3, store=Store(tmp_path, block_size=block_size))
    assert is_prefix(first.samples, whole.samples) and first.num_samples == 3
    # Another kernel, made alike: nothing of it is carried but what is in the files.
    second = go_on(tmp_path, make(target), 5)
    assert is_prefix(second.samples, whole.samples) and second.num_samples == 5
    third = go_on(tmp_path, make(target), 9)
    assert_same_chains(third, whole)
    assert_same_chains(open_run(tmp_path, target), whole)
    # There is nothing left to do.
    assert_same_chains(go_on(tmp_path, make(target)), whole)


def without_cache(state: State) -> State:
    return state._replace(cache=None)


@pytest.mark.parametrize("name", ["parallel tempering", "what was seen around"])
def test_what_a_kernel_keeps_is_needed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without its cache the same kernel goes on to another report, or other draws."""
    make, target = STORED[name]
    whole = run(make(target))
    run(make(target), 3, store=tmp_path)
    stored = RunDirectory.state
    monkeypatch.setattr(RunDirectory, "state", lambda *given, **options: without_cache(stored(*given, **options)))
    with pytest.raises(AssertionError):
        assert_same_chains(go_on(tmp_path, make(target), 9), whole)


@pytest.mark.parametrize(("stops_at", "block_size"), [(1, 3), (5, 1), (6, 100), (12, 1), (21, 3), (29, 100)])
def test_a_run_that_breaks_keeps_every_finished_draw_and_goes_on(
    stops_at: int, block_size: int, tmp_path: Path
) -> None:
    # Call 0 is the start; 5 steps of warm-up, then 8 draws, every third step.
    options = {"num_samples": 8, "num_warmup": 5, "thinning": 3}
    whole = run(WALK, **options)
    breaking = CountingTarget(GRID_TARGET, trap_at=stops_at, trap=interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(RandomWalk(GRID, breaking), store=Store(tmp_path, block_size=block_size), **options)
    steps = stops_at - 1
    wanted = (min(steps, 5), max(steps - 5, 0) // 3)
    stored = open_run(tmp_path, GRID_TARGET)
    assert (stored.num_warmup, stored.num_samples) == wanted
    assert is_prefix(stored.samples, whole.samples) and is_prefix(stored.warmup, whole.warmup)
    kept = caught.value.chains if steps else None
    if kept is not None:
        assert_same_draws(kept.samples, stored.samples)
        assert f"the run can be gone on with from {tmp_path}" in caught.value.__notes__
    assert_same_chains(go_on(tmp_path, WALK), whole)


def interrupt(x: Tensor, value: Tensor) -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stops_at", [9, 22])
def test_a_warm_up_that_adapts_begins_again_or_is_made_again(stops_at: int, tmp_path: Path) -> None:
    make, target = ADAPTING
    # The start, then two calls a step.
    options = {"num_samples": 5, "num_warmup": 8, "adapt": True, "num_chains": 100}
    whole = run(make(target), **options)
    breaking = CountingTarget(target, trap_at=stops_at, trap=interrupt)
    # What the warm-up tunes for.
    breaking.statistics = target.statistics
    with pytest.raises(KeyboardInterrupt):
        run(make(breaking), store=Store(tmp_path, block_size=3), **options)
    stored = open_run(tmp_path, target)
    assert is_prefix(stored.warmup, whole.warmup) and is_prefix(stored.samples, whole.samples)
    assert (stored.num_samples > 0) == (stops_at > 19)
    resumed = go_on(tmp_path, make(target))
    assert_same_chains(resumed, whole)
    assert resumed.adapted_kernel is not None
    plain = run(make(target), **(options | {"adapt": False}))
    assert not torch.equal(plain.x, whole.x)


def test_a_warm_up_that_comes_out_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, target = ADAPTING
    run(make(target), 3, 6, adapt=True, store=tmp_path)
    monkeypatch.setattr("gfnmc.sampling.resuming._compare", lambda *given: None)
    other = Cycle([SuffixResampling(random_pair(GRID, seed=1), target), RandomWalk(GRID, target)])
    with pytest.raises(MismatchError, match="made again, came to other objects"):
        go_on(tmp_path, other, 5)


def test_draws_do_not_depend_on_blocks_or_on_when_they_are_stored(tmp_path: Path) -> None:
    whole = run(WALK, 10)
    for number, store in enumerate([{"block_size": 7}, {"block_size": 50, "commit_seconds": 0.0}, {}]):
        path = tmp_path / str(number)
        chains = run(WALK, 10, store=Store(path, **store))
        assert_same_chains(chains, whole)
        assert_same_chains(open_run(path, GRID_TARGET), whole)


def test_no_more_than_a_block_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    save = RunDirectory.save

    def spy(self: RunDirectory, phase: str, recorder: Any, **options: Any) -> None:
        most.append(recorder.num_here)
        save(self, phase, recorder, **options)

    monkeypatch.setattr(RunDirectory, "save", spy)
    chains = run(WALK, 40, store=Store(tmp_path, block_size=5))
    assert max(most) == 5
    # Nothing is read before it is asked for, and each part by itself.
    assert set(vars(chains.samples)) == {"_load"}
    assert chains.num_samples == 40
    assert set(vars(chains.samples)) == {"_load", "log_prob"}


def test_costs_and_time_go_on(tmp_path: Path) -> None:
    target = CountingTarget(GRID_TARGET)
    first = run(RandomWalk(GRID, target), 4, store=tmp_path)
    second = go_on(tmp_path, RandomWalk(GRID, target), 9)
    # The three densities that the target is told by.
    assert second.sampling_cost.target_calls == target.num_rows - 3
    assert second.sampling_cost.seconds > float(first.samples.seconds[-1])
    seconds = second.samples.seconds
    assert (seconds[1:] >= seconds[:-1]).all()
    with pytest.raises(OptionError, match="the budget ended after"):
        run(WALK, store=tmp_path / "small", budget=Budget(target_calls=8))
    assert go_on(tmp_path / "small", WALK).num_samples == 9


def test_a_run_can_be_read_at_every_moment_of_its_making(tmp_path: Path) -> None:
    whole = run(WALK, 12)
    seen = []

    def look(x: Tensor, value: Tensor) -> Tensor:
        seen.append(open_run(tmp_path, GRID_TARGET))
        return value

    class Watched(CountingTarget):
        def log_prob(self, x: Tensor) -> Tensor:
            self.trap_at = self.num_calls if self.num_calls else -1
            return super().log_prob(x)

    run(RandomWalk(GRID, Watched(GRID_TARGET, trap=look)), 12, store=Store(tmp_path, block_size=5))
    assert [chains.num_samples for chains in seen] == [0] * 9 + [5] * 5 + [10] * 2
    assert [chains.num_warmup for chains in seen] == [0] * 4 + [4] * 12
    for chains in seen:
        assert is_prefix(chains.samples, whole.samples) and is_prefix(chains.warmup, whole.warmup)


def test_a_reader_whose_files_change_under_it_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(WALK, 9)
    run(WALK, 5, store=Store(tmp_path, block_size=2))
    check, done = DrawArrays.check, []

    def meanwhile(self: DrawArrays, block: Any) -> None:
        if not done:
            done.append(go_on(tmp_path, WALK, 9))
            raise gfnmc.errors.DamageError("torn", part="block")
        check(self, block)

    monkeypatch.setattr(DrawArrays, "check", meanwhile)
    assert_same_chains(open_run(tmp_path, GRID_TARGET), whole)


def test_other_programs_read_the_store(tmp_path: Path) -> None:
    make, target = STORED["a cycle"]
    chains = run(make(target), store=Store(tmp_path, block_size=4))
    with xarray.open_datatree(tmp_path / "draws.zarr", engine="zarr", consolidated=False) as tree:
        assert tree["posterior"]["x"].dims[:2] == ("chain", "draw")
        assert tree["posterior"].sizes["draw"] == tree["sample_stats"].sizes["draw"] == 9
        assert tree["warmup_sample_stats"].sizes["draw"] == 4
        assert torch.equal(torch.from_numpy(tree["posterior"]["x"].values), chains.x)
        name = "acceptance_rate[random walk]"
        assert torch.equal(torch.from_numpy(tree["sample_stats"][name].values), chains.samples.stats[name])


def test_names_that_no_file_may_have_are_kept(tmp_path: Path) -> None:
    names = ["../up", "a/b", "lp", "seconds", "position", ".hidden", "zarr.json", "__x", "50 %", "é"]

    class Talking(RandomWalk):
        def step(self, draws: Any, state: State) -> tuple[State, Info]:
            state, info = super().step(draws, state)
            return state, info._replace(extras=dict.fromkeys(names, info.log_ratio))

    whole = run(Talking(GRID, GRID_TARGET))
    run(Talking(GRID, GRID_TARGET), store=tmp_path / "run")
    assert_same_chains(open_run(tmp_path / "run", GRID_TARGET), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_folders_that_hold_something_are_refused_before_any_work(tmp_path: Path) -> None:
    target = CountingTarget(GRID_TARGET)
    run(WALK, store=tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear", encoding="utf-8")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for name, message in (("run", "holds a run"), ("other", "neither empty nor a run"), ("file", "cannot be written")):
        with pytest.raises(StorageError, match=message):
            run(RandomWalk(GRID, target), store=tmp_path / name)
    assert target.num_calls == 0
    with pytest.raises(StorageError, match="there is no run"):
        go_on(tmp_path / "other", WALK)
    with pytest.raises(StorageError, match="there is no run"):
        open_run(tmp_path / "missing", GRID_TARGET)
    for options in ({"block_size": 0}, {"commit_seconds": -1.0}):
        with pytest.raises(OptionError):
            Store(tmp_path, **options)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    run(WALK, 3, store=tmp_path)
    with locked(tmp_path), pytest.raises(StorageError, match="another process is writing"):
        go_on(tmp_path, WALK, 5)
    assert go_on(tmp_path, WALK, 5).num_samples == 5


class Hoarding(RandomWalk):
    """A walk that keeps something and does not say how it is written."""

    keeps_cache = True

    def step(self, draws: Any, state: State) -> tuple[State, Info]:
        state, info = super().step(draws, state)
        return state._replace(cache=["something"]), info


def test_a_kernel_whose_cache_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="implement `cache_tensors` and `cache_from`"):
        run(Hoarding(GRID, GRID_TARGET), store=tmp_path)


# Mismatches


def other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gfnmc.sampling.fingerprint.version
    monkeypatch.setattr("gfnmc.sampling.fingerprint.version", lambda name: real(name) + ".other")


def suffix(seed: int = 0, **options: Any) -> Kernel:
    return Cycle([SuffixResampling(network_pair(GRID, seed=seed, **options), GRID_TARGET), WALK])


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (lambda: suffix(seed=1), "kernel.options.kernels"),
        (lambda: suffix(dtype=torch.float64), "kernel.options.kernels"),
        (lambda: WALK, "kernel.class"),
        (lambda: RandomWalk(HyperGrid(2, 7), HyperGridTarget(2, 7)), "target.name"),
        (lambda: RandomWalk(GRID, renamed(HyperGridTarget(2, 8, r0=0.5))), "target.log_prob where chain 0 began"),
    ],
    ids=["pair", "dtype", "kernel", "target", "density"],
)
def test_another_kernel_or_target_is_refused(kernel: Callable[[], Kernel], name: str, tmp_path: Path) -> None:
    run(suffix(), 3, store=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(MismatchError, match="was made by something else") as caught:
        go_on(tmp_path, kernel(), 5)
    assert name in caught.value.mismatches
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def renamed(target: Target) -> Target:
    target.name = GRID_TARGET.name
    return target


def test_other_versions_are_refused_unless_told_otherwise_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(WALK, 5)
    run(WALK, 3, store=tmp_path)
    other_versions(monkeypatch)
    with pytest.raises(MismatchError, match=r"gfnmc was .*, and is .*\.other"):
        go_on(tmp_path, WALK, 5)
    chains = go_on(tmp_path, WALK, 5, allow_mismatch=True)
    assert_same_chains(chains, whole)
    for found in (chains, open_run(tmp_path, GRID_TARGET)):
        (label,) = json.loads(found.to_arviz().attrs["statistically_continued"])
        assert label["num_draws"]["samples"] == 3
        assert set(label["mismatches"]) == {"gfnmc"}
    assert "statistically_continued" not in whole.remarks


def test_a_run_is_read_with_its_own_target_only(tmp_path: Path) -> None:
    run(WALK, 3, store=tmp_path)
    for target in (HyperGridTarget(2, 7), renamed(HyperGridTarget(2, 8, r0=0.5))):
        with pytest.raises(MismatchError, match="is of another target"):
            open_run(tmp_path, target)


# Disks that are full, and interruptions between any two writes


class Moments:
    """Lets something happen at one of the places where a store writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, happen: Callable[[], None]) -> None:
        self.count = 0
        self.at = at
        self.happen = happen
        write, chunk, line = storage._write_new, DrawArrays._write_chunk, gfnmc.sampling.store._append_line
        monkeypatch.setattr(storage, "_write_new", self.around(write))
        monkeypatch.setattr(DrawArrays, "_write_chunk", self.around(chunk))
        monkeypatch.setattr("gfnmc.sampling.store._append_line", self.around(line))

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any) -> Any:
            for after in (False, True):
                self.count += 1
                if self.count == self.at:
                    self.happen()
                if not after:
                    result = real(*given)
            return result

        return wrapped


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stop() -> None:
    raise KeyboardInterrupt


# The first writes are those that begin the run.
@pytest.mark.parametrize(
    ("at", "happen"), [*((at, full) for at in range(12, 104, 23)), *((at, stop) for at in range(19, 104, 23))]
)
def test_whatever_happens_between_two_writes_loses_nothing(
    at: int, happen: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(WALK, 8, 3)
    with monkeypatch.context() as patch, pytest.raises((OSError, KeyboardInterrupt)) as caught:
        Moments(patch, at, happen)
        run(WALK, 8, 3, store=Store(tmp_path, block_size=2))
    kept = caught.value.chains
    stored = open_run(tmp_path, GRID_TARGET)
    assert is_prefix(kept.samples, whole.samples) and is_prefix(kept.warmup, whole.warmup)
    # It happened once, so what was finished could be stored in the end.
    assert (stored.num_warmup, stored.num_samples) == (kept.num_warmup, kept.num_samples)
    assert_same_chains(go_on(tmp_path, WALK), whole)


def test_a_disk_that_stays_full_keeps_the_draws_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(WALK, 8, 3)
    calls = []

    def write(self: DrawArrays, *given: Any) -> None:
        calls.append(given)
        if len(calls) > 60:
            full()
        real(self, *given)

    real = DrawArrays._write_chunk
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="the disk is full") as caught:
        patch.setattr(DrawArrays, "_write_chunk", write)
        run(WALK, 8, 3, store=Store(tmp_path, block_size=2))
    kept, stored = caught.value.chains, open_run(tmp_path, GRID_TARGET)
    assert kept.num_samples == stored.num_samples + 2
    assert is_prefix(kept.samples, whole.samples) and is_prefix(stored.samples, whole.samples)
    assert any("could not be stored" in note for note in caught.value.__notes__)
    assert_same_chains(go_on(tmp_path, WALK), whole)


# Energies that fail


def test_an_energy_that_fails_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    whole = run(WALK)
    nan = CountingTarget(GRID_TARGET, trap_at=8, trap=lambda x, value: value * torch.nan)
    with pytest.raises(NonFiniteEnergyError, match="chain 0, step 7") as caught:
        run(RandomWalk(GRID, nan), store=tmp_path)
    assert caught.value.state is not None and len(caught.value.state) == 2
    assert isinstance(caught.value, GfnmcError) and caught.value.chains.num_samples == 3
    assert_same_chains(go_on(tmp_path, WALK), whole)


def test_rejections_are_counted_in_pieces_as_in_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = lambda: RandomWalk(GRID, holed())  # noqa: E731
    options = {"on_nonfinite": "reject", "num_chains": 6, "init": torch.tensor([0, 0])}
    whole = run(make(), 30, **options)
    run(make(), 11, store=Store(tmp_path, block_size=4), **options)
    with caplog.at_level(logging.WARNING, logger="gfnmc"):
        resumed = go_on(tmp_path, make(), 30)
    assert "NaN or +inf and counted as -inf" in caplog.text
    assert_same_chains(resumed, whole)
    assert int(whole.nonfinite_count.sum()) > 0
    assert torch.equal(resumed.nonfinite_count, whole.nonfinite_count)
    assert (
        part(resumed.samples).stats["nonfinite"].sum() + resumed.warmup.stats["nonfinite"].sum()
        == (whole.to_arviz().attrs["nonfinite_count"])
    )


def holed() -> Target:
    """The grid, with an energy that is NaN in its middle."""

    def log_prob(x: Tensor) -> Tensor:
        value = GRID_TARGET.log_prob(x)
        return torch.where((x == 1).all(1), torch.nan, value)

    return gfnmc.targets.from_function(log_prob, (2,), values=tuple(range(8)), name="holed")


def test_draws_are_read_from_another_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = run(WALK, store="run")
    monkeypatch.chdir("/")
    assert_same_chains(stored, run(WALK))


def test_a_wish_that_cannot_be_granted_changes_nothing(tmp_path: Path) -> None:
    run(WALK, 5, store=tmp_path)
    with pytest.raises(OptionError, match="num_samples is 0"):
        go_on(tmp_path, WALK, 0)
    # Draws that are there stay.
    assert go_on(tmp_path, WALK, 2).num_samples == go_on(tmp_path, WALK).num_samples == 5


def test_an_interrupted_recorder_keeps_whole_draws() -> None:
    state = WALK.init(torch.zeros(2, 2, dtype=torch.int64))
    recorder = Recorder(2)
    for step in range(3):
        state, info = WALK.step(PhiloxDraws(0, "chain", 2).at(step), state)
        recorder.count(info, {})
        recorder.keep(info, Mark(state, step + 1, Cost(), WALK))
    # As if the interruption had come between the draw and its mark.
    recorder._marked = (2, recorder.mark)
    recorder.settle()
    assert recorder.num_draws == 2
    recorder.clear()
    assert (recorder.first, recorder.num_here) == (2, 0)
    recorder.settle()
    assert recorder.num_draws == 2
