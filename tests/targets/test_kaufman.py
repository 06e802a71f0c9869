"""The closed form of the torus against sums over configurations, row by row or one by one."""

import math

import jaxtyping
import pytest

from gfnmc.core.errors import OptionError
from gfnmc.targets import Ising
from gfnmc.targets.kaufman import MAX_COUPLING, kaufman_log_z

CRITICAL = math.log(1 + math.sqrt(2)) / 2


@pytest.mark.parametrize("coupling", [0.01, 0.3, CRITICAL, 0.4407, 0.6, 2.0])
@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (3, 8), (6, 5), (8, 8)])
def test_closed_form_and_transfer_matrices_agree(shape: tuple[int, int], coupling: float) -> None:
    wanted = Ising(shape, coupling).exact().log_z
    assert kaufman_log_z(shape, coupling) == pytest.approx(wanted, abs=1e-10)
    assert kaufman_log_z(shape[::-1], coupling) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("coupling", [0.3, 0.4407, 0.6])
def test_another_lattice_would_show(coupling: float) -> None:
    """The negative control of the test above: free edges, a side of another length, another coupling."""
    found = kaufman_log_z((6, 5), coupling)
    for other in (Ising((6, 5), coupling, periodic=False), Ising((6, 4), coupling), Ising((6, 5), coupling + 1e-4)):
        assert abs(other.exact().log_z - found) > 1e-3


def test_a_value_computed_elsewhere() -> None:
    assert kaufman_log_z((10, 10), 0.44068679) == pytest.approx(93.610299992, abs=6e-10)


def test_large_lattices_approach_onsagers_free_energy() -> None:
    # Onsager 1944: at the critical point log Z per site is log(2) / 2 + 2 G / pi, with Catalan's constant G.
    catalan = 0.915965594177219
    wanted = math.log(2) / 2 + 2 * catalan / math.pi
    assert kaufman_log_z((1_000, 1_000), CRITICAL) / 1e6 == pytest.approx(wanted, abs=1e-6)
    assert kaufman_log_z((40, 2_000), CRITICAL) / 8e4 == pytest.approx(wanted, abs=1e-3)


def test_limits_of_the_coupling() -> None:
    assert kaufman_log_z((30, 40), MAX_COUPLING) == pytest.approx(2_400 * MAX_COUPLING + math.log(2), rel=1e-14)
    assert kaufman_log_z((30, 40), 1e-12) == pytest.approx(1_200 * math.log(2), rel=1e-14)


def test_log_z_is_smooth_through_the_critical_point() -> None:
    step = 1e-4
    below, at, above = (kaufman_log_z((9, 7), CRITICAL + sign * step) for sign in (-1, 0, 1))
    # The second derivative is the variance of the number of satisfied less unsatisfied bonds; of 126, it cannot exceed
    # 126^2.
    assert 0 < (below - 2 * at + above) / step**2 < 126**2


@pytest.mark.parametrize("shape", [(2, 4), (4, 2), (1, 5), (5,), (3, 3, 3)])
def test_shapes_out_of_reach_are_refused(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(OptionError, match="Kaufman"):
        kaufman_log_z(shape, 0.4)


@pytest.mark.parametrize("coupling", [0.0, -0.3, math.nan, math.inf, 1.01 * MAX_COUPLING])
def test_couplings_out_of_reach_are_refused(coupling: float) -> None:
    with pytest.raises(OptionError, match="coupling"):
        kaufman_log_z((4, 4), coupling)
