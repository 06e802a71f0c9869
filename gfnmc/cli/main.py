"""Commands of `gfnmc`. Results go to standard output, progress and errors to standard error.

Exit codes: 0 all is well, 1 the work was done but the diagnostics say no, 2 bad input.
"""

import json
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gfnmc.cli.benchmark import benchmark
from gfnmc.cli.check import check
from gfnmc.cli.resume import draw, resume
from gfnmc.core.errors import GfnmcError, OptionError, StorageError

if TYPE_CHECKING:
    from gfnmc.sampling import Chains
    from gfnmc.training import TrainingConfig, TrainingResult

_TARGET = click.argument("target", metavar="TARGET")
_AT_LEAST_ONE = click.IntRange(min=1)
_SEED = click.option("--seed", default=0, show_default=True, help="Names the run; the same seed repeats it.")
_CHAINS = click.option(
    "--chains", "num_chains", type=_AT_LEAST_ONE, default=256, show_default=True, help="Chains side by side."
)
_SAMPLES = click.option(
    "--samples", "num_samples", type=_AT_LEAST_ONE, default=600, show_default=True, help="Kept draws a chain."
)
_WARMUP = click.option(
    "--warmup",
    "num_warmup",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Steps before the first one.",
)
_STEPS = click.option("--steps", type=_AT_LEAST_ONE, help="Training steps; a setting that works by default.")
_THREADS = click.option(
    "--threads", type=_AT_LEAST_ONE, default=1, show_default=True, help="Torch threads; small nets like one."
)
_QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")


class _Group(click.Group):
    """A group whose commands turn gfnmc's errors into one clear line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GfnmcError as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            click.echo(f"gfnmc: {error}{notes}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gfnmc")
def main() -> None:
    """Sample hard discrete, multimodal distributions exactly, in large steps that a GFlowNet learned.

    Start here:  gfnmc compare tfbind-klf1 --report klf1.html
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not sys.stderr.isatty():
        # Progress as lines; a terminal has a bar.
        logging.getLogger("gfnmc").setLevel(logging.INFO)


@main.command()
def targets() -> None:
    """List the targets that the other commands know."""
    from gfnmc.experiments import PROBLEMS

    width = max(map(len, PROBLEMS))
    for name, problem in PROBLEMS.items():
        click.echo(f"{name:<{width}}  {problem.description}")


@main.command(short_help="Train a pair for TARGET and save it.")
@_TARGET
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to save the pair (.safetensors).")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Training options (a TrainingConfig) in a .json file.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="File to save the run in on the way.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint.")
@_STEPS
@_SEED
@_THREADS
@_QUIET
@click.pass_context
def train(
    ctx: click.Context,
    target: str,
    out: Path,
    config_file: Path | None,
    checkpoint: Path | None,
    resume: bool,
    steps: int | None,
    seed: int,
    threads: int,
    quiet: bool,
) -> None:
    """Train a pair for TARGET and save it.

    Prints how good the pair is: the predicted acceptance of a full restart, and log Z between its bounds. A pair that
    has lost a part of the target is saved as well, with a warning and exit code 1.
    """
    from gfnmc.core.storage import check_writable
    from gfnmc.experiments import find_problem
    from gfnmc.training import resume_training, save_pair
    from gfnmc.training import train as train_pair

    problem = find_problem(target)
    config = _training_config(problem.training if config_file is None else _read_config(config_file), steps)
    check_writable(out)
    energy = problem.target()
    environment = problem.environment(energy)
    shown: dict[str, Any] = {"num_threads": threads, "progress_bar": not quiet}
    if resume:
        if checkpoint is None:
            raise click.UsageError("--resume needs --checkpoint, the file to go on from")
        if steps is not None or config_file is not None:
            raise click.UsageError(
                "--steps and --config go with a new run; a resumed one keeps the options and the seed it began with"
            )
        result = resume_training(checkpoint, environment, energy, **shown)
    else:
        result = train_pair(environment, energy, config=config, seed=seed, checkpoint=checkpoint, **shown)
    save_pair(result.pair, out)
    _show_training(result, out)
    # The trainer has logged the warning.
    ctx.exit(0 if result.quality.warning is None else 1)


@main.command(short_help="Run chains of TARGET with a trained pair, for ArviZ.")
@_TARGET
@click.option("--pair", "pair_file", type=click.Path(path_type=Path), required=True, help="A pair saved by `train`.")
@click.option("--out", type=click.Path(path_type=Path), help="ArviZ file to write (.nc).")
@click.option("--store", type=click.Path(path_type=Path), help="Run directory to write on the way; `resume` goes on.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this .json file.")
@_CHAINS
@_SAMPLES
@_WARMUP
@click.option(
    "--thinning", type=_AT_LEAST_ONE, default=1, show_default=True, help="Steps from one kept draw to the next."
)
@click.option("--block", "block_size", type=_AT_LEAST_ONE, help="Draws a block of the store; what fits into 16 MiB.")
@click.option(
    "--on-nonfinite",
    type=click.Choice(["raise", "reject"]),
    default="raise",
    show_default=True,
    help="Whether an energy that is NaN or +inf ends the run, or is counted and rejected.",
)
@_SEED
@_THREADS
@_QUIET
def sample(
    target: str,
    pair_file: Path,
    out: Path | None,
    store: Path | None,
    json_file: Path | None,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    thinning: int,
    block_size: int | None,
    on_nonfinite: Literal["raise", "reject"],
    seed: int,
    threads: int,
    quiet: bool,
) -> None:
    """Run chains of TARGET with a trained pair and write them for ArviZ, or into a run directory, or both."""
    from gfnmc.experiments import find_problem
    from gfnmc.sampling import Store
    from gfnmc.sampling import sample as sample_chains
    from gfnmc.training import load_pair

    if out is None and store is None:
        raise click.UsageError("give --out FILE.nc, or --store FOLDER, or both")
    problem = find_problem(target)
    energy = problem.target()

    def run() -> "Chains":
        pair = load_pair(pair_file, problem.environment(energy))
        return sample_chains(
            problem.hybrid(pair, energy),
            num_chains=num_chains,
            num_samples=num_samples,
            num_warmup=num_warmup,
            thinning=thinning,
            store=None if store is None else Store(store, block_size=block_size, problem=target, pair=pair_file),
            on_nonfinite=on_nonfinite,
            seed=seed,
            num_threads=threads,
            progress_bar=not quiet,
        )

    draw(run, out, store, json_file)


