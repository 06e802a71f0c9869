"""Run samplers side by side at equal budgets, all from the same start, and say in words and figures who mixed.

The first sampler sets the budget: what it spent, training included, the others may spend as well. Chains start in one
mode if the target knows its modes: a sampler that cannot leave it shows.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.diagnostics.evidence import Evidence, importance_log_z
from gfnmc.experiments.document import Document, comparison_document
from gfnmc.experiments.summary import comparison_summary
from gfnmc.kernels.base import Kernel
from gfnmc.policies.pair import ProposalPair
from gfnmc.sampling import Budget, sample
from gfnmc.sampling.chains import Chains
from gfnmc.targets.base import Target

_MAX_KEPT = 5_000
_TRIAL_STEPS = 10


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns.

    Attributes:
        target: What was sampled.
        chains: The chains of each sampler, by name.
        document: Every figure, as plain data; reports are made of it and nothing else.
    """

    target: Target
    chains: dict[str, Chains]
    document: Document

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report: a page to a `.html` file, the figures to a `.json` file.

        Raises:
            OptionError: If the path ends otherwise.
            StorageError: If it cannot be written.
        """
        from gfnmc.report import save

        save(self.document, path)

    def __repr__(self) -> str:
        return comparison_summary(self).text()

    def _repr_html_(self) -> str:
        """Show the comparison in a notebook."""
        return comparison_summary(self).html()


def compare(
    kernels: Mapping[str, Kernel],
    target: Target,
    *,
    budget: Budget | None = None,
    num_chains: int = 64,
    num_samples: int = 1_000,
    num_warmup: int = 100,
    seed: int = 0,
    init: Tensor | None = None,
    max_seconds: float = 60.0,
    num_threads: int | None = 1,
    progress_bar: bool = True,
    title: str | None = None,
    command: str | None = None,
) -> Comparison:
    """Compare samplers of one target.

    Args:
        kernels: The samplers by name, the one of interest first. Training is charged to those whose pair knows its
            cost.
        target: What they sample.
        budget: What each sampler may spend, training included. By default the first one runs `num_samples` and the
            others may spend as many target calls as it did, training and the estimate of log Z included.
        num_chains: Chains of each sampler.
        num_samples: Kept draws a chain of the first sampler, where no budget is given.
        num_warmup: Steps before the first kept draw.
        seed: Any integer.
        init: Where all chains start; by default the best object of the target's first mode, or else what each
            kernel starts from.
        max_seconds: Bound on the sampling seconds of the samplers after the first, training not counted, where no
            budget is given.
        num_threads: Torch threads during the runs; None leaves torch's setting alone.
        progress_bar: Whether to show progress.
        title: Title of the report; the target's name by default.
        command: How the comparison was started, for the report.

    Raises:
        OptionError: If there are no kernels, or one samples another target, or the budget is spent by training.
        NonFiniteEnergyError: If the target returns NaN or +inf. As with any error on the way, the draws that the
            samplers finished by then are in its attribute `runs`, by name.
    """
    if not kernels:
        raise OptionError("there is nothing to compare: give at least one kernel")
    for name, kernel in kernels.items():
        if kernel.target is not target:
            raise OptionError(f"{name!r} samples another target object than the one to compare on")
    init, start = _start(target, init)
    options: dict[str, Any] = {
        "num_chains": num_chains,
        "num_warmup": num_warmup,
        "seed": seed,
        "init": init,
        "num_threads": num_threads,
        "progress_bar": progress_bar,
    }
    runs: dict[str, Chains] = {}
    evidence: dict[str, Evidence] = {}
    training: dict[str, Mapping[str, Any]] = {}
    for name, kernel in kernels.items():
        try:
            pair = find_pair(kernel)
            if pair is not None:
                evidence[name] = importance_log_z(pair, target, seed=seed, num_threads=num_threads)
                report = getattr(pair, "training_report", None)
                if report is not None:
                    training[name] = report
            if budget is not None:
                runs[name] = _sample_within(_left_by_training(kernel, budget), kernel, options)
            elif not runs:
                runs[name] = sample(kernel, num_samples=num_samples, **options)
            else:
                left = _left_by_training(kernel, Budget(_calls_of_first(runs, evidence)))
                runs[name] = _sample_within(replace(left, seconds=max_seconds), kernel, options)
        except BaseException as error:
            _attach(error, name, runs)
            raise
    document = comparison_document(
        target,
        runs,
        evidence,
        training=training,
        title=title or target.name,
        start=start,
        command=command,
        num_threads=num_threads,
    )
    return Comparison(target, runs, document)


def find_pair(kernel: Kernel) -> ProposalPair | None:
    """Return the pair that a kernel, or a part of it, proposes with."""
    pair = getattr(kernel, "pair", None)
    if pair is not None:
        return pair
    parts = getattr(kernel, "kernels", None) or [part for part in [getattr(kernel, "kernel", None)] if part is not None]
    found = (find_pair(part) for part in parts)
    return next((pair for pair in found if pair is not None), None)


def _start(target: Target, init: Tensor | None) -> tuple[Tensor | None, str]:
    """Return where all chains start, None for each kernel's own way, and the same in words."""
    if init is not None:
        return init, "the objects given"
    modes = target.modes()
    if modes is None:
        return None, "each sampler's own start"
    return modes.examples[0], f"all chains at one object of {modes.names[0]}"


