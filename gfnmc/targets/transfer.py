"""Exact sums over lattices of two dimensions whose energy is a sum over sites and bonds, row by row.

    Z = sum over configurations of prod_r exp(a_r(t_r)) exp(b_r(t_r, t_(r+1))),    t_r: the state of row r

Rows are summed away from the last to the first, which leaves for every row a message: the log-weight of everything
from that row on. The messages give log Z, means of sums over sites and bonds, and independent exact draws, the rows
drawn one after another given those before. All in log space, so that no coupling is too strong.

Reference: Kramers and Wannier 1941, "Statistics of the two-dimensional ferromagnet".
"""

import math
from collections.abc import Iterator
from functools import cached_property, reduce
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import Draws
from gfnmc.targets.base import product_space

MAX_ROW_STATES = 2**10
"""States of a row (values ** width) up to which a lattice is solved; the work grows as their square."""

MAX_STORED_ENTRIES = 2**25
"""Entries of all messages together up to which they are kept for sampling: 256 MiB."""


class Rows(NamedTuple):
    """Numbers on the sites and bonds of a lattice, laid out in rows along its shorter side.

    Attributes:
        within: Sum over the sites and bonds of a row, for each of its states, `(rows, states)`.
        between: Number of the bond from each site to the next row, by the values of its ends,
            `(rows, width, values, values)`.
        states: The states of a row, as indices of values, `(states, width)`, the last site changing fastest.
        place: Flat site of each place, `(rows, width)`.
        is_ring: Whether the last row is joined to the first.
    """

    within: Float64[Tensor, "rows states"]
    between: Float64[Tensor, "rows width values values"]
    states: Int64[Tensor, "states width"]
    place: Int64[Tensor, "rows width"]
    is_ring: bool


class _Message(NamedTuple):
    """What is left of the rows summed so far: one row of entries a state of the first row, or one for all.

    Attributes:
        log_weight: Log-weight of what was summed, by the state of the current row.
        mean: Under those weights, the mean of some quantity summed over the same sites and bonds.
    """

    log_weight: Float64[Tensor, "starts states"]
    mean: Float64[Tensor, "starts states"]


def lay_out(
    shape: tuple[int, ...],
    bonds: Int64[Tensor, "bonds 2"],
    on_bonds: Float64[Tensor, "bonds values values"],
    on_sites: Float64[Tensor, "sites values"],
) -> Rows | None:
    """Lay out numbers in rows; None where the lattice is no plane, or too wide.

    Args:
        shape: Sites along each axis.
        bonds: The sites that each bond joins, the second one up from the first along an axis (or round from the
            last to the first).
        on_bonds: Number of each bond, by the values of its first and second site.
        on_sites: Number of each site, by its value.
    """
    sides = [side for side in shape if side > 1]
    sides = [1] * (2 - len(sides)) + sides
    num_rows, width = max(sides), min(sides)
    num_values = on_sites.shape[1]
    if len(sides) > 2 or num_values**width > MAX_ROW_STATES:
        return None
    place = torch.arange(num_rows * width)
    place = place.reshape(num_rows, width) if sides[1] == width else place.reshape(width, num_rows).T
    row_of, column_of = torch.empty_like(place).flatten(), torch.empty_like(place).flatten()
    row_of[place] = torch.arange(num_rows)[:, None].expand_as(place)
    column_of[place] = torch.arange(width).expand_as(place)
    states = product_space(tuple(range(num_values)), (width,), torch.int64)
    within = torch.stack([on_sites[place[:, column]][:, states[:, column]] for column in range(width)]).sum(0)
    between = torch.zeros(num_rows, width, num_values, num_values, dtype=torch.float64)
    is_ring = False
    for (first, second), numbers in zip(bonds.tolist(), on_bonds, strict=True):
        row = int(row_of[first])
        if row == row_of[second]:
            within[row] += numbers[states[:, column_of[first]], states[:, column_of[second]]]
        else:
            between[row, column_of[first]] = numbers
            is_ring = is_ring or row > int(row_of[second])
    return Rows(within, between, states, place, is_ring)


def log_z_and_mean(weights: Rows, quantity: Rows) -> tuple[float, float]:
    """Return log Z, nats, and the mean of a quantity that is a sum over sites and bonds.

    Args:
        weights: Log-weights, nats.
        quantity: What each site and each bond adds to the quantity; laid out as the weights are.
    """
    *_, (log_weight, mean) = _messages(weights, quantity)
    if weights.is_ring:
        log_weight, mean = log_weight.diagonal(), mean.diagonal()
    return float(log_weight.logsumexp(-1)), float((log_weight.softmax(-1) * mean).sum())


