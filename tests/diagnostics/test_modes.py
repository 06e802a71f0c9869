"""When modes were found and how often chains changed between them."""

import numpy as np
import pytest

from gfnmc.diagnostics import (
    count_round_trips,
    count_switches,
    discovery,
    mean_stays,
    mode_transitions,
    switches_per_thousand_steps,
)


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


EXAMPLES = [
    [[0, 0, 0, 0, 0]],
    [[0, 1, 0, 1, 0]],
    [[0, -1, -1, 0, 0]],
    [[0, -1, 1, -1, 0]],
    [[-1, -1, -1, -1, -1]],
    [[-1, 0, -1, -1, 1]],
    [[0, 1, 1, 1, 1], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0]],
]


def transitions_by_hand(chains: list[list[int]], num_modes: int) -> list[list[int]]:
    counts = [[0] * num_modes for _ in range(num_modes)]
    for chain in chains:
        last = -1
        for mode in chain:
            if last >= 0:
                counts[last][mode if mode >= 0 else last] += 1
            last = mode if mode >= 0 else last
    return counts


@pytest.mark.parametrize("chains", EXAMPLES)
def test_transitions_are_counted_one_by_one(chains: list) -> None:
    found = mode_transitions(ids(*chains), 3)
    assert found.tolist() == transitions_by_hand(chains, 3)
    # What is off the diagonal are the switches.
    assert int(found.sum() - np.trace(found)) == count_switches(ids(*chains))


def test_transitions_of_long_chains_are_those_of_their_law() -> None:
    law = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]])
    rng = np.random.default_rng(0)
    chains = np.zeros((20, 2_000), dtype=np.int64)
    for step in range(1, chains.shape[1]):
        chains[:, step] = (rng.random(20)[:, None] > law[chains[:, step - 1]].cumsum(1)).sum(1)
    counts = mode_transitions(chains, 3)
    assert counts.sum() == 20 * 1_999
    # Rows are where chains came from: 4.9 standard errors of a binomial share are 1e-6.
    totals = counts.sum(1, keepdims=True)
    shares, margin = counts / totals, 4.9 * np.sqrt(law * (1 - law) / totals)
    assert (np.abs(shares - law) <= margin).all()
    # Negative control: read the other way round, they are not.
    assert (np.abs(shares.T - law) > margin).any()
    stays = mean_stays(chains, 3)
    assert stays == pytest.approx([10.0, 2.0, 2.5], rel=0.05)


def test_stays() -> None:
    assert mean_stays(ids([0, 0, 1, 1, 1, 0]), 3) == [3.0, 3.0, None]
    # Where nobody left, what was seen is a lower bound; time outside belongs to the last mode.
    assert mean_stays(ids([2, -1, -1, 2], [-1, 2, 2, 2]), 3) == [None, None, 7.0]


def test_round_trips_come_back_to_the_first_mode() -> None:
    assert count_round_trips(ids([0, 1, 2, 0, 1, 0], [1, 1, 0, 2, 2, 2])) == 2
