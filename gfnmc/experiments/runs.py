"""Run directories of the problems that the command line knows: found, read and gone on with by name alone."""

import os
from pathlib import Path
from typing import Any

from gfnmc.core.errors import MismatchError, OptionError
from gfnmc.core.foreign import foreign_content
from gfnmc.experiments.own_model import is_reference
from gfnmc.experiments.problems import PROBLEMS, Problem, find_problem
from gfnmc.kernels import Kernel
from gfnmc.sampling import Chains, open_run
from gfnmc.sampling.layout import PAIR, read_file, read_manifest
from gfnmc.sampling.load import Damaged
from gfnmc.targets import Target
from gfnmc.training import load_pair


def load_run(path: str | os.PathLike[str], target: Target | None = None, *, damaged: Damaged = "raise") -> Chains:
    """Return the draws in a run directory, finished or not, also while another process writes it.

    Every block is read once and compared with what was written, one at a time. The chains read each of their arrays
    when it is first asked for, whole; so `chains.samples.stats` leaves the objects where they are.

    Args:
        path: A run directory of `sample(store=...)` or `gfnmc sample --store`.
        target: What the run sampled. Not needed where it is one that `gfnmc targets` lists.
        damaged: "raise", or "cut": read warm-up and kept draws each up to the last block before the first damaged one,
            and say so in the attribute "damaged" of the chains. There may then be no draws.

    Returns:
        The draws that were stored when this was called, with their costs, as `sample` returns them; no draws where
        none were.

    Raises:
        StorageError: If there is no run, or it cannot be read.
        DamageError: If something is not what was written; the error names the file or the block.
        OptionError: If the target has no name that is known, and none is given.
        MismatchError: If the run was made of another target.
    """
    manifest = read_manifest(Path(path))
    return open_run(path, _target_of(path, manifest) if target is None else target, damaged=damaged)


def kernel_of_run(path: str | os.PathLike[str], target: str | None = None) -> Kernel:
    """Return the kernel of a run that the command line made, from its directory alone.

    Args:
        path: The run directory.
        target: The name of the target, or where the user's own model is; by default the name that the run has. A model
            of the user's own has to be named, for the code in a file is not run because another file says so.

    Raises:
        StorageError: If there is no run, or it has no pair.
        DamageError: If the pair is not what was written.
        OptionError: If the target is not known.
    """
    place = Path(path)
    manifest = read_manifest(place)
    with foreign_content(path, "a run directory"):
        has_pair = PAIR in manifest["files"]
    if not has_pair:
        raise OptionError(f"the run in {path} was not made by `gfnmc sample`; go on with it by gfnmc.resume")
    problem = _problem_of(path, manifest) if target is None else find_problem(target)
    energy = problem.target()
    read_file(place, PAIR, manifest["files"][PAIR])
    return problem.hybrid(load_pair(place / PAIR, problem.environment(energy)), energy)


def _problem_of(path: str | os.PathLike[str], manifest: dict[str, Any]) -> Problem:
    with foreign_content(path, "a run directory"):
        name = str(manifest["problem"] or manifest["made_by"]["target"]["name"])
    if name in PROBLEMS:
        return PROBLEMS[name]
    if is_reference(name):
        raise OptionError(
            f"the run in {path} is of a model of your own, {name}, whose code is not run because a file names it; give "
            "it (--target, or target= in Python)"
        )
    raise OptionError(f"the run in {path} is of {name}, which `gfnmc targets` does not list; give target=")


def _target_of(path: str | os.PathLike[str], manifest: dict[str, Any]) -> Target:
    found = _problem_of(path, manifest).target()
    wanted = manifest["made_by"]["target"]["name"]
    if found.name != wanted:
        raise MismatchError(
            f"the run in {path} is of {wanted}, not of {found.name}; give target=",
            mismatches={"target.name": (wanted, found.name)},
        )
    return found
