"""What changes in the course of a run: the step sizes, and the power of the reward that is learned.

The reward R^b is *fixed* (b = 1), *annealed* (b grows linearly from 0, so that the policy meets every mode before it is
worth preferring one), or *adaptive*: each look at the pair raises b as far as the pair's own objects, weighed by
R^b P_B / P_F, keep an effective sample size. A pair that falls behind is then waited for.

Reference: Del Moral, Doucet and Jasra 2006, "Sequential Monte Carlo samplers", for steps by effective sample size.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.training.config import TrainingConfig

_NUM_HALVINGS = 50


def annealed_power(config: TrainingConfig, step: int) -> float:
    """Return the power of an annealed reward at a step."""
    until = config.anneal_until * config.total_steps
    return 1.0 if step >= until else step / until


def raised_power(
    log_reward: Float64[Tensor, " n"], log_path_ratio: Float64[Tensor, " n"], current: float, threshold: float
) -> float:
    """Return the largest power of the reward, at least `current`, that objects of the pair can be weighed to.

    Args:
        log_reward: log R of objects that the pair drew, nats; -inf for impossible ones.
        log_path_ratio: log P_B - log P_F of their paths, nats.
        current: The power now.
        threshold: Least effective fraction of the n objects that are possible, (sum w)^2 / (n sum w^2).
    """
    is_possible = log_reward > -math.inf
    if current >= 1.0 or not is_possible.any():
        return current

    def fraction(power: float) -> float:
        log_weights = power * log_reward[is_possible] + log_path_ratio[is_possible]
        log_number = 2.0 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2.0 * log_weights, 0)
        return math.exp(float(log_number)) / len(log_weights)

    if fraction(1.0) >= threshold:
        return 1.0
    if fraction(current) < threshold:
        return current
    low, high = current, 1.0
    for _ in range(_NUM_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fraction(middle) >= threshold else (low, middle)
    return low


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Return what the step sizes are multiplied by: a linear rise, a plateau, a fall along a cosine."""
    rise = min(1.0, (step + 1) / max(config.lr_warmup_steps, 1))
    done = step / config.total_steps
    if done <= config.lr_decay_from:
        return rise
    return rise * 0.5 * (1.0 + math.cos(math.pi * (done - config.lr_decay_from) / (1.0 - config.lr_decay_from)))
