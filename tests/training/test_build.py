"""New pairs as a config describes them: what they are made of, that they learn, and what of them can be saved."""

from pathlib import Path

import pytest
import torch

from gfnmc.core.errors import CapabilityError, OptionError
from gfnmc.environments import Direction, DiscreteEnvironment, GraphBuilding, HyperGrid, Lattice
from gfnmc.policies import (
    AveragedPolicy,
    CanonicalPolicy,
    DiscretePolicy,
    GFlowNet,
    MessagePassingPolicy,
    MLPPolicy,
    TransformerPolicy,
    UniformPolicy,
)
from gfnmc.policies.flow import MLPFlow
from gfnmc.policies.flow_backward import FlowBackwardPolicy
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.targets import Ising, Target, from_function
from gfnmc.training import load_pair, save_pair
from gfnmc.training.build import build_pair
from gfnmc.training.losses import LEARNS_FLOW
from tests.support import Stairs, is_identical, network_pair, sample_paths, stairs_target
from tests.training.cases import GRID, GRID_TARGET, distance, quick, run, tiny, unchecked

SPINS = Ising((2, 2), 0.5)
LATTICE = Lattice.for_target(SPINS)
GRAPH = GraphBuilding(3)
NETWORKS = {"mlp": MLPPolicy, "transformer": TransformerPolicy, "message_passing": MessagePassingPolicy}
SYMMETRIES = {"average": AveragedPolicy, "canonicalise": CanonicalPolicy}
BACKWARDS: dict[str, tuple[dict[str, str], type[DiscretePolicy]]] = {
    "uniform": ({}, UniformPolicy),
    "learned": ({}, MLPPolicy),
    "max_entropy": ({}, MaxEntropyPolicy),
    "trajectory_likelihood": ({}, MLPPolicy),
    "flow": ({"objective": "flow_matching"}, FlowBackwardPolicy),
}


