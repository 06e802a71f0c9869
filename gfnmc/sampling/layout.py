"""What a run directory is made of, and how it is read; `store.py` writes it.

    run/
      manifest.json                what was asked for, by what it was made, whether something else went on with it
      start.safetensors            where the chains began
      pair.safetensors             the pair of the kernel, where the command line made the run
      draws.zarr/                  draws and what the kernel said of them, a chunk of each array for a block
      blocks.jsonl                 a line for each block, with digests of what it must hold
      state-<steps>.safetensors    where the kernel stood at the last stored draw
      commit.json                  how much of all this counts

Whatever is past the commit does not count. What is read is compared with digests, and nothing is read as code.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gfnmc.core.cost import Cost
from gfnmc.core.errors import DamageError, StorageError
from gfnmc.sampling.arrays import PHASES, DrawArrays
from gfnmc.sampling.block_log import EMPTY_DIGEST, Block, digest_of_lines, read_lines
from gfnmc.sampling.chains import Record
from gfnmc.sampling.checked_files import digest_of, read_bytes, read_sealed
from gfnmc.sampling.plan import Plan

SCHEMA = "gfnmc.run/1"
MANIFEST, COMMIT, LOG, LOCK = "manifest.json", "commit.json", "blocks.jsonl", "lock"
DRAWS, START, PAIR = "draws.zarr", "start.safetensors", "pair.safetensors"


@dataclass(frozen=True)
class Commit:
    """How much of a run directory counts.

    Attributes:
        num_draws: Draws a chain of each phase.
        log_bytes: Length of the log of blocks.
        log_digest: Digest of its last line.
        state: The file that holds where the kernel stood then.
        state_digest: Of that file.
        step: Steps made by then.
        cost: What they cost.
        num_samples: Kept draws a chain that are wanted.
    """

    log_digest: str
    state: str
    state_digest: str
    num_samples: int
    num_draws: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    log_bytes: int = 0
    step: int = 0
    cost: dict[str, Any] = field(default_factory=lambda: asdict(Cost()))

    def __post_init__(self) -> None:
        # It is read, and removed once there is another; so it must not lead out of the directory.
        counts = (self.num_samples, self.log_bytes, self.step, *(self.num_draws[phase] for phase in PHASES))
        if not all(type(count) is int and count >= 0 for count in counts):
            raise DamageError(f"{COMMIT} counts in something else than numbers: {counts}", part=COMMIT)
        if not re.fullmatch(r"start\.safetensors|state-\d+\.safetensors", self.state):
            raise DamageError(f"{COMMIT} names {self.state!r} as the state of the kernel", part=COMMIT)


def first_commit(manifest: dict[str, Any], num_samples: int) -> Commit:
    """Return the commit of a run that has not made a step.

    Args:
        manifest: Of its directory.
        num_samples: Kept draws a chain that are wanted.
    """
    return Commit(EMPTY_DIGEST, START, manifest["files"][START], num_samples, cost=manifest["start_cost"])


def remarks(plan: Plan, manifest: dict[str, Any] | None) -> dict[str, str]:
    """Return what a reader of the draws must know of a run.

    Args:
        plan: What was asked for.
        manifest: Of its directory, if it has one.
    """
    said = {"on_nonfinite": plan.on_nonfinite}
    if manifest is not None and manifest["continued"]:
        said["statistically_continued"] = json.dumps(manifest["continued"])
    return said


def arrays_of(path: Path, manifest: dict[str, Any]) -> DrawArrays:
    """Return the arrays of a run directory."""
    return DrawArrays(path / DRAWS, manifest["block_size"])


def joined(arrays: DrawArrays, blocks: list[Block], rest: Record) -> Record:
    """Return the draws of some blocks, read when they are asked for, followed by others."""
    if not blocks:
        return rest

    def load(name: str) -> Any:
        value = arrays.read(blocks, name)
        if not rest.log_prob.shape[1]:
            return value
        return _appended(value, getattr(rest, name))

    return Record.stored(load)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a run directory.

    Raises:
        StorageError: If it cannot be read.
        DamageError: If it is not what was written.
    """
    if not (path / COMMIT).exists():
        raise StorageError(f"there is no run of gfnmc in {path}, or it was stopped before its chains began")
    manifest = read_sealed(path / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise StorageError(f"{path / MANIFEST} is not a {SCHEMA} file, but {manifest.get('schema', 'something else')}")
    return manifest


def read_commit(path: Path) -> Commit:
    """Return what counts in a run directory.

    Raises:
        StorageError: If it cannot be read.
        DamageError: If it is not what was written.
    """
    content = read_sealed(path / COMMIT)
    try:
        return Commit(**content)
    except (TypeError, KeyError) as error:
        raise DamageError(f"{COMMIT} in {path} is not of this version of gfnmc: {error}", part=COMMIT) from error


def read_log(path: Path, commit: Commit, *, is_cut: bool = False) -> list[Block]:
    """Return the blocks that count, in the order in which they were written.

    Args:
        path: The run directory.
        commit: What counts.
        is_cut: Whether to stop before the first damaged line; otherwise it is an error.

    Raises:
        StorageError: If they cannot be read.
        DamageError: If they are not what was written.
    """
    data = read_bytes(path / LOG)[: commit.log_bytes]
    blocks, error = read_lines(data, path / LOG)
    if error is None and (len(data) < commit.log_bytes or digest_of_lines(data) != commit.log_digest):
        error = DamageError(f"{LOG} in {path} is damaged: it is shorter than it was, or another one", part=LOG)
    if error is not None and not is_cut:
        raise error
    return blocks


def read_file(path: Path, name: str, digest: str) -> bytes:
    """Return the content of a file of a run directory.

    Raises:
        StorageError: If it cannot be read.
        DamageError: If it is not what was written.
    """
    data = read_bytes(path / name)
    if digest_of(data) != digest:
        raise DamageError(f"{name} in {path} is damaged: it is not what was written there", part=name)
    return data


def _appended(value: Any, rest: Any) -> Any:
    if isinstance(value, dict):
        return {name: _appended(stored, rest[name]) for name, stored in value.items()}
    return torch.cat([value, rest], 0 if value.dim() == 1 else 1)
