"""The comparison of runs that are stored: made of the draws and costs on disk, without running anything."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gfnmc.core.errors import OptionError
from gfnmc.diagnostics.diagnose import diagnose
from gfnmc.experiments.compare import Comparison
from gfnmc.experiments.document import comparison_document
from gfnmc.experiments.runs import load_run
from gfnmc.sampling.chains import Chains
from gfnmc.sampling.layout import PAIR, read_commit, read_file, read_manifest
from gfnmc.targets.base import Target
from gfnmc.training.checkpoints import read_training_report

_CHECKED = 64


def compare_runs(
    runs: Sequence[str | os.PathLike[str]],
    target: Target | None = None,
    *,
    title: str | None = None,
    command: str | None = None,
) -> Comparison:
    """Compare stored runs of one target.

    The runs may have spent different amounts, and may not be finished; the comparison says so.

    Args:
        runs: Run directories, the one of interest first.
        target: What they sampled. Not needed where it is one that `gfnmc targets` lists.
        title: Title of the report; the target's name by default.
        command: How the comparison was started, for the report.

    Raises:
        OptionError: If there are no runs, one is named twice or has too few draws, they are of different targets, or
            the target has no name that is known.
        StorageError: If a directory cannot be read.
        DamageError: If something in it is not what was written there.
        MismatchError: If a run is of another target than the one given.
    """
    if not runs:
        raise OptionError("there is nothing to compare: give at least one run directory")
    folders = dict(zip(_names(runs), (Path(run) for run in runs), strict=True))
    chains: dict[str, Chains] = {}
    for name, folder in folders.items():
        chains[name] = _loaded(folder, target, next(iter(chains.values()), None))
    common = next(iter(chains.values())).target
    document = comparison_document(
        common,
        chains,
        {},
        training={name: report for name, folder in folders.items() if (report := _training(folder)) is not None},
        title=title or common.name,
        start="as each run was started",
        command=command,
        num_threads=None,
    )
    told = [line for name, folder in folders.items() for line in _remarks(name, folder, chains[name])]
    told += [line for sampler in document["samplers"] for line in _doubts(sampler, chains[sampler["name"]])]
    return Comparison(common, chains, document | {"cautions": [*told, *document["cautions"]]})


def _names(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return what to call the runs: their folders, or where two folders are called alike the paths to them.

    Raises:
        OptionError: If a run is named twice.
    """
    places = [Path(run).resolve() for run in runs]
    if len(set(places)) < len(places):
        raise OptionError(f"a run is named twice in {', '.join(str(run) for run in runs)}; name each once")
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [str(place) for place in places]


def _loaded(folder: Path, target: Target | None, first: Chains | None) -> Chains:
    """Return the draws of a run, which must be of the target of the first.

    Raises:
        OptionError: If it is of another one, or has too few draws.
    """
    chains = load_run(folder, target)
    if chains.num_samples < 2:
        raise OptionError(
            f"the run in {folder} has {chains.num_samples} kept draws a chain, and a report needs 2; go on with it "
            "(gfnmc resume), or leave it out"
        )
    if first is not None and not _is_same(first.target, chains):
        raise OptionError(
            f"the run in {folder} is of {chains.target.name}, and the first one of {first.target.name}, or of another "
            "version of it; make a report of each"
        )
    return chains


def _is_same(target: Target, chains: Chains) -> bool:
    """Say whether some stored log-densities are those of a target."""
    theirs = chains.target
    if theirs is target:
        return True
    if (theirs.name, theirs.event_shape, theirs.dtype) != (target.name, target.event_shape, target.dtype):
        return False
    if target.is_noisy:
        return True
    with torch.no_grad():
        found = target.log_prob(chains.x[:_CHECKED, -1])
    return torch.allclose(found, chains.samples.log_prob[:_CHECKED, -1], rtol=1e-6, atol=1e-6)


def _training(folder: Path) -> Mapping[str, Any] | None:
    """Return what training recorded of the pair that lies in a run directory; None where none does."""
    files = read_manifest(folder)["files"]
    if PAIR not in files:
        return None
    read_file(folder, PAIR, files[PAIR])
    return read_training_report(folder / PAIR)


def _doubts(sampler: Mapping[str, Any], chains: Chains) -> Iterator[str]:
    """Say what a diagnosis finds in single chains where the figures of all of them look well."""
    if sampler["status"] == "ok":
        diagnosis = diagnose(chains)
        if not diagnosis.is_ok:
            yield f"{sampler['name']}: {diagnosis.verdict[0]}"


def _remarks(name: str, folder: Path, chains: Chains) -> Iterator[str]:
    """Say what a reader must know of how a run was made."""
    wanted = read_commit(folder).num_samples
    if chains.num_samples < wanted:
        yield f"{name} is not finished: {chains.num_samples:,} of {wanted:,} draws a chain are there."
    if "statistically_continued" in chains.remarks:
        yield (
            f"{name} was gone on with by other versions, another kernel or another device than it began with "
            "(--allow-mismatch): its draws are valid, but not those of one run."
        )
    num_nonfinite = int(chains.nonfinite_count.sum())
    if num_nonfinite:
        yield (
            f"{num_nonfinite:,} log-densities in {name} were NaN or +inf and counted as impossible: it sampled the "
            "target restricted to where it is finite."
        )
