"""A residual MLP on summed token embeddings, updated instead of recomputed as a walk goes on.

    pre(s) = b0 + sum of E[token] over the tokens of s  (+ part(c), what a condition adds)
    h      = relu(pre);  h <- h + relu(W h + b)  for each hidden layer
    logits = U h + c  (+ sum of D[token], the direct path: first-order terms that the layers need not learn)

A step changes a few tokens, so `pre += E[added] - E[removed]`. Where the environment fixes or draws the position
that an action fills, only the head rows of that position are used. D stands beside E as further columns of one table,
and its sum in the cache beside pre.

A frozen policy must give a state the same logits however it was reached (docs/explanation/architecture.md,
"Numbers"): its embeddings, and what a condition adds, are rounded to a grid on which sums are exact in any order, and
its matrix products run in sub-batches of one fixed size.
"""

import copy
import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.core.errors import OptionError
from gfnmc.environments.base import Direction, DiscreteEnvironment
from gfnmc.policies.base import DiscretePolicy, gather, selected
from gfnmc.policies.condition_encoder import ConditionEncoder
from gfnmc.policies.law_table import LawTable, TabulatedWalk, is_small, table_of
from gfnmc.policies.mlp_fill_gradient import FillWeights, MLPLearner
from gfnmc.policies.mlp_filler import MLPFiller, less_first
from gfnmc.policies.mlp_products import MLPProducts
from gfnmc.policies.mlp_score_gradient import learning_scores
from gfnmc.policies.sub_batches import in_sub_batches
from gfnmc.policies.weights import InitialWeights

_FINEST_GRID = {torch.float32: 2.0**14, torch.float64: 2.0**43}
_FEW_TOKENS = 16
"""Up to so many tokens, reading a state afresh costs less than carrying its sum along a path."""
_MANTISSA = {torch.float32: 23, torch.float64: 52}


