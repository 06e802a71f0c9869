"""Multiple-try suffix resampling: undo once, rebuild several times, and weigh all that came of it.

From x: undo actions by P_B down to a branch state s, as suffix resampling does. Candidate 0 is x with the suffix that
was undone, the M - 1 others are built anew from s by P_F. With the weights

    w_i = R(x_i) P_B(tau_i|x_i) b(s|x_i) / P_F(tau_i|s),    S = w_0 + ... + w_{M-1},

pick j other than 0 with probability w_j / (S - w_0), and accept with probability min(1, (S - w_0) / (S - w_j)).

The current object comes with a weight like the others because under the extended target each of the M candidates is
the one that the chain stands at with probability w_i / S, whichever of them it is. So picking and accepting is a move
on their indices, and a reversible one; and the mean of a function over the candidates, weighted by w_i / S, has the
target's mean in every step. M = 2 is suffix resampling. Proof by enumeration: tests/exact/.

References: Tjelmeland 2004, "Using all Metropolis-Hastings proposals to estimate mean values"; Liu 1996, "Peskun's
theorem and a modified discrete-state Gibbs sampler", for the pick among the others; Liu, Liang and Wong 2000, "The
multiple-try method and local optimization in Metropolis sampling".
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import CapabilityError, OptionError, PolicyError
from gfnmc.core.numerics import masked_log_softmax, where_rows
from gfnmc.core.tempering import InverseTemperature, tempered_change
from gfnmc.kernels.base import Info, Reason, State
from gfnmc.kernels.branch import BranchLaw, PrefixLaw
from gfnmc.kernels.metropolis import Proposal
from gfnmc.kernels.suffix import SuffixResampling
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.path import Path
from gfnmc.targets.base import Target, checked_log_prob


class _Candidates(NamedTuple):
    """What a step has built and what it weighs.

    Attributes:
        tried: The objects of the tries.
        log_prob: Their log-densities, nats; -inf where they were not evaluated.
        log_weights: log w of all candidates, the current object first, nats.
        evaluated: Which tries may be gone to, and were evaluated.
    """

    tried: Shaped[Tensor, "chains tries *event"]
    log_prob: Float64[Tensor, "chains tries"]
    log_weights: Float64[Tensor, "chains candidates"]
    evaluated: Bool[Tensor, "chains tries"]


class MultipleTrySuffix(SuffixResampling):
    """Suffix resampling with several tries a step.

    `Info.proposal` is the candidate that was picked, the first try where none could be; `num_forward_steps` are its
    actions, and the calls are those of all tries.

    With `recycle`, `Info.extras` holds the weighted mean over a step's candidates of every statistic of the target, as
    "recycled[name]", and of the indicator of every mode, as "recycled[occ[name]]", each `(chains,)` float64;
    `gfnmc.diagnostics.recycled_means` averages them. That asks the target for the statistics of all candidates in every
    step, which is not counted among the target calls.

    Args:
        pair: P_F and P_B; copied and frozen where it is a `GFlowNet`.
        target: What to sample.
        branch: Branch law; uniform over all legal numbers of steps back by default.
        num_tries: Candidates M of a step, the current object among them; 2 is suffix resampling.
        recycle: Whether to record the weighted means over the candidates.

    Raises:
        CapabilityError: If the environment has no `max_depth`, which branch laws need, or the target is noisy.
        OptionError: If the law does not fit the environment, or `num_tries` is below 2.
    """

    name = "multiple-try suffix"

    def __init__(
        self,
        pair: ProposalPair,
        target: Target,
        branch: BranchLaw | None = None,
        *,
        num_tries: int = 4,
        recycle: bool = False,
    ) -> None:
        if num_tries < 2:
            raise OptionError(f"num_tries is {num_tries}; the current object is one of them, so give 2 or more")
        if target.is_noisy:
            raise CapabilityError(
                f"{target.name} is noisy, and the weights of several tries need its densities, not estimates of them; "
                "use SuffixResampling"
            )
        super().__init__(pair, target, branch)
        self.num_tries = num_tries
        self.recycle = recycle
        self.calls_per_step = num_tries - 1
        self._pair_of_tries = self.pair

    def tempered(self, inverse_temperature: InverseTemperature) -> "MultipleTrySuffix":
        tempered = super().tempered(inverse_temperature)
        if isinstance(inverse_temperature, Tensor):
            # A pair that is bound to the rows' temperatures meets each row once a try.
            a_try = inverse_temperature.repeat_interleave(self.num_tries - 1)
            tempered._pair_of_tries = super().tempered(a_try).pair
        else:
            tempered._pair_of_tries = tempered.pair
        return tempered

    @torch.no_grad()
    def step(self, draws: Draws, state: State) -> tuple[State, Info]:
        down, is_lazy, undoing_calls = self._branch(self.environment.states(state.position), draws)
        down = self._memory.with_caches(self.pair, down)
        self._memory.keep(self.pair, down)
        up = self._tries(down, draws)
        tried, log_prob, log_weights, evaluated = self._weighed(state, down, up, is_lazy)

        has_choice = log_weights[:, 1:].amax(1) > -torch.inf
        picked = draws.role("pick").categorical(masked_log_softmax(log_weights[:, 1:]), has_choice)
        log_ratio = torch.where(has_choice, log_multiple_try_ratio(log_weights, picked + 1), -torch.inf)
        is_accepted = draws.role("accept").bernoulli(log_ratio.clamp(max=0.0), has_choice)

        chain, lengths = torch.arange(len(picked)), up.lengths.reshape(evaluated.shape)
        proposal = where_rows(is_lazy, state.position, tried[chain, picked])
        exits = 0 if self.environment.exit_action is None else self.num_tries
        info = Info(
            proposal=proposal,
            is_accepted=is_accepted,
            log_ratio=torch.where(is_lazy, 0.0, log_ratio),
            acceptance_rate=log_ratio.clamp(max=0.0).exp(),
            num_back_steps=torch.where(is_lazy, 0, down.lengths),
            num_forward_steps=torch.where(is_lazy, 0, lengths[chain, picked]),
            target_calls=evaluated.sum(1),
            policy_calls=undoing_calls + down.lengths + 2 * lengths.sum(1) + exits,
            reason=_reasons(is_accepted, evaluated.any(1), is_lazy),
            extras=self._recycled(state.position, tried, candidate_weights(log_weights)) if self.recycle else {},
        )
        position = where_rows(is_accepted, proposal, state.position)
        return State(position, torch.where(is_accepted, log_prob[chain, picked], state.log_prob), state.cache), info

    def _propose(self, draws: Draws, position: Tensor) -> Proposal:
        raise CapabilityError(
            f"a step of {self.name} weighs {self.num_tries} candidates by the target and accepts by all their weights, "
            "so there is no proposal with a ratio of its own; use SuffixResampling"
        )

    def _branch(self, states: Tensor, draws: Draws) -> tuple[Path, Bool[Tensor, " chains"], Int64[Tensor, " chains"]]:
        """Return the undone suffixes, the rows that stay for a prefix law's sake, and the calls of P_B it took."""
        if isinstance(self.branch, PrefixLaw):
            return self._prefix_branch(states, draws)
        down = self._suffix_branch(states, draws)
        return down, torch.zeros_like(down.reached_source), down.lengths

    def _tries(self, down: Path, draws: Draws) -> Path:
        """Return the new suffixes, those of each chain one after the other."""
        times = self.num_tries - 1
        starts, decisions = down.start.repeat_interleave(times, 0), draws.role("forward").repeated(times)
        if down.start_cache is None:
            return self._pair_of_tries.sample_forward(starts, decisions)
        assert isinstance(self._pair_of_tries, GFlowNet)
        return self._pair_of_tries.sample_forward(starts, decisions, down.start_cache.repeat_interleave(times, 0))

    def _weighed(self, state: State, down: Path, up: Path, is_lazy: Bool[Tensor, " chains"]) -> _Candidates:
        """Evaluate the tries that may be gone to, and weigh them against the current object."""
        tried = self.environment.objects(up.end).unflatten(0, (-1, self.num_tries - 1))
        log_paths = self._log_path_weights(down, up)
        # Where P_F cannot build the current suffix its weight is infinite, since no move away would have a return.
        has_return = (log_paths[:, 1:] > -torch.inf) & (log_paths[:, :1] < torch.inf)
        evaluated = has_return & ~is_lazy[:, None]
        log_prob = torch.full_like(log_paths[:, 1:], -torch.inf)
        if evaluated.any():
            log_prob[evaluated] = checked_log_prob(self.target, tried[evaluated], rows=evaluated.nonzero()[:, 0])
        log_weights = log_paths + self._log_tempered(torch.cat([state.log_prob[:, None], log_prob], 1))
        # A current object beside no other has all the weight, whatever its own is.
        current = torch.where(evaluated.any(1), log_weights[:, 0], 0.0)
        tries = torch.where(evaluated, log_weights[:, 1:], -torch.inf)
        return _Candidates(tried, log_prob, torch.cat([current[:, None], tries], 1), evaluated)

    def _log_path_weights(self, down: Path, up: Path) -> Float64[Tensor, "chains candidates"]:
        """Return log P_B(tau|x) b(s|x) / P_F(tau|s) of the current suffix and of every try, nats."""
        assert down.log_backward is not None and up.log_forward is not None
        current = down.log_backward + self._log_branch(down) - self.pair.log_forward(down)
        tries = self._pair_of_tries.log_backward(up) + self._log_branch(up) - up.log_forward
        together = torch.cat([current[:, None], tries.reshape(len(current), -1)], 1)
        unknown = together.isnan().any(1)
        if unknown.any():
            raise PolicyError(
                f"chain {int(unknown.nonzero()[0, 0])}: the probability of a proposed path is NaN; the weights of P_F "
                "or P_B are not finite, so train the pair again or load an earlier checkpoint"
            )
        return together

    def _log_tempered(self, log_prob: Float64[Tensor, "chains candidates"]) -> Float64[Tensor, "chains candidates"]:
        """Return log R^beta, nats; 0 where beta is 0, also for impossible objects."""
        power, flat = self.inverse_temperature, log_prob.flatten()
        power = power.repeat_interleave(self.num_tries) if isinstance(power, Tensor) else power
        return tempered_change(power, flat, torch.zeros_like(flat)).reshape(log_prob.shape)

    def _recycled(
        self,
        position: Shaped[Tensor, "chains *event"],
        tried: Shaped[Tensor, "chains tries *event"],
        weights: Float64[Tensor, "chains candidates"],
    ) -> dict[str, Float64[Tensor, " chains"]]:
        """Return the weighted means over the candidates of the target's statistics and of its modes' indicators."""
        objects = torch.cat([position[:, None], tried], 1).flatten(0, 1)
        named = dict(self.target.statistics(objects))
        modes = self.target.modes()
        if modes is not None:
            mode_ids = modes.assign(objects)
            named |= {f"occ[{name}]": mode_ids == mode for mode, name in enumerate(modes.names)}
        weights = weights.flatten()
        # A statistic may be infinite for an impossible object, which has no weight.
        terms = {name: torch.where(weights > 0.0, weights * value, 0.0) for name, value in named.items()}
        return {f"recycled[{name}]": term.reshape(-1, self.num_tries).sum(1) for name, term in terms.items()}


