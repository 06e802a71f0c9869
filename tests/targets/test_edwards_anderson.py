"""The spin glass: signs by seed, an exact solution, and the overlap of replicas."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets import EdwardsAnderson, Ising, overlap
from tests.support import chi_square


def brute_force_log_z(target: EdwardsAnderson) -> float:
    """log Z from the list of bonds, with NumPy and no line of the package's sums."""
    codes = np.arange(2**target.num_sites)[:, None] >> np.arange(target.num_sites) & 1
    spins = 2.0 * codes - 1.0
    energy = np.zeros(len(spins))
    for (first, second), coupling in zip(target.bonds.tolist(), target.coupling.tolist(), strict=True):
        energy += coupling * spins[:, first] * spins[:, second]
    return float(np.logaddexp.reduce(energy))


def some_spins(num_rows: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).choice([-1, 1], (num_rows, *shape)).astype(np.int8))


@pytest.mark.parametrize("periodic", [True, False])
def test_log_z_of_four_by_four_by_brute_force(periodic: bool) -> None:
    target = EdwardsAnderson((4, 4), 1.1, seed=3, periodic=periodic)
    truth = brute_force_log_z(target)
    assert target.exact().log_z == pytest.approx(truth, abs=1e-9)
    by_rows = Ising((4, 4), target.coupling, periodic=periodic)._solve_by_rows()
    assert by_rows.log_z == pytest.approx(truth, abs=1e-9)
    # Negative control: other signs, another sum.
    assert abs(EdwardsAnderson((4, 4), 1.1, seed=4, periodic=periodic).exact().log_z - truth) > 1e-3


def test_eight_by_eight_does_not_depend_on_the_gauge() -> None:
    target = EdwardsAnderson((8, 8), 1.0, seed=0)
    solution = target.exact()
    # Turning some spins over, and with them the signs of their bonds, renames configurations and changes no sum.
    gauge = some_spins(1, (8, 8))[0].flatten().double()
    first, second = target.bonds.unbind(1)
    gauged = Ising((8, 8), target.coupling * gauge[first] * gauge[second])
    assert gauged.exact().log_z == pytest.approx(solution.log_z, abs=1e-9)
    # Negative control: the signs without the spins.
    assert abs(Ising((8, 8), target.coupling * gauge[first]).exact().log_z - solution.log_z) > 1e-3
    step = 1e-5
    log_z = [EdwardsAnderson((8, 8), 1.0 + sign * step, seed=0).exact().log_z for sign in (-1, 1)]
    slope = (log_z[1] - log_z[0]) / (2 * step)
    assert solution.expectations["energy_per_site"] == pytest.approx(-slope / 64, abs=1e-7)
    assert solution.mode_masses is None


def test_the_signs_are_the_seeds() -> None:
    target = EdwardsAnderson((4, 5), 0.7, seed=12)
    assert torch.equal(target.bonds, Ising((4, 5), 0.0).bonds)
    even = torch.full((len(target.bonds),), -math.log(2), dtype=torch.float64)
    is_positive = PhiloxDraws(12, "edwards-anderson", len(target.bonds)).bernoulli(even)
    assert torch.equal(target.coupling, 0.7 * (2 * is_positive.double() - 1))
    assert torch.equal(target.coupling, EdwardsAnderson((4, 5), 0.7, seed=12).coupling)
    assert not torch.equal(target.coupling, EdwardsAnderson((4, 5), 0.7, seed=13).coupling)
    assert target.name == "edwards-anderson-4x5-seed12"


def test_both_signs_are_equally_likely() -> None:
    coupling = EdwardsAnderson((100, 100), 1.0, seed=5).coupling
    statistic, limit = chi_square([int((coupling > 0).sum()), int((coupling < 0).sum())], [0.5, 0.5])
    assert statistic < limit


def test_it_is_the_ising_model_of_its_couplings() -> None:
    target = EdwardsAnderson((3, 4), 0.9, seed=1, periodic=False)
    x = some_spins(50, (3, 4))
    assert torch.equal(target.log_prob(x), Ising((3, 4), target.coupling, periodic=False).log_prob(x))
    assert target.modes() is None
    assert EdwardsAnderson((3, 3, 3), 0.9, seed=1).exact() is None


def test_statistics_and_their_exact_means() -> None:
    target = EdwardsAnderson((3, 3), 0.9, seed=1)
    solution = target.exact()
    statistics = target.statistics(solution.support)
    assert set(statistics) == set(solution.expectations) == {"energy_per_site", "magnetisation", "satisfied_bonds"}
    pmf = solution.log_pmf.exp()
    for name, value in statistics.items():
        assert float(pmf @ value) == pytest.approx(solution.expectations[name], abs=1e-12)
    first, second = target.bonds.unbind(1)
    flat = solution.support.flatten(1)
    satisfied = (flat[:, first] * flat[:, second] * target.coupling > 0).double().mean(1)
    assert torch.allclose(statistics["satisfied_bonds"], satisfied, rtol=0, atol=1e-12)


def test_overlap() -> None:
    a = some_spins(20, (3, 5))
    assert overlap(a, a).tolist() == [1.0] * 20
    assert overlap(a, -a).tolist() == [-1.0] * 20
    b = some_spins(20, (3, 5), seed=1)
    assert torch.allclose(overlap(a, b), (a.double() * b.double()).mean((1, 2)))
    assert overlap(a, b).dtype == torch.float64
    assert overlap(some_spins(1, (20, 20)), some_spins(1, (20, 20))).tolist() == [1.0]


def test_spins_of_different_shapes_have_no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ObjectError, match="overlap"):
        overlap(some_spins(2, (3,)), some_spins(1, (3,)))


@pytest.mark.parametrize(
    "options",
    [{"shape": (3, 0)}, {"shape": (1, 1)}, {"beta": 0.0}, {"beta": -1.0}, {"beta": math.nan}, {"beta": math.inf}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        EdwardsAnderson(**({"shape": (3, 3), "beta": 0.5, "seed": 0} | options))
