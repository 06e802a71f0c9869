"""An MLP policy that chooses values for positions which are known ahead.

Nothing but the sum of embeddings has to be carried from step to step, so a walk is a loop of a few operations on
buffers: the layers, the logits of one position, a choice, one embedding more. A score of a walk done before is the same
without the choice, and takes many steps at once.

    pre  <- pre + E[site holds value] - E[site is open]
    logits of the values at a site, less the first one's: (U[site, v] - U[site, 0]) h + c[site, v] - c[site, 0]

The numbers are those of a walk step by step (`rollout`), to the bit: sums of embeddings are exact in any order
(docs/explanation/architecture.md, "Numbers"), and everything else is computed row by row.
"""

import copy
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from gfnmc.core.draws import Ahead, Draws
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.policies.mlp_products import MLPProducts
from gfnmc.policies.row_products import RowProducts

_BLOCK = 256
"""Rows that walk together: their buffers fit into a cache."""

_SCORED = 256
"""Rows that are scored together."""

_DENSE_ACTIONS = 16
"""Up to so many actions for each value beyond the first, one product with all heads costs less than gathering some."""


class Walked(NamedTuple):
    """What a policy computed on the way, from which scores by the same weights follow.

    Attributes:
        made_of: Made of the weights, and different where they are.
        differences: The logits of all values but the first, less that of the first.
    """

    made_of: Tensor
    differences: Float64[Tensor, "length others batch"]


class Filled(NamedTuple):
    """What a policy chose.

    Attributes:
        actions: The position and the value of each step, as one action.
        log_probs: The log-probability of the value, nats; anything beyond a row's last step.
        cache: The policy's cache at the end.
        walked: What was computed on the way.
    """

    actions: Int64[Tensor, "length batch"]
    log_probs: Float64[Tensor, "length batch"]
    cache: Float[Tensor, "batch hidden"]
    walked: Walked


