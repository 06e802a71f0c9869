"""Training objectives, one loss a file, each a pure function of paths' log-probabilities and flows."""

from gfnmc.objectives.trajectory_balance import trajectory_balance

__all__ = ["trajectory_balance"]
