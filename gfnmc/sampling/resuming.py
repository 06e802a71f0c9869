"""Go on with a run that was stopped, to the draws that it would have made if it had not been."""

import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from gfnmc.core.cost import Cost
from gfnmc.core.errors import MismatchError
from gfnmc.core.threads import thread_limit
from gfnmc.kernels.base import Kernel, State, check_irreducible
from gfnmc.sampling.chains import Chains, Record
from gfnmc.sampling.fingerprint import density_differences, describe, differences, refuse
from gfnmc.sampling.layout import read_manifest
from gfnmc.sampling.loop import Run
from gfnmc.sampling.plan import Budget
from gfnmc.sampling.recorder import Recorder
from gfnmc.sampling.store import RunDirectory, locked


def resume(
    path: str | os.PathLike[str],
    kernel: Kernel,
    *,
    num_samples: int | None = None,
    budget: Budget | None = None,
    commit_seconds: float = 30.0,
    allow_mismatch: bool = False,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> Chains:
    """Go on with the run in a run directory, from the last draw that is stored.

    However often a run is stopped, and wherever, its draws are those of a run that was not, bit for bit. Where the
    warm-up adapts, a run that was stopped in it begins it again; one that was stopped later makes it again without
    keeping it, to have the tuned kernel.

    The kernel must be the one that the run was made by, or one made alike. What tells it and its target from others is
    compared, and so are the versions of gfnmc, torch and NumPy and the device. The target is asked for the densities of
    up to 16 objects that the run began with, which are not counted in the cost of the run.

    Args:
        path: A run directory of `sample(store=...)`.
        kernel: What moves the chains.
        num_samples: Kept draws a chain in all, those that are there included; as many as the run wanted by default.
            None of those that are there is taken away.
        budget: Ends the run early; what it had cost before counts.
        commit_seconds: After so many seconds what there is of a block is stored as well.
        allow_mismatch: Whether to go on where something differs. The draws from there on are those of another run with
            the same start, which the manifest and the attribute "statistically_continued" of the chains say.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Returns:
        The chains, which read each of their arrays from the store when it is first asked for.

    Raises:
        OptionError: If a count makes no sense.
        MismatchError: If the run was made by something else.
        StorageError: If there is no run, another process writes it, or it cannot be written.
        DamageError: If what is needed of it is not what was written there.
        NonFiniteEnergyError: As `sample` raises it, like its other errors.
    """
    place = Path(path)
    check_irreducible(kernel)
    read_manifest(place)
    with thread_limit(num_threads), torch.no_grad(), locked(place):
        directory = RunDirectory.open(place, commit_seconds)
        _compare(directory, kernel, allow_mismatch)
        plan = directory.plan if num_samples is None else replace(directory.plan, num_samples=num_samples)
        directory.want(plan.num_samples)
        run = Run(kernel, plan, budget or Budget())
        run.directory = directory
        _restore(run, directory, allow_mismatch)
        try:
            run.go(progress_bar)
            run.store_rest()
        except BaseException as error:
            run.attach(error)
            raise
        return run.chains()


def _compare(directory: RunDirectory, kernel: Kernel, allow_mismatch: bool) -> None:
    """Hold a kernel to what a run was made by.

    Raises:
        MismatchError: If something differs and that is not allowed.
    """
    start = directory.state(kernel, at_start=True)
    found = differences(directory.manifest["made_by"], describe(kernel, start))
    if not any(name.startswith("target.") for name in found):
        found |= density_differences(kernel.target, start)
    if not allow_mismatch:
        refuse(found, directory.path)
    elif found:
        directory.label({name: [str(was), str(now)] for name, (was, now) in found.items()})


def _restore(run: Run, directory: RunDirectory, allow_mismatch: bool) -> None:
    """Put a run where the last stored draw left it."""
    if directory.commit.step == 0 and any(directory.commit.num_draws.values()):
        directory.begin_again()
    commit = directory.commit
    run.state = directory.state(run.kernel, at_start=True)
    if commit.step and run.plan.adapt:
        run.make_warmup_again()
        if not allow_mismatch:
            _check_warmup(run.state, directory)
    if commit.step:
        run.state = directory.state(run.kernel)
    run.step, run.num_nonfinite = commit.step, 0
    run.cost = replace(Cost(**commit.cost), seconds=0.0)
    run.begun = time.perf_counter() - commit.cost["seconds"]
    for phase in run.recorders:
        run.recorders[phase] = _recorder(directory, phase)


def _recorder(directory: RunDirectory, phase: str) -> Recorder:
    """Return the recorder of a phase, with the draws of a block that is not full."""
    num_draws, size = directory.commit.num_draws[phase], directory.block_size
    recorder = Recorder(directory.plan.num_chains, num_draws - num_draws % size)
    if num_draws % size:
        last = directory.blocks(phase)[-1:]
        fields = ("position", "log_prob", "stats", "seconds")
        recorder.take_back(Record(*(directory.arrays.read(last, name) for name in fields)))
    return recorder


def _check_warmup(state: State, directory: RunDirectory) -> None:
    """See that a warm-up that was made again came to the same place.

    Raises:
        MismatchError: If it did not.
    """
    stored = directory.arrays.read(directory.blocks("warmup")[-1:], "position")[:, -1]
    if not torch.equal(state.position, stored):
        raise MismatchError(
            f"the warm-up of the run in {directory.path}, made again, came to other objects, so something that makes "
            "the draws has changed; start a new run",
            mismatches={"warm-up": (stored.tolist(), state.position.tolist())},
        )
