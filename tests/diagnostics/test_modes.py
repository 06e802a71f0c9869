"""When modes were found and how often chains changed between them."""

import numpy as np
import pytest

from gfnmc.diagnostics import discovery, switches_per_thousand_steps


def ids(*chains: list[int]) -> np.ndarray:
    return np.array(chains, dtype=np.int64)


def test_modes_are_found_when_any_chain_first_visits_them() -> None:
    modes = ids([-1, 0, 0, 2], [-1, -1, 0, 0])
    found = discovery(modes, np.array([10, 20, 30, 40]), np.array([0.5, 1.0, 1.5, 2.0]), 4)
    assert found.target_calls == [20, None, 40, None]
    assert found.seconds == [1.0, None, 2.0, None]
    assert found.num_found == 2
    assert discovery(modes, np.array([10, 20, 30, 40]), np.array([0.5, 1.0, 1.5, 2.0]), 0).num_found == 0


def test_a_mode_found_at_once_is_found() -> None:
    found = discovery(ids([1, 1]), np.array([5, 6]), np.array([0.0, 0.1]), 2)
    assert found.target_calls == [None, 5]
    assert found.seconds == [None, 0.0]


@pytest.mark.parametrize(
    ("chains", "switches"),
    [
        ([[0, 0, 0, 0, 0]], 0),
        ([[0, 1, 0, 1, 0]], 4),
        ([[0, -1, -1, 0, 0]], 0),
        ([[0, -1, 1, -1, 0]], 2),
        ([[-1, -1, -1, -1, -1]], 0),
        ([[-1, 0, -1, -1, 1]], 1),
        ([[0, 1, 1, 1, 1], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0]], 3),
    ],
)
def test_time_outside_all_modes_is_no_mode(chains: list, switches: int) -> None:
    rate = switches_per_thousand_steps(ids(*chains), 1)
    assert rate == pytest.approx(1_000 * switches / (len(chains) * 4))
    # Between two kept draws lie as many steps as the thinning says.
    assert switches_per_thousand_steps(ids(*chains), 5) == pytest.approx(rate / 5)


def test_a_single_draw_says_nothing() -> None:
    assert switches_per_thousand_steps(ids([0], [1]), 1) == 0.0
