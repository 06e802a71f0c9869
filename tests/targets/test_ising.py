"""The Ising model: every bond once, and exact answers by enumeration and by transfer matrices."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets import Ising
from gfnmc.targets.base import solve_by_enumeration


def kaufman_log_z(side: int, coupling: float) -> float:
    """log Z of the periodic square lattice in closed form (Kaufman 1949)."""
    gamma = [2 * coupling + math.log(math.tanh(coupling))]
    for step in range(1, 2 * side):
        cosh = math.cosh(2 * coupling) / math.tanh(2 * coupling) - math.cos(math.pi * step / side)
        gamma.append(math.acosh(cosh))
    half = side / 2
    terms = [
        math.prod(2 * math.cosh(half * gamma[2 * r + 1]) for r in range(side)),
        math.prod(2 * math.sinh(half * gamma[2 * r + 1]) for r in range(side)),
        math.prod(2 * math.cosh(half * gamma[2 * r]) for r in range(side)),
        math.prod(2 * math.sinh(half * gamma[2 * r]) for r in range(side)),
    ]
    return side * side / 2 * math.log(2 * math.sinh(2 * coupling)) + math.log(sum(terms) / 2)


def neighbour_pairs(shape: tuple[int, ...], periodic: bool) -> set[frozenset[int]]:
    """The bonds as a set of pairs, from the definition: sites one step apart along one axis."""
    sites = list(itertools.product(*(range(side) for side in shape)))
    place = {site: i for i, site in enumerate(sites)}
    pairs = set()
    for site in sites:
        for axis, side in enumerate(shape):
            step = list(site)
            step[axis] += 1
            if periodic:
                step[axis] %= side
            if tuple(step) in place and tuple(step) != site:
                pairs.add(frozenset((place[site], place[tuple(step)])))
    return pairs


def spins(num_rows: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).choice([-1, 1], (num_rows, *shape)).astype(np.int8))


def random_ising(shape: tuple[int, ...], periodic: bool, has_field: bool, seed: int = 0) -> Ising:
    rng = np.random.default_rng(seed)
    num_bonds = len(Ising(shape, 0.0, periodic=periodic).bonds)
    field = torch.from_numpy(rng.normal(size=shape)) if has_field else 0.0
    return Ising(shape, torch.from_numpy(rng.normal(size=num_bonds)), field=field, periodic=periodic)


SHAPES = [
    (1,),
    (2,),
    (5,),
    (1, 1),
    (1, 4),
    (2, 2),
    (2, 3),
    (3, 2),
    (3, 4),
    (2, 2, 2),
    (2, 3, 4),
    (3, 3, 3),
    (2, 1, 2, 3),
]


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_bond_is_there_once(shape: tuple[int, ...], periodic: bool) -> None:
    target = Ising(shape, 0.3, periodic=periodic)
    pairs = [frozenset(bond) for bond in target.bonds.tolist()]
    assert all(len(pair) == 2 for pair in pairs)
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == neighbour_pairs(shape, periodic)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_is_the_sum_over_bonds_and_sites(shape: tuple[int, ...], periodic: bool) -> None:
    x = spins(20, shape)
    flat = x.flatten(1).double()
    for target in (
        random_ising(shape, periodic, has_field=True),
        random_ising(shape, periodic, has_field=False),
        Ising(shape, -0.7, field=0.2, periodic=periodic),
    ):
        first, second = target.bonds.unbind(1)
        wanted = (flat[:, first] * flat[:, second]) @ target.coupling + flat @ target.field.flatten()
        assert torch.allclose(target.log_prob(x), wanted, rtol=0, atol=1e-12)
        assert target.log_prob(x).dtype == torch.float64


def test_the_order_of_bonds() -> None:
    assert Ising((2, 3), 0.0).bonds.tolist() == [
        [0, 3], [1, 4], [2, 5], [0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3]
    ]  # fmt: skip
    assert Ising((3,), 0.0, periodic=False).bonds.tolist() == [[0, 1], [1, 2]]


def test_a_uniform_energy_does_not_depend_on_the_batch() -> None:
    target = Ising((7, 9), 0.4407)
    x = spins(100, (7, 9))
    together = target.log_prob(x)
    assert torch.equal(together, torch.cat([target.log_prob(row) for row in x.split(1)]))
    assert torch.equal(together, target.log_prob(-x))


@pytest.mark.parametrize(
    ("side", "coupling", "log_z", "tolerance"),
    [
        (4, 0.3, 12.785523, 6e-7),
        (4, 0.44068679, 15.521915, 6e-7),
        (4, 0.7, 23.160966, 6e-7),
        (6, 0.5, 37.62, 0.005),
        (8, 0.4407, 60.14, 0.005),
        (8, 0.6, 78.14, 0.005),
        (10, 0.44068679, 93.610299992, 6e-10),
    ],
)
def test_log_z_of_square_lattices(side: int, coupling: float, log_z: float, tolerance: float) -> None:
    solution = Ising((side, side), coupling).exact()
    assert solution.log_z == pytest.approx(log_z, abs=tolerance)
    assert solution.log_z == pytest.approx(kaufman_log_z(side, coupling), abs=1e-9)
    step = 1e-5
    slope = (kaufman_log_z(side, coupling + step) - kaufman_log_z(side, coupling - step)) / (2 * step)
    assert solution.expectations["energy_per_site"] == pytest.approx(-coupling * slope / side**2, abs=1e-8)
    assert solution.expectations["magnetisation"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("has_field", [True, False])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (3, 6), (6, 3), (4, 4), (3, 1, 5), (18,)])
def test_transfer_matrices_agree_with_enumeration(shape: tuple[int, ...], periodic: bool, has_field: bool) -> None:
    target = random_ising(shape, periodic, has_field, seed=3)
    solution = target._solve_by_rows()
    codes = torch.arange(2**target.num_sites)[:, None] // 2 ** torch.arange(target.num_sites) % 2
    truth = solve_by_enumeration(target, (2 * codes - 1).to(torch.int8).reshape(-1, *shape))
    assert solution.log_z == pytest.approx(truth.log_z, abs=1e-10)
    for name, value in solution.expectations.items():
        assert value == pytest.approx(truth.expectations[name], abs=1e-10)


def test_a_bond_of_the_wrong_sign_would_show() -> None:
    """The negative control of the test above, bond by bond."""
    target = random_ising((3, 6), periodic=True, has_field=False, seed=3)
    truth = target._solve_by_rows().log_z
    for bond in range(len(target.bonds)):
        coupling = target.coupling.clone()
        coupling[bond] *= -1
        assert abs(Ising((3, 6), coupling)._solve_by_rows().log_z - truth) > 1e-6


def test_strong_couplings_do_not_overflow() -> None:
    solution = Ising((6, 6), 1_000.0).exact()
    assert solution.log_z == pytest.approx(72_000 + math.log(2), abs=1e-8)
    assert solution.expectations["energy_per_site"] == pytest.approx(-2_000)
    rows = Ising((3, 7), 1_000.0, field=500.0).exact()
    assert rows.log_z == pytest.approx(42_000 + 21 * 500, abs=1e-8)
    assert rows.expectations["magnetisation"] == pytest.approx(1.0)


def test_what_can_be_solved() -> None:
    assert Ising((4, 4), 0.4).exact().support is not None
    assert Ising((5, 5), 0.4).exact().support is None
    assert Ising((3, 40), 0.4).exact() is not None
    assert Ising((11, 12), 0.4).exact() is None
    assert Ising((3, 3, 3), 0.4).exact() is None
    target = Ising((5, 5), 0.4)
    assert target.exact() is target.exact()


def test_modes_are_the_signs_of_the_magnetisation() -> None:
    modes = Ising((2, 2), 0.5).modes()
    assert modes.names == ("spins down", "spins up")
    assert modes.assign(modes.examples).tolist() == [0, 1]
    assert modes.examples.dtype == torch.int8
    x = torch.tensor([[[1, 1], [-1, -1]], [[1, -1], [-1, -1]], [[1, 1], [1, -1]]], dtype=torch.int8)
    assert modes.assign(x).tolist() == [-1, 0, 1]
    assert len(Ising((16, 16), 0.5).modes().assign(torch.ones(0, 16, 16, dtype=torch.int8))) == 0
    # A sum of more spins than int8 can hold.
    assert Ising((16, 16), 0.5).modes().assign(-torch.ones(1, 16, 16, dtype=torch.int8)).tolist() == [0]


def test_mode_masses() -> None:
    assert Ising((5, 5), 0.5).exact().mode_masses == (0.5, 0.5)
    assert Ising((6, 6), 0.5).exact().mode_masses is None
    down, up = Ising((4, 4), 0.5).exact().mode_masses
    assert down == pytest.approx(up)
    assert 0.9 < down + up < 1.0
    assert Ising((3, 3), 0.5).exact().mode_masses == pytest.approx((0.5, 0.5))


def test_there_are_no_modes_with_a_field_or_without_alignment() -> None:
    assert Ising((3, 3), 0.5, field=0.1).modes() is None
    assert Ising((3, 3), 0.5, field=torch.eye(3, dtype=torch.float64)).modes() is None
    assert Ising((3, 3), -0.5).modes() is None
    assert Ising((3, 3), 0.0).modes() is None
    assert Ising((5, 5), 0.5, field=0.1).exact().mode_masses is None


def test_statistics() -> None:
    x = torch.tensor([[-1, -1, -1], [1, 1, -1]], dtype=torch.int8)
    statistics = Ising((3,), 2.0, field=1.0, periodic=False).statistics(x)
    assert statistics["energy_per_site"].tolist() == pytest.approx([-1 / 3, -1 / 3])
    assert statistics["magnetisation"].tolist() == pytest.approx([-1.0, 1 / 3])
    assert statistics["abs_magnetisation"].tolist() == pytest.approx([1.0, 1 / 3])


def test_the_users_couplings_are_copied() -> None:
    coupling = torch.ones(12, dtype=torch.float64)
    target = Ising((3, 3), coupling, periodic=False)
    coupling.zero_()
    assert target.coupling.sum() == 12


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 3, 3, dtype=torch.int8),
        torch.full((1, 3, 3), 3, dtype=torch.int8),
        torch.ones(1, 3, 3, dtype=torch.int64),
        torch.ones(1, 9, dtype=torch.int8),
    ],
)
def test_what_are_no_spins_is_refused(x: Tensor) -> None:
    with pytest.raises(ObjectError):
        Ising((3, 3), 0.5).log_prob(x)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ()},
        {"shape": 8},
        {"shape": (3, 0)},
        {"coupling": math.nan},
        {"coupling": math.inf},
        {"coupling": "strong"},
        {"coupling": torch.zeros(17)},
        {"coupling": torch.zeros(9, 2)},
        {"field": torch.zeros(9)},
        {"field": -math.inf},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError):
        Ising(**({"shape": (3, 3), "coupling": 0.5} | options))