def edges_like_company() -> Target:
    return from_function(lambda x: 0.4 * x.flatten(1).sum(1).double(), (3, 3), dtype=torch.int8, name="edges")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_that_is_named(network: str) -> None:
    pair = build_pair(LATTICE, tiny(network=network, backward="learned", num_layers=2), seed=3)
    for policy, direction in ((pair.forward, Direction.FORWARD), (pair.backward, Direction.BACKWARD)):
        assert type(policy) is NETWORKS[network]
        assert (policy.direction, policy.hidden_size, policy.num_layers) == (direction, 8, 2)
    assert pair.log_flow is None
    again = build_pair(LATTICE, tiny(network=network, backward="learned", num_layers=2), seed=3)
    assert all(is_identical(a, b) for a, b in zip(pair.parameters(), again.parameters(), strict=True))
    other = build_pair(LATTICE, tiny(network=network, backward="learned", num_layers=2), seed=4)
    assert not all(is_identical(a, b) for a, b in zip(pair.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("backward", BACKWARDS)
def test_the_backward_policy_that_is_named(backward: str) -> None:
    options, kind = BACKWARDS[backward]
    pair = build_pair(GRID, tiny(backward=backward, **options), seed=0)
    assert type(pair.backward) is kind
    if backward == "max_entropy":
        assert pair.backward.log_count is None
        # Stairs do not count their paths, so the count is learned.
        assert isinstance(build_pair(Stairs(4), tiny(backward=backward), seed=0).backward.log_count, MLPFlow)


def test_a_flow_for_the_objectives_that_learn_one() -> None:
    for objective in ("trajectory_balance", "modified_detailed_balance", *LEARNS_FLOW):
        backward = "flow" if objective == "flow_matching" else "uniform"
        pair = build_pair(GRID, tiny(objective=objective, backward=backward), seed=0)
        assert isinstance(pair.log_flow, MLPFlow) == (objective in LEARNS_FLOW)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_symmetries_wrap_the_forward_policy(symmetry: str) -> None:
    pair = build_pair(LATTICE, tiny(symmetry=symmetry), seed=0, symmetries=SPINS.symmetries())
    assert type(pair.forward) is SYMMETRIES[symmetry]
    assert isinstance(pair.backward, UniformPolicy)
    with pytest.raises(OptionError, match="the target declares no symmetries; choose symmetry='none'"):
        build_pair(LATTICE, tiny(symmetry=symmetry), seed=0)


def test_conditions_reach_every_part() -> None:
    config = tiny(objective="subtrajectory_balance", backward="learned")
    pair = build_pair(GRID, config, seed=0, condition_names=("a", "b"))
    assert pair.condition_names == ("a", "b")
    assert [part.num_conditions for part in (pair.forward, pair.backward, pair.log_flow, pair.log_partition)] == [2] * 4


def test_a_network_that_the_environment_does_not_feed() -> None:
    with pytest.raises(CapabilityError, match="joins no nodes by edges"):
        build_pair(GRID, tiny(network="message_passing"), seed=0)


LEARNERS: dict[str, tuple[DiscreteEnvironment, Target, dict[str, object]]] = {
    "mlp": (LATTICE, SPINS, {"network": "mlp"}),
    "transformer": (LATTICE, SPINS, {"network": "transformer"}),
    "message passing on a lattice": (LATTICE, SPINS, {"network": "message_passing"}),
    "message passing on graphs": (GRAPH, edges_like_company(), {"network": "message_passing"}),
    "average": (LATTICE, SPINS, {"symmetry": "average"}),
    "canonicalise": (LATTICE, SPINS, {"symmetry": "canonicalise"}),
    "learned backward": (GRID, GRID_TARGET, {"backward": "learned"}),
    "learned count": (Stairs(5), stairs_target(Stairs(5)), {"backward": "max_entropy"}),
    "flow": (GRID, GRID_TARGET, {"objective": "flow_matching", "backward": "flow"}),
    "state flow": (GRID, GRID_TARGET, {"objective": "subtrajectory_balance"}),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_built_learns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty steps lower the loss and bring P_F closer to the target."""
    unchecked(monkeypatch)
    environment, target, options = LEARNERS[name]
    config = tiny(num_steps=61, batch_size=32, hidden_size=16, learning_rate=0.02, replay_batch_size=0, **options)
    names = target.symmetries() if "symmetry" in options else ()
    start = distance(build_pair(environment, config, seed=0, symmetries=names).frozen(), target)
    result = run(environment, target, config)
    assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
    assert distance(result.pair, target) < 0.7 * start


@pytest.mark.parametrize("name", LEARNERS)
def test_what_training_makes_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    environment, target, options = LEARNERS[name]
    pair = run(environment, target, tiny(num_steps=2, **options)).pair
    if name == "flow":
        with pytest.raises(CapabilityError, match="a FlowBackwardPolicy cannot be saved"):
            save_pair(pair, tmp_path / "pair")
        assert list(tmp_path.iterdir()) == []
        return
    save_pair(pair, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", environment)
    assert (type(loaded.forward), type(loaded.backward)) == (type(pair.forward), type(pair.backward))
    assert loaded.training_cost == pair.training_cost
    # What the run recorded goes with it: plain data, the same after the file as before.
    report = loaded.training_report
    assert report is not None and report == pair.training_report
    assert (report["target"], report["num_steps"], report["config"]["hidden_size"]) == (target.name, 2, 8)
    path = sample_paths(pair, 30)
    assert is_identical(loaded.log_forward(path), pair.log_forward(path))
    assert is_identical(loaded.log_backward(path), pair.log_backward(path))
    # Negative control: two pairs that were trained from other seeds score the same paths otherwise.
    another = run(environment, target, tiny(num_steps=2, **options), seed=1).pair
    assert not is_identical(another.log_forward(path), pair.log_forward(path))


def test_exact_counts_of_paths_are_saved(tmp_path: Path) -> None:
    pair = quick(backward="max_entropy").pair
    save_pair(pair, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", GRID)
    assert isinstance(loaded.backward, MaxEntropyPolicy) and loaded.backward.log_count is None
    path = sample_paths(pair, 30)
    assert is_identical(loaded.log_backward(path), pair.log_backward(path))


def test_a_pair_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(OptionError, match="another environment object"):
        quick(pair=network_pair(HyperGrid(2, 4)))
    with pytest.raises(OptionError, match="the pair is frozen"):
        quick(pair=network_pair(GRID).frozen())
    with pytest.raises(OptionError, match=r"the pair's conditions are \('a',\), those of the target \(\)"):
        quick(pair=build_pair(GRID, tiny(), seed=0, condition_names=("a",)))
    with pytest.raises(OptionError, match="not bound to one"):
        bound = build_pair(GRID, tiny(), seed=0, condition_names=("a",)).given(torch.zeros(1))
        quick(pair=bound)
    assert isinstance(quick(pair=network_pair(GRID)).pair, GFlowNet)
