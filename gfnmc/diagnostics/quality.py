"""How good a pair is, and whether it has lost a mode: judged by objects that it did not make.

    log w = log R(x) + log P_B(tau|x) - log P_F(tau)

    ELBO  = E[log w], tau ~ P_F               <= log Z
    EUBO  = E[log w], x ~ pi, tau ~ P_B(.|x)  >= log Z
    acceptance of a full restart = E[min(1, w'/w)], w of x ~ pi and w' of P_F's own object

EUBO - ELBO bounds the symmetrised Kullback-Leibler divergence. A pair that has lost a mode looks perfect to its own
objects; so EUBO, the acceptance and coverage are computed with objects from elsewhere (exact draws, tempered chains,
the user's), and every figure without such a source is labelled "conditional on the modes visited".

Reference: Blessing et al. 2024 (2406.07423), ELBO and EUBO as measures of mode coverage.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.numerics import log_mean_exp
from gfnmc.core.threads import thread_limit
from gfnmc.diagnostics.evidence import CONDITIONAL, pareto_k_hat
from gfnmc.policies.pair import ProposalPair
from gfnmc.targets.base import Target, check_objects, checked_estimate, checked_log_prob

LOST_FACTOR = 100.0
"""An object is lost when P_F makes it less often than this many times too rarely."""

LOST_SHARE = 0.02
"""A pair has collapsed when more than this share of the target's objects is lost."""


