"""The posterior over directed acyclic graphs, from a table of how well each node's parents explain it.

    log_prob(A) = sum over nodes j of score_j(parents of j in A),    -inf where A has a directed cycle

With the BGe score of some data this is the posterior of a linear-Gaussian network's structure under a uniform prior
over DAGs. The prior can be any other that is a product of one factor a node: add its logarithm to the table. Its law
is known exactly: up to five nodes by listing all 29,281 DAGs, above by sums over sets of sinks.

Reference: Friedman and Koller 2003, "Being Bayesian about network structure".
"""

import math
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int8, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws, normal
from gfnmc.core.errors import EnergyError, ObjectError, OptionError
from gfnmc.targets.base import ExactSolution, Target, check_objects, solve_by_enumeration
from gfnmc.targets.bge import bge_local_scores
from gfnmc.targets.checks import check_assigned
from gfnmc.targets.dag_sums import MAX_NODES, DAGSums, all_dags, is_acyclic, members, parent_sets, sum_over_dags

MAX_LISTED_NODES = 5
"""Most nodes for which `exact` lists every DAG, and `statistics` every edge."""

NOISE_VARIANCE = 0.1
"""Variance of the noise of each node in simulated data."""


class DAGPosterior(Target):
    """A law on DAGs, as adjacency matrices `(nodes, nodes)` int8 with A[i, j] = 1 for the edge i -> j.

    The statistics are "num_edges" and, up to `MAX_LISTED_NODES` nodes, "edge_i_j" for each i and j: 1 where the edge
    i -> j is there.

    Attributes:
        local_scores: The table, a copy; -inf too where a node would be its own parent.
        num_nodes: Nodes.

    Args:
        local_scores: Entry [j, U] is the score of node j with the parents in U, nats, where node i is in U if
            U & 2^i; -inf where they are impossible. Entries of which j is itself a parent are not read.
        name: Short name for tables and files.

    Raises:
        OptionError: If the table does not have 2^nodes columns, for 2 ... `MAX_NODES` nodes.
        EnergyError: If a score is NaN or +inf.
    """

    dtype = torch.int8

    def __init__(self, local_scores: Float64[Tensor, "nodes subsets"], *, name: str = "dag-posterior") -> None:
        num_nodes, num_subsets = local_scores.shape
        if not 2 <= num_nodes <= MAX_NODES or num_subsets != 2**num_nodes:
            raise OptionError(
                f"the local scores have shape {tuple(local_scores.shape)}; give one row a node, for 2 ... {MAX_NODES} "
                "nodes, and one column for each of the 2^nodes sets of them"
            )
        scores = local_scores.clone()
        scores[members(num_nodes).T] = -math.inf
        if not bool((scores < math.inf).all()):
            node, subset = (~(scores < math.inf)).nonzero()[0].tolist()
            raise EnergyError(
                f"the score of node {node} with the set of parents {subset} is {float(scores[node, subset])}; a score "
                "is finite, or -inf where the parents are impossible"
            )
        self.name = name
        self.event_shape = (num_nodes, num_nodes)
        self.num_nodes = num_nodes
        self.local_scores = scores

    @classmethod
    def from_data(
        cls,
        data: Float64[Tensor, "rows nodes"],
        *,
        alpha_mu: float = 1.0,
        alpha_w: float | None = None,
        name: str = "dag-posterior",
    ) -> "DAGPosterior":
        """Return the posterior given data, by the BGe score and a uniform prior over DAGs.

        Arguments and errors are those of `bge_local_scores`.
        """
        return cls(bge_local_scores(data, alpha_mu=alpha_mu, alpha_w=alpha_w), name=name)

    @classmethod
    def simulated(
        cls, num_nodes: int = 5, num_rows: int = 100, *, expected_edges: float | None = None, seed: int = 0
    ) -> "DAGPosterior":
        """Return the posterior given the data of `simulate_linear_gaussian`, whose arguments and errors these are."""
        data = simulate_linear_gaussian(num_nodes, num_rows, expected_edges=expected_edges, seed=seed).data
        return cls.from_data(data, name=f"dag-posterior-{num_nodes}-seed{seed}")

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        if ((x != 0) & (x != 1)).any():
            row = int(((x != 0) & (x != 1)).flatten(1).any(1).nonzero()[0, 0])
            raise ObjectError(
                f"object {row} of the batch, {x[row].tolist()}, is not an adjacency matrix: give 0 and 1 only"
            )
        parents = parent_sets(x)
        scores = self.local_scores.to(x.device)[torch.arange(self.num_nodes, device=x.device), parents]
        return torch.where(is_acyclic(parents), scores.sum(1), -math.inf)

    def partial_log_prob(
        self, x: Shaped[Tensor, "batch *event"], is_assigned: Bool[Tensor, "batch *event"]
    ) -> Float64[Tensor, " batch"]:
        """Return the log-density of the graph of the assigned edges: the energy is no sum of terms."""
        check_assigned(self, x, is_assigned)
        return self.log_prob(torch.where(is_assigned, x, 0))

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        named = {"num_edges": x.flatten(1).sum(1, dtype=torch.float64)}
        return named | self.edge_indicators(x) if self.num_nodes <= MAX_LISTED_NODES else named

    def edge_indicators(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        """Return 1 where an edge is there and 0 elsewhere, for every edge, by the names of `statistics`."""
        flags = x.to(torch.float64)
        nodes = range(self.num_nodes)
        return {f"edge_{i}_{j}": flags[:, i, j] for i in nodes for j in nodes if i != j}

    def edge_probabilities(self) -> Float64[Tensor, "nodes nodes"]:
        """Return the exact probability of each edge i -> j, in row i and column j.

        Raises:
            EnergyError: If no DAG is possible.
        """
        return self._sums.edge_probabilities.clone()

    def exact(self) -> ExactSolution:
        """Return the exact solution: enumerated up to `MAX_LISTED_NODES` nodes, above log Z and the mean of edges.

        Raises:
            EnergyError: If no DAG is possible.
        """
        return self._exact

    @cached_property
    def _exact(self) -> ExactSolution:
        if self.num_nodes <= MAX_LISTED_NODES:
            return solve_by_enumeration(self, all_dags(self.num_nodes, self.dtype))
        return ExactSolution(self._sums.log_z, {"num_edges": float(self._sums.edge_probabilities.sum())})

    @cached_property
    def _sums(self) -> DAGSums:
        return sum_over_dags(self.local_scores)


class LinearGaussianData(NamedTuple):
    """A random network and what it generated.

    Attributes:
        graph: Adjacency matrix of the network, 1 for i -> j.
        weights: Coefficient of x_i in the mean of x_j, 0 where there is no edge.
        data: One row an observation.
    """

    graph: Int8[Tensor, "nodes nodes"]
    weights: Float64[Tensor, "nodes nodes"]
    data: Float64[Tensor, "rows nodes"]


def simulate_linear_gaussian(
    num_nodes: int, num_rows: int, *, expected_edges: float | None = None, seed: int = 0
) -> LinearGaussianData:
    """Draw a random DAG, its weights, and rows of data x_j = sum over i of weight_ij x_i + noise.

    Nodes are put in a random order, and each is joined to each later one with one probability. Weights are standard
    normal and the noise has variance `NOISE_VARIANCE`, as in the benchmark of Deleu et al. 2022 (2202.13903).

    Args:
        num_nodes: Nodes, at least two.
        num_rows: Rows of data.
        expected_edges: Mean number of edges; by default as many as nodes, or all where there are fewer.
        seed: Names the network and the data.

    Raises:
        OptionError: If there are fewer than two nodes, no rows, or not as many pairs of nodes as edges are expected.
    """
    num_pairs = num_nodes * (num_nodes - 1) // 2
    if num_nodes < 2 or num_rows < 1:
        raise OptionError(f"num_nodes is {num_nodes} and num_rows {num_rows}; give two nodes and one row at least")
    expected = float(min(num_nodes, num_pairs)) if expected_edges is None else expected_edges
    if not 0 <= expected <= num_pairs:
        raise OptionError(f"expected_edges is {expected}; {num_nodes} nodes have 0 ... {num_pairs} edges")
    order = PhiloxDraws(seed, "dag/order", 1).permutation(num_nodes)[0]
    earlier, later = order[torch.triu_indices(num_nodes, num_nodes, 1)]
    log_probs = torch.full((num_pairs,), expected / num_pairs, dtype=torch.float64).log()
    graph = torch.zeros(num_nodes, num_nodes, dtype=torch.int8)
    graph[earlier, later] = PhiloxDraws(seed, "dag/edges", num_pairs).bernoulli(log_probs).to(torch.int8)
    weights = graph * normal(seed, "dag/weights", (num_nodes, num_nodes), torch.float64)
    data = NOISE_VARIANCE**0.5 * normal(seed, "dag/noise", (num_rows, num_nodes), torch.float64)
    for node in order.tolist():
        data[:, node] += data @ weights[:, node]
    return LinearGaussianData(graph, weights, data)
