"""The hypergrid's reward, corners and exact answers."""

import itertools
import math

import pytest
import torch

from gfnmc.core.errors import ObjectError, OptionError
from gfnmc.targets import HyperGrid


@pytest.mark.parametrize(
    ("num_dims", "side", "r0", "log_z"),
    [
        (4, 8, 1e-1, 6.344934),
        (4, 8, 1e-3, 5.100452),
        (4, 8, 1e-5, 5.075430),
        (2, 64, 1e-1, 7.098045),
        (2, 64, 1e-3, 6.689719),
        (2, 64, 1e-5, 6.684663),
        (4, 16, 1e-3, 7.671145),
    ],
)
def test_log_z(num_dims: int, side: int, r0: float, log_z: float) -> None:
    target = HyperGrid(num_dims, side, r0)
    solution = target.exact()
    assert solution.log_z == pytest.approx(log_z, abs=6e-7)
    assert solution.expectations["x0"] == pytest.approx(0.5)
    assert solution.expectations["in_mode"] == pytest.approx(sum(solution.mode_masses))
    assert len(set(torch.tensor(solution.mode_masses).round(decimals=12).tolist())) == 1


@pytest.mark.parametrize("side", [2, 3, 5, 8, 11, 16, 20, 21, 64])
def test_the_reward_is_the_published_one(side: int) -> None:
    target = HyperGrid(2, side, r0=0.01, r1=0.5, r2=2.0)
    epsilon = 1e-12
    for x in itertools.product(range(side), repeat=2):
        distance = [abs(coordinate / (side - 1) - 0.5) for coordinate in x]
        reward = 0.01 + 0.5 * all(d > 0.25 + epsilon for d in distance)
        reward += 2.0 * all(0.3 + epsilon < d < 0.4 - epsilon for d in distance)
        assert target.log_prob(torch.tensor([x])).item() == pytest.approx(math.log(reward), abs=1e-14)


def test_boundaries_are_strict() -> None:
    # side 11: |c| is 0.3 at x = 2 and 0.4 at x = 1, so neither is a core; side 9: 0.25 at x = 2 is not outer.
    assert HyperGrid(1, 11).statistics(torch.tensor([[1], [2]]))["in_mode"].tolist() == [0.0, 0.0]
    assert HyperGrid(1, 9, r0=1.0).log_prob(torch.tensor([[2]])).item() == 0.0


def test_corners() -> None:
    target = HyperGrid(3, 8)
    modes = target.modes()
    assert modes is target.modes()
    assert len(modes) == 8
    assert modes.names[0] == "corner ---"
    assert modes.names[5] == "corner +-+"
    assert modes.assign(modes.examples).tolist() == list(range(8))
    assert modes.examples[5].tolist() == [6, 1, 6]
    assert modes.assign(torch.tensor([[0, 0, 0], [1, 1, 2], [6, 6, 1]])).tolist() == [-1, -1, 6]
    space = target.exact().support
    full = math.log(0.1 + 0.5 + 2.0)
    assert torch.equal(modes.assign(space) >= 0, (target.log_prob(space) - full).abs() < 1e-12)


def test_sides_without_cores_and_crowds_of_corners_have_no_modes() -> None:
    assert HyperGrid(2, 2).modes() is None
    assert HyperGrid(2, 11).modes() is None
    assert HyperGrid(2, 11).exact().mode_masses is None
    assert HyperGrid(17, 8).modes() is None


def test_statistics() -> None:
    statistics = HyperGrid(2, 8).statistics(torch.tensor([[0, 7], [1, 6]]))
    assert list(statistics) == ["x0", "x1", "in_mode"]
    assert statistics["x1"].tolist() == [1.0, 6 / 7]
    assert statistics["in_mode"].tolist() == [0.0, 1.0]


def test_a_floor_of_zero_is_impossible() -> None:
    solution = HyperGrid(2, 8, r0=0.0).exact()
    assert solution.log_z == pytest.approx(math.log(16 * 0.5 + 4 * 2.0))
    assert solution.log_pmf.min() == -math.inf


def test_large_grids_have_no_exact_solution() -> None:
    assert HyperGrid(6, 8).exact() is None


@pytest.mark.parametrize("x", [[[0, 8]], [[-1, 0]], [[0, 0, 0]]])
def test_objects_off_the_grid_are_refused(x: list) -> None:
    with pytest.raises(ObjectError):
        HyperGrid(2, 8).log_prob(torch.tensor(x))


@pytest.mark.parametrize(
    "options",
    [{"num_dims": 0}, {"side": 1}, {"r0": -0.1}, {"r1": -1.0}, {"r2": 0.0}, {"r0": math.nan}, {"r2": math.inf}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        HyperGrid(**({"num_dims": 2, "side": 8} | options))
