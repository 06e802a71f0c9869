"""Networks that read the whole state at every step, because a step changes all they compute.

The cache holds what cannot be read off a state: the condition of each row.
"""

from abc import abstractmethod

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from gfnmc.policies.base import DiscretePolicy
from gfnmc.policies.sub_batches import in_sub_batches


class RecomputedPolicy(DiscretePolicy):
    """A policy without a walk's memory."""

    @abstractmethod
    def read(self, states: Tensor) -> tuple[Tensor, ...]:
        """Return what the network reads of states, each a tensor with a row for each of them."""

    @abstractmethod
    def logits(
        self, read: tuple[Tensor, ...], condition: Float[Tensor, "batch conditions"] | None
    ) -> Float[Tensor, "batch actions"]:
        """Return the logits of all actions.

        Args:
            read: What `read` returned, or some of its rows.
            condition: That of each row; None where the policy depends on none.
        """

    def begin(self, states: Tensor) -> Float[Tensor, "batch conditions"] | None:
        return self._condition_of_rows(states.shape[0])

    def advance(
        self, cache: Tensor | None, states: Tensor, actions: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch conditions"] | None:
        return cache

    def log_probs(self, cache: Tensor | None, states: Tensor) -> Float64[Tensor, "batch actions"]:
        rows = self.read(states) if cache is None else (*self.read(states), cache)
        return self._normalised(in_sub_batches(self._logits_of_rows, self._sub_batch, *rows), states)

    def _logits_of_rows(self, *rows: Tensor) -> Float[Tensor, "batch actions"]:
        return self.logits(rows[:-1], rows[-1]) if self.num_conditions else self.logits(rows, None)


def normed(hidden: Float[Tensor, "*batch hidden"], scale: Float[Tensor, " hidden"]) -> Float[Tensor, "*batch hidden"]:
    """Return each vector with mean zero and variance one, times a learned scale: what every layer reads."""
    return torch.nn.functional.layer_norm(hidden, scale.shape, scale)
