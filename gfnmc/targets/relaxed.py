"""Relaxed objects: weights of the values in place of a value at each site, so that a log-density has a gradient.

An object x has weights w_{i,v} = 1 where site i has value v, else 0. A relaxed log-density is any differentiable
function of weights that agrees with log_prob on those; its gradient at an object tells every single change at once,

    log_prob(x with v at site i) - log_prob(x)  ~  g_{i,v} - g_{i,x_i},    g = gradient at the weights of x

and tells it exactly where the function is linear in the weights of each site.

Reference: Grathwohl, Swersky, Hashemi, Duvenaud and Maddison 2021 (2102.04509), section 3.
"""

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError
from gfnmc.targets.checks import ObjectSpace


def check_weights(target: ObjectSpace, weights: Float64[Tensor, "batch *event values"]) -> tuple[int, ...]:
    """Hold weights to a target's shape; return the values of its sites.

    Raises:
        CapabilityError: If the target declares no `values`.
        ObjectError: If shape or dtype differ.
    """
    if target.values is None:
        raise CapabilityError(f"{target.name} declares no `values` of a site, so there is nothing to weigh")
    wanted = (*target.event_shape, len(target.values))
    if tuple(weights.shape[1:]) != wanted or weights.dtype != torch.float64:
        raise ObjectError(
            f"weights are {weights.dtype} of shape {tuple(weights.shape[1:])}, but {target.name} takes torch.float64, "
            f"one a value of each site, {wanted}"
        )
    return target.values


def object_weights(target: ObjectSpace, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, "batch *event values"]:
    """Return the weights of objects: 1 for the value that is there, 0 for the others.

    Raises:
        CapabilityError: If the target declares no `values`.
    """
    if target.values is None:
        raise CapabilityError(f"{target.name} declares no `values` of a site, so there is nothing to weigh")
    return (x[..., None] == torch.tensor(target.values, dtype=x.dtype, device=x.device)).to(torch.float64)


def mean_values(
    values: tuple[int, ...], weights: Float64[Tensor, "batch *event values"]
) -> Float64[Tensor, "batch *event"]:
    """Return the sum of a site's values, each times its weight: the value itself for the weights of an object."""
    return (weights * torch.tensor(values, dtype=torch.float64, device=weights.device)).sum(-1)


def contract_table(
    table: Float64[Tensor, "*values"], weights: Float64[Tensor, "batch sites values"]
) -> Float64[Tensor, " batch"]:
    """Return the entries of a table, each times the product of its sites' weights, summed up.

    It is linear in the weights of each site, so its gradient at an object is the table at all single changes. Takes
    `values ** (sites - 1)` numbers of memory a row.

    Args:
        table: One finite number an object, with one dimension a site.
        weights: Weights of each site's values.
    """
    left = weights[:, 0] @ table.reshape(table.shape[0], -1)
    for site in range(1, weights.shape[1]):
        left = (weights[:, site, :, None] * left.unflatten(1, (table.shape[site], -1))).sum(1)
    return left[:, 0]
