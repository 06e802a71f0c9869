"""The command `gfnmc compare`: the exact chain of a pair beside a random walk."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output
from gfnmc.cli.show import show_comparison
from gfnmc.cli.train import training_config

if TYPE_CHECKING:
    from gfnmc.sampling import Chains


@click.command(short_help="Compare the exact chain of a pair for TARGET with a random walk.")
@options.target
@click.option("--report", type=options.PATH, help="Report to write: .html for the page, .json for figures.")
@options.json_file
@click.option("--pair", "pair_file", type=options.PATH, help="Use a pair saved by `train`; train none.")
@options.steps
@options.chains
@options.samples
@options.warmup
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="Most seconds the random walk may sample.",
)
@options.seed
@options.threads
@options.quiet
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
    output = Output(json_file)
    if report is not None:
        check_writable(report)
    energy = problem.target()
    environment = problem.environment(energy)
    shown: dict[str, Any] = {"num_threads": threads, "progress_bar": not quiet}
    if pair_file is None:
        config = training_config(problem.training, steps)
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
            _save_chains(getattr(error, "runs", None) or {}, report, output)
        raise
    show_comparison(comparison.document, output)
    if report is not None:
        comparison.save(report)
        output.say(f"wrote {report}")
    output.figures(comparison.document)
    if report is not None:
        _save_chains(comparison.chains, report, output)
    ctx.exit(0 if comparison.document["samplers"][0]["status"] == "ok" else 1)


def _save_chains(runs: Mapping[str, "Chains"], report: Path, output: Output) -> None:
    """Write the draws of each sampler beside the report."""
    for name, chains in runs.items():
        if chains.num_samples:
            path = report.with_suffix(f".{name.replace(' ', '-')}.nc")
            chains.save(path)
            output.say(f"wrote {path}")
