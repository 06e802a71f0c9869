"""The rows of benchmarks/peers.py about whole processes: the memory that a training step takes, and the import."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from peers_contests import ISING, Row
from peers_libraries import GFNX, OWN, TORCHGFN, Libraries, environment
from peers_worker import Facts, Task

MOST_MEMORY = 0.2
MEMORY_TASK = {"kind": "training", "space": ISING, "batch": 2048, "keeps_log_probs": False}
"""torchgfn takes less memory where it does not keep log P_F."""

LEAST_SITES, SITE_CHAINS = 1.0, (256, 64)
"""The first number of chains is the batch of the other rows; with fewer, what a step costs anyway counts for more."""

MOST_IMPORT, FEWEST_IMPORTS = 1.15, 9

_IMPORT = """
import time
cpu, wall = time.process_time(), time.perf_counter()
import {package}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def site_rows(rounds: int) -> Iterator[Row]:
    """Sweep a lattice by gfnmc and by NumPy, in turns; yield rows of site updates over those of the faster NumPy."""
    script = Path(__file__).with_name("checkerboard.py")
    command = [sys.executable, str(script), "--json", "--rounds", str(20 * rounds), "--chains", *map(str, SITE_CHAINS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())  # noqa: S603
    for num_chains, by_kernel in json.loads(done.stdout).items():
        required = LEAST_SITES if int(num_chains) == SITE_CHAINS[0] else None
        for kernel, value in by_kernel.items():
            yield {
                "work": f"site updates, {kernel}, Ising 32x32, {num_chains} chains, over a NumPy checkerboard",
                "value": value,
                "required": None if required is None else f">= {required:g}",
                "holds": None if required is None else value >= required,
                "name": f"sites-{kernel.lower()}-{num_chains}",
            }


def memory_rows(libraries: Libraries) -> Iterator[Row]:
    """Take one training step in a new process of each library; yield rows of their peaks, which hardly vary."""
    rivals = {TORCHGFN: MEMORY_TASK, GFNX: MEMORY_TASK}
    yield _memory_row(libraries, "memory", "", rivals, MOST_MEMORY)
    uniform = {TORCHGFN: MEMORY_TASK | {"backward": "uniform"}}
    yield _memory_row(libraries, "memory-uniform", ", torchgfn's P_B uniform too", uniform, None)


def import_row(rounds: int) -> Row:
    """Import gfnmc and torch in new processes, in turns; return the row of their CPU-seconds.

    Both from compiled modules, as an installer leaves them, whatever this process is told about writing them.
    """
    turns: dict[str, list[list[float]]] = {"gfnmc": [], "torch": []}
    with tempfile.TemporaryDirectory() as compiled:
        for package in turns:
            _import_seconds(package, compiled)
        for _ in range(max(rounds, FEWEST_IMPORTS)):
            for package, seen in turns.items():
                seen.append(_import_seconds(package, compiled))
    cpu, wall = ({package: median(turn[place] for turn in seen) for package, seen in turns.items()} for place in (0, 1))
    value = cpu["gfnmc"] / cpu["torch"]
    return {
        "work": "import gfnmc over import torch",
        "value": value,
        "required": f"<= {MOST_IMPORT:g}",
        "holds": value <= MOST_IMPORT,
        "name": "import",
        "by_wall": wall["gfnmc"] / wall["torch"],
        "cpu_seconds": cpu,
        "wall_seconds": wall,
    }


def _memory_row(libraries: Libraries, name: str, words: str, rivals: dict[str, Task], most: float | None) -> Row:
    tasks = {OWN: MEMORY_TASK} | {library: task for library, task in rivals.items() if library in libraries}
    peaks = {library: _peak(libraries, library, task) for library, task in tasks.items()}
    value = peaks[OWN]["peak_mb"] / peaks[TORCHGFN]["peak_mb"] if TORCHGFN in peaks else None
    return {
        "work": f"peak memory of a training step over torchgfn's, Ising 10x10, batch {MEMORY_TASK['batch']}{words}",
        "value": value,
        "required": None if most is None else f"<= {most:g}",
        "holds": None if most is None or value is None else value <= most,
        "name": name,
        "not_measured": [library for library in rivals if library not in peaks],
        "batch": MEMORY_TASK["batch"],
        "peaks": peaks,
    }


def _peak(libraries: Libraries, library: str, task: Task) -> Facts:
    process = libraries.fresh(library)
    peak: Facts = process.ask("peak", task=task)
    process.close()
    return peak | {"growth_mb": peak["peak_mb"] - peak["before_mb"]}


def _import_seconds(package: str, compiled: str) -> list[float]:
    command = [sys.executable, "-c", _IMPORT.format(package=package)]
    variables = {name: value for name, value in environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables["PYTHONPYCACHEPREFIX"] = compiled
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)  # noqa: S603
    return [float(seconds) for seconds in done.stdout.split()]
