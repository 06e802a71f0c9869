"""The BGe score: how well linear-Gaussian data agree with each set of parents of each node, parameters integrated out.

Rows of data are independent N(mu, W^-1), with W ~ Wishart(alpha_w, T^-1) and mu | W ~ N(0, (alpha_mu W)^-1). The
marginal likelihood of the columns Y, l of the n, has a closed form:

    log p(D_Y) = (l / 2) log(alpha_mu / (N + alpha_mu)) - (l N / 2) log pi
                 + log Gamma_l((N + a) / 2) - log Gamma_l(a / 2) + (a / 2) log|T_YY| - ((N + a) / 2) log|R_YY|

    a = alpha_w - n + l,    R = T + sum over rows of (x - m)(x - m)^T + N alpha_mu / (N + alpha_mu) m m^T

with m the mean row and Gamma_l the multivariate gamma function. T = t I, and t = alpha_mu (alpha_w - n - 1) /
(alpha_mu + 1) gives each column variance 1 under the prior.

A node j with parents P scores log p(D_{P + j}) - log p(D_P). The sum over nodes is the same for all DAGs that imply
the same independences, because all of it comes from one law of (mu, W).

References: Geiger and Heckerman 2002, "Parameter priors for directed acyclic graphical models and the
characterization of several probability distributions"; Kuipers, Moffa and Heckerman 2014, "Addendum on the scoring of
Gaussian directed acyclic graphical models" (the form above, which corrects earlier ones).
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets.dag_sums import MAX_NODES, members


def bge_local_scores(
    data: Float64[Tensor, "rows nodes"], *, alpha_mu: float = 1.0, alpha_w: float | None = None
) -> Float64[Tensor, "nodes subsets"]:
    """Return the BGe score of every node with every set of parents, nats.

    Args:
        data: One row an observation, one column a node.
        alpha_mu: How many rows the prior mean 0 is worth; positive.
        alpha_w: Degrees of freedom of the Wishart prior; more than nodes + 1, by default nodes + 2.

    Returns:
        Entry [j, U] is the score of the parents in U, where node i is in U if U & 2^i; -inf where j itself is.

    Raises:
        ObjectError: If the data hold no row, or a number that is not finite.
        OptionError: If there are no columns or more than `MAX_NODES`, or a parameter of the prior cannot work.
    """
    log_marginal = bge_log_marginals(data, alpha_mu=alpha_mu, alpha_w=alpha_w)
    subset = torch.arange(len(log_marginal))
    bit = 2 ** torch.arange(data.shape[1])[:, None]
    return torch.where(subset & bit != 0, -math.inf, log_marginal[subset | bit] - log_marginal)


def bge_log_marginals(
    data: Float64[Tensor, "rows nodes"], *, alpha_mu: float = 1.0, alpha_w: float | None = None
) -> Float64[Tensor, " subsets"]:
    """Return the logarithm of the marginal likelihood of every set of columns, nats; 0 for none.

    Arguments, the order of the sets and errors are those of `bge_local_scores`.
    """
    num_rows, num_nodes = data.shape
    alpha_w = num_nodes + 2.0 if alpha_w is None else alpha_w
    _check(data, alpha_mu, alpha_w)
    scale = alpha_mu * (alpha_w - num_nodes - 1) / (alpha_mu + 1)
    mean = data.mean(0)
    centred = data - mean
    shrunk = num_rows * alpha_mu / (num_rows + alpha_mu) * mean[:, None] * mean
    log_det = _log_minors(scale * torch.eye(num_nodes, dtype=torch.float64) + centred.T @ centred + shrunk)
    by_size = [torch.zeros((), dtype=torch.float64)]
    for size in range(1, num_nodes + 1):
        prior = torch.tensor((alpha_w - num_nodes + size) / 2, dtype=torch.float64)
        gammas = torch.mvlgamma(prior + num_rows / 2, size) - torch.mvlgamma(prior, size)
        logs = math.log(alpha_mu / (num_rows + alpha_mu)) - num_rows * math.log(math.pi)
        by_size.append(gammas + size * (logs / 2 + prior * math.log(scale)))
    sizes = members(num_nodes).sum(1)
    return torch.stack(by_size)[sizes] - (num_rows + alpha_w - num_nodes + sizes) / 2 * log_det


def _log_minors(matrix: Float64[Tensor, "nodes nodes"]) -> Float64[Tensor, " subsets"]:
    """Return log|M_YY| for every set of rows and columns of a positive definite matrix."""
    is_member = members(len(matrix))
    # Rows and columns outside a set are those of the identity, so the determinant is the set's.
    inside = is_member[:, :, None] & is_member[:, None, :]
    minors = torch.where(inside, matrix, torch.eye(len(matrix), dtype=torch.float64))
    return 2.0 * torch.linalg.cholesky(minors).diagonal(dim1=1, dim2=2).log().sum(1)


def _check(data: Float64[Tensor, "rows nodes"], alpha_mu: float, alpha_w: float) -> None:
    num_rows, num_nodes = data.shape
    if not 1 <= num_nodes <= MAX_NODES:
        raise OptionError(f"the data have {num_nodes} columns; scores are tabulated for 1 ... {MAX_NODES} nodes")
    if num_rows == 0 or not bool(data.isfinite().all()):
        raise ObjectError("the data hold no row, or numbers that are not finite; give at least one row, all finite")
    if not math.isfinite(alpha_mu) or alpha_mu <= 0:
        raise OptionError(f"alpha_mu is {alpha_mu}; it must be finite and positive")
    if not math.isfinite(alpha_w) or alpha_w <= num_nodes + 1:
        raise OptionError(f"alpha_w is {alpha_w}; it must be finite and more than nodes + 1 = {num_nodes + 1}")
