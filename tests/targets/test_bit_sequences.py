"""Bit sequences: distances to the nearest of many strings, the modes around them, and the exact answers."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets.base import product_space
from gfnmc.targets.bit_sequences import MOTIFS, BitSequences
from tests.support import chi_square, is_identical

SHORT = ("0000", "1111", "1100", "0011", "0110")
LITERATURE = BitSequences()


def small(num_bits: int = 12, *, num_modes: int = 5, beta: float = 1.3, radius: int | None = None) -> BitSequences:
    return BitSequences(num_bits, num_modes=num_modes, beta=beta, seed=3, motifs=SHORT, radius=radius)


def some_bits(num_rows: int, num_bits: int = 120, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(2, size=(num_rows, num_bits), dtype=np.int8))


def near(target: BitSequences, num_rows: int) -> Tensor:
    """Objects that are 0 ... 39 turned bits away from some mode."""
    rng = np.random.default_rng(1)
    x = target.centres[torch.from_numpy(rng.integers(len(target.centres), size=num_rows))].clone()
    for row in range(num_rows):
        turned = rng.choice(target.num_bits, size=rng.integers(40), replace=False)
        x[row, turned] = 1 - x[row, turned]
    return x


def distances(x: Tensor, centres: Tensor) -> Tensor:
    """Hamming distances by counting."""
    return (x[:, None] != centres).sum(-1)


def test_the_log_density_is_minus_beta_times_the_distance_to_the_nearest_mode() -> None:
    x = torch.cat([some_bits(300), near(LITERATURE, 300)])
    wanted = distances(x, LITERATURE.centres).amin(1).double()
    log_prob = LITERATURE.log_prob(x)
    assert is_identical(log_prob, -2.0 * wanted)
    assert is_identical(LITERATURE.statistics(x)["distance"], wanted)
    assert is_identical(LITERATURE.statistics(x)["ones"], x.sum(1).double() / 120)
    assert is_identical(BitSequences(beta=0.25).log_prob(x), -0.25 * wanted)
    assert not LITERATURE.log_prob(LITERATURE.centres).any()
    # Negative control: the mean distance, or another seed's modes, would show.
    assert not torch.equal(log_prob, -2.0 * distances(x, LITERATURE.centres).double().mean(1))
    assert not torch.equal(log_prob, BitSequences(seed=1).log_prob(x))


def test_a_row_does_not_depend_on_its_batch() -> None:
    x = torch.cat([some_bits(20_000), near(LITERATURE, 100)])
    whole, labels = LITERATURE.log_prob(x), LITERATURE.modes().assign(x)
    sites = torch.arange(len(x)) % 120
    delta = LITERATURE.log_prob_delta(x, sites)
    for row in (0, 16_383, 16_384, 20_050, 20_099):
        assert is_identical(LITERATURE.log_prob(x[row : row + 1]), whole[row : row + 1])
        assert is_identical(LITERATURE.modes().assign(x[row : row + 1]), labels[row : row + 1])
        assert is_identical(LITERATURE.log_prob_delta(x[row : row + 1], sites[row : row + 1]), delta[row : row + 1])
    assert LITERATURE.log_prob(x[:0]).shape == LITERATURE.modes().assign(x[:0]).shape == (0,)


@pytest.mark.parametrize("target", [LITERATURE, small(), small(num_modes=1)], ids=["literature", "small", "one mode"])
def test_delta_is_the_difference_of_log_probs(target: BitSequences) -> None:
    x = some_bits(200, target.num_bits)
    if target is LITERATURE:
        x = torch.cat([x, near(target, 200)])
    for site in range(0, target.num_bits, 7):
        delta = target.log_prob_delta(x, torch.full((len(x),), site))
        assert delta.dtype == torch.float64 and delta.shape == (len(x), 2)
        wrong = 0.0
        for value in (0, 1):
            changed = x.clone()
            changed[:, site] = value
            wanted = target.log_prob(changed) - target.log_prob(x)
            assert (delta[:, value] - wanted).abs().max() < 1e-12
            assert not delta[x[:, site] == value, value].any()
            wrong = max(wrong, float((delta[:, 1 - value] - wanted).abs().max()))
        # Negative control: the columns the other way round.
        assert wrong > 0.1
    assert target.offers_delta
    assert target.log_prob_delta(x[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 2)
    with pytest.raises(OptionError):
        target.log_prob_delta(x, torch.full((len(x),), target.num_bits))


def test_modes_are_made_of_motifs_and_are_all_different() -> None:
    pieces = LITERATURE.centres.unflatten(1, (15, 8)).flatten(0, 1)
    assert {"".join(map(str, piece)) for piece in pieces.tolist()} == set(MOTIFS)
    assert LITERATURE.centres.shape == (60, 120) and LITERATURE.centres.dtype == torch.int8
    assert len(LITERATURE.centres.unique(dim=0)) == 60
    # Every one of the few that there are is found, each once.
    every = BitSequences(8, num_modes=25, motifs=SHORT)
    made = {"".join(pair) for pair in itertools.product(SHORT, repeat=2)}
    assert {"".join(map(str, row)) for row in every.centres.tolist()} == made
    assert BitSequences(4, num_modes=2, motifs=("0101", "1111")).centres.shape == (2, 4)


def test_the_seed_alone_decides_and_more_modes_begin_with_the_same() -> None:
    assert torch.equal(BitSequences(beta=1.0).centres, LITERATURE.centres)
    assert not torch.equal(BitSequences(seed=1).centres, LITERATURE.centres)
    assert torch.equal(BitSequences(num_modes=700).centres[:60], LITERATURE.centres)
    assert torch.equal(BitSequences(num_modes=7).centres, LITERATURE.centres[:7])
    assert LITERATURE.name == "bit-sequences-120-seed0"


def test_the_strings_of_a_seed_are_these_for_good() -> None:
    # Figures of different days are of one target only if they are; the last mode comes from a second batch of draws.
    drawn = BitSequences(num_modes=300).centres[[0, 299]].unflatten(1, (15, 8)).tolist()
    which = [[MOTIFS.index("".join(map(str, piece))) for piece in mode] for mode in drawn]
    assert which[0] == [3, 0, 4, 1, 4, 1, 3, 4, 0, 3, 0, 3, 4, 0, 1]
    assert which[1] == [3, 2, 1, 0, 4, 4, 2, 1, 3, 3, 1, 1, 4, 0, 3]


def test_motifs_are_drawn_uniformly() -> None:
    # 1000 different modes of 15 motifs; repetitions among 5^15 are too rare to matter.
    pieces = BitSequences(num_modes=1_000).centres.unflatten(1, (15, 8)).flatten(0, 1)
    table = torch.tensor([[int(bit) for bit in motif] for motif in MOTIFS])
    which = (pieces[:, None] == table).all(-1).to(torch.int64).argmax(1)
    statistic, limit = chi_square(torch.bincount(which, minlength=5), [0.2] * 5)
    assert statistic < limit
    assert not chi_square(torch.bincount(which, minlength=5), [0.22, 0.22, 0.22, 0.22, 0.12])[0] < limit


@pytest.mark.parametrize(
    "target", [LITERATURE, small(), small(radius=1), small(radius=20)], ids=lambda t: str(t.radius)
)
def test_a_mode_is_what_is_near_to_it_and_to_no_other(target: BitSequences) -> None:
    modes = target.modes()
    x = product_space((0, 1), (12,), torch.int8) if target is not LITERATURE else near(target, 500)
    distance = distances(x, target.centres)
    wanted = []
    for row in distance.tolist():
        least = min(row)
        is_inside = least < target.radius and row.count(least) == 1
        wanted.append(row.index(least) if is_inside else -1)
    assert modes.assign(x).tolist() == wanted
    assert set(wanted) - {-1} == set(range(len(modes))) or target is LITERATURE
    assert torch.equal(modes.examples, target.centres)
    assert modes.assign(modes.examples).tolist() == list(range(len(modes)))
    assert modes.names[0] == "mode 1" and len(set(modes.names)) == len(modes) and modes is target.modes()


def test_the_radius_is_that_of_the_literature() -> None:
    target = BitSequences(num_modes=1)
    turned = target.centres.repeat(2, 1)
    turned[0, :29] = 1 - turned[0, :29]
    turned[1, :30] = 1 - turned[1, :30]
    assert target.radius == 30
    assert target.modes().assign(turned).tolist() == [0, -1]


def test_a_sequence_between_two_modes_is_in_neither() -> None:
    target = BitSequences(4, num_modes=2, motifs=("0000", "1111"), radius=4)
    x = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.int8)
    labels = target.modes().assign(x).tolist()
    assert labels == [-1, int(target.centres[1, 0] == 0)]


@pytest.mark.parametrize("num_bits", [4, 12])
def test_the_exact_solution_is_that_of_counting(num_bits: int) -> None:
    target = small(num_bits, num_modes=4)
    rewards, ones, masses = [], [], [0.0] * 4
    for bits in itertools.product((0, 1), repeat=num_bits):
        row = [sum(a != b for a, b in zip(bits, mode, strict=True)) for mode in target.centres.tolist()]
        rewards.append(math.exp(-1.3 * min(row)))
        ones.append(sum(bits) / num_bits)
        if min(row) < target.radius and row.count(min(row)) == 1:
            masses[row.index(min(row))] += rewards[-1]
    solution, total = target.exact(), sum(rewards)
    assert solution is not None
    assert solution.log_z == pytest.approx(math.log(total), abs=1e-12)
    assert solution.expectations["ones"] == pytest.approx(np.dot(rewards, ones) / total, abs=1e-12)
    assert solution.mode_masses == pytest.approx([mass / total for mass in masses], abs=1e-12)
    assert solution is target.exact()


def test_with_a_single_mode_each_bit_is_wrong_by_itself() -> None:
    # Z = (1 + e^-beta)^n, and the distance is binomial.
    target = small(20, num_modes=1)
    solution = target.exact()
    assert solution is not None and solution.support is not None and len(solution.support) == 2**20
    assert solution.log_z == pytest.approx(20 * math.log1p(math.exp(-1.3)), abs=1e-10)
    assert solution.expectations["distance"] == pytest.approx(20 / (1 + math.exp(1.3)), abs=1e-10)
    assert small(24, num_modes=1).exact() is None and LITERATURE.exact() is None


def test_a_flat_law_is_flat() -> None:
    solution = small(beta=0.0).exact()
    assert solution is not None and solution.log_z == pytest.approx(12 * math.log(2.0), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bits": 121}, "num_bits is 121; motifs of 8 bits"),
        ({"num_bits": 0}, "num_bits is 0"),
        ({"num_bits": 8, "num_modes": 6}, r"1 motifs, each one of 5, make 1 \.\.\. 5 different modes"),
        ({"num_modes": 0}, "num_modes is 0"),
        ({"beta": -1.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"beta": math.inf}, "beta"),
        ({"radius": 0}, "radius is 0"),
        ({"motifs": ()}, "different strings of 0 and 1"),
        ({"motifs": ("",)}, "different strings of 0 and 1"),
        ({"motifs": ("0011", "011")}, "all of one length"),
        ({"motifs": ("0011", "0011")}, "different strings"),
        ({"motifs": ("0011", "0021")}, "strings of 0 and 1"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BitSequences(**options)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(1, 12), torch.zeros(1, 11, dtype=torch.int8), torch.full((1, 12), 2, dtype=torch.int8)],
    ids=["dtype", "shape", "values"],
)
def test_objects_of_another_space_are_refused(x: Tensor) -> None:
    with pytest.raises(ObjectError):
        small().log_prob(x)
