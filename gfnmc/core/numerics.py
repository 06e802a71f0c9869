"""Log-space arithmetic, in float64 whatever the policy's dtype."""

import math

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor


def masked_log_softmax(
    logits: Float[Tensor, "*batch actions"],
    mask: Bool[Tensor, "*batch actions"] | None = None,
    *,
    temperature: float = 1.0,
    epsilon: float = 0.0,
) -> Float64[Tensor, "*batch actions"]:
    """Turn logits into the log-probabilities of the law that is both sampled and scored.

    The law is `(1 - epsilon) softmax(logits / temperature) + epsilon uniform`, over the allowed actions.

    Args:
        logits: Scores, any float dtype; -inf gives an action probability zero, before `epsilon` is mixed in.
        mask: True where an action is allowed. None allows all.
        temperature: Divides the logits; above 1 flattens.
        epsilon: Weight of the uniform law over allowed actions, in [0, 1).

    Returns:
        Log-probabilities in nats, float64, exactly -inf where an action is not allowed. A row with no
        allowed action is -inf throughout.
    """
    scores = logits if mask is None else torch.where(mask, logits, -math.inf)
    if temperature != 1.0:
        scores = scores.to(torch.float64) / temperature
    log_probs = scores.log_softmax(-1, dtype=torch.float64)
    # A row without any possible action is no law, which torch writes as NaN.
    log_probs = log_probs.masked_fill(scores == -math.inf, -math.inf)
    if epsilon == 0.0:
        return log_probs
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    log_uniform = -allowed.sum(-1, keepdim=True).to(torch.float64).log()
    mixed = torch.logaddexp(log_probs + math.log1p(-epsilon), log_uniform + math.log(epsilon))
    return mixed.masked_fill(~allowed, -math.inf)


def log_mean_exp(log_weights: Float64[Tensor, " n"]) -> float:
    """Return the logarithm of the mean of the exponentials, in nats."""
    return float(log_weights.logsumexp(0)) - math.log(log_weights.shape[0])


def where_rows(
    rows: Bool[Tensor, " batch"], yes: Shaped[Tensor, "batch *rest"], no: Shaped[Tensor, "batch *rest"]
) -> Shaped[Tensor, "batch *rest"]:
    """Return each row from `yes` where `rows` is True, else from `no`."""
    return torch.where(rows.reshape(-1, *[1] * (no.dim() - 1)), yes, no)


def take_rows(x: Shaped[Tensor, "rows *rest"], rows: Int64[Tensor, "*shape"]) -> Shaped[Tensor, "..."]:
    """Return some rows of a tensor, laid out as `rows` is: `(*shape, *rest)`."""
    if x.device.type == "cpu":
        # Of short rows torch takes three times as long as NumPy.
        return torch.from_numpy(x.numpy().take(rows.numpy(), 0))
    return x.index_select(0, rows.flatten()).unflatten(0, rows.shape)
