"""The command `gfnmc benchmark`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output
from gfnmc.core.errors import OptionError


@click.command(short_help="Run every sampler on every target of a suite; a leaderboard.")
@click.option("--suite", default="quick", show_default=True, help="quick (under an hour) or multimodal (a day).")
@click.option("--target", "targets", multiple=True, help="A name of `gfnmc targets`, or FILE.py:FUNCTION. Repeatable.")
@click.option("--kernel", "kernels", multiple=True, help="A sampler of the suite. Repeatable; all by default.")
@click.option(
    "--budget",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Target calls of every sampler, training included; by default what the default cycle spends.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.0, min_open=True), help="Most seconds of sampling in a cell; the suite's."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds; the suite's by default.")
@click.option("--samples", type=click.IntRange(min=4), help="Kept draws a chain of the default cycle; the suite's.")
@click.option("--chains", type=click.IntRange(min=2), help="Chains side by side; the suite's.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps; set with the target by default.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run; go on with the same.")
@options.threads
@options.json_file
@click.pass_context
def benchmark(
    ctx: click.Context,
    suite: str,
    targets: tuple[str, ...],
    kernels: tuple[str, ...],
    budget: float | None,
    seconds: float | None,
    seeds: int | None,
    samples: int | None,
    chains: int | None,
    steps: int | None,
    out: Path,
    threads: int,
    json_file: Path | None,
) -> None:
    """Run every sampler of a suite on every target, at equal budgets, training charged.

    Prints a line for each finished cell. Started again with the same folder, it runs only the cells that are missing.
    Writes leaderboard.html, .csv and .json. Exits with 1 if the default cycle did not mix somewhere.
    """
    from gfnmc.experiments import find_problem, leaderboard, run_benchmark
    from gfnmc.experiments.samplers import DEFAULT, find_sampler
    from gfnmc.experiments.suites import budget_in_words, find_suite
    from gfnmc.report.leaderboard import save_leaderboard

    output = Output(json_file)
    chosen = find_suite(suite)
    problems = [find_problem(name) for name in targets or chosen.targets]
    samplers = [find_sampler(name) for name in kernels or chosen.samplers]
    if budget is None and all(sampler.name != DEFAULT for sampler in samplers):
        samplers.insert(0, find_sampler(DEFAULT))
    changes: dict[str, Any] = {
        "budget": budget,
        "seconds": seconds,
        "num_samples": samples,
        "num_chains": chains,
        "training_steps": steps,
    }
    plan = replace(chosen.plan, **{name: value for name, value in changes.items() if value is not None})
    if len({problem.name for problem in problems}) < len(problems):
        raise OptionError("a target is named twice; name each once")
    cells = run_benchmark(
        problems,
        samplers,
        out,
        plan=plan,
        seeds=range(chosen.num_seeds if seeds is None else seeds),
        starts=chosen.starts,
        num_threads=threads,
        report=output.say,
    )
    document = leaderboard(
        cells,
        suite=chosen.name,
        budget=budget_in_words(plan),
        num_chains=plan.num_chains,
        command=shlex.join(["gfnmc", *sys.argv[1:]]),
    )
    for line in document["verdict"]:
        output.say(line)
    for path in save_leaderboard(document, out):
        output.say(f"wrote {path}")
    output.figures(document)
    lead = [row for target in document["targets"] for row in target["rows"] if row["sampler"] == DEFAULT]
    ctx.exit(0 if all(row["status"] == "ok" for row in lead) else 1)
