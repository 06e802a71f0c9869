"""The command `gfnmc train`: train a pair for a target and save it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfnmc.cli import options
from gfnmc.cli.output import Output
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.core.foreign import foreign_content

if TYPE_CHECKING:
    from gfnmc.training import TrainingConfig, TrainingResult


@click.command(short_help="Train a pair for TARGET and save it.")
@options.target
@click.option("--out", type=options.PATH, required=True, help="Where to save the pair (.safetensors).")
@click.option(
    "--config",
    "config_file",
    type=options.PATH,
    help="Training options (a TrainingConfig) in a .json file.",
)
@click.option("--checkpoint", type=options.PATH, help="File to save the run in on the way.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint.")
@options.steps
@options.seed
@options.threads
@options.quiet
@options.json_file
@click.pass_context
def train(
    ctx: click.Context,
    target: str,
    out: Path,
    config_file: Path | None,
    checkpoint: Path | None,
    resume: bool,
    steps: int | None,
    seed: int,
    threads: int,
    quiet: bool,
    json_file: Path | None,
) -> None:
    """Train a pair for TARGET and save it.

    Prints how good the pair is: the predicted acceptance of a full restart, and log Z between its bounds. A pair that
    has lost a part of the target is saved as well, with a warning and exit code 1.
    """
    from gfnmc.core.storage import check_writable
    from gfnmc.experiments import find_problem
    from gfnmc.training import resume_training, save_pair
    from gfnmc.training import train as train_pair

    output = Output(json_file)
    problem = find_problem(target)
    config = training_config(problem.training if config_file is None else _read_config(config_file), steps)
    check_writable(out)
    energy = problem.target()
    environment = problem.environment(energy)
    shown: dict[str, Any] = {"num_threads": threads, "progress_bar": not quiet}
    if resume:
        if checkpoint is None:
            raise click.UsageError("--resume needs --checkpoint, the file to go on from")
        if steps is not None or config_file is not None:
            raise click.UsageError(
                "--steps and --config go with a new run; a resumed one keeps the options and the seed it began with"
            )
        result = resume_training(checkpoint, environment, energy, **shown)
    else:
        result = train_pair(environment, energy, config=config, seed=seed, checkpoint=checkpoint, **shown)
    save_pair(result.pair, out)
    _show_training(result, out, output)
    output.figures(_figures(target, result, out))
    # The trainer has logged the warning.
    ctx.exit(0 if result.quality.warning is None else 1)


def training_config(config: "TrainingConfig", steps: int | None) -> "TrainingConfig":
    """Return training options with another number of steps, where one is given."""
    return config if steps is None else replace(config, num_steps=steps)


def _read_config(path: Path) -> "TrainingConfig":
    """Return the training options of a JSON file; those that it does not name have their defaults.

    Raises:
        StorageError: If the file cannot be read.
        OptionError: If it is not a JSON object of training options.
    """
    from gfnmc.training import TrainingConfig

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{path} is not JSON: {error}") from error
    with foreign_content(path, "a file of training options"):
        found = _json_object(path, text)
        try:
            return TrainingConfig.from_dict(found)
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error


def _json_object(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise OptionError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise OptionError(f'{path} holds no JSON object; write training options as {{"num_steps": 500}}')
    return found


def _show_training(result: "TrainingResult", out: Path, output: Output) -> None:
    """Print what training cost and how good the pair is."""
    from gfnmc.report import format as fmt

    cost, quality, report = result.cost, result.quality, result.pair.training_report
    assert report is not None
    steps = f"{report['num_steps']:,}"
    if report["is_stopped_early"]:
        steps += f" of {report['config']['num_steps']:,} steps (stopped early)"
    else:
        steps += " step" if report["num_steps"] == 1 else " steps"
    output.say(f"trained {steps} in {cost.seconds:.0f} s with {cost.target_calls:,} target calls; saved {out}")
    lower, upper = (fmt.DASH if bound is None else f"{bound:.2f}" for bound in (quality.elbo, quality.eubo))
    output.say(
        f"predicted acceptance of a full restart {fmt.percent(quality.acceptance)}, log Z {quality.log_z:.2f} between "
        f"{lower} (ELBO) and {upper} (EUBO); {quality.label}"
    )


def _figures(target: str, result: "TrainingResult", out: Path) -> dict[str, Any]:
    """Return what programs want to know of a training run."""
    report = result.pair.training_report
    assert report is not None
    return {
        "schema": "gfnmc.training/1",
        "target": target,
        "pair": str(out),
        "seed": report["seed"],
        "num_steps": report["num_steps"],
        "is_stopped_early": report["is_stopped_early"],
        "quality": result.quality.to_dict(),
        "cost": asdict(result.cost),
    }
