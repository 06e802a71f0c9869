"""Scores of an MLP policy through which it learns, where it reads a few tokens of each state.

The backward pass goes block by block: embeddings, layers and logits of some hundred states are computed anew, and what
they contribute to the gradient of each weight is added up (`layer_gradients`).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from gfnmc.core.numerics import masked_log_softmax
from gfnmc.policies.layer_gradients import BLOCK, LayerGradients


def learning_scores(
    tokens: Int64[Tensor, "states tokens"],
    actions: Int64[Tensor, " states"],
    mask: Bool[Tensor, "states actions"],
    embedding: Float[Tensor, "vocabulary hidden"],
    bias: Float[Tensor, " hidden"],
    head: Float[Tensor, "actions hidden"],
    head_bias: Float[Tensor, " actions"],
    layers: tuple[Tensor, ...],
    temperature: float,
    known: Float64[Tensor, " states"] | None,
) -> Float64[Tensor, " states"]:
    """Return the log-probabilities of actions, nats.

    Args:
        tokens: What the policy reads.
        actions: What is scored.
        mask: Which actions are allowed.
        embedding: The policy's weights; so the others.
        bias: That of the sum of embeddings.
        head: Weights of the logits.
        head_bias: Their biases.
        layers: Weight and bias of each hidden layer, one after the other.
        temperature: Divides the logits.
        known: The log-probabilities themselves, where they have been computed before.
    """
    return _Scores.apply(tokens, actions, mask, temperature, known, embedding, bias, head, head_bias, *layers)


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        actions: Tensor,
        mask: Tensor,
        temperature: float,
        known: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(tokens, actions, mask, *weights)
        if known is not None:
            return known.clone()
        embedding, bias, head, head_bias, *layers = weights
        gradients, scores = LayerGradients(layers), []
        for some, chosen, allowed in _blocks(tokens, actions, mask):
            pre = torch.nn.functional.embedding_bag(some, embedding, mode="sum") + bias
            logits = torch.nn.functional.linear(gradients.forward(pre).hidden[-1], head, head_bias)
            law = masked_log_softmax(logits, allowed, temperature=temperature)
            scores.append(law.gather(1, chosen[:, None])[:, 0])
        return torch.cat(scores)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tokens, actions, mask, *weights = ctx.saved_tensors
        embedding, bias, head, head_bias, *layers = weights
        of_embedding, of_bias, of_head, of_head_bias = (torch.zeros_like(weight) for weight in weights[:4])
        sums = LayerGradients(layers)
        for some, chosen, allowed, gradient in _blocks(tokens, actions, mask, gradients[0]):
            pre = torch.nn.functional.embedding_bag(some, embedding, mode="sum") + bias
            found = sums.forward(pre)
            logits = torch.nn.functional.linear(found.hidden[-1], head, head_bias)
            law = masked_log_softmax(logits, allowed, temperature=ctx.temperature).exp()
            # The gradient of a log-probability is one at its own action, less the law.
            of_logits = law.mul_(-gradient[:, None]).scatter_add_(1, chosen[:, None], gradient[:, None])
            of_logits = (of_logits / ctx.temperature).to(head.dtype)
            of_head.addmm_(of_logits.t(), found.hidden[-1])
            of_head_bias += of_logits.sum(0)
            of_pre = sums.backward(of_logits @ head, found)
            of_bias += of_pre.sum(0)
            for column in some.unbind(1):
                of_embedding.index_add_(0, column, of_pre)
        return None, None, None, None, None, of_embedding, of_bias, of_head, of_head_bias, *sums.sums()


def _blocks(*rows: Tensor) -> Any:
    return zip(*(row.split(BLOCK) for row in rows), strict=True)
