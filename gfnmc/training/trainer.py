"""Train a pair: from the start, or on from a checkpoint."""

from pathlib import Path as FilePath

from jaxtyping import Shaped
from torch import Tensor

from gfnmc.core.errors import OptionError
from gfnmc.core.foreign import foreign_content
from gfnmc.core.storage import check_writable
from gfnmc.core.threads import thread_limit
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.pair import GFlowNet
from gfnmc.policies.weights import at_most
from gfnmc.targets.base import Target
from gfnmc.targets.conditional import ConditionalTarget
from gfnmc.training.checkpoints import num_elements, read_checkpoint
from gfnmc.training.config import TrainingConfig
from gfnmc.training.run import Run, TrainingResult


def train(
    environment: DiscreteEnvironment,
    target: Target | ConditionalTarget,
    *,
    config: TrainingConfig | None = None,
    pair: GFlowNet | None = None,
    objects: Shaped[Tensor, "n *event"] | None = None,
    seed: int = 0,
    checkpoint: str | FilePath | None = None,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> TrainingResult:
    """Train a pair for a target, or a conditional pair for a family of targets.

    Args:
        environment: How objects are built.
        target: Whose density is learned.
        config: Options; the defaults otherwise.
        pair: What to train, in place; by default a new one, as the config describes it.
        objects: Objects spread as the target that the pair is judged by, such as exact draws; each costs a target call.
            Without them, held-out tempered chains serve where there are any.
        seed: Any integer; the same seed gives the same pair.
        checkpoint: File to write every `config.checkpoint_every` steps; `resume_training` goes on from it.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Returns:
        The trained pair, its history and quality, and the cost.

    Raises:
        TrainingError: If the loss is not finite.
        OptionError: If the config does not fit target, environment or pair.
        CapabilityError: If the target is noisy and does not declare its estimate unbiased, or the config wants what
            target or environment do not offer.
        NonFiniteEnergyError: If the target returns NaN or +inf.
        EnvironmentContractError: If the environment contradicts itself.
        StorageError: If the checkpoint cannot be written.
    """
    config = config or TrainingConfig()
    path = None if checkpoint is None else FilePath(checkpoint)
    with thread_limit(num_threads):
        run = Run(environment, target, config, pair, objects, seed)
        if path is not None:
            check_writable(path)
        run.begin()
        return run.finish(path, progress_bar)


def resume_training(
    checkpoint: str | FilePath,
    environment: DiscreteEnvironment,
    target: Target | ConditionalTarget,
    *,
    pair: GFlowNet | None = None,
    objects: Shaped[Tensor, "n *event"] | None = None,
    num_threads: int | None = 1,
    progress_bar: bool = True,
) -> TrainingResult:
    """Go on from a checkpoint of `train`, to the same pair that an uninterrupted run would have made.

    Args:
        checkpoint: The file that `train` wrote; it is written on.
        environment: As given to `train`.
        target: As given to `train`.
        pair: As given to `train`; its weights are overwritten.
        objects: As given to `train`.
        num_threads: Torch threads during the run; None leaves torch's setting alone.
        progress_bar: Whether to show progress.

    Raises:
        StorageError: If the file cannot be read, or is not a checkpoint.
        OptionError: If it belongs to another target or network.
    """
    path = FilePath(checkpoint)
    saved = read_checkpoint(path)
    if saved.target_name != target.name:
        raise OptionError(f"{path} was trained for {saved.target_name}, not for {target.name}")
    with thread_limit(num_threads):
        with foreign_content(path, "a checkpoint"):
            config = TrainingConfig.from_dict(saved.config)
            if config.num_steps is None:
                raise TypeError("num_steps is not settled")
        with at_most(num_elements(saved.tensors)):
            run = Run(environment, target, config, pair, objects, saved.seed)
        with foreign_content(path, "a checkpoint"):
            run.restore(saved)
        check_writable(path)
        return run.finish(path, progress_bar)
