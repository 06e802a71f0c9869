"""Parallel tempering: replicas at falling inverse temperatures, so that hot ones carry the chain over barriers.

A ladder 1 = b_1 > b_2 > ... > b_T has one replica a rung; together they are a chain on the product of the laws R^b_t. A
step moves all replicas by one kernel, each at its own rung, and then tries to exchange neighbours:

    accept the swap of rungs i and j with probability min(1, exp((b_i - b_j) (log R(x_j) - log R(x_i))))

Swaps alternate between the pairs (1, 2), (3, 4), ... and the pairs (2, 3), (4, 5), ..., counted for each chain.

Why the product law stays: a local move changes one replica by a kernel that leaves its own law invariant, whatever the
others are; a swap is a Metropolis step on two replicas with a symmetric proposal; the pairs of one turn share no
replica; and which pairs have their turn depends on the number of steps alone, not on where the replicas are. Proof by
enumeration over joint states: tests/exact/test_parallel_tempering.py. Because turns alternate, a replica keeps its
direction of travel, and crosses the ladder in a number of steps that grows with T rather than T squared.

References: Geyer 1991, "Markov chain Monte Carlo maximum likelihood"; Syed, Bouchard-Cote, Deligiannidis and Doucet
2022 (1905.02939), "Non-reversible parallel tempering".
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, NonFiniteEnergyError, ObjectError, OptionError
from gfnmc.kernels.base import CALLS, Info, Kernel, Reach, Reason, State
from gfnmc.kernels.replicas import Replicas, TemperingCache, next_legs, rungs_before
from gfnmc.targets.base import check_objects, checked_log_prob
from gfnmc.targets.nonfinite import rows_per_chain


class ParallelTempering(Kernel):
    """Replicas of each chain on a ladder of inverse temperatures.

    The chain's object is the replica at inverse temperature 1. `Info` is what the kernel said of that replica, with the
    calls of all; `parts` repeats it under the kernel's name and holds under "swap" the exchange with the next rung
    (lazy where it was not tried); `extras` are "local_acceptance", the mean acceptance rate over the rungs,
    "swap_acceptance", that of all swaps tried so far, and "round_trips", how often so far a replica went from the first
    rung to the last and back.

    Args:
        kernel: Moves each replica; any kernel that can be tempered.
        inverse_temperatures: Falling from 1; the last may be 0. `tempering_ladder` finds them.
        swap_every: Steps from one try of swaps to the next.

    Raises:
        OptionError: If the inverse temperatures are no such ladder, or `swap_every` is below 1.
        CapabilityError: If the kernel cannot be tempered, or the target is noisy.
    """

    keeps_cache = True

    def __init__(self, kernel: Kernel, inverse_temperatures: Sequence[float], *, swap_every: int = 1) -> None:
        if kernel.target.is_noisy:
            raise CapabilityError(
                f"{kernel.target.name} is noisy, and a power of an unbiased estimate is a biased one, so its replicas "
                "would not have the laws that swaps need; sample the target without tempering"
            )
        if swap_every < 1:
            raise OptionError(f"swap_every is {swap_every}; it must be at least 1")
        self._ladder = _checked_ladder(inverse_temperatures)
        self._num_rungs = len(self._ladder)
        self.kernel = kernel
        self.inverse_temperatures = tuple(self._ladder.tolist())
        self.swap_every = swap_every
        self.name = f"parallel tempering ({kernel.name})"
        self.target = kernel.target
        self.environment = kernel.environment
        self.training_cost = kernel.training_cost
        self.calls_per_step = self._num_rungs * kernel.calls_per_step
        # Says at once if the kernel cannot be tempered.
        self._at_rungs(1)

    def start(self, draws: Draws) -> Shaped[Tensor, "chains rungs *event"]:
        """Return objects for all replicas of each chain, each drawn by the kernel as at its own rung."""
        drawn = self._at_rungs(draws.num_rows).start(draws.repeated(self._num_rungs))
        return drawn.unflatten(0, (-1, self._num_rungs))

    @property
    def reach(self) -> Reach:
        return self.kernel.reach

    @property
    def may_stay(self) -> bool:
        # A swap may be certain.
        return False

    def init(
        self,
        position: Shaped[Tensor, "chains *event"] | Shaped[Tensor, "chains rungs *event"],
        draws: Draws | None = None,
    ) -> State:
        """Return the state of chains whose replicas stand at some objects.

        Args:
            position: One object a chain, where all its replicas start; or one a replica, as `start` draws them.
            draws: Not needed.

        Raises:
            ObjectError: If the objects are not the target's, or one has density zero at an inverse temperature above 0.
            EnergyError: If the target breaks its contract.
        """
        event_dims = len(self.target.event_shape)
        if position.dim() == event_dims + 1:
            return self._with_copies(self.kernel.init(position))
        if position.dim() != event_dims + 2 or position.shape[1] != self._num_rungs:
            raise ObjectError(
                f"starts of shape {tuple(position.shape)} for objects of shape {tuple(self.target.event_shape)}; give "
                f"one object a chain, or {self._num_rungs}, one a rung"
            )
        check_objects(self.target, position.flatten(0, 1))
        with self._naming_chains():
            log_prob = checked_log_prob(self.target, position.flatten(0, 1)).unflatten(0, (-1, self._num_rungs))
        is_impossible = (log_prob == -torch.inf) & (self._ladder > 0.0)
        if is_impossible.any():
            chain, rung = is_impossible.nonzero()[0].tolist()
            raise ObjectError(
                f"chain {chain} would start its replica at inverse temperature {self.inverse_temperatures[rung]} at "
                f"{position[chain, rung].tolist()}, where {self.target.name} has density zero; give `init` objects "
                "that are possible"
            )
        return self._begun(position, log_prob)

    def refresh(self, state: State) -> State:
        """Return the state after something outside changed the objects or the target; the accounts begin anew."""
        return self.init(self.replicas(state).position)

    def cache_tensors(self, cache: Any) -> dict[str, Tensor]:
        return {} if cache is None else cache._asdict()

    def cache_from(self, tensors: Mapping[str, Tensor]) -> TemperingCache | None:
        return TemperingCache(**tensors) if tensors else None

    def replicas(self, state: State) -> Replicas:
        """Return all replicas of the chains, such as seeds of a trainer at every temperature."""
        cache = self._cache(state)
        position = torch.cat([state.position[:, None], cache.position], 1)
        return Replicas(position, torch.cat([state.log_prob[:, None], cache.log_prob], 1), self._ladder)

    def round_trips(self, state: State) -> Int64[Tensor, " chains"]:
        """Return how often a replica of each chain went from the first rung to the last and back."""
        return self._cache(state).round_trips

    def swap_rates(self, state: State) -> Float64[Tensor, " pairs"]:
        """Return the mean acceptance rate of swaps of each pair of neighbours, over all chains; NaN where not tried."""
        cache = self._cache(state)
        return cache.swap_rates.sum(0) / cache.swaps_tried.sum(0)

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        cache = self._cache(state)
        moved, local = self._move(draws.role("local").repeated(self._num_rungs), self.replicas(state))
        is_tried = self._is_tried(cache.num_steps)
        log_ratio = log_swap_ratio(self._ladder[:-1], self._ladder[1:], moved.log_prob[:, :-1], moved.log_prob[:, 1:])
        log_accept = log_ratio.clamp(max=0.0)
        num_pairs = self._num_rungs - 1
        decided = draws.role("swap").repeated(num_pairs).bernoulli(log_accept.flatten(), is_tried.flatten())
        is_swapped = decided.unflatten(0, (-1, num_pairs))
        source = rungs_before(is_swapped)
        chain = torch.arange(len(source), device=source.device)[:, None]
        position, log_prob = moved.position[chain, source], moved.log_prob[chain, source]
        legs, is_home = next_legs(cache.legs[chain, source])
        cache = TemperingCache(
            position=position[:, 1:],
            log_prob=log_prob[:, 1:],
            num_steps=cache.num_steps + 1,
            legs=legs,
            round_trips=cache.round_trips + is_home,
            swaps_tried=cache.swaps_tried + is_tried,
            swap_rates=cache.swap_rates + torch.where(is_tried, log_accept.exp(), 0.0),
        )
        swap = _swap_info(moved.position[:, 1], log_ratio[:, 0], is_swapped[:, 0], is_tried[:, 0])
        # Copied, so that a record of the chain does not keep all replicas alive.
        return State(position[:, 0].clone(), log_prob[:, 0].clone(), cache), self._info(local, swap, cache)

    def _at_rungs(self, num_chains: int) -> Kernel:
        """Return the kernel for the replicas of some chains, chain by chain."""
        return self.kernel.tempered(self._ladder.repeat(num_chains))

    def _move(self, draws: Draws, replicas: Replicas) -> tuple[Replicas, Info]:
        """Move every replica once."""
        kernel = self._at_rungs(len(replicas.position))
        state = State(replicas.position.flatten(0, 1), replicas.log_prob.flatten())
        with self._naming_chains():
            state, info = kernel.step(draws, state)
        apart = replicas.log_prob.shape
        return Replicas(state.position.unflatten(0, apart), state.log_prob.unflatten(0, apart), self._ladder), info

    def _is_tried(self, num_steps: Int64[Tensor, " chains"]) -> Bool[Tensor, "chains pairs"]:
        """Return which pairs of neighbours have their turn: every other one, the others next time."""
        pair = torch.arange(self._num_rungs - 1, device=num_steps.device)
        turn = num_steps // self.swap_every % min(2, self._num_rungs - 1)
        return (pair % 2 == turn[:, None]) & (num_steps % self.swap_every == 0)[:, None]

    def _info(self, local: Info, swap: Info, cache: TemperingCache) -> Info:
        first = _of_first_rung(local, self._num_rungs)
        counted = {name: getattr(local, name) for name in CALLS}
        calls = {
            name: value.unflatten(0, (-1, self._num_rungs)).sum(1)
            for name, value in counted.items()
            if isinstance(value, Tensor)
        }
        extras = {
            "local_acceptance": local.acceptance_rate.unflatten(0, (-1, self._num_rungs)).mean(1),
            "swap_acceptance": cache.swap_rates.sum(1) / cache.swaps_tried.sum(1),
            "round_trips": cache.round_trips,
        }
        return first._replace(**calls, parts={self.kernel.name: first, "swap": swap}, extras=extras)

    def _cache(self, state: State) -> TemperingCache:
        """Return what a state keeps; where another kernel made it, the hot replicas start as copies of its objects."""
        return self._with_copies(state).cache if state.cache is None else state.cache

    def _with_copies(self, state: State) -> State:
        position, log_prob = state.position[:, None], state.log_prob[:, None]
        copies = position.expand(-1, self._num_rungs, *position.shape[2:]), log_prob.expand(-1, self._num_rungs)
        return self._begun(*copies)

    def _begun(self, position: Tensor, log_prob: Float64[Tensor, "chains rungs"]) -> State:
        count = torch.zeros_like(log_prob, dtype=torch.int64)
        legs, _ = next_legs(count)
        cache = TemperingCache(
            position=position[:, 1:],
            log_prob=log_prob[:, 1:],
            num_steps=count[:, 0],
            legs=legs,
            round_trips=count[:, 0],
            swaps_tried=count[:, 1:],
            swap_rates=torch.zeros_like(log_prob[:, 1:]),
        )
        return State(position[:, 0].clone(), log_prob[:, 0].clone(), cache)

    @contextmanager
    def _naming_chains(self) -> Iterator[None]:
        """Let an error name the chain, not the row among all replicas."""
        try:
            with rows_per_chain(self._num_rungs):
                yield
        except NonFiniteEnergyError as error:
            error.row, rung = divmod(error.row, self._num_rungs)
            error.add_note(
                f"this was chain {error.row}, its replica at inverse temperature {self.inverse_temperatures[rung]}; "
                f"with {self._num_rungs} replicas a chain, rows of the batch are counted replica by replica"
            )
            raise


def log_swap_ratio(
    inverse_temperature: Float64[Tensor, " pairs"],
    other: Float64[Tensor, " pairs"],
    log_prob: Float64[Tensor, "chains pairs"],
    log_prob_other: Float64[Tensor, "chains pairs"],
) -> Float64[Tensor, "chains pairs"]:
    """Return log [R(x_j)^b_i R(x_i)^b_j / (R(x_i)^b_i R(x_j)^b_j)], nats.

    Only the hotter replica may be impossible, at inverse temperature 0; then this is -inf, and the colder one stays
    possible.

    Args:
        inverse_temperature: b_i, the larger one.
        other: b_j.
        log_prob: log R(x_i), not tempered.
        log_prob_other: log R(x_j).
    """
    return (inverse_temperature - other) * (log_prob_other - log_prob)


def _checked_ladder(inverse_temperatures: Sequence[float]) -> Float64[Tensor, " rungs"]:
    ladder = [float(rung) for rung in inverse_temperatures]
    falls = all(colder > hotter for colder, hotter in itertools.pairwise(ladder))
    if len(ladder) < 2 or ladder[0] != 1.0 or not falls or not ladder[-1] >= 0.0:
        raise OptionError(
            f"inverse temperatures {ladder} are no ladder; give at least two, the first 1, each below the one before, "
            "none below 0"
        )
    return torch.tensor(ladder, dtype=torch.float64)


def _of_first_rung(info: Info, num_rungs: int) -> Info:
    """Return the report on the first replica of each chain."""
    first = {
        name: value.unflatten(0, (-1, num_rungs))[:, 0]
        for name, value in info._asdict().items()
        if isinstance(value, Tensor)
    }
    extras = {name: value.unflatten(0, (-1, num_rungs))[:, 0] for name, value in info.extras.items()}
    parts = {name: _of_first_rung(part, num_rungs) for name, part in info.parts.items()}
    return Info(**first, parts=parts, extras=extras)


def _swap_info(
    proposal: Shaped[Tensor, "chains *event"],
    log_ratio: Float64[Tensor, " chains"],
    is_swapped: Bool[Tensor, " chains"],
    is_tried: Bool[Tensor, " chains"],
) -> Info:
    """Report the swap of the first two rungs."""
    zero = torch.zeros_like(is_tried, dtype=torch.int64)
    reason = torch.where(is_swapped, Reason.ACCEPTED, zero + Reason.REJECTED)
    return Info(
        proposal=proposal,
        is_accepted=is_swapped,
        log_ratio=torch.where(is_tried, log_ratio, 0.0),
        acceptance_rate=torch.where(is_tried, log_ratio.clamp(max=0.0).exp(), 0.0),
        num_back_steps=zero,
        num_forward_steps=zero,
        target_calls=zero,
        policy_calls=zero,
        reason=torch.where(is_tried, reason, Reason.LAZY).to(torch.int8),
    )
