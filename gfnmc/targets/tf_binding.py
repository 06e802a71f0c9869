"""DNA 8-mers weighted by how strongly a transcription factor binds them, measured for all 65,536.

    log_prob(x) = beta f(x) + power log f(x),    f = E-score scaled to [0, 1] by its least and greatest value

A sequence and its reverse complement bind alike, so the landscape of an asymmetric motif has two twin peaks with
a desert between them. SIX6 is the one with a single peak; with beta = 0 and power = 3 it is the "TFBind8" of the
GFlowNet literature, an easy control.

Reference: Barrera et al. 2016, "Survey of variation in human transcription factors reveals prevalent DNA binding
changes", Science 351 (the measurements); `targets/data/README.md` says where the tables come from.
"""

import functools
import math
from collections.abc import Sequence
from importlib import resources

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int8, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.core.symmetry import Symmetry
from gfnmc.targets.base import ExactSolution, ModeSet, Target, check_objects, product_space, solve_by_enumeration
from gfnmc.targets.relaxed import check_weights, contract_table

FACTORS = ("KLF1", "WT1", "SNAI2", "SIX6")
MODE_SCORE = 0.85
MODE_MASS = 0.01

_LENGTH = 8
_NUM_SEQUENCES = 4**_LENGTH
_LETTERS = "ACGT"
_PLACE = 4 ** np.arange(_LENGTH - 1, -1, -1)
_REVERSE_COMPLEMENT = Symmetry("reverse complement", tuple(range(_LENGTH))[::-1], (3, 2, 1, 0))


class TFBinding(Target):
    """A transcription factor's law on DNA 8-mers; objects are `(8,)` int8, 0 ... 3 for A, C, G, T.

    The statistics are "score" (f), "gc_content" (fraction of C and G), and two that tell the strands apart and
    so betray a chain that never leaves one of two twins: "purines" (fraction of A and G, p on one strand and
    1 - p on the other) and "gc_skew" (fraction of G less fraction of C, of opposite sign).

    With a power the weakest binders, where f = 0, are impossible.

    Attributes:
        name: "tfbind-<factor>" for exp(40 f), the package's benchmark; other laws add their beta or power or both.
        scores: f of every sequence, `(65536,)` float64, in alphabetical order.

    Args:
        factor: One of `FACTORS`.
        beta: Inverse temperature, nats for the whole range of f; not negative.
        power: Of f itself; not negative.

    Raises:
        OptionError: If the factor is not known, or beta or the power cannot work.
    """

    event_shape = (_LENGTH,)
    dtype = torch.int8
    values = (0, 1, 2, 3)

    def __init__(self, factor: str, beta: float, *, power: float = 0.0) -> None:
        if factor not in FACTORS:
            raise OptionError(f"factor is {factor!r}; choose one of {', '.join(FACTORS)}")
        for what, value in (("beta", beta), ("power", power)):
            if not math.isfinite(value) or value < 0:
                raise OptionError(f"{what} is {value}; it must be finite and not negative")
        self.name = f"tfbind-{factor.lower()}{_law_suffix(beta, power)}"
        self.factor = factor
        self.beta = beta
        self.power = power
        self.scores = torch.from_numpy(_scaled_scores(factor).copy())
        # xlogy: power log f is 0 where the power is, also for f = 0.
        self._log_prob = beta * self.scores + torch.xlogy(power, self.scores)

    def log_prob(self, x: Shaped[Tensor, "batch *event"]) -> Float64[Tensor, " batch"]:
        check_objects(self, x)
        return self._log_prob.to(x.device)[_codes(x)]

    def log_prob_relaxed(self, weights: Float64[Tensor, "batch *event values"]) -> Float64[Tensor, " batch"]:
        """Return the log-density with f replaced by its mean over letters drawn by the weights."""
        values = check_weights(self, weights)
        score = contract_table(self.scores.to(weights.device).reshape([len(values)] * _LENGTH), weights)
        # The gradient of xlogy(0, 0) is no number, so without a power there is no such term.
        return self.beta * score + (self.power * score.log() if self.power else 0.0)

    def statistics(self, x: Shaped[Tensor, "batch *event"]) -> dict[str, Shaped[Tensor, " batch"]]:
        fraction_a, fraction_c, fraction_g = ((x == base).sum(1).to(torch.float64) / _LENGTH for base in range(3))
        return {
            "score": self.scores.to(x.device)[_codes(x)],
            "gc_content": fraction_c + fraction_g,
            "purines": fraction_a + fraction_g,
            "gc_skew": fraction_g - fraction_c,
        }

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Return the reverse complement: the same stretch of DNA, read from its other strand."""
        return (_REVERSE_COMPLEMENT,)

    def modes(self) -> ModeSet | None:
        """Return the clusters of strong binders, heaviest first.

        They are the components of {f >= `MODE_SCORE`}, linked by single mutations, that have more than
        `MODE_MASS` of the law's mass; None where no component has.
        """
        return self._modes

    def exact(self) -> ExactSolution:
        """Return the enumerated solution."""
        return self._exact

    @functools.cached_property
    def _modes(self) -> ModeSet | None:
        scores = self.scores.numpy()
        component = _components(scores >= MODE_SCORE)
        weight = (self._log_prob - self._log_prob.max()).exp().numpy()
        mass = np.bincount(component + 1, weights=weight, minlength=_NUM_SEQUENCES + 1)[1:] / weight.sum()
        kept = np.flatnonzero(mass > MODE_MASS)
        # A component goes by its alphabetically first member. Twins weigh the same up to rounding, which must not
        # decide their order.
        kept = kept[np.lexsort((kept, -mass[kept].round(12)))]
        if len(kept) == 0:
            return None
        best = np.array([int(np.where(component == member, scores, -1.0).argmax()) for member in kept])
        label_of_component = np.full(_NUM_SEQUENCES + 1, -1)
        label_of_component[kept] = np.arange(len(kept))
        return _Clusters(torch.from_numpy(label_of_component[component]), torch.from_numpy(best))

    @functools.cached_property
    def _exact(self) -> ExactSolution:
        return solve_by_enumeration(self, product_space((0, 1, 2, 3), self.event_shape, self.dtype))


class _Clusters(ModeSet):
    def __init__(self, label: Int64[Tensor, " sequences"], best: Int64[Tensor, " modes"]) -> None:
        self._label = label
        self.examples = _sequences(best)
        self.names = tuple(f"cluster {i} ({text})" for i, text in enumerate(decode(self.examples), start=1))

    def assign(self, x: Shaped[Tensor, "batch *event"]) -> Int64[Tensor, " batch"]:
        return self._label.to(x.device)[_codes(x)]


def encode(sequences: Sequence[str]) -> Int8[Tensor, "batch 8"]:
    """Turn 8-mers, written with A, C, G and T, into objects.

    Raises:
        ObjectError: If a sequence is not such an 8-mer.
    """
    for row, text in enumerate(sequences):
        if len(text) != _LENGTH or not set(text) <= set(_LETTERS):
            raise ObjectError(f"sequence {row}, {text!r}, is not {_LENGTH} letters of {', '.join(_LETTERS)}")
    digits = [[_LETTERS.index(letter) for letter in text] for text in sequences]
    return torch.tensor(digits, dtype=torch.int8).reshape(-1, _LENGTH)


def decode(x: Int8[Tensor, "batch 8"]) -> list[str]:
    """Write objects as 8-mers.

    Raises:
        ObjectError: If a value is not 0 ... 3.
    """
    if ((x < 0) | (x > 3)).any():
        raise ObjectError(f"objects have values other than 0 ... 3 for {', '.join(_LETTERS)}")
    return ["".join(_LETTERS[digit] for digit in row) for row in x.tolist()]


def _law_suffix(beta: float, power: float) -> str:
    """Return what tells the names of a factor's laws apart."""
    of_power = f"-power{power:g}" if power > 0 else ""
    is_named_by_beta = beta != 40 if power == 0 else beta > 0
    return f"-beta{beta:g}{of_power}" if is_named_by_beta else of_power