def exact_sampler(
    weights: Rows, values: tuple[int, ...], dtype: torch.dtype, event_shape: tuple[int, ...]
) -> "RowSampler | None":
    """Return what draws from a lattice's law, or None where the messages are too large to keep."""
    num_rows, num_states = weights.within.shape
    num_starts = num_states if weights.is_ring else 1
    if num_rows * num_starts * num_states > MAX_STORED_ENTRIES:
        return None
    return RowSampler(weights, values, dtype, event_shape)


class RowSampler:
    """Draws whole configurations, one row given those before, from messages made at the first call.

    Args:
        weights: Log-weights of the law, nats.
        values: The values of a site.
        dtype: Dtype of objects.
        event_shape: Shape of one object.
    """

    def __init__(
        self, weights: Rows, values: tuple[int, ...], dtype: torch.dtype, event_shape: tuple[int, ...]
    ) -> None:
        self._weights = weights
        self._value_table = torch.tensor(values, dtype=dtype)
        self._event_shape = event_shape

    def __call__(self, draws: Draws) -> Shaped[Tensor, "rows *event"]:
        """Return one object for each row of `draws`; the work is one law over a row's states a lattice row."""
        weights, messages = self._weights, self._log_messages
        first = messages[0].diagonal() if weights.is_ring else messages[0][0]
        state = draws.categorical(first.log_softmax(-1))
        start = state if weights.is_ring else torch.zeros_like(state)
        chosen = [state]
        for row in range(1, len(weights.place)):
            law = messages[row][start] + _joined(weights.between[row - 1])[state]
            state = draws.categorical(law.log_softmax(-1))
            chosen.append(state)
        indices = torch.empty(draws.num_rows, math.prod(self._event_shape), dtype=torch.int64)
        indices[:, weights.place] = weights.states[torch.stack(chosen, 1)]
        return self._value_table[indices].reshape(-1, *self._event_shape)

    @cached_property
    def _log_messages(self) -> list[Float64[Tensor, "starts states"]]:
        return [message.log_weight for message in _messages(self._weights, self._weights)][::-1]


def _messages(weights: Rows, quantity: Rows) -> Iterator[_Message]:
    """Yield the message of each row, from the last to the first."""
    last = len(weights.place) - 1
    log_weight, mean = weights.within[last][None], quantity.within[last][None]
    if weights.is_ring:
        log_weight = log_weight + _joined(weights.between[last]).T
        mean = mean + _joined(quantity.between[last]).T
    message = _Message(log_weight, mean)
    yield message
    for row in range(last - 1, -1, -1):
        message = _sum_out(message, weights.between[row], quantity.between[row])
        message = _Message(message.log_weight + weights.within[row], message.mean + quantity.within[row])
        yield message


def _sum_out(
    message: _Message,
    log_weights: Float64[Tensor, "width values values"],
    quantities: Float64[Tensor, "width values values"],
) -> _Message:
    """Exchange each site of a row for its neighbour in the row before, one site at a time."""
    num_starts, num_values = len(message.log_weight), log_weights.shape[-1]
    for column, (bond, added) in enumerate(zip(log_weights.tolist(), quantities.tolist(), strict=True)):
        split = (num_starts, num_values**column, num_values, -1)
        parts = list(zip(*(entries.reshape(split).unbind(2) for entries in message), strict=True))
        sums = [
            reduce(_merged, [_Message(w + bond[i][j], m + added[i][j]) for j, (w, m) in enumerate(parts)])
            for i in range(num_values)
        ]
        message = _Message(*(torch.stack(entries, 2).reshape(num_starts, -1) for entries in zip(*sums, strict=True)))
    return message


def _merged(one: _Message, other: _Message) -> _Message:
    share = torch.sigmoid(other.log_weight - one.log_weight)
    return _Message(torch.logaddexp(one.log_weight, other.log_weight), torch.lerp(one.mean, other.mean, share))


def _joined(bonds: Float64[Tensor, "width values values"]) -> Float64[Tensor, "states next_states"]:
    """Return the sum over the bonds between two rows, for every pair of their states."""
    joined = torch.zeros(1, 1, dtype=torch.float64)
    for bond in bonds:
        sums = joined[:, None, :, None] + bond[:, None, :]
        joined = sums.reshape(len(joined) * len(bond), -1)
    return joined
