"""The command `gfnmc targets`: the targets that the other commands know."""

from pathlib import Path

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output


@click.command(short_help="List the targets that the other commands know.")
@options.json_file
def targets(json_file: Path | None) -> None:
    """List the targets that the other commands know."""
    from gfnmc.experiments import PROBLEMS

    output = Output(json_file)
    width = max(map(len, PROBLEMS))
    for name, problem in PROBLEMS.items():
        output.say(f"{name:<{width}}  {problem.description}")
    listed = [{"name": name, "description": problem.description} for name, problem in PROBLEMS.items()]
    output.figures({"schema": "gfnmc.targets/1", "targets": listed})
