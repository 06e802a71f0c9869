"""Read a run directory: one that is finished, one that was stopped, one that is being written."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from gfnmc.core.cost import Cost
from gfnmc.core.errors import DamageError, MismatchError, OptionError
from gfnmc.core.foreign import foreign_content
from gfnmc.sampling.arrays import PHASES, DrawArrays
from gfnmc.sampling.block_log import Block, latest
from gfnmc.sampling.chains import Chains
from gfnmc.sampling.fingerprint import density_differences, describe_target, differences, in_words
from gfnmc.sampling.layout import (
    LOG,
    START,
    Commit,
    arrays_of,
    joined,
    read_commit,
    read_file,
    read_log,
    read_manifest,
    remarks,
)
from gfnmc.sampling.plan import Plan
from gfnmc.sampling.recorder import Recorder
from gfnmc.sampling.state_files import read_start
from gfnmc.targets.base import Target

Damaged = Literal["raise", "cut"]
_TRIES = 5


def open_run(path: str | os.PathLike[str], target: Target, *, damaged: Damaged = "raise") -> Chains:
    """Return the draws in a run directory, given its target; `gfnmc.load_run` finds the targets that have a name.

    Every block is read once and compared with what was written, one at a time; the arrays of the result are then read
    when they are first asked for, and compared again. What another process writes in the meantime is not in the result.

    Args:
        path: A run directory of `sample(store=...)`.
        target: What the run sampled. It is asked for the densities of up to 16 objects that the run began with.
        damaged: "raise", or "cut": read each phase up to the last block before the first damaged one, and say so in
            the attribute "damaged" of the chains.

    Raises:
        StorageError: If there is no run, or it cannot be read.
        DamageError: If something is not what was written; the error names it.
        MismatchError: If the run was made of another target.
        OptionError: If `damaged` is neither.
    """
    if damaged not in ("raise", "cut"):
        raise OptionError(f"damaged is {damaged!r}; choose 'raise' or 'cut'")
    place = Path(path)
    for tried in range(_TRIES):
        manifest, commit = read_manifest(place), read_commit(place)
        try:
            return _opened(place, manifest, commit, target, damaged)
        except DamageError:
            # The writer may have gone on between two of the reads.
            if tried == _TRIES - 1 or read_commit(place) == commit:
                raise
    raise AssertionError("the last try returns or raises")


def _opened(path: Path, manifest: dict[str, Any], commit: Commit, target: Target, damaged: Damaged) -> Chains:
    check_target(path, manifest, target)
    with foreign_content(path, "a run directory"):
        return _read(path, manifest, commit, target, damaged)


def _read(path: Path, manifest: dict[str, Any], commit: Commit, target: Target, damaged: Damaged) -> Chains:
    plan = Plan.from_dict(manifest["plan"])
    blocks = read_log(path, commit, is_cut=damaged == "cut")
    arrays = arrays_of(path, manifest)
    empty = torch.empty((plan.num_chains, *target.event_shape), dtype=target.dtype)
    nothing = Recorder(plan.num_chains).record(empty)
    records, problems = {}, []
    for phase in PHASES:
        sound, error = _sound(arrays, latest(blocks, phase))
        if error is not None and damaged == "raise":
            raise error
        if error is not None:
            problems.append(error.part)
        found = sum(block.num_draws for block in sound)
        if error is None and found < commit.num_draws[phase]:
            problems.append(f"{LOG}, after {found} draws of the {phase}")
        records[phase] = joined(arrays, sound, nothing)
    said = remarks(plan, manifest)
    if problems:
        said["damaged"] = "; ".join(problems)
    return Chains(
        target,
        str(manifest["made_by"]["kernel"]["name"]),
        records["warmup"],
        records["samples"],
        plan.thinning,
        plan.seed,
        Cost.from_dict(manifest["training_cost"]),
        Cost.from_dict(commit.cost),
        remarks=said,
    )


def check_target(path: Path, manifest: dict[str, Any], target: Target) -> None:
    """Hold a target to what a run was made of.

    Raises:
        MismatchError: If it is another one.
        DamageError: If the objects that the run began with are not what was written.
    """
    with foreign_content(path, "a run directory"):
        found = differences({"target": dict(manifest["made_by"]["target"])}, {"target": describe_target(target)})
        start = read_start(read_file(path, START, manifest["files"][START]))
        if tuple(start.position.shape[1:]) != tuple(target.event_shape) and not found:
            raise ValueError(f"its chains began with objects of shape {tuple(start.position.shape[1:])}")
    if not found:
        found = density_differences(target, start)
    if found:
        listed = in_words(found)
        raise MismatchError(
            f"the run in {path} is of another target than {target.name}: {listed}; give the one it was made of",
            mismatches=found,
        )


def _sound(arrays: DrawArrays, blocks: list[Block]) -> tuple[list[Block], DamageError | None]:
    """Return the blocks before the first damaged one, and what is wrong with that."""
    for place, block in enumerate(blocks):
        try:
            if block.number != place:
                raise DamageError(f"block {place} of the {block.phase} is missing", part=f"block {place}")
            arrays.check(block)
        except DamageError as error:
            return blocks[:place], error
    return blocks, None
