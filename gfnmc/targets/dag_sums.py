"""Sums over all directed acyclic graphs whose weight is a product of one factor a node.

A factor depends on the node and its set of parents, and alpha_j(U) is the sum of the factors of j over all sets of
parents inside U. A DAG on the nodes S has at least one sink, so by inclusion and exclusion over the sinks K

    Z(S) = sum over nonempty K in S of (-1)^(|K| + 1) Z(S - K) product over j in K of alpha_j(S - K),    Z({}) = 1

in 3^n steps. Each term is the weight of the DAGs in which all of K are sinks, so none is greater than Z(S) and the
signs cost few digits, however sharp the law: Z(S) is kept as a logarithm and its terms are scaled by the largest.

Leaving out the edge i -> j is to read alpha_j(U - i) for alpha_j(U), so P(i -> j) = 1 - Z(without the edge) / Z.

References: Robinson 1973, "Counting labeled acyclic digraphs"; Tian and He 2009, "Computing posterior probabilities of
structural features in Bayesian networks".
"""

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import EnergyError

MAX_NODES = 11
"""Most nodes of a table of local scores, and of a sum over DAGs: seconds of work."""


class DAGSums(NamedTuple):
    """What is known of a law on DAGs.

    Attributes:
        log_z: Logarithm of the sum of all weights, nats.
        edge_probabilities: Probability of each edge i -> j, in row i and column j.
    """

    log_z: float
    edge_probabilities: Float64[Tensor, "nodes nodes"]


def members(num_nodes: int) -> Bool[Tensor, "subsets nodes"]:
    """Return which nodes are in each set: node i is in set U if U & 2^i."""
    return (torch.arange(2**num_nodes)[:, None] >> torch.arange(num_nodes)) & 1 == 1


def parent_sets(x: Shaped[Tensor, "batch nodes nodes"]) -> Int64[Tensor, "batch nodes"]:
    """Return each node's set of parents, sum over i of 2^i A[i, j], for matrices of 0 and 1."""
    bit = 2 ** torch.arange(x.shape[-1], device=x.device)
    return (x.to(torch.int64) * bit[:, None]).sum(1)


def is_acyclic(parents: Int64[Tensor, "batch nodes"]) -> Bool[Tensor, " batch"]:
    """Return True where no directed cycle runs through the sets of parents.

    Nodes whose parents are all gone are taken away, again and again; what is left in the end is on or behind a cycle.
    """
    num_nodes = parents.shape[1]
    bit = 2 ** torch.arange(num_nodes, device=parents.device)
    left = torch.full_like(parents[:, :1], 2**num_nodes - 1)
    for _ in range(num_nodes):
        left = torch.where(parents & left != 0, left & bit, 0).sum(1, keepdim=True)
    return left[:, 0] == 0


def all_dags(num_nodes: int, dtype: torch.dtype) -> Shaped[Tensor, "dags nodes nodes"]:
    """Return every DAG as an adjacency matrix, from all 2^(n (n - 1)) choices of parents: for up to five nodes."""
    subset = torch.arange(2**num_nodes)
    others = [subset[subset & 2**node == 0] for node in range(num_nodes)]
    parents = torch.cartesian_prod(*others).reshape(-1, num_nodes)
    parents = parents[is_acyclic(parents)]
    return members(num_nodes)[parents].mT.to(dtype)


def sum_over_dags(local_scores: Float64[Tensor, "nodes subsets"]) -> DAGSums:
    """Return the normalising constant and the probability of every edge.

    Args:
        local_scores: Logarithm of the factor of each node with each set of parents, nats; -inf where it is 0, which
            it is for sets that hold the node itself.

    Raises:
        EnergyError: If every DAG has weight 0.
    """
    num_nodes = len(local_scores)
    best = local_scores.amax(1, keepdim=True)
    if (best == -math.inf).any():
        node = int(best[:, 0].argmin())
        raise EnergyError(f"node {node} has score -inf with every set of parents; allow one at least")
    # Numbers near 0 keep more digits.
    log_alpha = _sum_over_subsets(local_scores - best)
    log_z = _log_sum(log_alpha)
    if log_z == -math.inf:
        raise EnergyError("the local scores give every directed acyclic graph weight 0; one must be possible")
    subset = torch.arange(2**num_nodes)
    edges = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    for parent in range(num_nodes):
        for child in range(num_nodes):
            if parent != child:
                without = log_alpha.clone()
                without[child] = log_alpha[child, subset & ~(1 << parent)]
                edges[parent, child] = max(0.0, -math.expm1(_log_sum(without) - log_z))
    return DAGSums(log_z + float(best.sum()), edges)


class _Layer(NamedTuple):
    """All sets of one size, with all choices of sinks in each.

    Attributes:
        sets: Every set as a number.
        nodes: Its nodes.
        rest: What each choice of sinks leaves of it.
        is_sink: Which of the nodes, by their places, each choice takes.
        sign: +1 for an odd number of sinks, else -1.
    """

    sets: Int64[Tensor, " sets"]
    nodes: Int64[Tensor, "sets size"]
    rest: Int64[Tensor, "sets choices"]
    is_sink: Bool[Tensor, "choices size"]
    sign: Float64[Tensor, " choices"]


@functools.lru_cache(maxsize=MAX_NODES)
def _layers(num_nodes: int) -> tuple[_Layer, ...]:
    layers = []
    is_member = members(num_nodes)
    for size in range(1, num_nodes + 1):
        nodes = is_member[is_member.sum(1) == size].nonzero()[:, 1].reshape(-1, size)
        is_sink = members(size)[1:]
        sets = (2**nodes).sum(1)
        rest = sets[:, None] - (2**nodes) @ is_sink.to(torch.int64).T
        sign = 2.0 * (is_sink.sum(1) % 2).to(torch.float64) - 1.0
        layers.append(_Layer(sets, nodes, rest, is_sink, sign))
    return tuple(layers)


def _log_sum(log_alpha: Float64[Tensor, "nodes subsets"]) -> float:
    """Return log Z of all nodes."""
    log_z = torch.zeros(log_alpha.shape[1], dtype=torch.float64)
    for layer in _layers(len(log_alpha)):
        terms = log_z[layer.rest]
        for place in range(layer.nodes.shape[1]):
            with_rest = log_alpha[layer.nodes[:, place, None], layer.rest]
            terms = terms + torch.where(layer.is_sink[:, place], with_rest, 0.0)
        largest = terms.amax(1)
        scale = torch.where(largest == -math.inf, 0.0, largest)
        log_z[layer.sets] = scale + ((terms - scale[:, None]).exp() @ layer.sign).log()
    return float(log_z[-1])


def _sum_over_subsets(log_factors: Float64[Tensor, "nodes subsets"]) -> Float64[Tensor, "nodes subsets"]:
    """Return log alpha: each node's factors summed over all subsets of every set."""
    log_alpha = log_factors.clone()
    for node in range(len(log_alpha)):
        without, with_node = log_alpha.unflatten(1, (-1, 2, 2**node)).unbind(2)
        with_node.copy_(torch.logaddexp(without, with_node))
    return log_alpha