def log_multiple_try_ratio(
    log_weights: Float64[Tensor, "chains candidates"], picked: Int64[Tensor, " chains"]
) -> Float64[Tensor, " chains"]:
    """Return log (S - w_0) / (S - w_j), nats, for the picked j; candidate 0 is the current object."""
    is_picked = torch.arange(log_weights.shape[1]) == picked[:, None]
    log_others = log_weights.masked_fill(is_picked, -torch.inf).logsumexp(1)
    return log_weights[:, 1:].logsumexp(1) - log_others


def candidate_weights(log_weights: Float64[Tensor, "chains candidates"]) -> Float64[Tensor, "chains candidates"]:
    """Return w_i / S."""
    return log_weights.softmax(1)


def _reasons(
    is_accepted: Bool[Tensor, " chains"], has_return: Bool[Tensor, " chains"], is_lazy: Bool[Tensor, " chains"]
) -> Shaped[Tensor, " chains"]:
    zero = torch.zeros(len(is_accepted), dtype=torch.int64)
    reason = torch.where(is_accepted, zero + Reason.ACCEPTED, zero + Reason.REJECTED)
    reason = torch.where(has_return, reason, zero + Reason.NO_REVERSE_MOVE)
    return torch.where(is_lazy, zero + Reason.LAZY, reason).to(torch.int8)
