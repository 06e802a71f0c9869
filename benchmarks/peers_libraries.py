"""The libraries of benchmarks/peers.py: a process in each one's interpreter, one thread each, asked in turns."""

import json
import math
import os
import random
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from peers_worker import Facts, Task

OWN, TORCHGFN, GFNX = "gfnmc", "torchgfn", "gfnx"

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # XLA takes its threads from here; its flags of the same purpose left it with two, which cost it a quarter more CPU.
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
}

_NUM_REWARDS = 64
_REWARD_TOLERANCE = 1e-5
_SAID = 2_000


def environment() -> dict[str, str]:
    """Return the environment of processes: one thread, and the gfnmc of this checkout, whose commit the file names."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}


class Library:
    """A process that does the work of one library.

    Args:
        name: The library; `peers_<name>.py` makes its work.
        python: Interpreter that has it.
    """

    def __init__(self, name: str, python: str) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603
            [python, "-W", "ignore", str(Path(__file__).with_name(f"peers_{name}.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )

    def ask(self, do: str, **request: Any) -> Any:
        """Return the answer to a request.

        Raises:
            RuntimeError: If the process died of it, with what it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": do} | request), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")[-_SAID:]
            raise RuntimeError(f"peers_{self.name}.py failed at {do} {request}:\n{said}") from None

    def close(self) -> None:
        """End the process."""
        # At the end of its input it leaves by itself.
        self._process.communicate()
        self._errors.close()


class Libraries:
    """The libraries that are there, each started when it is first asked.

    Args:
        pythons: Interpreters by name of the library.
    """

    def __init__(self, pythons: dict[str, str]) -> None:
        self._pythons = pythons
        self._running: dict[str, Library] = {}
        self._agreed: set[str] = set()
        self.versions: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._pythons

    def __getitem__(self, name: str) -> Library:
        if name not in self._running:
            self._running[name] = self.fresh(name)
            self._note_versions(name, self._running[name].ask("versions"))
        return self._running[name]

    def __enter__(self) -> "Libraries":
        return self

    def __exit__(self, *_: object) -> None:
        for library in self._running.values():
            library.close()

    def fresh(self, name: str) -> Library:
        """Return a new process, which the caller closes."""
        return Library(name, self._pythons[name])

    def check_rewards(self, space: Task, names: Iterable[str]) -> None:
        """Make sure that libraries have one reward.

        Raises:
            RuntimeError: If the log R of an object differs.
        """
        key = json.dumps([space, sorted(names)])
        if key in self._agreed:
            return
        objects = _some_objects(space)
        found = {name: self[name].ask("log_reward", space=space, objects=objects) for name in names}
        for row, values in enumerate(zip(*found.values(), strict=True)):
            if not all(math.isclose(value, values[0], rel_tol=_REWARD_TOLERANCE, abs_tol=1e-4) for value in values):
                raise RuntimeError(f"log R of {objects[row]} differs: {dict(zip(found, values, strict=True))}")
        self._agreed.add(key)

    def _note_versions(self, name: str, versions: dict[str, str]) -> None:
        """Keep gfnmc's packages by their names, and a peer's other packages in brackets behind it."""
        if name == OWN:
            self.versions |= versions
        else:
            beside = ", ".join(f"{package} {version}" for package, version in versions.items() if package != name)
            self.versions[name] = f"{versions[name]} ({beside})"


def clock(libraries: Libraries, works: dict[str, tuple[str, Task]], rounds: int, seconds: float) -> dict[str, Facts]:
    """Clock works in turns, round after round.

    Args:
        libraries: Who does them.
        works: Library and task by label.
        rounds: Times that each has its turn.
        seconds: Least length of a turn.

    Returns:
        By label the median seconds of a run, of CPU and on the wall, with the least and most CPU-seconds of a round,
        and the facts about the work.
    """
    turns: dict[str, list[Facts]] = {label: [] for label in works}
    for name, task in works.values():
        libraries[name].ask("warm", task=task)
    for _ in range(rounds):
        for label, (name, task) in works.items():
            turns[label].append(libraries[name].ask("clock", task=task, seconds=seconds))
    clocked = {
        label: _summary(turns[label]) | libraries[name].ask("facts", task=task) for label, (name, task) in works.items()
    }
    for name, _ in works.values():
        libraries[name].ask("forget")
    return clocked


def _summary(turns: list[Facts]) -> Facts:
    cpu = [turn["cpu"] for turn in turns]
    return {
        "cpu_seconds": median(cpu),
        "least_cpu_seconds": min(cpu),
        "most_cpu_seconds": max(cpu),
        "wall_seconds": median(turn["wall"] for turn in turns),
    }


def _some_objects(space: Task) -> list[list[int]]:
    """Return objects as rows of indices of values."""
    values, length = (space["side"], space["num_dims"]) if space["kind"] == "grid" else (2, space["side"] ** 2)
    generator = random.Random(0)  # noqa: S311
    return [[generator.randrange(values) for _ in range(length)] for _ in range(_NUM_REWARDS)]
