"""Run directories that are being written: draws reach the disk block by block, with all that is needed to go on.

A block is written in this order: its chunks, its line in the log, the state of the kernel, and last `commit.json`, in
one `os.replace`. So a process may be killed at any moment: what it had not committed is made again, to the bit, and
written over.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.errors import StorageError
from gfnmc.core.storage import check_writable, storage_error, write_atomically
from gfnmc.kernels.base import Kernel, State
from gfnmc.sampling.block_log import Block, latest, line_of
from gfnmc.sampling.chains import Record
from gfnmc.sampling.checked_files import digest_of, read_bytes, write_sealed
from gfnmc.sampling.layout import (
    COMMIT,
    DRAWS,
    LOCK,
    LOG,
    MANIFEST,
    PAIR,
    SCHEMA,
    START,
    Commit,
    arrays_of,
    first_commit,
    joined,
    read_commit,
    read_file,
    read_log,
    read_manifest,
)
from gfnmc.sampling.plan import Plan, Store
from gfnmc.sampling.recorder import Mark, Recorder
from gfnmc.sampling.state_files import pack_state, unpack_state


class RunDirectory:
    """A run directory that is being written.

    Attributes:
        path: The folder.
        manifest: What was asked for, and by what it was made.
        commit: What counts so far.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], commit: Commit, commit_seconds: float) -> None:
        self.path = path
        self.manifest: dict[str, Any] = manifest
        self.commit = commit
        self.arrays = arrays_of(path, manifest)
        self._commit_seconds = commit_seconds
        self._committed_at = time.monotonic()

    @property
    def plan(self) -> Plan:
        """What was asked for, with the number of draws that is wanted now."""
        return replace(Plan.from_dict(self.manifest["plan"]), num_samples=self.commit.num_samples)

    @property
    def block_size(self) -> int:
        """Draws a block."""
        return self.manifest["block_size"]

    @classmethod
    def create(
        cls, store: Store, plan: Plan, made_by: dict[str, Any], kernel: Kernel, state: State, cost: Cost
    ) -> "RunDirectory":
        """Begin a run directory in a folder that `prepare` has made.

        Args:
            store: Where, and in which blocks.
            plan: What was asked for.
            made_by: What makes the draws.
            kernel: What moves the chains.
            state: Where they begin.
            cost: What it took to begin.

        Raises:
            StorageError: If it cannot be written.
            CapabilityError: If the kernel does not say how its cache is written.
        """
        path = store.folder
        shutil.rmtree(path / DRAWS, ignore_errors=True)
        start = pack_state(kernel, state)
        files = {START: start}
        if store.pair is not None:
            files[PAIR] = read_bytes(Path(store.pair))
        for name, data in files.items():
            write_atomically(path / name, data)
        manifest = {
            "schema": SCHEMA,
            "plan": plan.to_dict(),
            "block_size": store.block_size or _block_size(state),
            "problem": store.problem,
            "made_by": made_by,
            "start_cost": asdict(cost),
            "training_cost": asdict(kernel.training_cost),
            "files": {name: digest_of(data) for name, data in files.items()},
            "continued": [],
        }
        write_sealed(path / MANIFEST, manifest)
        write_atomically(path / LOG, b"")
        commit = first_commit(manifest, plan.num_samples)
        write_sealed(path / COMMIT, asdict(commit))
        return cls(path, manifest, commit, store.commit_seconds)

    @classmethod
    def open(cls, path: Path, commit_seconds: float) -> "RunDirectory":
        """Open a run directory to go on with it.

        Raises:
            StorageError: If it cannot be read.
            DamageError: If it is not what was written.
        """
        return cls(path, read_manifest(path), read_commit(path), commit_seconds)

    def save(self, phase: str, recorder: Recorder, *, is_last: bool = False) -> None:
        """Store what there is, where that is a block, or is due; full blocks are then forgotten by the recorder.

        Args:
            phase: What the draws belong to.
            recorder: The draws that are not stored yet, a block at most.
            is_last: Whether to store them in any case.

        Raises:
            StorageError: If they cannot be written; then the recorder keeps them.
        """
        is_full = recorder.num_here == self.block_size
        is_due = time.monotonic() - self._committed_at >= self._commit_seconds
        is_stored = recorder.num_draws <= self.commit.num_draws[phase]
        if is_stored or recorder.mark is None or not (is_full or is_due or is_last):
            return
        number = recorder.first // self.block_size
        capacity = self.plan.num_samples if phase == "samples" else self.plan.num_warmup
        block = self.arrays.write(phase, number, recorder.record(recorder.mark.state.position), capacity)
        self._append(block, recorder.num_draws, recorder.mark)
        if is_full:
            recorder.clear()

    def finish(self) -> None:
        """Make the arrays as long as what counts.

        Raises:
            StorageError: If that cannot be written.
        """
        self.arrays.cut(self.commit.num_draws)

    def refresh(self) -> None:
        """Read what counts anew, after an interruption that may have come before or after the last commit."""
        self.commit = read_commit(self.path)

    def want(self, num_samples: int) -> None:
        """Set how many kept draws a chain are wanted."""
        if num_samples != self.commit.num_samples:
            self._commit(replace(self.commit, num_samples=num_samples))

    def begin_again(self) -> None:
        """Go back to where the chains began; what was drawn no longer counts."""
        self._commit(first_commit(self.manifest, self.commit.num_samples))

    def label(self, mismatches: dict[str, Any]) -> None:
        """Write into the manifest that the draws from here on are made by something else."""
        at = {"num_draws": self.commit.num_draws, "mismatches": mismatches}
        self.manifest = self.manifest | {"continued": [*self.manifest["continued"], at]}
        write_sealed(self.path / MANIFEST, self.manifest)

    def state(self, kernel: Kernel, *, at_start: bool = False) -> State:
        """Return where the kernel stood at the last stored draw, or where the chains began.

        Raises:
            StorageError: If it cannot be read.
            DamageError: If it is not what was written.
        """
        if at_start:
            return unpack_state(kernel, read_file(self.path, START, self.manifest["files"][START]))
        return unpack_state(kernel, read_file(self.path, self.commit.state, self.commit.state_digest))

    def blocks(self, phase: str) -> list[Block]:
        """Return what counts of a phase."""
        return latest(read_log(self.path, self.commit), phase)

    def record(self, phase: str, recorder: Recorder, empty: Tensor) -> Record:
        """Return all draws of a phase: those that are stored, read when they are asked for, and those that are not.

        Args:
            phase: Which.
            recorder: Draws that are not stored, or not yet as a full block.
            empty: The shape and dtype of a draw.
        """
        here = recorder.record(empty)
        blocks = self.blocks(phase)[: recorder.first // self.block_size]
        return joined(self.arrays, blocks, here)

    def _append(self, block: Block, num_draws: int, mark: Mark) -> None:
        """Make a written block count."""
        line, digest = line_of(block, self.commit.log_digest)
        _append_line(self.path / LOG, self.commit.log_bytes, line)
        commit = replace(
            self.commit,
            num_draws=self.commit.num_draws | {block.phase: num_draws},
            log_bytes=self.commit.log_bytes + len(line),
            log_digest=digest,
            cost=asdict(mark.cost),
        )
        if mark.kernel is not None:
            state, name = pack_state(mark.kernel, mark.state), f"state-{mark.step}.safetensors"
            write_atomically(self.path / name, state)
            commit = replace(commit, state=name, state_digest=digest_of(state), step=mark.step)
        self._commit(commit)

    def _commit(self, commit: Commit) -> None:
        before = self.commit.state
        write_sealed(self.path / COMMIT, asdict(commit))
        self.commit = commit
        self._committed_at = time.monotonic()
        if before not in (START, commit.state):
            with contextlib.suppress(OSError):
                os.unlink(self.path / before)


def prepare(path: Path) -> None:
    """Make the folder of a new run, or see that it can be used.

    Raises:
        StorageError: If there is a run in it, or something else, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (path / COMMIT).exists():
            raise StorageError(f"{path} holds a run; go on with it (gfnmc resume), or choose another folder")
        # A run that was killed before its first commit left nothing that counts.
        others = {entry.name for entry in path.iterdir() if not entry.name.startswith(".gfnmc-")}
        if others - {MANIFEST, LOG, DRAWS, START, PAIR, LOCK}:
            raise StorageError(f"{path} is neither empty nor a run of gfnmc; choose another folder")
        check_writable(path / MANIFEST)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing into a run directory; readers are not kept out.

    Raises:
        StorageError: If another process is writing.
    """
    try:
        import fcntl
    except ImportError:
        # Not on Windows.
        yield
        return
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise storage_error(path / LOCK, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another process is writing the run in {path}; wait for it, or stop it") from error
        yield
    finally:
        os.close(descriptor)


def _append_line(path: Path, at: int, line: bytes) -> None:
    """Write a line after those that count; what was written there and does not count goes."""
    try:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(line)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def _block_size(state: State) -> int:
    """Return how many draws fit into 16 MiB, positions and about ten numbers a chain."""
    position = state.position
    size = position.numel() * position.element_size() + 10 * 8 * len(position)
    return max(1, min(1_000, 2**24 // size))
