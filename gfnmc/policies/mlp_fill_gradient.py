"""Gradients of the scores of filled positions, in a memory that does not grow with the paths.

The backward pass goes through the paths from their ends, takes off one embedding after the other, computes the layers
of some hundred states anew, and adds up what they contribute to the gradient of each weight (`layer_gradients`). If the
walks themselves were made with these weights, their logits are known and the forward pass costs nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.policies.layer_gradients import BLOCK, LayerGradients
from gfnmc.policies.mlp_filler import MLPFiller, Walked


class FillWeights(NamedTuple):
    """The weights of an `MLPPolicy` as scores of filled positions depend on them; gradients flow through all.

    Attributes:
        change: What each action adds to the sum of embeddings.
        heads: For each position, the head of every value but the first, less that of the first.
        head_biases: The same of the biases.
        layers: Weight and bias of each hidden layer, one after the other.
    """

    change: Float[Tensor, "actions hidden"]
    heads: Float[Tensor, "positions others hidden"]
    head_biases: Float[Tensor, "positions others"]
    layers: tuple[Tensor, ...]


class MLPLearner:
    """Scores of an `MLPPolicy` through which it learns.

    Args:
        filler: The same policy without gradients.
        weights: Its weights.
    """

    def __init__(self, filler: MLPFiller, weights: FillWeights) -> None:
        self._filler = filler
        self._weights = weights
        self.num_values = filler.num_values

    def score(
        self,
        cache: Float[Tensor, "batch hidden"],
        actions: Int64[Tensor, "length batch"],
        num_active: list[int],
        walked: Walked | None = None,
    ) -> Float64[Tensor, "length batch"]:
        """Return the log-probability of each value of walks done before, nats; see `MLPFiller.score`."""
        if not len(actions):
            return self._filler.score(cache, actions, num_active)
        differences = _Differences.apply(
            self._filler,
            actions,
            num_active,
            self._filler.known_differences(walked),
            cache,
            self._weights.change,
            self._weights.heads,
            self._weights.head_biases,
            *self._weights.layers,
        )
        return self._filler.chosen(differences, actions)


class _Differences(torch.autograd.Function):
    """The logits of all values but the first, less that of the first, along paths."""

    @staticmethod
    def forward(
        ctx: Any,
        filler: MLPFiller,
        actions: Tensor,
        num_active: list[int],
        known: Tensor | None,
        cache: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        ctx.num_active = num_active
        ctx.save_for_backward(actions, cache, *weights)
        return filler.differences(cache, actions, num_active) if known is None else known.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        actions, cache, change, heads, head_biases, *layers = ctx.saved_tensors
        gradient = gradients[0].transpose(0, 1).to(cache.dtype)
        active = torch.tensor(ctx.num_active, device=actions.device)[:, None]
        is_padding = torch.arange(cache.shape[0], device=actions.device) >= active
        steps = actions.masked_fill(is_padding, change.shape[0])
        sums = _Sums(change, heads, head_biases, layers)
        starts = [
            sums.add(cache[first : first + BLOCK], *(x[..., first : first + BLOCK] for x in (steps, gradient)))
            for first in range(0, cache.shape[0], BLOCK)
        ]
        return None, None, None, None, torch.cat(starts), *sums.gradients()


class _Sums:
    """The gradient of each weight, added up over the states of paths.

    Args:
        change: As in `FillWeights`.
        heads: The same.
        head_biases: The same.
        layers: The same.
    """

    def __init__(self, change: Tensor, heads: Tensor, head_biases: Tensor, layers: Sequence[Tensor]) -> None:
        # Its last row is for a step that does nothing.
        self._change = torch.nn.functional.pad(change, (0, 0, 0, 1))
        self._heads = [head.contiguous() for head in heads.unbind(1)]
        self._layers = LayerGradients(layers)
        self._of_change = torch.zeros_like(self._change)
        self._of_heads = [torch.zeros_like(head) for head in self._heads]
        self._of_biases = [torch.zeros_like(bias) for bias in head_biases.unbind(1)]

    def gradients(self) -> tuple[Tensor, ...]:
        """Return them in the order of `FillWeights`."""
        heads, biases = torch.stack(self._of_heads, 1), torch.stack(self._of_biases, 1)
        return self._of_change[:-1], heads, biases, *self._layers.sums()

    def add(
        self,
        start: Float[Tensor, "rows hidden"],
        steps: Int64[Tensor, "length rows"],
        gradient: Float[Tensor, "others length rows"],
    ) -> Float[Tensor, "rows hidden"]:
        """Add what some paths contribute, and return the gradient of their starts.

        Args:
            start: Sums of embeddings where the paths start.
            steps: Their actions.
            gradient: That of the logits at each step, less the first value's.
        """
        pre = start + torch.nn.functional.embedding_bag(steps.T, self._change, mode="sum")
        later = torch.zeros_like(start)
        together = max(1, BLOCK // start.shape[0])
        for begun in reversed(range(0, len(steps), together)):
            done = steps[begun : begun + together]
            before = self._before(pre, done)
            of_pre = self._through_layers(before, done.flatten(), gradient[:, begun : begun + together].flatten(1))
            after = torch.empty_like(before).view(*done.shape, -1)
            for into, own in zip(reversed(after.unbind(0)), reversed(of_pre.view_as(after).unbind(0)), strict=True):
                into.copy_(later)
                later += own
            self._of_change.index_add_(0, done.flatten(), after.flatten(0, 1))
        return later

    def _before(self, pre: Float[Tensor, "rows hidden"], done: Int64[Tensor, "steps rows"]) -> Tensor:
        """Return the sums of embeddings before each of some actions, and make `pre` that before the first."""
        before = pre.new_empty(*done.shape, pre.shape[1])
        for into, actions in zip(reversed(before.unbind(0)), reversed(done.unbind(0)), strict=True):
            pre -= self._change.index_select(0, actions)
            into.copy_(pre)
        return before.flatten(0, 1)

    def _through_layers(
        self,
        pre: Float[Tensor, "states hidden"],
        actions: Int64[Tensor, " states"],
        gradient: Float[Tensor, "others states"],
    ) -> Float[Tensor, "states hidden"]:
        """Add what some states contribute to the layers and the heads, and return the gradient of their sums."""
        found = self._layers.forward(pre)
        num_positions = self._heads[0].shape[0]
        # The padding has no gradient, so that any position will do.
        positions = (actions // (1 + len(self._heads))).clamp(max=num_positions - 1)
        of_hidden = torch.zeros_like(pre)
        for head, of_head, of_bias, own in zip(
            self._heads, self._of_heads, self._of_biases, gradient.unbind(0), strict=True
        ):
            of_hidden.addcmul_(head.index_select(0, positions), own[:, None])
            of_head.index_add_(0, positions, found.hidden[-1] * own[:, None])
            of_bias.index_add_(0, positions, own)
        return self._layers.backward(of_hidden, found)
