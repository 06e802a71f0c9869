"""The Potts model against its definition, the Ising model, and enumeration."""

import math

import numpy as np
import pytest
import torch

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets import Ising, Potts


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (2, 3), (3, 4), (2, 2, 3), (1, 4)])
def test_log_prob_counts_every_bond_once(shape: tuple[int, ...], periodic: bool) -> None:
    target = Potts(shape, 3, 0.7, periodic=periodic)
    x = torch.from_numpy(np.random.default_rng(0).integers(3, size=(50, *shape)).astype(np.int8))
    assert torch.equal(target.bonds, Ising(shape, 0.0, periodic=periodic).bonds)
    first, second = target.bonds.unbind(1)
    flat = x.flatten(1)
    assert torch.equal(target.log_prob(x), 0.7 * (flat[:, first] == flat[:, second]).sum(1).double())


def test_two_colours_are_the_ising_model_of_half_the_coupling() -> None:
    for side, coupling in ((3, 0.4), (5, 0.9), (7, 0.6)):
        potts, ising = Potts((side, side), 2, coupling).exact(), Ising((side, side), coupling / 2).exact()
        shift = coupling / 2 * 2 * side**2
        assert potts.log_z == pytest.approx(ising.log_z + shift, abs=1e-9)
        assert potts.mode_masses == pytest.approx((0.5, 0.5))
        energy = ising.expectations["energy_per_site"] - coupling
        assert potts.expectations["energy_per_site"] == pytest.approx(energy, abs=1e-9)


def test_a_closed_form() -> None:
    # A ring of n sites: Z = (e^K + q - 1)^n + (q - 1) (e^K - 1)^n.
    for num_states, side in ((3, 40), (5, 12), (4, 7)):
        z = (math.e + num_states - 1) ** side + (num_states - 1) * (math.e - 1) ** side
        assert Potts((side,), num_states, 1.0).exact().log_z == pytest.approx(math.log(z), abs=1e-9)


def test_the_critical_six_by_six_is_solved() -> None:
    target = Potts((6, 6), 3, math.log(1 + math.sqrt(3)))
    solution = target.exact()
    assert solution is target.exact()
    step = 1e-5
    log_z = [Potts((6, 6), 3, target.coupling + sign * step).exact().log_z for sign in (-1, 1)]
    slope = (log_z[1] - log_z[0]) / (2 * step)
    assert solution.expectations["energy_per_site"] == pytest.approx(-target.coupling * slope / 36, abs=1e-7)
    assert solution.expectations["fraction_2"] == pytest.approx(1 / 3)
    # Ties have mass, so the masses of the colours are less than a third and not known.
    assert solution.mode_masses is None


def test_what_can_be_solved() -> None:
    assert Potts((3, 3), 3, 1.0).exact().support is not None
    assert Potts((4, 4), 3, 1.0).exact().support is None
    assert Potts((7, 7), 3, 1.0).exact() is None
    assert Potts((3, 3, 3), 3, 1.0).exact() is None


def test_modes_are_the_strict_pluralities() -> None:
    modes = Potts((2, 3), 3, 1.0).modes()
    assert modes.names == ("colour 0", "colour 1", "colour 2")
    assert modes.examples.dtype == torch.int8
    assert modes.examples.shape == (3, 2, 3)
    assert modes.assign(modes.examples).tolist() == [0, 1, 2]
    x = torch.tensor([[[0, 0, 1], [1, 2, 2]], [[0, 0, 0], [1, 1, 1]], [[0, 2, 0], [1, 2, 2]]], dtype=torch.int8)
    assert modes.assign(x).tolist() == [-1, -1, 2]
    masses = Potts((2, 3), 3, 1.0).exact().mode_masses
    assert masses == pytest.approx([masses[0]] * 3)
    assert sum(masses) < 0.99
    assert len(Potts((16, 16), 3, 1.0).modes().assign(torch.zeros(0, 16, 16, dtype=torch.int8))) == 0


def test_there_are_no_modes_where_equal_colours_are_not_favoured() -> None:
    assert Potts((3, 3), 3, -0.5).modes() is None
    assert Potts((3, 3), 3, 0.0).modes() is None
    assert Potts((5, 5), 2, -0.5).exact().mode_masses is None


def test_statistics() -> None:
    statistics = Potts((4,), 3, 2.0, periodic=False).statistics(
        torch.tensor([[0, 0, 1, 2], [1, 1, 1, 1]]).to(torch.int8)
    )
    assert list(statistics) == ["energy_per_site", "order_parameter", "fraction_0", "fraction_1", "fraction_2"]
    assert statistics["energy_per_site"].tolist() == pytest.approx([-0.5, -1.5])
    assert statistics["order_parameter"].tolist() == pytest.approx([0.25, 1.0])
    assert statistics["fraction_1"].tolist() == pytest.approx([0.25, 1.0])


@pytest.mark.parametrize(
    "x",
    [
        torch.full((1, 3, 3), 3, dtype=torch.int8),
        torch.full((1, 3, 3), -1, dtype=torch.int8),
        torch.zeros(1, 3, 3, dtype=torch.int64),
        torch.zeros(1, 9, dtype=torch.int8),
    ],
)
def test_what_are_no_colours_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ObjectError):
        Potts((3, 3), 3, 0.5).log_prob(x)


@pytest.mark.parametrize(
    "options",
    [{"shape": (3, 0)}, {"num_states": 1}, {"num_states": 128}, {"coupling": math.nan}, {"coupling": math.inf}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        Potts(**({"shape": (3, 3), "num_states": 3, "coupling": 0.5} | options))