@dataclass(frozen=True)
class PairQuality:
    """Figures of a pair.

    Attributes:
        elbo: Lower bound on log Z, nats; None where P_F made an impossible object, for then it is -inf.
        eubo: Upper bound on log Z, nats, if the given objects are the target's; None without objects, or where P_F
            cannot make one of them.
        log_z: Importance estimate of log Z, nats; -inf where no object that P_F made is possible.
        ess_fraction: Effective share of independent draws of P_F as weighted draws of the target.
        k_hat: Pareto shape of the largest weights; None where too few differ.
        acceptance: Predicted acceptance rate of a full restart.
        lost: Share of the given objects that P_F makes less than a hundredth as often as it should; None without.
        label: What the figures rest on.
        warning: The collapse in plain words, or None.
    """

    elbo: float | None
    eubo: float | None
    log_z: float
    ess_fraction: float
    k_hat: float | None
    acceptance: float
    lost: float | None
    label: str
    warning: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data, None where one is not finite."""
        return {name: None if _is_infinite(value) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> "PairQuality":
        """Return the figures that `to_dict` made plain data of."""
        return cls(**{**figures, "log_z": -math.inf if figures["log_z"] is None else figures["log_z"]})


def pair_quality(
    pair: ProposalPair,
    target: Target,
    objects: Shaped[Tensor, "n *event"] | None = None,
    *,
    objects_from: str = "the given objects",
    num_draws: int = 1_024,
    seed: int = 0,
    num_threads: int | None = 1,
) -> PairQuality:
    """Judge a pair by its own draws and by objects that it did not make.

    Args:
        pair: The pair; a conditional one bound to a condition.
        target: The target.
        objects: Objects spread as the target, not made by the pair: exact draws, or those of long tempered chains. Each
            costs a target call, as each draw does.
        objects_from: What to call them.
        num_draws: Paths drawn by P_F.
        seed: Any integer.
        num_threads: Torch threads during the work; None leaves torch's setting alone.

    Raises:
        OptionError: If there are fewer than two draws, or no objects in `objects`.
        ObjectError: If the objects are not the target's, or one has density zero.
        CapabilityError: If there are objects and the target is noisy.
        EnergyError: If the target breaks its contract.
    """
    if num_draws < 2:
        raise OptionError(f"num_draws is {num_draws}; it must be at least 2")
    if objects is not None:
        check_given(target, objects)
    with thread_limit(num_threads), torch.no_grad():
        own = draw_weights(pair, target, PhiloxDraws(seed, "quality", num_draws))
        if objects is None:
            return judged(own.log_weights, None, objects_from)
        given = weights_of(pair, target, objects, PhiloxDraws(seed, "quality/given", len(objects)))
    return judged(own.log_weights, given, objects_from, modes=describe_modes(target, own.objects, objects))


def check_given(target: Target, objects: Shaped[Tensor, "n *event"]) -> None:
    """Refuse objects that no pair can be judged by.

    Raises:
        OptionError: If there are none.
        ObjectError: If they are not the target's.
        CapabilityError: If the target is noisy: a chain that is at an object holds an estimate that is larger than a
            new one on average, which objects alone do not say.
    """
    if len(objects) == 0:
        raise OptionError("there are no objects to judge the pair by; give some, or None")
    if target.is_noisy:
        raise CapabilityError(
            f"{target.name} is noisy, and a pair is judged by objects with their densities, not estimates of them; "
            "judge it without objects"
        )
    check_objects(target, objects)


class OwnDraws(NamedTuple):
    """Independent draws of P_F.

    Attributes:
        objects: What was made.
        log_reward: log R, nats.
        log_path_ratio: log P_B - log P_F of the paths, nats.
    """

    objects: Shaped[Tensor, "n *event"]
    log_reward: Float64[Tensor, " n"]
    log_path_ratio: Float64[Tensor, " n"]

    @property
    def log_weights(self) -> Float64[Tensor, " n"]:
        """Log w of each."""
        return self.log_reward + self.log_path_ratio


def draw_weights(pair: ProposalPair, target: Target, draws: PhiloxDraws) -> OwnDraws:
    """Return independent draws of P_F with what their weights are made of."""
    path = pair.sample_forward(pair.environment.source(draws.num_rows), draws.role("forward"))
    assert path.log_forward is not None
    objects = pair.environment.objects(path.end)
    log_reward = checked_estimate(target, objects, draws.role("estimate"))
    return OwnDraws(objects, log_reward, pair.log_backward(path) - path.log_forward)


def weights_of(
    pair: ProposalPair,
    target: Target,
    objects: Shaped[Tensor, "n *event"],
    draws: PhiloxDraws,
    *,
    log_reward: Float64[Tensor, " n"] | None = None,
) -> Float64[Tensor, " n"]:
    """Return log w of given objects, each with a path by P_B; their log-rewards are evaluated where not given.

    Raises:
        ObjectError: If one has density zero.
    """
    if log_reward is None:
        log_reward = checked_log_prob(target, objects)
    if (log_reward == -math.inf).any():
        row = int((log_reward == -math.inf).nonzero()[0, 0])
        raise ObjectError(
            f"object {row}, {objects[row].tolist()}, has density zero under {target.name}; judge the pair by objects "
            "spread as the target"
        )
    path = pair.sample_backward(pair.environment.states(objects), None, draws.role("backward"))
    assert path.log_backward is not None
    return log_reward + path.log_backward - pair.log_forward(path)


def judged(
    own: Float64[Tensor, " n"], given: Float64[Tensor, " m"] | None, objects_from: str, *, modes: str = ""
) -> PairQuality:
    """Return the figures that follow from log-weights.

    Args:
        own: log w of draws of P_F; -inf for impossible objects.
        given: log w of objects spread as the target, +inf where P_F cannot make one; None without.
        objects_from: What to call those.
        modes: What `describe_modes` said.
    """
    log_z = log_mean_exp(own)
    own_elbo = float(own.mean())
    ess_fraction = 0.0
    if log_z > -math.inf:
        ess_fraction = math.exp(2.0 * float(own.logsumexp(0)) - float((2.0 * own).logsumexp(0))) / len(own)
    common = {
        "elbo": own_elbo if math.isfinite(own_elbo) else None,
        "log_z": log_z,
        "ess_fraction": ess_fraction,
        "k_hat": pareto_k_hat(own),
    }
    if given is None:
        return PairQuality(
            **common, eubo=None, acceptance=_own_acceptance(own, log_z), lost=None, label=CONDITIONAL, warning=None
        )
    eubo = float(given.mean())
    lost = float((given > log_z + math.log(LOST_FACTOR)).to(torch.float64).mean())
    return PairQuality(
        **common,
        eubo=eubo if math.isfinite(eubo) else None,
        acceptance=_acceptance(own, given),
        lost=lost,
        label=f"judged by {objects_from}",
        warning=_warning(lost, objects_from, modes) if lost > LOST_SHARE else None,
    )


def describe_modes(target: Target, made: Shaped[Tensor, "n *event"], given: Shaped[Tensor, "m *event"]) -> str:
    """Return which modes the given objects have and those that P_F made hardly ever have, or ''."""
    modes = target.modes()
    if modes is None:
        return ""
    ids = torch.arange(len(modes))
    wanted = (modes.assign(given)[:, None] == ids).to(torch.float64).mean(0)
    found = (modes.assign(made)[:, None] == ids).to(torch.float64).mean(0)
    missing = ((wanted >= LOST_SHARE / 2) & (found < 0.1 * wanted)).nonzero()[:, 0].tolist()
    return "; ".join(f"{modes.names[i]!r} is {wanted[i]:.1%} of them and {found[i]:.1%} of its own" for i in missing)


def _warning(lost: float, objects_from: str, modes: str) -> str:
    return (
        f"the pair has collapsed: P_F makes {lost:.0%} of {objects_from} less than a hundredth as often as it should"
        f"{f' ({modes})' if modes else ''}; chains with this pair are exact, but will hardly reach those objects and "
        "hardly leave them. Train longer or with more seeds (seed_chains, seed_batch_size), and until then cycle it "
        "with ParallelTempering"
    )


def _acceptance(own: Float64[Tensor, " n"], given: Float64[Tensor, " m"]) -> float:
    """Return the mean of min(1, w'/w) over all pairs of an own and a given object, without listing the pairs."""
    own = own.sort().values
    num_below = torch.searchsorted(own, given)
    log_sum_below = torch.nn.functional.pad(own.logcumsumexp(0), (1, 0), value=-math.inf)[num_below]
    by_object = (log_sum_below - given).exp() + (len(own) - num_below)
    return float(by_object.mean()) / len(own)


def _own_acceptance(own: Float64[Tensor, " n"], log_z: float) -> float:
    """Return the same with the own objects weighed to stand for the target's: mean of min(w, w') / mean of w."""
    if log_z == -math.inf:
        return 0.0
    # In a sorted row, weight k (counted from 0) is the smaller one of 2 (n - k) - 1 ordered pairs.
    times = 2.0 * torch.arange(len(own), 0, -1, dtype=torch.float64) - 1.0
    return math.exp(float((own.sort().values + times.log()).logsumexp(0) - own.logsumexp(0))) / len(own)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
