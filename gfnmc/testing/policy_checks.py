"""Hold a policy, or a pair of them, to its contract: one law, for sampling and scoring, alone and in a batch.

The acceptance ratio is made of the probabilities that policies state. A policy that samples by another law than it
scores by, or whose numbers depend on the batch, makes a chain inexact, however well it is trained.
"""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import PolicyError
from gfnmc.core.numerics import where_rows
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.environments.check import check_environment
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.pair import GFlowNet, ProposalPair
from gfnmc.policies.rollout import walk_forward
from gfnmc.policies.uniform import UniformPolicy

_NUM_PATHS = 64
_TOLERANCE = 1e-9
# A network in single precision, walked step by step and read afresh, rounds differently.
_CACHE_TOLERANCE = 1e-4


def check_policy(policy: DiscretePolicy, states: Shaped[Tensor, "states *state"] | None = None) -> None:
    """Hold a policy to its contract: one law, normalised, the same for sampling and scoring, alone and in a batch.

    Args:
        policy: Any policy; one that depends on a condition is bound to one.
        states: States to ask about; those of random walks by default.

    Raises:
        PolicyError: At the first contradiction, with the state that shows it.
    """
    environment = policy.environment
    policy = policy.frozen()
    states = _visited(environment) if states is None else states
    states = states[environment.mask(states, policy.direction).any(-1)]
    mask = environment.mask(states, policy.direction)
    name = type(policy).__name__
    with torch.no_grad():
        cache = policy.begin(states)
        law = policy.log_probs(cache, states)
        _check_law(name, law, mask, states, is_positive=policy.is_positive)
        active = torch.ones(len(states), dtype=torch.bool)
        actions, log_prob = policy.sample(cache, states, PhiloxDraws(0, "check_policy", len(states)), active)
        allowed = mask.gather(1, actions[:, None])[:, 0]
        _require_policy(allowed, states, f"{name}.sample draws an action that the mask forbids")
        scored = policy.score(cache, states, actions)
        _require_policy(
            scored == log_prob, states, f"{name}.score gives another number than sample gave for its action"
        )
        _check_cache(policy, cache, states, actions)
        _check_batches(policy, states, law)


def check_pair(pair: ProposalPair) -> None:
    """Hold a pair to its contract: its policies, and that it scores the paths it walked with the same numbers.

    Args:
        pair: Any pair, frozen for the check where it is a `GFlowNet`.

    Raises:
        PolicyError: At the first contradiction, with the object or the state that shows it.
        EnvironmentContractError: If the environment contradicts itself.
    """
    environment = pair.environment
    check_environment(environment)
    if isinstance(pair, GFlowNet):
        pair = pair.frozen()
        check_policy(pair.forward)
        check_policy(pair.backward)
    with torch.no_grad():
        built = pair.sample_forward(environment.source(_NUM_PATHS), PhiloxDraws(0, "check_pair", _NUM_PATHS))
        undone = pair.sample_backward(built.end, None, PhiloxDraws(1, "check_pair", _NUM_PATHS))
        for way, walked, scored in (
            ("forward", built.log_forward, pair.log_forward(built)),
            ("backward", undone.log_backward, pair.log_backward(undone)),
        ):
            if walked is None:
                raise PolicyError(f"sample_{way} returns paths without log_{way}")
            close = (walked - scored).abs() <= _TOLERANCE
            message = f"log_{way} of a path differs from what sample_{way} said of it; P_{way[0].upper()} has two laws"
            _require_policy(close, built.end, message)
        _require_policy(environment.is_source(undone.start), built.end, "sample_backward does not reach the source")


def _visited(environment: DiscreteEnvironment) -> Shaped[Tensor, "states *state"]:
    """Return different states of random walks."""
    uniform = UniformPolicy(environment, Direction.FORWARD)
    draws = PhiloxDraws(0, "visited", _NUM_PATHS)
    path = walk_forward(uniform, environment, environment.source(_NUM_PATHS), draws)
    return path.states.flatten(0, 1).unique(dim=0)


def _check_law(name: str, law: Tensor, mask: Tensor, states: Tensor, *, is_positive: bool) -> None:
    if law.dtype != torch.float64 or law.shape != mask.shape:
        raise PolicyError(
            f"{name}.log_probs returned {law.dtype} of shape {tuple(law.shape)} for {len(states)} states; return "
            f"torch.float64 of shape {tuple(mask.shape)}"
        )
    _require_policy(~law.isnan().any(-1), states, f"{name}.log_probs holds NaN")
    _require_policy((law.exp().sum(-1) - 1.0).abs() <= _TOLERANCE, states, f"{name}.log_probs does not add up to 1")
    forbids = (law[:] == -torch.inf) | mask
    _require_policy(forbids.all(-1), states, f"{name}.log_probs gives an action that the mask forbids a probability")
    if is_positive:
        _require_policy(
            ((law > -torch.inf) | ~mask).all(-1),
            states,
            f"{name} says is_positive, but an allowed action never happens",
        )


def _check_cache(policy: DiscretePolicy, cache: object, states: Tensor, actions: Tensor) -> None:
    """Check that a cache which was carried along a step gives the law that begins afresh."""
    environment = policy.environment
    is_forward = policy.direction is Direction.FORWARD
    moves = actions != environment.exit_action if environment.exit_action is not None else actions >= 0
    move = environment.step if is_forward else environment.unstep
    after = where_rows(moves, move(states, actions), states)
    carried = policy.log_probs(policy.advance(cache, states, actions), after)
    afresh = policy.log_probs(policy.begin(after), after)
    mask = environment.mask(after, policy.direction)
    close = ((carried.exp() - afresh.exp()).abs() <= _CACHE_TOLERANCE) | ~mask
    message = f"{type(policy).__name__}: the law after `advance` is not the law after `begin`"
    _require_policy(close.all(-1) | ~moves | ~mask.any(-1), after, message)


def _check_batches(policy: DiscretePolicy, states: Tensor, law: Tensor) -> None:
    """Check that a row's numbers do not depend on its neighbours, to the last bit."""
    for size in (1, 7):
        apart = torch.cat([policy.log_probs(policy.begin(some), some) for some in states.split(size)])
        message = (
            f"{type(policy).__name__}: frozen, the law of a state depends on the batch it is in; compute in blocks of "
            "one size (`gfnmc.policies.sub_batches.in_sub_batches`)"
        )
        _require_policy((apart == law).all(-1), states, message)


def _require_policy(holds: Bool[Tensor, " states"], states: Tensor, message: str) -> None:
    if not holds.all():
        row = int((~holds).nonzero()[0, 0])
        raise PolicyError(f"{message} (state {states[row].tolist()})")
