"""What a pair makes of a small environment, exactly: the probability of each object, and the largest weight.

For a chain that restarts from the source at every step, the object that P_F makes too rarely sets the pace: a chain
that is there leaves it with probability P_F(x) / pi(x) at most. Where each object has one path, max over x of
pi(x) / P_F(x) is the relaxation time of the chain; elsewhere that is at least (1 - pi(x)) pi(x) / P_F(x) for every x.

Reference: Liu 1996, "Metropolized independent sampling".
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import CapabilityError
from gfnmc.environments.enumeration import StateGraph, enumerate_states
from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.pair import ProposalPair
from gfnmc.targets.base import Target, checked_log_prob

MAX_STATES = 2**13
"""Most states of an environment that is enumerated for a diagnosis."""

_LOG_LARGEST = 709.0


def log_terminal_law(forward: DiscretePolicy, graph: StateGraph) -> Float64[Tensor, " objects"]:
    """Return the log-probability with which P_F makes each of `graph.objects`, nats, by one pass down the graph.

    Args:
        forward: P_F, on the graph's environment.
        graph: Every state and edge.
    """
    with torch.no_grad():
        log_step = forward.log_probs(forward.begin(graph.states), graph.states).to(torch.float64)
    log_mass = torch.full((graph.num_states,), -math.inf, dtype=torch.float64)
    log_mass[graph.index(graph.environment.source(1))] = 0.0
    heights = graph.heights[graph.parents]
    for height in range(int(graph.heights.max()), 0, -1):
        edges = heights == height
        parents, children = graph.parents[edges], graph.children[edges]
        flow = log_mass[parents] + log_step[parents, graph.actions[edges]]
        _add_exp(log_mass, children, flow)
    exit_action = graph.environment.exit_action
    if exit_action is not None:
        log_mass = log_mass + log_step[:, exit_action]
    return log_mass[graph.is_terminal]


def max_weight(pair: ProposalPair, target: Target) -> float | None:
    """Return max over x of pi(x) / P_F(x); inf where P_F cannot make a possible object.

    Returns:
        None where the states cannot be listed, or are too many, or the pair has no policy to ask.
    """
    forward = getattr(pair, "forward", None)
    if not isinstance(forward, DiscretePolicy) or target.is_noisy or not pair.environment.is_enumerable:
        return None
    try:
        graph = enumerate_states(pair.environment, max_states=MAX_STATES)
    except CapabilityError:
        return None
    log_pmf = checked_log_prob(target, graph.objects).log_softmax(0)
    possible = log_pmf > -math.inf
    largest = float((log_pmf - log_terminal_law(forward, graph))[possible].max())
    return math.exp(largest) if largest < _LOG_LARGEST else math.inf


def _add_exp(log_sums: Float64[Tensor, " states"], places: Tensor, log_terms: Float64[Tensor, " edges"]) -> None:
    """Add the exponentials of some terms to the exponentials of sums, in place and in logarithms."""
    largest = log_sums.scatter_reduce(0, places, log_terms, "amax", include_self=True)
    shift = torch.where(largest > -math.inf, largest, 0.0)
    total = (log_sums - shift).exp().index_add(0, places, (log_terms - shift[places]).exp())
    touched = torch.zeros_like(log_sums, dtype=torch.bool).index_fill(0, places, True)
    log_sums.copy_(torch.where(touched, total.log() + shift, log_sums))
