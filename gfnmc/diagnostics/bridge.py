"""The evidence log Z by bridge sampling between the pair and a chain.

With v = w / r and the optimal bridge of Meng and Wong, r = Z is where

    mean over tau ~ P_F of v / (s1 v + s2)  =  mean over the chain of 1 / (s1 v + s2)

for log w = log R(x) + log P_B(tau|x) - log P_F(tau), tau ~ P_B(.|x) for the objects x of the chain, and s1 : s2 the
effective draws of the chain to the draws of P_F. Both sides fall or rise with r throughout, so the root is one. Its
relative variance is the sum of two: of the left side over independent draws, of the right side over the chain, whose
draws count as many as they are worth.

Each object of the chain is given several paths, and the right side is averaged over them first. A single path is a
fresh coin at each draw, and where the coins vary more than the chain they hide how slow it is: intervals then cover
less often than they say.

The chain need not see what P_F never makes, nor the other way round: then both agree on what they share, and only
objects from elsewhere can tell.

References: Meng and Wong 1996, "Simulating ratios of normalizing constants via a simple identity"; Fruehwirth-Schnatter
2004, "Estimating marginal likelihoods for mixture and Markov switching models using bridge sampling techniques".
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics.convergence import mean_ess
from gfnmc.diagnostics.evidence import CONDITIONAL, Evidence, pareto_k_hat
from gfnmc.diagnostics.quality import draw_weights, weights_of
from gfnmc.policies.pair import ProposalPair
from gfnmc.sampling.chains import Chains

NUM_PATHS = 8
"""Paths by P_B that each object of a chain is given."""

_ROUNDING = 1e-12
"""Relative spread of numbers that are all one but for rounding."""


class Bridge(NamedTuple):
    """What two sets of log-weights say of log Z.

    Attributes:
        log_z: The estimate, nats.
        standard_error: Of it, nats; inf where the weights of the chain never changed while those of P_F did.
        chain_ess: Draws that the chain is worth in its side of the equation.
    """

    log_z: float
    standard_error: float
    chain_ess: float


def bridge_log_z(
    chains: Chains,
    pair: ProposalPair,
    *,
    num_draws: int = 2_048,
    num_chain_draws: int = 2_048,
    seed: int = 0,
    num_threads: int | None = 1,
) -> Evidence:
    """Estimate log Z from draws of a pair and the draws of chains.

    It costs a target call for each draw of the pair and none for the chains.

    Args:
        chains: Draws of the target, by any kernel.
        pair: The pair.
        num_draws: Paths drawn by P_F.
        num_chain_draws: Kept draws that are used, evenly spaced, at least 4 a chain.
        seed: Any integer.
        num_threads: Torch threads during the work; None leaves torch's setting alone.

    Raises:
        OptionError: If there are fewer than two draws of the pair, or fewer than 4 of each chain.
        CapabilityError: If the target is noisy, or the two sets of draws have nothing in common.
    """
    if num_draws < 2:
        raise OptionError(f"num_draws is {num_draws}; it must be at least 2")
    with thread_limit(num_threads), torch.no_grad():
        own = draw_weights(pair, chains.target, PhiloxDraws(seed, "bridge", num_draws)).log_weights
        return bridge_evidence(own, chain_weights(chains, pair, num_chain_draws, seed))


def bridge_evidence(own: Float64[Tensor, " n"], chain: Float64[Tensor, "chains draws paths"]) -> Evidence:
    """Return the estimate that the log-weights of P_F's draws and of a chain's make together.

    Raises:
        CapabilityError: If they have nothing in common.
    """
    found = bridge(own, chain)
    return Evidence(
        found.log_z, found.standard_error, pareto_k_hat(own), len(own), CONDITIONAL, "bridge sampling", found.chain_ess
    )


def chain_weights(
    chains: Chains, pair: ProposalPair, num_chain_draws: int, seed: int
) -> Float64[Tensor, "chains draws paths"]:
    """Return log w of evenly spaced kept draws, each with several paths by P_B; +inf where P_F cannot make one.

    Raises:
        OptionError: If there are fewer than 4 draws a chain.
        CapabilityError: If the target is noisy: a chain holds an estimate that is larger than a new one on average.
    """
    if chains.target.is_noisy:
        raise CapabilityError(
            f"{chains.target.name} is noisy, and chains hold estimates of its density, not the density; estimate log Z "
            "by importance sampling"
        )
    if chains.num_samples < 4:
        raise OptionError(
            f"{chains.num_samples} draws a chain tell nothing of how dependent they are; sample at least 4"
        )
    most = max(4, num_chain_draws // chains.num_chains)
    places = np.linspace(0, chains.num_samples - 1, min(most, chains.num_samples)).astype(int)
    objects = chains.x[:, places].flatten(0, 1).repeat_interleave(NUM_PATHS, 0)
    log_reward = chains.samples.log_prob[:, places].flatten().repeat_interleave(NUM_PATHS)
    draws = PhiloxDraws(seed, "bridge/chain", len(objects))
    log_weights = weights_of(pair, chains.target, objects, draws, log_reward=log_reward)
    return log_weights.reshape(chains.num_chains, len(places), NUM_PATHS)


def bridge(own: Float64[Tensor, " n"], chain: Float64[Tensor, "chains draws *paths"]) -> Bridge:
    """Solve for log Z by the optimal bridge.

    Args:
        own: log w of independent draws of P_F, nats; -inf for impossible objects.
        chain: log w of chains' draws, each with one path or several, nats; +inf where P_F cannot make one.

    Raises:
        CapabilityError: If P_F made no possible object, or can make none of the chains'.
    """
    if not own.isfinite().any() or not chain.isfinite().any():
        raise CapabilityError(
            "P_F and the chains have no object in common, so there is no bridge between them; train the pair longer"
        )
    log_s1, log_s2 = _log_shares(_effective_draws(_over_paths(chain)), len(own))
    log_z = _root(own, chain.flatten(), log_s1, log_s2)
    ours = (own - log_z - _log_mixture(own - log_z, log_s1, log_s2)).exp()
    theirs = _over_paths((-_log_mixture(chain - log_z, log_s1, log_s2)).exp())
    chain_ess = _effective_draws(theirs)
    of_ours, of_theirs = _relative_variance(ours), _relative_variance(theirs.flatten())
    if of_theirs < _ROUNDING**2 < of_ours:
        return Bridge(log_z, math.inf, chain_ess)
    return Bridge(log_z, math.sqrt(of_ours / len(own) + of_theirs / chain_ess), chain_ess)


def _over_paths(values: Float64[Tensor, "chains draws *paths"]) -> Float64[Tensor, "chains draws"]:
    return values.flatten(2).mean(2) if values.dim() > 2 else values


def _root(own: Float64[Tensor, " n"], chain: Float64[Tensor, " m"], log_s1: float, log_s2: float) -> float:
    from scipy.optimize import brentq

    def excess(log_r: float) -> float:
        ours = own - log_r - _log_mixture(own - log_r, log_s1, log_s2)
        theirs = -_log_mixture(chain - log_r, log_s1, log_s2)
        return float(ours.logsumexp(0) - theirs.logsumexp(0)) - math.log(len(own) / len(chain))

    finite = torch.cat([own[own.isfinite()], chain[chain.isfinite()]])
    low, high = float(finite.min()), float(finite.max())
    # Impossible objects of P_F move the root below all weights, and objects that it cannot make above all.
    step = 1.0
    while excess(low) < 0.0:
        low, step = low - step, 2.0 * step
    while excess(high) > 0.0:
        high, step = high + step, 2.0 * step
    if excess(low) == 0.0:
        return low
    if excess(high) == 0.0:
        return high
    root: Any = brentq(excess, low, high, xtol=1e-13)
    return float(root)


def _log_mixture(log_v: Float64[Tensor, "*shape"], log_s1: float, log_s2: float) -> Float64[Tensor, "*shape"]:
    """Return log (s1 v + s2)."""
    return torch.logaddexp(log_v + log_s1, torch.full_like(log_v, log_s2))


def _log_shares(chain_draws: float, own_draws: int) -> tuple[float, float]:
    total = chain_draws + own_draws
    return math.log(chain_draws / total), math.log(own_draws / total)


def _effective_draws(values: Float64[Tensor, "chains draws"]) -> float:
    """Return how many independent draws the mean over chains is worth, never more than there are.

    Where nothing varies there is nothing to lose.
    """
    finite = torch.where(values.isfinite(), values, values[values.isfinite()].max())
    found = mean_ess(finite.numpy())
    return float(values.numel()) if found is None else min(found, float(values.numel()))


def _relative_variance(values: Float64[Tensor, " n"]) -> float:
    return float(values.var()) / float(values.mean()) ** 2
