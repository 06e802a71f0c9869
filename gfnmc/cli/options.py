"""Options that several commands share: one name, one meaning."""

from pathlib import Path

import click

AT_LEAST_ONE = click.IntRange(min=1)
PATH = click.Path(path_type=Path)


def _target_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of targets that begin so, for the shell to complete."""
    from gfnmc.experiments import PROBLEMS

    return [name for name in PROBLEMS if name.startswith(incomplete)]


target = click.argument("target", metavar="TARGET", shell_complete=_target_names)
seed = click.option("--seed", default=0, show_default=True, help="Names the run; the same seed repeats it.")
chains = click.option(
    "--chains", "num_chains", type=AT_LEAST_ONE, default=256, show_default=True, help="Chains side by side."
)
samples = click.option(
    "--samples", "num_samples", type=AT_LEAST_ONE, default=600, show_default=True, help="Kept draws a chain."
)
warmup = click.option(
    "--warmup",
    "num_warmup",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Steps before the first one.",
)
steps = click.option("--steps", type=AT_LEAST_ONE, help="Training steps; a setting that works by default.")
threads = click.option(
    "--threads", type=AT_LEAST_ONE, default=1, show_default=True, help="Torch threads; small nets like one."
)
quiet = click.option("--quiet", is_flag=True, help="Show no progress.")
json_file = click.option(
    "--json", "json_file", type=PATH, help="Write the figures to this .json file as well; - for standard output."
)
