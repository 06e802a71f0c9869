"""The replicas of parallel tempering: where they are, which of them are exchanged, and how far each has travelled."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor


class Replicas(NamedTuple):
    """All replicas of some chains, the one at inverse temperature 1 first.

    Attributes:
        position: Objects.
        log_prob: Their log-densities, nats, not tempered.
        inverse_temperatures: Of each rung.
    """

    position: Shaped[Tensor, "chains rungs *event"]
    log_prob: Float64[Tensor, "chains rungs"]
    inverse_temperatures: Float64[Tensor, " rungs"]


class TemperingCache(NamedTuple):
    """What parallel tempering keeps in `State.cache`: the hot replicas, and the accounts.

    Attributes:
        position: Objects of all rungs but the first.
        log_prob: Their log-densities, nats, not tempered.
        num_steps: Steps so far; says whose turn it is to swap.
        legs: Where the replica at each rung is on its round trip: 0 before it was first at inverse temperature 1, 1 on
            its way to the hottest rung, 2 on its way back.
        round_trips: Trips finished so far, by any replica.
        swaps_tried: Swaps of each pair of neighbours tried so far.
        swap_rates: The acceptance rates of those, added up.
    """

    position: Shaped[Tensor, "chains hot *event"]
    log_prob: Float64[Tensor, "chains hot"]
    num_steps: Int64[Tensor, " chains"]
    legs: Int64[Tensor, "chains rungs"]
    round_trips: Int64[Tensor, " chains"]
    swaps_tried: Int64[Tensor, "chains hot"]
    swap_rates: Float64[Tensor, "chains hot"]


def rungs_before(is_swapped: Bool[Tensor, "chains pairs"]) -> Int64[Tensor, "chains rungs"]:
    """Return the rung from which each rung gets its replica."""
    pad = torch.nn.functional.pad
    rung = torch.arange(is_swapped.shape[1] + 1, device=is_swapped.device)
    return rung + pad(is_swapped, (0, 1)).to(torch.int64) - pad(is_swapped, (1, 0)).to(torch.int64)


def next_legs(
    legs: Int64[Tensor, "chains rungs"],
) -> tuple[Int64[Tensor, "chains rungs"], Bool[Tensor, " chains"]]:
    """Turn the replicas at both ends of the ladder round; also return where one has come home."""
    is_home = legs[:, 0] == 2
    legs = legs.clone()
    legs[:, 0] = 1
    legs[:, -1] = torch.where(legs[:, -1] == 1, 2, legs[:, -1])
    return legs, is_home
