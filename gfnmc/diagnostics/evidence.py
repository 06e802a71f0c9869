"""The evidence log Z, by importance sampling with the pair as proposal.

    log w = log R(x) + log P_B(tau|x) - log P_F(tau),   tau ~ P_F;   E[w] = Z

The estimate is unbiased for Z wherever P_F can make every object, but a mode that P_F hardly ever makes is missing
from any finite sample: the Pareto k-hat warns (above 0.7 the standard error is not to be believed), and it cannot see
what was never drawn.

Reference: Vehtari et al. 2024 (1507.02646), Pareto smoothed importance sampling.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.core.numerics import log_mean_exp
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics.arviz import array_stats
from gfnmc.policies.pair import ProposalPair
from gfnmc.targets.base import Target, checked_log_prob

CONDITIONAL = "conditional on the modes visited"
"""The label of whatever no object from elsewhere has vouched for."""

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Evidence:
    """An estimate of log Z.

    Attributes:
        log_z: The estimate, nats.
        standard_error: Of log Z, nats, by the delta method; inf where the draws cannot tell it.
        k_hat: Pareto shape of the largest weights; None where too few weights differ.
        num_draws: Independent draws of the pair; each cost a target call.
        label: What the estimate is conditional on, in words.
        method: How it was made.
        chain_ess: Effective draws of the chains that went into it; None where none did.
    """

    log_z: float
    standard_error: float
    k_hat: float | None
    num_draws: int
    label: str
    method: str = "importance sampling"
    chain_ess: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval that covers log Z in 95 of 100 runs, if what the label says holds, nats."""
        half = _NORMAL_95 * self.standard_error
        return self.log_z - half, self.log_z + half


def importance_log_z(
    pair: ProposalPair, target: Target, *, num_draws: int = 4_096, seed: int = 0, num_threads: int | None = 1
) -> Evidence:
    """Estimate log Z from independent draws of a pair.

    Args:
        pair: The pair.
        target: The target.
        num_draws: Paths drawn by P_F.
        seed: Any integer.
        num_threads: Torch threads during the work; None leaves torch's setting alone.

    Raises:
        OptionError: If there are fewer than two draws, which have no standard error.
    """
    if num_draws < 2:
        raise OptionError(f"num_draws is {num_draws}; it must be at least 2")
    draws = PhiloxDraws(seed, "evidence", num_draws)
    with thread_limit(num_threads), torch.no_grad():
        path = pair.sample_forward(pair.environment.source(num_draws), draws)
        assert path.log_forward is not None
        log_reward = checked_log_prob(target, pair.environment.objects(path.end))
        log_weights = log_reward + pair.log_backward(path) - path.log_forward
    return importance_evidence(log_weights)


def importance_evidence(log_weights: Float64[Tensor, " n"]) -> Evidence:
    """Return the estimate that log-weights of independent draws of P_F make.

    Args:
        log_weights: log w of each, nats; -inf for impossible objects.
    """
    log_z = log_mean_exp(log_weights)
    standard_error = math.inf
    if log_z > -math.inf:
        relative = (log_weights - log_z).exp()
        standard_error = float(relative.std()) / math.sqrt(len(log_weights))
    return Evidence(log_z, standard_error, pareto_k_hat(log_weights), len(log_weights), CONDITIONAL)


def pareto_k_hat(log_weights: Float64[Tensor, " n"]) -> float | None:
    """Return the Pareto shape of the largest of some weights; None where too few of them differ."""
    finite = log_weights[log_weights.isfinite()].numpy()
    try:
        # psislw takes log-likelihoods: it smooths their negatives.
        with np.errstate(divide="raise", invalid="raise"):
            k_hat = float(array_stats().psislw(-finite)[1])
    except (ValueError, IndexError, FloatingPointError):
        # Weights of discrete objects repeat: the tail may have no two different values, or a first quarter without. Of
        # fewer than five weights there is no tail.
        return None
    return k_hat if math.isfinite(k_hat) else None
