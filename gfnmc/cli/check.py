"""The command `gfnmc check`: hold a user's own classes to their contracts, and prove the kernels made of them."""

from pathlib import Path

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output


@click.command(short_help="Check your own environment, target, pair or kernel.")
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True)
@options.json_file
@click.pass_context
def check(ctx: click.Context, references: tuple[str, ...], json_file: Path | None) -> None:
    """Check your own environment, target, pair or kernel.

    REFERENCE is module:object or file.py:object. The object is an environment, target, policy, pair or kernel, or a
    function without arguments that returns one of them or a tuple or dict of them. Prints a line for each check: ok,
    FAIL, or skip where it cannot be made. Exits with 1 if a check failed, and with 2 if nothing could be checked.

    The code that REFERENCE names is run.
    """
    from gfnmc.core.errors import OptionError
    from gfnmc.experiments.own_model import call, load_object
    from gfnmc.testing.check import checked

    output = Output(json_file)
    made = {reference: call(load_object(reference), reference) for reference in references}
    findings, figures = [], []
    for reference, value in made.items():
        if len(made) > 1:
            output.say(reference)
        for finding in checked(value):
            findings.append(finding)
            figures.append({"reference": reference, **finding._asdict()})
            output.say(finding)
    output.figures({"schema": "gfnmc.check/1", "findings": figures})
    if all(finding.is_ok is None for finding in findings):
        raise OptionError(f"none of the checks of {', '.join(made)} could be made")
    ctx.exit(1 if any(finding.is_ok is False for finding in findings) else 0)
