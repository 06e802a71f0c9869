"""The command `gfnmc resume`: go on with a run that was stopped."""

from pathlib import Path

import click

from gfnmc.cli import options
from gfnmc.cli.chains import draw
from gfnmc.cli.output import Output


@click.command(short_help="Go on with a run that was stopped.")
@click.argument("run", metavar="RUN", type=options.PATH)
@click.option("--target", help="Where your own model is, FILE.py:FUNCTION; other runs know their target.")
@click.option("--samples", "num_samples", type=options.AT_LEAST_ONE, help="Kept draws a chain in all; as was wanted.")
@click.option("--out", type=options.PATH, help="ArviZ file to write (.nc).")
@click.option("--allow-mismatch", is_flag=True, help="Go on where versions differ; the run then says so.")
@options.threads
@options.quiet
@options.json_file
@click.pass_context
def resume(
    ctx: click.Context,
    run: Path,
    target: str | None,
    num_samples: int | None,
    out: Path | None,
    allow_mismatch: bool,
    threads: int,
    quiet: bool,
    json_file: Path | None,
) -> None:
    """Go on with the run in the folder RUN, made by `gfnmc sample --store`, to the draws that it would have made.

    A run that is finished is given more draws by --samples. Exits with 1 if the chains did not mix.
    """
    from gfnmc.experiments import kernel_of_run
    from gfnmc.sampling import resume as resume_chains

    output = Output(json_file)
    kernel = kernel_of_run(run, target)
    is_ok = draw(
        lambda: resume_chains(
            run,
            kernel,
            num_samples=num_samples,
            allow_mismatch=allow_mismatch,
            num_threads=threads,
            progress_bar=not quiet,
        ),
        out,
        run,
        output,
    )
    ctx.exit(0 if is_ok else 1)
