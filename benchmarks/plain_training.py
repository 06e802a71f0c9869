"""Plain training with gfnmc, what others call training: the pair learns from its own paths and from nothing else."""

from gfnmc.training import TrainingConfig

PLAIN = TrainingConfig(
    batch_size=256,
    epsilon=0.0,
    seeding="none",
    seed_batch_size=0,
    likelihood_until=0.0,
    replay_batch_size=0,
    reward_schedule="fixed",
    check_size=8,
    stop_at_acceptance=2.0,
)
"""On-policy trajectory balance and nothing else; network and step sizes are those of the default."""
