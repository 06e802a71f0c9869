"""The command `gfnmc resume`, and what it shares with `gfnmc sample`: chains that are run, written and summed up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gfnmc.sampling import Chains


@click.command(short_help="Go on with a run that was stopped.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--target", help="Where your own model is, FILE.py:FUNCTION; other runs know their target.")
@click.option("--samples", "num_samples", type=click.IntRange(min=1), help="Kept draws a chain in all; as was wanted.")
@click.option("--out", type=click.Path(path_type=Path), help="ArviZ file to write (.nc).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this .json file.")
@click.option("--allow-mismatch", is_flag=True, help="Go on where versions differ; the run then says so.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Torch threads.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def resume(
    run: Path,
    target: str | None,
    num_samples: int | None,
    out: Path | None,
    json_file: Path | None,
    allow_mismatch: bool,
    threads: int,
    quiet: bool,
) -> None:
    """Go on with the run in the folder RUN, made by `gfnmc sample --store`, to the draws that it would have made.

    A run that is finished is given more draws by --samples.
    """
    from gfnmc.experiments import kernel_of_run
    from gfnmc.sampling import resume as resume_chains

    kernel = kernel_of_run(run, target)
    draw(
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
        json_file,
    )


def draw(run: "Callable[[], Chains]", out: Path | None, store: Path | None, json_file: Path | None) -> None:
    """Run chains, write what was asked for, and say what came of it; on an error, what was finished by then.

    Args:
        run: Makes the chains.
        out: ArviZ file to write.
        store: Run directory that the chains write on the way.
        json_file: File for the figures.
    """
    from gfnmc.core.storage import check_writable, write_atomically

    for path in (out, json_file):
        if path is not None:
            check_writable(path)
    try:
        chains = run()
    except BaseException as error:
        finished = getattr(error, "chains", None)
        if out is not None and finished is not None and finished.num_samples:
            finished.save(out)
            click.echo(f"the draws finished by then are in {out}", err=True)
        raise
    if out is not None:
        chains.save(out)
    if json_file is not None:
        write_atomically(json_file, json.dumps(_figures(chains), indent=2).encode())
    cost = chains.sampling_cost
    places = ", ".join(str(path) for path in (out, store) if path is not None)
    click.echo(
        f"{chains.num_chains * chains.num_samples:,} draws in {cost.seconds:.1f} s with {cost.target_calls:,} target "
        f"calls; {places}"
    )


def _figures(chains: "Chains") -> dict[str, Any]:
    """Return what a run was and cost, as plain data."""
    from dataclasses import asdict

    return {
        "target": chains.target.name,
        "kernel": chains.kernel_name,
        "seed": chains.seed,
        "num_chains": chains.num_chains,
        "num_samples": chains.num_samples,
        "num_warmup": chains.num_warmup,
        "thinning": chains.thinning,
        "acceptance_rate": float(chains.samples.stats["acceptance_rate"].mean()),
        "nonfinite_count": int(chains.nonfinite_count.sum()),
        "sampling_cost": asdict(chains.sampling_cost),
        "training_cost": asdict(chains.training_cost),
        "remarks": dict(chains.remarks),
    }
