"""Train a pair for a target."""

from gfnmc.training.checkpoints import load_pair, save_pair
from gfnmc.training.config import TrainingConfig
from gfnmc.training.run import TrainingResult
from gfnmc.training.trainer import resume_training, train

__all__ = ["TrainingConfig", "TrainingResult", "load_pair", "resume_training", "save_pair", "train"]
