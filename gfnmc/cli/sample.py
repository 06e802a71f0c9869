"""The command `gfnmc sample`: run chains with a trained pair."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gfnmc.cli import options
from gfnmc.cli.chains import draw
from gfnmc.cli.output import Output

if TYPE_CHECKING:
    from gfnmc.sampling import Chains


@click.command(short_help="Run chains of TARGET with a trained pair, for ArviZ.")
@options.target
@click.option("--pair", "pair_file", type=options.PATH, required=True, help="A pair saved by `train`.")
@click.option("--out", type=options.PATH, help="ArviZ file to write (.nc).")
@click.option("--store", type=options.PATH, help="Run directory to write on the way; `resume` goes on.")
@options.chains
@options.samples
@options.warmup
@click.option(
    "--thinning", type=options.AT_LEAST_ONE, default=1, show_default=True, help="Steps from one kept draw to the next."
)
@click.option(
    "--block", "block_size", type=options.AT_LEAST_ONE, help="Draws a block of the store; what fits into 16 MiB."
)
@click.option(
    "--on-nonfinite",
    type=click.Choice(["raise", "reject"]),
    default="raise",
    show_default=True,
    help="Whether an energy that is NaN or +inf ends the run, or is counted and rejected.",
)
@options.seed
@options.threads
@options.quiet
@options.json_file
@click.pass_context
def sample(
    ctx: click.Context,
    target: str,
    pair_file: Path,
    out: Path | None,
    store: Path | None,
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    thinning: int,
    block_size: int | None,
    on_nonfinite: Literal["raise", "reject"],
    seed: int,
    threads: int,
    quiet: bool,
    json_file: Path | None,
) -> None:
    """Run chains of TARGET with a trained pair and write them for ArviZ, or into a run directory, or both.

    Says whether the chains mixed, and exits with 1 if they did not.
    """
    from gfnmc.experiments import find_problem
    from gfnmc.sampling import Store
    from gfnmc.sampling import sample as sample_chains
    from gfnmc.training import load_pair

    if out is None and store is None:
        raise click.UsageError("give --out FILE.nc, or --store FOLDER, or both")
    output = Output(json_file)
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

    is_ok = draw(run, out, store, output)
    ctx.exit(0 if is_ok else 1)