def _calls_of_first(runs: dict[str, Chains], evidence: dict[str, Evidence]) -> int:
    """Return the target calls of the first sampler: training, chains and the estimate of log Z."""
    first = next(iter(runs))
    return runs[first].cost.target_calls + (evidence[first].num_draws if first in evidence else 0)


def _attach(error: BaseException, name: str, runs: dict[str, Chains]) -> None:
    """Keep the draws of every sampler, the one that failed included, with an error."""
    unfinished = getattr(error, "chains", None)
    kept = runs if unfinished is None else {**runs, name: unfinished}
    if kept:
        error.runs = kept  # type: ignore[attr-defined]
        error.add_note(f"the draws that {', '.join(kept)} finished by then are kept in this error's `runs`")


def _left_by_training(kernel: Kernel, budget: Budget) -> Budget:
    """Return what training a kernel's pair has left of a budget."""
    spent = kernel.training_cost
    calls = None if budget.target_calls is None else budget.target_calls - spent.target_calls
    seconds = None if budget.seconds is None else budget.seconds - spent.seconds
    if (calls is not None and calls <= 0) or (seconds is not None and seconds <= 0):
        raise OptionError(
            f"training {kernel.name} cost {spent.target_calls} target calls and {spent.seconds:.0f} s, more than the "
            "budget; raise it, or give a pair without its training cost"
        )
    return Budget(calls, seconds)


def _sample_within(left: Budget, kernel: Kernel, options: dict[str, Any]) -> Chains:
    """Run a kernel for as many steps as a budget of sampling allows."""
    if left.target_calls is None:
        num_steps = _steps_in(left.seconds or 0.0, kernel, options)
    else:
        calls_per_round = options["num_chains"] * kernel.calls_per_step
        num_steps = max(1, left.target_calls // calls_per_round - options["num_warmup"])
    thinning = -(-num_steps // _MAX_KEPT)
    return sample(
        kernel,
        num_samples=max(1, num_steps // thinning),
        thinning=thinning,
        budget=left,
        **options,
    )


def _steps_in(seconds: float, kernel: Kernel, options: dict[str, Any]) -> int:
    """Return more steps than fit into some seconds, by a short run; the budget of seconds ends the real one."""
    trial = sample(kernel, **options | {"num_samples": _TRIAL_STEPS, "num_warmup": 0, "progress_bar": False})
    return max(1, int(2.0 * seconds * _TRIAL_STEPS / trial.sampling_cost.seconds))