class MLPFiller:
    """What an `MLPPolicy` computes where positions are known ahead.

    Args:
        environment: What is filled.
        change: What each action adds to the sum of embeddings.
        products: The layers after the embeddings.
        head: Weights of the logits, which must not change while this is in use.
        head_bias: Their biases.
    """

    def __init__(
        self,
        environment: DiscreteEnvironment,
        change: Float[Tensor, "actions hidden"],
        products: MLPProducts,
        head: Float[Tensor, "actions hidden"],
        head_bias: Float[Tensor, " actions"],
    ) -> None:
        assert environment.positions is not None
        self.num_values = environment.num_actions // environment.positions
        self._temperature, self._epsilon = 1.0, 0.0
        # Its last row is for a step that does nothing.
        self._change = torch.cat([change, torch.zeros_like(change[:1])])
        self._layers = products.layers
        self._head = ValueHead(head, head_bias, environment.positions)
        self._padded = functools.lru_cache(maxsize=1024)(self._num_padded)

    def with_exploration(self, temperature: float, epsilon: float) -> "MLPFiller":
        """Return the same with a law that is tempered and mixed with the uniform one."""
        explored = copy.copy(self)
        explored._temperature, explored._epsilon = temperature, epsilon
        return explored

    def draw(
        self,
        cache: Float[Tensor, "batch hidden"],
        positions: Int64[Tensor, " batch"],
        draws: Draws,
        active: Bool[Tensor, " batch"],
    ) -> tuple[Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
        """Choose a value at one position of each state, and return its log-probability too, nats."""
        differences = self._at(cache, positions)
        if self.num_values == 2:
            values = draws.bernoulli_logits(self._logits(differences[0]), active).to(torch.int64)
        else:
            values = draws.categorical(self._laws(differences).T, active)
        return values, self._laws(differences).gather(0, values[None])[0]

    def law(
        self, cache: Float[Tensor, "batch hidden"], positions: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        """Return the law of the value at one position of each state, nats."""
        return self._laws(self._at(cache, positions)).T

    def walk(
        self,
        cache: Float[Tensor, "batch hidden"],
        positions: Int64[Tensor, "length batch"],
        num_active: list[int],
        decisions: Ahead,
        places: range,
    ) -> Filled:
        """Choose a value at each position, one after the other.

        Args:
            cache: Where the walks start; longer walks before shorter ones.
            positions: The positions in the order in which they are filled.
            num_active: How many rows, from the first on, still walk at each step.
            decisions: Where the decisions come from.
            places: Which of them decide about values.
        """
        walked = [
            self._walk_rows(cache, positions, num_active, decisions, places, rows)
            for rows in _blocks(len(cache), _BLOCK)
        ]
        parts = zip(*walked, strict=True)
        actions, differences, caches = (torch.cat(part, dim) for part, dim in zip(parts, (1, 2, 0), strict=True))
        return Filled(actions, self.chosen(differences, actions), caches, Walked(self._change, differences))

    def score(
        self,
        cache: Float[Tensor, "batch hidden"],
        actions: Int64[Tensor, "length batch"],
        num_active: list[int],
        walked: Walked | None = None,
    ) -> Float64[Tensor, "length batch"]:
        """Return the log-probability of each value of walks done before, nats; anything beyond a row's last step.

        Args:
            cache: Where the walks start; longer walks before shorter ones.
            actions: What was done.
            num_active: How many rows, from the first on, still walk at each step.
            walked: What was computed when the walks were made.
        """
        known = self.known_differences(walked)
        return self.chosen(self.differences(cache, actions, num_active) if known is None else known, actions)

    def differences(
        self, cache: Float[Tensor, "batch hidden"], actions: Int64[Tensor, "length batch"], num_active: list[int]
    ) -> Float64[Tensor, "length others batch"]:
        """Return the logits of all values but the first, less that of the first, along walks; see `score`."""
        found = [self._differences_of(cache, actions, num_active, rows) for rows in _blocks(len(cache), _SCORED)]
        return torch.cat(found, 2)

    def known_differences(self, walked: Walked | None) -> Float64[Tensor, "length others batch"] | None:
        """Return the differences of walks that were made with these very weights; None of others."""
        return walked.differences if walked is not None and walked.made_of is self._change else None

    def chosen(
        self, differences: Float64[Tensor, "length others rows"], actions: Int64[Tensor, "length rows"]
    ) -> Float64[Tensor, "length rows"]:
        """Return the log-probabilities of the values that actions put in, nats."""
        return self._laws(differences.transpose(0, 1)).gather(0, (actions % self.num_values)[None])[0]

    def retreat(
        self,
        cache: Float[Tensor, "batch hidden"],
        actions: Int64[Tensor, "batch length"],
        lengths: Int64[Tensor, " batch"],
    ) -> Float[Tensor, "batch hidden"]:
        """Return the cache before some actions, from that after them."""
        if not actions.shape[1]:
            return cache
        is_padding = torch.arange(actions.shape[1], device=actions.device) >= lengths[:, None]
        done = actions.masked_fill(is_padding, len(self._change) - 1)
        return cache - torch.nn.functional.embedding_bag(done, self._change, mode="sum")

    def moved(
        self,
        cache: Float[Tensor, "batch hidden"],
        before: Int[Tensor, "batch positions"],
        after: Int[Tensor, "batch positions"],
    ) -> Float[Tensor, "batch hidden"]:
        """Return the cache at some finished states, from that at others."""
        row, position = (before != after).nonzero(as_tuple=True)
        if not len(row):
            return cache
        old, new = (position * self.num_values + states[row, position].to(torch.int64) for states in (before, after))
        change = self._change.index_select(0, new) - self._change.index_select(0, old)
        return cache.index_add(0, row, change)

    def _num_padded(self, num_rows: int) -> int:
        return max([layer.padded(num_rows) for layer in self._layers] + [self._head.padded(num_rows)])

    def _walk_rows(
        self,
        cache: Float[Tensor, "batch hidden"],
        positions: Int64[Tensor, "length batch"],
        num_active: list[int],
        decisions: Ahead,
        places: range,
        rows: slice,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the actions of some rows, the differences of logits that led to them, and the cache at the end."""
        positions, first, size = positions[:, rows], rows.start, rows.stop - rows.start
        buffers = _Buffers(size, self._padded(size), cache[rows])
        differences = self._no_differences(len(positions), size, cache)
        actions = positions * self.num_values
        steps = zip(
            num_active,
            places,
            positions.unbind(0),
            _by_step(self._head.offsets(positions)),
            _by_step(differences),
            actions.unbind(0),
            strict=True,
        )
        for active, place, here, offsets, found, action in steps:
            count = min(active - first, size)
            if count <= 0:
                break
            if count < size:
                here, action = here[:count], action[:count]
                offsets, found = [row[:count] for row in offsets], [row[:count] for row in found]
            room = buffers.first(count, self._padded(count))
            self._differences_into(found, room, here, offsets)
            if self.num_values == 2:
                action += decisions.bernoulli_logits(place, self._logits(found[0]), first)
            else:
                action += decisions.categorical(place, self._laws(torch.stack(found)).T, first)
            torch.index_select(self._change, 0, action, out=room.scratch)
            room.pre.add_(room.scratch)
        return actions, differences, buffers.first(size, size).pre

    def _differences_of(
        self,
        cache: Float[Tensor, "batch hidden"],
        actions: Int64[Tensor, "length batch"],
        num_active: list[int],
        rows: slice,
    ) -> Float64[Tensor, "length others rows"]:
        actions, first, size = actions[:, rows], rows.start, rows.stop - rows.start
        positions = actions // self.num_values
        differences = self._no_differences(len(actions), size, cache)
        pre = cache[rows].clone()
        together = max(1, _SCORED // size)
        most = size * together
        buffers = _Buffers(most, self._padded(most), pre[:0])
        for begun in range(0, len(actions), together):
            count = min(num_active[begun] - first, size)
            if count <= 0:
                break
            steps, some = slice(begun, begun + together), slice(None, count)
            done, where = actions[steps, some], positions[steps, some].flatten()
            room = buffers.first(len(where), self._padded(len(where)))
            self._before_each(room.pre, pre[:count], done)
            found = differences.new_empty(self.num_values - 1, len(where))
            self._differences_into(found.unbind(0), room, where, self._head.offsets(where[None])[0].unbind(0))
            differences[steps, :, some] = found.unflatten(1, (-1, count)).transpose(0, 1)
        return differences

    def _at(
        self, cache: Float[Tensor, "batch hidden"], positions: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "others batch"]:
        found = self._no_differences(1, len(cache), cache)[0]
        offsets = self._head.offsets(positions[None])[0]
        for rows in _blocks(len(cache), _BLOCK):
            size = rows.stop - rows.start
            room = _Buffers(size, self._padded(size), cache[rows]).first(size, self._padded(size))
            self._differences_into(list(found[:, rows]), room, positions[rows], list(offsets[:, rows]))
        return found

    def _no_differences(self, length: int, num_rows: int, like: Tensor) -> Float64[Tensor, "length others rows"]:
        return like.new_zeros(length, self.num_values - 1, num_rows, dtype=torch.float64)

    def _differences_into(
        self, found: Sequence[Tensor], room: "_Room", positions: Int64[Tensor, " rows"], offsets: Sequence[Tensor]
    ) -> None:
        """Write the logit of every value but the first, less that of the first, each into a tensor of its own."""
        hidden, layer = room.padded_hidden, room.padded_scratch
        torch.clamp_min(room.padded_pre, 0.0, out=hidden)
        for product in self._layers:
            product.into(layer, hidden)
            hidden.add_(layer.relu_())
        self._head.differences_into(found, room, positions, offsets)

    def _logits(self, differences: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Return the logits of the second of two values."""
        if self._epsilon != 0.0:
            laws = self._laws(differences[None])
            return laws[1] - laws[0]
        return differences if self._temperature == 1.0 else differences / self._temperature

    def _laws(self, differences: Float64[Tensor, "others *rows"]) -> Float64[Tensor, "values *rows"]:
        return value_law(differences, self._temperature, self._epsilon)

    def _before_each(
        self,
        path: Float[Tensor, "steps_of_count hidden"],
        pre: Float[Tensor, "count hidden"],
        actions: Int64[Tensor, "steps count"],
    ) -> None:
        """Write the sums before each of the actions into `path`, and those after the last into `pre`."""
        torch.index_select(self._change, 0, actions[:-1].flatten(), out=path[actions.shape[1] :])
        steps = path.view(*actions.shape, -1).unbind(0)
        steps[0].copy_(pre)
        for before, after in itertools.pairwise(steps):
            after += before
        torch.add(steps[-1], self._change.index_select(0, actions[-1]), out=pre)


def less_first(by_value: Float[Tensor, "positions values *rest"]) -> Float[Tensor, "positions others *rest"]:
    """Return what belongs to each value but the first, less what belongs to the first."""
    return by_value[:, 1:] - by_value[:, :1]


class ValueHead:
    """The logits of the values at one position of each row.

    Args:
        head: Weights of the logits of all actions.
        bias: Their biases.
        num_positions: Positions that the actions are about.
    """

    def __init__(
        self, head: Float[Tensor, "actions hidden"], bias: Float[Tensor, " actions"], num_positions: int
    ) -> None:
        self._num_values = len(head) // num_positions
        self._others = torch.arange(self._num_values - 1, device=head.device)
        self._biases = less_first(bias.view(num_positions, -1))
        heads = less_first(head.view(num_positions, self._num_values, -1))
        self._dense = None
        if len(head) <= _DENSE_ACTIONS * (self._num_values - 1):
            heads = heads.flatten(0, 1)
            self._dense = RowProducts(heads, heads.new_zeros(len(heads)))
            return
        self._heads = [heads[:, value].contiguous() for value in range(self._num_values - 1)]

    def padded(self, num_rows: int) -> int:
        """Return how many rows to fill up to."""
        return num_rows if self._dense is None else self._dense.padded(num_rows)

    def offsets(self, positions: Int64[Tensor, "length rows"]) -> Float[Tensor, "length others rows"]:
        """Return what `differences_into` adds at each position, for many steps at once."""
        return self._biases.index_select(0, positions.flatten()).unflatten(0, positions.shape).movedim(-1, 1)

    def differences_into(
        self, found: Sequence[Tensor], room: "_Room", positions: Int64[Tensor, " rows"], offsets: Sequence[Tensor]
    ) -> None:
        """Write the logit of every value but the first, less that of the first.

        Args:
            found: Where to, a tensor for each of the values.
            room: Holds what the layers made of the rows.
            positions: The position that each row asks for.
            offsets: What `offsets` said of them, a tensor for each of the values.
        """
        if self._dense is not None:
            for into, product, offset in zip(found, self._from_all(self._dense, room, positions), offsets, strict=True):
                torch.add(product, offset, out=into)
            return
        for into, head, offset in zip(found, self._heads, offsets, strict=True):
            torch.index_select(head, 0, positions, out=room.scratch)
            torch.add(room.scratch.mul_(room.hidden).sum(1), offset, out=into)

    def _from_all(
        self, dense: RowProducts, room: "_Room", positions: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "others rows"]:
        products = room.hidden.new_empty(len(room.padded_hidden), dense.outputs)
        dense.into(products, room.padded_hidden)
        columns = positions[:, None] * (self._num_values - 1) + self._others
        return products[: len(positions)].gather(1, columns).T


def value_law(
    differences: Float64[Tensor, "others *rows"], temperature: float, epsilon: float
) -> Float64[Tensor, "values *rows"]:
    """Return the log-probabilities of values, nats, from their logits less the first one's.

    Written in functions that give a number the same result wherever it stands, as `torch.log_softmax` does not.
    """
    if temperature != 1.0:
        differences = differences / temperature
    if len(differences) == 1:
        last = torch.nn.functional.logsigmoid(differences)
        law = torch.cat([last - differences, last])
    else:
        largest = differences.amax(0).clamp(min=0.0)
        law = torch.cat([-largest[None], differences - largest])
        total = law[0].exp()
        for value in law[1:]:
            total = total + value.exp()
        law = law - total.log()
    return law if epsilon == 0.0 else (law.exp() * (1.0 - epsilon) + epsilon / len(law)).log()


class _Room(NamedTuple):
    """Buffers for some rows, and for these and the rows that fill their last block up."""

    pre: Float[Tensor, "rows hidden"]
    hidden: Float[Tensor, "rows hidden"]
    scratch: Float[Tensor, "rows hidden"]
    padded_pre: Float[Tensor, "padded hidden"]
    padded_hidden: Float[Tensor, "padded hidden"]
    padded_scratch: Float[Tensor, "padded hidden"]


class _Buffers:
    """Room for rows that are computed together.

    Args:
        num_rows: Most rows.
        num_padded: The same with those that fill the last block up.
        pre: Sums of embeddings that the first rows begin with; says the width, the dtype and the device too.
    """

    def __init__(self, num_rows: int, num_padded: int, pre: Float[Tensor, "begun hidden"]) -> None:
        # Zeros: rows that only fill a block up must not be anything that slows a product down.
        all_pre = pre.new_zeros(num_padded, pre.shape[1])
        all_pre[: len(pre)] = pre
        self._all = all_pre, torch.empty_like(all_pre), torch.empty_like(all_pre)
        self._num_rows = -1
        self._room = self.first(num_rows, num_padded)

    def first(self, num_rows: int, num_padded: int) -> _Room:
        """Return the buffers of the first rows."""
        if num_rows != self._num_rows:
            self._num_rows = num_rows
            self._room = _Room(*(x[:num_rows] for x in self._all), *(x[:num_padded] for x in self._all))
        return self._room


def _blocks(num_rows: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, num_rows)) for first in range(0, num_rows, size)]


def _by_step(steps: Tensor) -> list[tuple[Tensor, ...]]:
    """Return a tensor a step and value; splitting all at once takes less time than one after the other."""
    rows, width = steps.flatten(0, 1).unbind(0), steps.shape[1]
    return [rows[begun : begun + width] for begun in range(0, len(rows), width)]
