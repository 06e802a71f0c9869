"""A ladder of inverse temperatures found by the population that climbs it: annealed sequential Monte Carlo.

Many chains start where the target is flat, at inverse temperature b = 0, and are led to b = 1:

    weigh      w_i = R(x_i)^(b' - b), with b' as large as an effective sample size of the weights allows
    resample   each object in proportion to its weight
    move       by some steps of a kernel that leaves R^b' invariant

The product over the rungs of the mean weights estimates Z(1) / Z(0), without bias for a fixed ladder and a population
that starts from the law at b = 0, which is uniform over all objects.

Reference: Del Moral, Doucet and Jasra 2006, "Sequential Monte Carlo samplers".
"""

import itertools
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.cost import Cost
from gfnmc.core.draws import Draws, PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.core.numerics import log_mean_exp
from gfnmc.core.tempering import next_inverse_temperature
from gfnmc.kernels.base import Kernel, State


@dataclass(frozen=True, eq=False)
class TemperingLadder:
    """What climbing the ladder found.

    Attributes:
        inverse_temperatures: Falling from 1 to 0, as `ParallelTempering` wants them.
        position: Where the population arrived: objects spread as the target, though not independent.
        log_prob: Their log-densities, nats.
        log_z_ratio: Estimate of log Z(1) - log Z(0), nats; Z(0) is the number of objects.
        cost: What it cost.
    """

    inverse_temperatures: tuple[float, ...]
    position: Shaped[Tensor, "chains *event"]
    log_prob: Float64[Tensor, " chains"]
    log_z_ratio: float
    cost: Cost


@torch.no_grad()
def tempering_ladder(
    kernel: Kernel,
    *,
    num_chains: int = 1_000,
    min_ess: float = 0.5,
    num_moves: int = 5,
    seed: int = 0,
    max_rungs: int = 1_000,
) -> TemperingLadder:
    """Find inverse temperatures from 0 to 1, each within reach of the one before, and a population at 1.

    The population begins as `kernel.start` draws it at inverse temperature 0. Where that is not the uniform law, the
    moves made there bring it closer, and the estimate of log Z is as good as they are.

    Args:
        kernel: Moves the population; any kernel that can be tempered.
        num_chains: Size of the population.
        min_ess: Least effective fraction of the population at each rung, between 0 and 1. Neighbours on the ladder
            get closer, and more, as it grows.
        num_moves: Steps of the kernel at each rung.
        seed: Any integer; names the run.
        max_rungs: Most rungs, in case the kernel does not move the population.

    Raises:
        OptionError: If a count makes no sense, or there are more than `max_rungs` rungs.
        CapabilityError: If the kernel cannot be tempered, or the target is noisy.
        EnergyError: If no object of the population is possible, or the target breaks its contract.
    """
    for name, value, least in (("num_chains", num_chains, 2), ("num_moves", num_moves, 0), ("max_rungs", max_rungs, 2)):
        if value < least:
            raise OptionError(f"{name} is {value}; it must be at least {least}")
    begun = time.perf_counter()
    draws = PhiloxDraws(seed, "ladder", num_chains)
    flat = kernel.tempered(0.0)
    state = flat.init(flat.start(draws.role("start")))
    cost = Cost(target_calls=num_chains)
    ladder, log_z_ratio = [0.0], 0.0
    for rung in itertools.count():
        here = draws.role(f"rung{rung}")
        state, moves_cost = _moved(kernel.tempered(ladder[-1]), here, state, num_moves)
        cost += moves_cost
        if ladder[-1] == 1.0:
            break
        if len(ladder) == max_rungs:
            raise OptionError(
                f"{max_rungs} rungs lead only to inverse temperature {ladder[-1]:.3g}; allow more with max_rungs, or "
                "wider steps with a smaller min_ess, or move the population further at each rung with num_moves"
            )
        ladder.append(next_inverse_temperature(state.log_prob, ladder[-1], min_ess))
        log_weights = (ladder[-1] - ladder[-2]) * state.log_prob
        log_z_ratio += log_mean_exp(log_weights)
        chosen = systematic_resampling(log_weights, here.role("resample"))
        state = State(state.position[chosen], state.log_prob[chosen])
    cost += Cost(seconds=time.perf_counter() - begun)
    return TemperingLadder(tuple(reversed(ladder)), state.position, state.log_prob, log_z_ratio, cost)


def systematic_resampling(log_weights: Float64[Tensor, " n"], draws: Draws) -> Int64[Tensor, " n"]:
    """Return n of n indices, each i on average n w_i / sum w times, and never more than one from that number.

    With the weights laid out along [0, n), index i is taken once for each of the points u, u + 1, ... that its piece
    holds, u uniform over [0, 1). What is taken changes with u at the ends of pieces only, so all that is decided is
    between which two of them u lies.

    Args:
        log_weights: Logarithms of the weights, nats, -inf for weight zero; not all of them.
        draws: Take one decision for all rows together.
    """
    ends = log_weights.softmax(0).cumsum(0)
    ends = ends * (len(ends) / ends[-1])
    breaks = torch.cat([ends.new_tensor([0.0, 1.0]), ends[:-1] % 1.0]).sort().values
    widths = breaks.diff()
    between = draws.shared_categorical((widths / widths.sum()).log())
    points = torch.arange(len(ends)) + 0.5 * (breaks[between] + breaks[between + 1])
    return torch.searchsorted(ends, points, right=True)


def _moved(kernel: Kernel, draws: PhiloxDraws, state: State, num_moves: int) -> tuple[State, Cost]:
    """Return the state after some steps, and what they cost."""
    cost = Cost()
    for move in range(num_moves):
        state, info = kernel.step(draws.role("move").at(move), state)
        cost += info.cost()
    return state, cost
