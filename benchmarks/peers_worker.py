"""The side of benchmarks/peers.py that runs in a library's own interpreter: it clocks the work that it is asked for.

A request is a line of JSON on standard input, its answer a line on standard output. Each library has a file that
makes the work (peers_gfnmc.py, peers_torchgfn.py, peers_gfnx.py); this one needs nothing but the standard library.
What every library must agree on stands here.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIDDEN_SIZE = 256
"""Width of both hidden layers."""

COUPLING = 0.2
"""Of the Ising model, each bond counted once."""

GRID_REWARD = (0.1, 0.5, 2.0)
"""r0, r1, r2 of the hypergrid."""

LEARNING_RATE = 1e-12
"""So small that no weight changes: the work is that of any step, and paths stay as long as they are for everyone."""

FLATTENED = 0.01
"""Factor of a peer's last layer, so that its first P_F is as close to uniform as gfnmc's is: paths are equally long."""

_WARM_SECONDS = 0.2
_LONG_BATCH, _SHORT_BATCH = 1024, 16

Task = dict[str, Any]
Facts = dict[str, float]


@dataclass(frozen=True)
class Work:
    """What can be clocked.

    Attributes:
        run: Does it once.
        facts: Says what it did, by figures that are not clocked; asked for after runs.
        is_warm: Whether it was compiled as it was made, so that its first run is as good as any.
    """

    run: Callable[[], object]
    facts: Callable[[], Facts] = dict
    is_warm: bool = False


def serve(
    make: Callable[[Task], Work],
    log_reward: Callable[[Task, list[list[int]]], list[float]],
    versions: Callable[[], dict[str, str]],
) -> None:
    """Answer requests until there are no more.

    Args:
        make: Makes the work of a task.
        log_reward: Takes a space and objects, rows of indices of values; returns their log R, for comparison.
        versions: Returns versions by package.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Whatever a library prints must not get among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answering = _Answering(make)
    others = {"versions": versions, "log_reward": log_reward}
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        answer = (others.get(do) or getattr(answering, do))(**request)
        print(json.dumps(answer), file=answers, flush=True)


class _Answering:
    """Answers what is about tasks."""

    def __init__(self, make: Callable[[Task], Work]) -> None:
        self._make = make
        self._warm: dict[str, Work] = {}

    def warm(self, task: Task) -> None:
        """Make the work of a task and run it until it is warm, or less of the same where it takes long."""
        work = self._warm[_key(task)] = self._make(task)
        if work.is_warm:
            return
        is_long = task["kind"] == "training" and task["batch"] > _LONG_BATCH
        running = self._make(task | {"batch": _SHORT_BATCH}) if is_long else work
        begun = time.perf_counter()
        running.run()
        while time.perf_counter() - begun < _WARM_SECONDS:
            running.run()

    def clock(self, task: Task, seconds: float) -> Facts:
        """Run for some seconds, once at least; return CPU-seconds of the process and seconds on the wall of a run."""
        run, runs = self._warm[_key(task)].run, 0
        wall, cpu = time.perf_counter(), time.process_time()
        while runs == 0 or time.perf_counter() - wall < seconds:
            run()
            runs += 1
        return {"cpu": (time.process_time() - cpu) / runs, "wall": (time.perf_counter() - wall) / runs}

    def facts(self, task: Task) -> Facts:
        """Return the facts of a task that was clocked."""
        return self._warm[_key(task)].facts()

    def forget(self) -> None:
        """Let go of all work, and of its memory."""
        self._warm.clear()

    def peak(self, task: Task) -> Facts:
        """Run the work of a task once, cold; return the memory before, and the most so far."""
        work = self._make(task)
        before = _resident()
        work.run()
        return {"before_mb": before, "peak_mb": _most_resident()}


def _key(task: Task) -> str:
    return json.dumps(task, sort_keys=True)


def _resident() -> float:
    """Return the megabytes of memory that the process holds now; where nothing says so, the most so far."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return _most_resident()
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _most_resident() -> float:
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
