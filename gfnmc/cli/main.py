"""Commands of `gfnmc`. Results go to standard output, progress and errors to standard error.

Exit codes: 0 all is well, 1 the work was done but the diagnostics say no, 2 bad input.
"""

import logging
import sys
from typing import Any

import click

from gfnmc.cli.benchmark import benchmark
from gfnmc.cli.check import check
from gfnmc.cli.compare import compare
from gfnmc.cli.report import report
from gfnmc.cli.resume import resume
from gfnmc.cli.sample import sample
from gfnmc.cli.targets import targets
from gfnmc.cli.train import train
from gfnmc.core.errors import GfnmcError


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


for command in (targets, train, sample, resume, compare, report, benchmark, check):
    main.add_command(command)
