"""Bit sequences near one of many hidden strings: as many modes as wanted, and nothing between them to follow.

    log_prob(x) = -beta min_m d(x, m),    d the Hamming distance, counted in bits

Each mode m is a row of short motifs. The task of the literature is R(x) = exp(-min_m d(x, m)) raised to a reward
exponent, 2 in Tiapkin et al. 2023 (2310.12934): beta is that exponent, and the default. A mode counts as found there
once a sequence nearer than 30 of 120 bits was seen, which is the default radius of `modes`. The modes themselves are
drawn by this package's own numbers, so they are not the strings of any published run.

Reference: Malkin et al. 2022 (2201.13259), the bit sequences of its experiments.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float32, Float64, Int8, Int64, Shaped
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import OptionError
from gfnmc.targets.base import ExactSolution, ModeSet, Target, product_space, solve_by_enumeration
from gfnmc.targets.checks import check_objects, check_sites

MOTIFS = ("00000000", "11111111", "11110000", "00001111", "00111100")
"""The motifs of the literature."""

MAX_ENUMERATED_BITS = 20
"""Bits up to which `exact()` lists all sequences; at 20, a second of work and some hundreds of MiB."""

# Sequences whose distances to all modes are held at once.
_ROWS = 2**14
# Modes proposed at a time: a number of its own, so that more modes of one seed begin with the same ones.
_PROPOSED = 256


class BitSequences(Target):
    """A law on sequences of bits; objects are `(num_bits,)` int8, 0 or 1.

    The statistics are "distance" (to the nearest mode, bits) and "ones" (fraction of ones).

    Attributes:
        centres: The modes' strings, all different, `(num_modes, num_bits)` int8.

    Args:
        num_bits: Bits, a multiple of a motif's.
        num_modes: Modes.
        beta: Inverse temperature, nats a bit of distance; not negative.
        seed: Draws the modes; more modes of the same seed begin with the same ones.
        motifs: What modes are made of, different strings of 0 and 1 of one length.
        radius: A sequence belongs to a mode where it is nearer to it than this, bits; a quarter of `num_bits` by
            default.

    Raises:
        OptionError: If the motifs cannot make so many different modes of that length, or beta or radius cannot work.
    """

    dtype = torch.int8
    values = (0, 1)

    def __init__(
        self,
        num_bits: int = 120,
        *,
        num_modes: int = 60,
        beta: float = 2.0,
        seed: int = 0,
        motifs: Sequence[str] = MOTIFS,
        radius: int | None = None,
    ) -> None:
        if not math.isfinite(beta) or beta < 0:
            raise OptionError(f"beta is {beta}; it must be finite and not negative")
        table = _checked_motifs(motifs)
        if num_bits < 1 or num_bits % table.shape[1] != 0:
            raise OptionError(f"num_bits is {num_bits}; motifs of {table.shape[1]} bits make multiples of that only")
        num_pieces = num_bits // table.shape[1]
        if not 1 <= num_modes <= len(table) ** num_pieces:
            raise OptionError(
                f"num_modes is {num_modes}; {num_pieces} motifs, each one of {len(table)}, make 1 ... "
                f"{len(table) ** num_pieces} different modes"
            )
        self.radius = max(num_bits // 4, 1) if radius is None else radius
        if self.radius < 1:
            raise OptionError(f"radius is {radius}; give 1 or more, so that a mode holds its own string")
        self.name = f"bit-sequences-{num_bits}-seed{seed}"
        self.num_bits = num_bits
        self.beta = float(beta)
        self.seed = seed
        self.event_shape = (num_bits,)
        self.centres = table[_draw_pieces(seed, len(table), num_modes, num_pieces)].flatten(1)
        self._signs = _signs(self.centres)

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return -self.beta * self._nearest_distance(x)

    def log_prob_delta(
        self, x: Shaped[Tensor, "batch *event"], sites: Int64[Tensor, " batch"]
    ) -> Float64[Tensor, "batch values"]:
        values = torch.tensor(check_sites(self, x, sites), dtype=x.dtype, device=x.device)
        distance = _distances(x, self._signs)
        present = x.gather(1, sites[:, None])
        # Turning a bit brings the modes nearer that do not have it, and takes the others one further away.
        turned = distance + 2.0 * (self.centres.to(x.device).T[sites] == present) - 1.0
        delta = -self.beta * (turned.amin(1) - distance.amin(1)).to(torch.float64)
        return torch.where(values == present, 0.0, delta[:, None])

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        ones = x.sum(1, dtype=torch.int64).to(torch.float64) / self.num_bits
        return {"distance": self._nearest_distance(x), "ones": ones}

    def modes(self) -> ModeSet:
        """Return the modes: what is nearer to one than `radius`, and nearer to it than to all others.

        A sequence equally near to two is in no mode.
        """
        return self._modes

    def exact(self) -> ExactSolution | None:
        """Return the enumerated solution, or None above `MAX_ENUMERATED_BITS` bits."""
        return self._exact

    def _nearest_distance(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        return torch.cat([_distances(rows, self._signs).amin(1) for rows in x.split(_ROWS)]).to(torch.float64)

    @cached_property
    def _modes(self) -> ModeSet:
        return _Balls(self.centres, self.radius)

    @cached_property
    def _exact(self) -> ExactSolution | None:
        if self.num_bits > MAX_ENUMERATED_BITS:
            return None
        return solve_by_enumeration(self, product_space((0, 1), self.event_shape, self.dtype))


class _Balls(ModeSet):
    def __init__(self, centres: Int8[Tensor, "modes bits"], radius: int) -> None:
        self.names = tuple(f"mode {number}" for number in range(1, len(centres) + 1))
        self.examples = centres
        self._signs = _signs(centres)
        self._radius = radius

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        return torch.cat([self._assign(_distances(rows, self._signs)) for rows in x.split(_ROWS)])

    def _assign(self, distance: Float32[Tensor, "batch modes"]) -> Int64[Tensor, " batch"]:
        least, nearest = distance.min(1)
        is_alone = (distance == least[:, None]).sum(1) == 1
        return torch.where(is_alone & (least < self._radius), nearest, -1)


def _signs(bits: Int8[Tensor, "batch bits"]) -> Float32[Tensor, "batch bits"]:
    return 2.0 * bits.to(torch.float32) - 1.0


def _distances(x: Int8[Tensor, "batch bits"], signs: Float32[Tensor, "modes bits"]) -> Float32[Tensor, "batch modes"]:
    """Return Hamming distances by one matrix product: of signs, bits that agree add 1, bits that differ take 1 away.

    Sums of so few ones are exact in float32, whatever their order, so a row does not depend on its batch.
    """
    return 0.5 * (x.shape[1] - _signs(x) @ signs.to(x.device).T)


def _checked_motifs(motifs: Sequence[str]) -> Int8[Tensor, "motifs length"]:
    """Return a user's motifs as rows of bits."""
    lengths, letters = {len(motif) for motif in motifs}, {letter for motif in motifs for letter in motif}
    if len(lengths) != 1 or not letters or not letters <= {"0", "1"} or len(set(motifs)) < len(motifs):
        raise OptionError(f"motifs are {tuple(motifs)}; give different strings of 0 and 1, all of one length")
    return torch.tensor([[int(bit) for bit in motif] for motif in motifs], dtype=torch.int8)


def _draw_pieces(seed: int, num_motifs: int, num_modes: int, num_pieces: int) -> Int64[Tensor, "modes pieces"]:
    """Return which motif each piece of each mode is: uniform draws, of which those seen before are passed over."""
    draws = PhiloxDraws(seed, "bit-sequences", _PROPOSED)
    highs = torch.full((_PROPOSED,), num_motifs)
    found: dict[tuple[int, ...], None] = {}
    batch = 0
    while len(found) < num_modes:
        proposing = draws.at(batch)
        proposed = torch.stack([proposing.integers(highs) for _ in range(num_pieces)], 1)
        found |= dict.fromkeys(map(tuple, proposed.tolist()))
        batch += 1
    return torch.tensor(list(found)[:num_modes])