@main.command(short_help="Compare the exact chain of a pair for TARGET with a random walk.")
@_TARGET
@click.option(
    "--report", type=click.Path(path_type=Path), help="Report to write: .html for the page, .json for figures."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this .json file as well."
)
@click.option("--pair", "pair_file", type=click.Path(path_type=Path), help="Use a pair saved by `train`; train none.")
@_STEPS
@_CHAINS
@_SAMPLES
@_WARMUP
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="Most seconds the random walk may sample.",
)
@_SEED
@_THREADS
@_QUIET
@click.pass_context
def compare(
    ctx: click.Context,
    target: str,
    report: Path | None,
    json_file: Path | None,
    pair_file: Path | None,
    steps: int | None,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    max_seconds: float,
    seed: int,
    threads: int,
    quiet: bool,
) -> None:
    """Train a pair for TARGET and compare its exact chain with a random walk.

    Both get the same number of target calls, training included, and all chains start in one mode. Prints a table; with
    --report writes the report and, beside it, an ArviZ file of each sampler. Exits with 1 if the chain of the pair did
    not mix.
    """
    from gfnmc.experiments import compare as compare_kernels
    from gfnmc.experiments import find_problem
    from gfnmc.kernels import RandomWalk
    from gfnmc.report import check_writable
    from gfnmc.training import load_pair
    from gfnmc.training import train as train_pair

    problem = find_problem(target)
    for path in (report, json_file):
        if path is not None:
            check_writable(path)
    energy = problem.target()
    environment = problem.environment(energy)
    shown: dict[str, Any] = {"num_threads": threads, "progress_bar": not quiet}
    if pair_file is None:
        config = _training_config(problem.training, steps)
        pair = train_pair(environment, energy, config=config, seed=seed, **shown).pair
    elif steps is None:
        pair = load_pair(pair_file, environment)
    else:
        raise click.UsageError("--steps trains a pair and --pair takes one that is trained; give one of them")
    try:
        comparison = compare_kernels(
            {"hybrid": problem.hybrid(pair, energy), "random walk": RandomWalk(environment, energy)},
            energy,
            num_chains=num_chains,
            num_samples=num_samples,
            num_warmup=num_warmup,
            seed=seed,
            max_seconds=max_seconds,
            title=problem.name,
            command=shlex.join(["gfnmc", *sys.argv[1:]]),
            **shown,
        )
    except BaseException as error:
        if report is not None:
            _save_chains(getattr(error, "runs", None) or {}, report)
        raise
    _show(comparison)
    for path in (report, json_file):
        if path is not None:
            comparison.save(path)
            click.echo(f"wrote {path}")
    if report is not None:
        _save_chains(comparison.chains, report)
    ctx.exit(0 if comparison.document["samplers"][0]["status"] == "ok" else 1)


def _save_chains(runs: Mapping[str, "Chains"], report: Path) -> None:
    """Write the draws of each sampler beside the report."""
    for name, chains in runs.items():
        if chains.num_samples:
            path = report.with_suffix(f".{name.replace(' ', '-')}.nc")
            chains.save(path)
            click.echo(f"wrote {path}")


def _read_config(path: Path) -> "TrainingConfig":
    """Return the training options of a JSON file; those that it does not name have their defaults.

    Raises:
        StorageError: If the file cannot be read.
        OptionError: If it is not a JSON object of training options.
    """
    from gfnmc.training import TrainingConfig

    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{path} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise OptionError(f'{path} holds no JSON object; write training options as {{"num_steps": 500}}')
    try:
        return TrainingConfig.from_dict(options)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error


def _training_config(config: "TrainingConfig", steps: int | None) -> "TrainingConfig":
    from dataclasses import replace

    return config if steps is None else replace(config, num_steps=steps)


def _show_training(result: "TrainingResult", out: Path) -> None:
    """Print what training cost and how good the pair is."""
    from gfnmc.report import format as fmt

    cost, quality, report = result.cost, result.quality, result.pair.training_report
    assert report is not None
    steps = f"{report['num_steps']:,}"
    if report["is_stopped_early"]:
        steps += f" of {report['config']['num_steps']:,} steps (stopped early)"
    else:
        steps += " step" if report["num_steps"] == 1 else " steps"
    click.echo(f"trained {steps} in {cost.seconds:.0f} s with {cost.target_calls:,} target calls; saved {out}")
    lower, upper = (fmt.DASH if bound is None else f"{bound:.2f}" for bound in (quality.elbo, quality.eubo))
    click.echo(
        f"predicted acceptance of a full restart {fmt.percent(quality.acceptance)}, log Z {quality.log_z:.2f} between "
        f"{lower} (ELBO) and {upper} (EUBO); {quality.label}"
    )


def _show(comparison: Any) -> None:
    from rich.console import Console

    from gfnmc.report import comparison_table, verdict_lines

    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(comparison_table(comparison.document))
    for line in verdict_lines(comparison.document):
        console.print(line, markup=False, highlight=False)


main.add_command(benchmark)
main.add_command(check)
main.add_command(resume)