def _codes(x: Int8[Tensor, "batch 8"]) -> Int64[Tensor, " batch"]:
    """Return the alphabetical place of each sequence."""
    return (x * torch.from_numpy(_PLACE).to(x.device)).sum(1)


def _sequences(codes: Int64[Tensor, " n"]) -> Int8[Tensor, "n 8"]:
    return (codes[:, None] // torch.from_numpy(_PLACE) % 4).to(torch.int8)


@functools.lru_cache(maxsize=len(FACTORS))
def _scaled_scores(factor: str) -> Float64[ndarray, " sequences"]:
    """Return f of all sequences, in alphabetical order; targets share it, so each takes a copy."""
    path = resources.files("gfnmc.targets") / "data" / f"{factor.lower()}.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        byte_planes = archive["e_score"]
    units = np.array([1, 256, 65536]) @ byte_planes.astype(np.int64)
    digits = np.arange(_NUM_SEQUENCES)[:, None] // _PLACE % 4
    twin = (3 - digits)[:, ::-1] @ _PLACE
    # The file has one row for a sequence and its twin, under the alphabetically first.
    first = np.minimum(np.arange(_NUM_SEQUENCES), twin)
    all_units = units[np.searchsorted(np.unique(first), first)]
    return (all_units - all_units.min()) / (all_units.max() - all_units.min())


def _components(is_member: Bool[ndarray, " sequences"]) -> Int64[ndarray, " sequences"]:
    """Return the first member of each sequence's one-mutation-connected component, -1 outside all of them.

    Members that differ in one position lie on one line of an 8-dimensional array of side 4; the lowest code on
    a line spreads along it until nothing changes.
    """
    inside = is_member.reshape((4,) * _LENGTH)
    first = np.where(is_member, np.arange(_NUM_SEQUENCES), _NUM_SEQUENCES).reshape(inside.shape)
    while True:
        spread = first
        for axis in range(_LENGTH):
            spread = np.where(inside, spread.min(axis=axis, keepdims=True), _NUM_SEQUENCES)
        if np.array_equal(spread, first):
            return np.where(is_member, first.ravel(), -1)
        first = spread
