"""The command `gfnmc report`: the comparison report of stored runs."""

import shlex
import sys
from pathlib import Path

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output


@click.command(short_help="Make the report of stored runs.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=options.PATH)
@click.option("--out", type=options.PATH, default=Path("report.html"), show_default=True, help="Page to write (.html).")
@options.json_file
@click.option("--target", "target_name", help="What the runs sampled, where that cannot be told from them.")
@click.option("--title", help="Title of the report; the target by default.")
@click.pass_context
def report(
    ctx: click.Context,
    runs: tuple[Path, ...],
    out: Path,
    json_file: Path | None,
    target_name: str | None,
    title: str | None,
) -> None:
    """Make the report of stored runs, the one of interest first.

    RUN is a run directory, such as `gfnmc sample --store` writes. Nothing is run: draws and costs are those on disk.
    Prints a table and what it means. Exits with 1 if the first run did not mix.
    """
    from gfnmc.cli.show import show_comparison
    from gfnmc.experiments import find_problem
    from gfnmc.experiments.stored import compare_runs
    from gfnmc.report import check_writable

    output = Output(json_file)
    check_writable(out)
    target = None if target_name is None else find_problem(target_name).target()
    comparison = compare_runs(runs, target, title=title, command=shlex.join(["gfnmc", *sys.argv[1:]]))
    show_comparison(comparison.document, output)
    comparison.save(out)
    output.say(f"wrote {out}")
    output.figures(comparison.document)
    ctx.exit(0 if comparison.document["samplers"][0]["status"] == "ok" else 1)