class MLPPolicy(DiscretePolicy):
    """The default network policy.

    Args:
        environment: Where the policy acts; it must offer `tokens`.
        direction: Which way the policy walks.
        hidden_size: Width of every layer.
        num_layers: Hidden layers after the embedding.
        direct: Whether tokens also add to the logits directly.
        num_conditions: Numbers in a condition.
        dtype: torch.float32 or torch.float64.
        seed: Names the initial weights.

    Raises:
        OptionError: If a size is below one.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        direction: Direction = Direction.FORWARD,
        *,
        hidden_size: int = 256,
        num_layers: int = 1,
        direct: bool = False,
        num_conditions: int = 0,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(environment, direction, num_conditions=num_conditions)
        if hidden_size < 1 or num_layers < 0:
            raise OptionError(f"hidden_size {hidden_size} must be at least 1 and num_layers {num_layers} at least 0")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.direct = direct
        self.seed = seed
        width = hidden_size
        weights = InitialWeights(seed, direction.value, dtype)
        self.embedding = weights.normal("embedding", environment.vocabulary, width, scale=environment.num_tokens**-0.5)
        if direct:
            columns = torch.zeros(environment.vocabulary, self.num_actions, dtype=dtype)
            self.embedding = torch.nn.Parameter(torch.cat([self.embedding.detach(), columns], 1))
        self.embedding_bias = weights.zeros(width)
        self.hidden = torch.nn.ParameterList(
            weights.normal(f"hidden{layer}", width, width, scale=(2.0 / width) ** 0.5 / 2)
            for layer in range(num_layers)
        )
        self.hidden_bias = torch.nn.ParameterList(weights.zeros(width) for _ in range(num_layers))
        self.head = weights.normal("head", self.num_actions, width, scale=0.1 * width**-0.5)
        self.head_bias = weights.zeros(self.num_actions)
        self.encoder = ConditionEncoder(num_conditions, width, weights) if num_conditions else None
        # What sums are exact on, once frozen; None before.
        self._grid: float | None = None
        # What was made of the weights for walks, and which weights these were; one for all views of the policy.
        self._derived: dict[str, Any] = {}
        # Whether the weights stay what they are, so that nobody need look.
        self._is_fixed = False

    def begin(self, states: Tensor) -> Float[Tensor, "batch cache"]:
        if len(states) > 1 and bool((states == states[0]).all()):
            # As at the source, where many walks begin.
            total = self._total(states[:1]).expand(len(states), -1)
        else:
            total = self._total(states)
        return total if self.encoder is None else total + self._condition_part(self.encoder, states.shape[0])

    def advance(self, cache: Tensor, states: Tensor, actions: Tensor) -> Float[Tensor, "batch cache"]:
        if self.direction is Direction.FORWARD:
            return cache + self._change(states, actions)
        return cache - self._change(self.environment.unstep(states, actions), actions)

    def along(
        self, states: Tensor, actions: Int64[Tensor, "batch length"], select: Bool[Tensor, "batch length_plus_1"]
    ) -> Float[Tensor, "selected cache"]:
        if self.environment.num_tokens <= _FEW_TOKENS:
            return super().along(states, actions, select)
        first = self.begin(states[:, 0])[:, None]
        change = self._change(states[:, :-1].flatten(0, 1), actions.flatten()).unflatten(0, actions.shape)
        return torch.cat([first, first + change.cumsum(1)], 1)[select]

    def log_probs(self, cache: Tensor, states: Tensor) -> Float64[Tensor, "batch actions"]:
        return self._normalised(self._all_logits(cache), states)

    def sample(
        self, cache: Tensor, states: Tensor, draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        if self._positions is None:
            return super().sample(cache, states, draws, active)
        position, log_position = self._draw_position(states, draws, active)
        filler = self.filler()
        if filler is not None:
            value, log_value = filler.draw(cache, position, draws, active)
        else:
            law = self._value_law(cache, position)
            value = draws.categorical(law, active)
            log_value = gather(law, value)
        action = position * self._values_per_position + value
        return torch.where(active, action, 0), log_position + log_value

    def score_along(
        self,
        states: Tensor,
        actions: Int64[Tensor, "batch length"],
        select: Bool[Tensor, "batch length_plus_1"],
        scored: Int64[Tensor, " selected"],
        known: Float64[Tensor, " selected"] | None = None,
    ) -> Float64[Tensor, " selected"]:
        table = self._table()
        if table is not None:
            return table.score_along(states, select, scored)
        is_plain = self._positions is None and self.encoder is None and not self.direct and self.epsilon == 0.0
        if not (is_plain and self.is_learning and self.environment.num_tokens <= _FEW_TOKENS):
            return super().score_along(states, actions, select, scored, known)
        here = selected(states, select)
        layers = [part for layer in zip(self.hidden, self.hidden_bias, strict=True) for part in layer]
        return learning_scores(
            self.environment.tokens(here),
            scored,
            self.environment.mask(here, self.direction),
            self.embedding,
            self.embedding_bias,
            self.head,
            self.head_bias,
            tuple(layers),
            self.temperature,
            known,
        )

    def for_walk(self) -> DiscretePolicy:
        table = self._table()
        if table is not None:
            return TabulatedWalk(self, table)
        walking = copy.copy(self)
        walking._derived, walking._is_fixed = self._derived_from_weights(), True
        return walking

    @property
    def law_key(self) -> tuple[Any, ...] | None:
        return None if self.encoder is not None else (*self._weight_versions(), self.temperature, self.epsilon)

    def score(self, cache: Tensor, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
        if self._positions is None:
            return super().score(cache, states, actions)
        position, value = actions // self._values_per_position, actions % self._values_per_position
        position_law = self.environment.position_log_probs(states)
        return gather(position_law, position) + gather(self._value_law(cache, position), value)

    def frozen(self) -> "MLPPolicy":
        frozen = super().frozen()
        frozen._derived, frozen._is_fixed = {}, True
        if frozen._grid is None:
            bound = float(frozen.embedding.abs().max()) * self.environment.num_tokens
            bound += float(frozen.embedding_bias.abs().max())
            bound += 0.0 if frozen.encoder is None else frozen.encoder.bound
            frozen._grid = _grid(bound, frozen.embedding.dtype)
            for weight in (frozen.embedding, frozen.embedding_bias):
                weight.copy_(_rounded(weight, frozen._grid))
        return frozen

    def filler(self) -> MLPFiller | None:
        if self.direct or self._positions is None or self.environment.filling is None:
            return None
        derived = self._derived_from_weights()
        if "filler" not in derived:
            derived["filler"] = MLPFiller(
                self.environment, self._change_table(), self._products(), self.head.detach(), self.head_bias.detach()
            )
        return derived["filler"].with_exploration(self.temperature, self.epsilon)

    def scorer(self) -> MLPFiller | MLPLearner | None:
        filler = self.filler()
        if filler is None or not self.is_learning:
            return filler
        assert self.environment.token_changes is not None and self._positions is not None
        layers = [part for layer in zip(self.hidden, self.hidden_bias, strict=True) for part in layer]
        weights = FillWeights(
            self._change_of(*self.environment.token_changes),
            less_first(self.head.unflatten(0, (self._positions, -1))),
            less_first(self.head_bias.unflatten(0, (self._positions, -1))),
            tuple(layers),
        )
        return MLPLearner(filler, weights)

    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "direct": self.direct,
            "num_conditions": self.num_conditions,
            "dtype": self.head.dtype,
        }

    def _table(self) -> LawTable | None:
        """Return the laws at all states, where they are worth it."""
        if self._grid is None or not self._is_fixed or self._positions is not None or self.encoder is not None:
            return None
        if self.is_learning or not is_small(self.environment):
            return None
        derived = self._derived_from_weights()
        law = f"laws at temperature {self.temperature} with epsilon {self.epsilon}"
        if law not in derived:
            derived[law] = table_of(self)
        return derived[law]

    @property
    def _values_per_position(self) -> int:
        return self.num_actions // (self._positions or 1)

    def _change_of(
        self, removed: Int64[Tensor, "batch changed"], added: Int64[Tensor, "batch changed"]
    ) -> Float[Tensor, "batch cache"]:
        change = torch.nn.functional.embedding(added, self.embedding)
        change = change - torch.nn.functional.embedding(removed, self.embedding)
        return change.sum(1)

    def _change_table(self) -> Float[Tensor, "changes cache"]:
        derived = self._derived_from_weights()
        if "changes" not in derived:
            assert self.environment.token_changes is not None
            derived["changes"] = self._change_of(*self.environment.token_changes).detach()
        return derived["changes"]

    def _products(self) -> MLPProducts:
        derived = self._derived_from_weights()
        if "products" not in derived:
            layers = zip(self.hidden, self.hidden_bias, strict=True)
            derived["products"] = MLPProducts(
                [(weight.detach(), bias.detach()) for weight, bias in layers],
                self.head.detach(),
                self.head_bias.detach(),
            )
        return derived["products"]

    def _derived_from_weights(self) -> dict[str, Any]:
        """Return what was made of the weights as they are now."""
        if self._is_fixed and self._derived:
            return self._derived
        versions = self._weight_versions()
        if self._derived.get("versions") != versions:
            self._derived.clear()
            self._derived["versions"] = versions
        return self._derived

    def _weight_versions(self) -> tuple[tuple[int, int], ...]:
        return tuple((weight.data_ptr(), weight._version) for weight in self.parameters())

    def _total(self, states: Tensor) -> Float[Tensor, "batch cache"]:
        tokens = self.environment.tokens(states)
        total = torch.nn.functional.embedding_bag(tokens, self.embedding, mode="sum")
        return total.add_(self._padded(self.embedding_bias))

    def _padded(self, part: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows cache"]:
        """Return what is added to the first layer with zeros for the direct path beside it."""
        return torch.nn.functional.pad(part, (0, self.num_actions)) if self.direct else part

    def _draw_position(
        self, states: Tensor, draws: Draws, active: Bool[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        filling = self.environment.filling
        if filling is not None:
            return filling.next(states, draws, active)
        law = self.environment.position_log_probs(states)
        position = draws.categorical(law, active)
        return position, gather(law, position)

    def _change(self, states: Tensor, actions: Int64[Tensor, " batch"]) -> Float[Tensor, "batch cache"]:
        if self.environment.token_changes is not None and not self.is_learning:
            return self._change_table().index_select(0, self.environment.token_change(states, actions))
        removed, added = self.environment.changed_tokens(states, actions)
        return self._change_of(removed, added)

    def _condition_part(self, encoder: ConditionEncoder, batch: int) -> Float[Tensor, "rows cache"]:
        part = in_sub_batches(encoder, self._sub_batch, self._bound_condition(batch))
        if self._grid is not None:
            part = _rounded(part, self._grid)
        return self._padded(part)

    def _value_law(self, cache: Tensor, position: Int64[Tensor, " batch"]) -> Float64[Tensor, "batch values"]:
        filler = None if self.is_learning else self.filler()
        if filler is not None:
            return filler.law(cache, position)
        values = self._values_per_position
        actions = position[:, None] * values + torch.arange(values, device=position.device)
        return self._softmax(self._all_logits(cache).gather(1, actions))

    def _all_logits(self, cache: Tensor) -> Float[Tensor, "batch actions"]:
        pre = cache[:, : self.hidden_size]
        logits = self._logits_to_learn(pre) if self.is_learning else self._products().logits(pre)
        return logits + cache[:, self.hidden_size :] if self.direct else logits

    def _logits_to_learn(self, pre: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch actions"]:
        h = torch.relu(pre)
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            h = h + torch.relu(torch.nn.functional.linear(h, weight, bias))
        return torch.nn.functional.linear(h, self.head, self.head_bias)


def _grid(bound: float, dtype: torch.dtype) -> float:
    """Return the finest power of two (up to a limit) on whose grid sums up to `bound` are exact."""
    return min(_FINEST_GRID[dtype], 2.0 ** (_MANTISSA[dtype] - math.frexp(bound)[1]))


def _rounded(numbers: Tensor, grid: float) -> Tensor:
    return (numbers * grid).round() / grid
