"""kill -9 of a run that is stored, at every kind of moment: what is made in the end is what one run would have made."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gfnmc.core.errors import StorageError
from gfnmc.kernels import ParallelTempering, RandomWalk
from gfnmc.sampling import Chains, Store, open_run, resume, sample
from tests.sampling.cases import GRID, GRID_TARGET, assert_same_chains, is_prefix

KERNEL = ParallelTempering(RandomWalk(GRID, GRID_TARGET), (1.0, 0.5))
OPTIONS = {"num_chains": 3, "num_samples": 40, "num_warmup": 5, "seed": 3, "progress_bar": False}


def go_on(path: Path) -> Chains:
    """Go on with a run, or begin it."""
    if (path / "commit.json").exists():
        return resume(path, KERNEL, progress_bar=False)
    return sample(KERNEL, store=Store(path, block_size=3), **OPTIONS)


# A process of its own, which forks children that sample and are killed, each going on where the last one left off: by
# themselves, at a write that is exactly known, or from outside, whatever they are doing.
_KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path

    import safetensors.torch, zarr

    import gfnmc.sampling.store as store
    from gfnmc.core import storage
    from gfnmc.sampling.arrays import DrawArrays
    from tests.sampling.test_kills import go_on

    path, is_early = Path(sys.argv[1]), sys.argv[2] == "early"

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def at_call(owner, name, number, is_before):
        real, calls = getattr(owner, name), []

        def wrapped(*given, **options):
            calls.append(name)
            if len(calls) == number and is_before:
                die()
            result = real(*given, **options)
            if len(calls) == number:
                die()
            return result

        setattr(owner, name, wrapped)

    def half_written(number):
        real, calls = storage._write_new, []

        def write(where, data):
            calls.append(where)
            if len(calls) == number:
                real(where, data[: len(data) // 2])
                die()
            real(where, data)

        storage._write_new = write

    def commit_first():
        # What the negative control does: the commit names a state that is not written yet.
        real, waiting = store.write_atomically, []
        seal = store.write_sealed

        def later(where, data):
            waiting.append((where, data))

        def sealed_first(where, content):
            seal(where, content)
            if waiting:
                die()

        store.write_atomically, store.write_sealed = later, sealed_first

    moments = {
        "before the first commit": lambda: at_call(store, "write_sealed", 2, True),
        "after the first commit": lambda: at_call(store, "write_sealed", 2, False),
        "in the warm-up": lambda: at_call(DrawArrays, "_write_chunk", 3, False),
        "between chunks": lambda: at_call(DrawArrays, "_write_chunk", 7, True),
        "before a line": lambda: at_call(store, "_append_line", 2, True),
        "after a line": lambda: at_call(store, "_append_line", 1, False),
        "half a file": lambda: half_written(3),
        "before a state": lambda: at_call(store, "write_atomically", 2, True),
        "after a state": lambda: at_call(store, "write_atomically", 1, False),
        "before a commit": lambda: at_call(store, "write_sealed", 2, True),
        "after a commit": lambda: at_call(store, "write_sealed", 2, False),
    }
    if is_early:
        moments = {"after the first commit": moments["after the first commit"], "early": commit_first}
    rng = random.Random(0)
    outside = [] if is_early else [f"outside {number}" for number in range(4)]
    for moment in [*moments, *outside]:
        child = os.fork()
        if child == 0:
            if moment in moments:
                moments[moment]()
            go_on(path)
            os._exit(0)
        if moment in outside:
            log = path / "blocks.jsonl"
            before, begun = log.stat().st_size, time.monotonic()
            while log.stat().st_size == before and time.monotonic() < begun + 30:
                time.sleep(0.001)
            time.sleep(0.02 * rng.random())
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(moment, os.WIFSIGNALED(status) and os.WTERMSIG(status), flush=True)
"""


def killed(path: Path, how: str) -> list[str]:
    """Kill a run again and again; return which signal each child died of."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_KILLED), str(path), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_that_is_killed_again_and_again_makes_the_same_draws(tmp_path: Path) -> None:
    whole = sample(KERNEL, **OPTIONS)
    signals = killed(tmp_path / "run", "late")
    assert len(signals) == 15 and set(signals) == {str(int(signal.SIGKILL))}
    stored = open_run(tmp_path / "run", GRID_TARGET)
    assert 0 < stored.num_samples < 40
    assert is_prefix(stored.samples, whole.samples) and is_prefix(stored.warmup, whole.warmup)
    assert_same_chains(go_on(tmp_path / "run"), whole)
    assert_same_chains(open_run(tmp_path / "run", GRID_TARGET), whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_commit_that_came_before_the_state_would_show(tmp_path: Path) -> None:
    """The negative control: the order of the writes is what makes it so."""
    assert killed(tmp_path / "run", "early") == [str(int(signal.SIGKILL))] * 2
    with pytest.raises(StorageError, match="cannot read"):
        go_on(tmp_path / "run")
