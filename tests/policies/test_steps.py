"""Walks that let rows go once they are done are the walks of the whole batch, to the bit."""

import pytest
import torch

from gfnmc.core.draws import PhiloxDraws
from gfnmc.environments import DAGs, DiscreteEnvironment, GraphBuilding, HyperGrid, Lattice, Sequences, Subsets
from gfnmc.policies import GFlowNet
from gfnmc.policies.steps import step_backward, step_forward
from tests.policies.plain import plain_walk_backward, plain_walk_forward
from tests.policies.test_filled import assert_same_path
from tests.support import Stairs, network_pair, random_pair, small_environments

TABLES = small_environments()
NETWORKS: dict[str, DiscreteEnvironment] = {
    "grid": HyperGrid(3, 6),
    "lattice": Lattice((3, 4), (0, 1, 2)),
    "learned order": Lattice((3, 3), (-1, 1), order="learned"),
    "stairs": Stairs(12),
    "stairs without exits": Stairs(12, exits=False),
    "sequences": Sequences(4, 6),
    "subsets": Subsets(7),
    "graphs": GraphBuilding(4),
    "dags": DAGs(4),
}


def pairs() -> dict[str, GFlowNet]:
    tables = {f"table, {name}": random_pair(environment, seed=3) for name, environment in TABLES.items()}
    networks = {
        f"{dtype}, {name}": network_pair(environment, seed=3, dtype=dtype).frozen()
        for name, environment in NETWORKS.items()
        for dtype in (torch.float32, torch.float64)
    }
    return tables | networks


PAIRS = pairs()


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> GFlowNet:
    return PAIRS[request.param]


@pytest.mark.parametrize("num_rows", [1, 150])
def test_walks_are_those_of_the_whole_batch(pair: GFlowNet, num_rows: int) -> None:
    environment = pair.environment

    def draws(role: str) -> PhiloxDraws:
        return PhiloxDraws(4, role, num_rows)

    source = environment.source(num_rows)
    up = step_forward(pair.forward, environment, source, draws("up"))
    assert_same_path(up, plain_walk_forward(pair.forward, environment, source, draws("up")))
    by_row = torch.arange(num_rows) % (environment.max_depth + 1)
    for num_steps in (None, by_row, by_row * 0):
        down = step_backward(pair.backward, environment, up.end, num_steps, draws("down"))
        assert_same_path(down, plain_walk_backward(pair.backward, environment, up.end, num_steps, draws("down")))
        again = step_forward(pair.forward, environment, down.start, draws("again"))
        assert_same_path(again, plain_walk_forward(pair.forward, environment, down.start, draws("again")))


def test_rows_do_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Stairs(12)
    pair = network_pair(environment, seed=3).frozen()
    seen = []
    log_probs = pair.forward.log_probs
    monkeypatch.setattr(
        pair.forward, "log_probs", lambda cache, states: seen.append(len(states)) or log_probs(cache, states)
    )
    path = step_forward(pair.forward, environment, environment.source(100), PhiloxDraws(4, "up", 100))
    # Each row is looked at once for each of its actions and once for its exit, and never again.
    assert sum(seen) == int(path.lengths.sum()) + 100
    assert seen == sorted(seen, reverse=True) and seen[-1] < seen[0]
