"""Saved pairs: the same numbers to the bit, the right environment or none, and no code in any file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError, StorageError
from gfnmc.core.symmetry import Symmetry
from gfnmc.environments import Direction, HyperGrid, Lattice, enumerate_states
from gfnmc.policies import (
    AveragedPolicy,
    CanonicalPolicy,
    DiscretePolicy,
    GFlowNet,
    LogPartition,
    MessagePassingPolicy,
    MLPPolicy,
    TransformerPolicy,
    UniformPolicy,
)
from gfnmc.policies.flow import MLPFlow, TabularFlow
from gfnmc.policies.max_entropy import MaxEntropyPolicy
from gfnmc.training import load_pair, save_pair
from tests.exact.networks import randomised
from tests.support import is_identical, network_pair, random_pair

GRID = HyperGrid(2, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backward", ["network", "uniform"])
def test_a_pair_is_loaded_as_it_was_saved(dtype: torch.dtype, backward: str, tmp_path: Path) -> None:
    both = network_pair(GRID, dtype=dtype, seed=4)
    pair = GFlowNet(
        both.forward,
        both.backward if backward == "network" else None,
        log_z=0.1 + 1e-17,
        training_cost=Cost(7, 70, 0.1),
    )
    frozen = pair.frozen()
    for saved in (pair, frozen):
        save_pair(saved, tmp_path / "pair")
        loaded = load_pair(str(tmp_path / "pair"), GRID)
        assert is_identical(loaded.log_z, frozen.log_z)
        assert loaded.training_cost == Cost(7, 70, 0.1)
        assert loaded.environment is GRID
        assert isinstance(loaded.backward, MLPPolicy if backward == "network" else UniformPolicy)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        for one, other in zip(loaded.parameters(), frozen.parameters(), strict=True):
            assert is_identical(one, other)
        one, other = (it.sample_forward(GRID.source(100), PhiloxDraws(1, "x", 100)) for it in (loaded, frozen))
        assert torch.equal(one.end, other.end)
        assert is_identical(one.log_forward, other.log_forward)
        assert is_identical(loaded.log_backward(one), frozen.log_backward(other))
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_a_pair_belongs_to_its_environment(tmp_path: Path) -> None:
    save_pair(network_pair(GRID), tmp_path / "pair")
    for other in (Lattice((2,), (0, 1)), HyperGrid(3, 8), HyperGrid(2, 9)):
        with pytest.raises(OptionError, match=r"holds a pair for the environment .*HyperGrid.*, but the one given is"):
            load_pair(tmp_path / "pair", other)
    # The same numbers of actions and weights, but another order of the sites.
    save_pair(network_pair(Lattice((2, 3), (-1, 1))), tmp_path / "lattice")
    with pytest.raises(OptionError, match="learned"):
        load_pair(tmp_path / "lattice", Lattice((2, 3), (-1, 1), order="learned"))


def test_a_saved_pair_keeps_its_exploration(tmp_path: Path) -> None:
    plain = network_pair(GRID)
    pair = GFlowNet(plain.forward.with_exploration(temperature=1.5, epsilon=0.1), plain.backward)
    save_pair(pair, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", GRID)
    assert (loaded.forward.temperature, loaded.forward.epsilon) == (1.5, 0.1)
    assert (loaded.backward.temperature, loaded.backward.epsilon) == (1.0, 0.0)


def test_tables_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="a TabularPolicy cannot be saved"):
        save_pair(random_pair(GRID), tmp_path / "pair")
    assert list(tmp_path.iterdir()) == []
    save_pair(GFlowNet(UniformPolicy(GRID, Direction.FORWARD)), tmp_path / "pair")
    assert isinstance(load_pair(tmp_path / "pair", GRID).forward, UniformPolicy)


def test_files_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    import safetensors.torch

    save_pair(network_pair(GRID), tmp_path / "pair")
    content = (tmp_path / "pair").read_bytes()
    for broken in (b"", b"x", b"\x00" * 8, b"\xff" * 100, content[:200], content[:-1], content + b"x"):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(StorageError, match="cannot read"):
            load_pair(tmp_path / "broken", GRID)
    (tmp_path / "other").write_bytes(safetensors.torch.save({"x": torch.zeros(2)}))
    with pytest.raises(StorageError, match=r"is not a gfnmc.pair/2 file, but something else"):
        load_pair(tmp_path / "other", GRID)
    with pytest.raises(StorageError, match="cannot read"):
        load_pair(tmp_path / "missing", GRID)
    with pytest.raises(StorageError, match="cannot read"):
        load_pair(tmp_path, GRID)


def test_a_pair_that_cannot_be_written_keeps_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no folder"):
        save_pair(network_pair(GRID), tmp_path / "missing" / "pair")
    save_pair(network_pair(GRID), tmp_path / "pair")
    before = (tmp_path / "pair").read_bytes()
    with pytest.raises(CapabilityError):
        save_pair(random_pair(GRID), tmp_path / "pair")
    assert (tmp_path / "pair").read_bytes() == before


def test_a_description_with_tuples_survives_the_file(tmp_path: Path) -> None:
    class Described(HyperGrid):
        def describe(self) -> dict[str, object]:
            return super().describe() | {"sides": (4, 4)}

    save_pair(network_pair(Described(2, 4)), tmp_path / "pair")
    assert load_pair(tmp_path / "pair", Described(2, 4)).environment.describe()["sides"] == (4, 4)


LATTICE = Lattice((3,), (-1, 1), dtype=torch.int8, order="learned")
SYMMETRIES = (Symmetry("shift", (1, 2, 0), (0, 1)), Symmetry("flip", (0, 1, 2), (1, 0)))


def networks(kind: type[DiscretePolicy], **options: object) -> list[DiscretePolicy]:
    return [randomised(kind(LATTICE, direction, hidden_size=8, **options)) for direction in Direction]


PAIRS: dict[str, Callable[[], GFlowNet]] = {
    "direct mlp": lambda: GFlowNet(*networks(MLPPolicy, direct=True)),
    "transformer": lambda: GFlowNet(*networks(TransformerPolicy, num_layers=1, num_heads=2)),
    "message passing": lambda: GFlowNet(*networks(MessagePassingPolicy, num_layers=2, dtype=torch.float64)),
    "averaged": lambda: GFlowNet(*(AveragedPolicy(inner, SYMMETRIES) for inner in networks(MLPPolicy))),
    "canonical": lambda: GFlowNet(
        *(
            CanonicalPolicy(inner.with_exploration(epsilon=0.1), SYMMETRIES[:1]).with_exploration(temperature=2.0)
            for inner in networks(TransformerPolicy)
        )
    ),
    "maximum entropy": lambda: GFlowNet(networks(MLPPolicy)[0], MaxEntropyPolicy(LATTICE)),
    "with flow": lambda: GFlowNet(
        networks(MLPPolicy)[0], log_flow=MLPFlow(LATTICE, hidden_size=8, num_layers=2, dtype=torch.float64, seed=3)
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_of_policy_is_loaded_as_it_was_saved(name: str, tmp_path: Path) -> None:
    pair = PAIRS[name]()
    save_pair(pair, tmp_path / "pair")
    loaded, frozen = load_pair(tmp_path / "pair", LATTICE), pair.frozen()
    assert type(loaded.forward) is type(pair.forward) and type(loaded.backward) is type(pair.backward)
    for one, other in zip(loaded.parameters(), frozen.parameters(), strict=True):
        assert is_identical(one, other)
    one, other = (it.sample_forward(LATTICE.source(50), PhiloxDraws(1, "x", 50)) for it in (loaded, frozen))
    assert torch.equal(one.end, other.end)
    assert is_identical(one.log_forward, other.log_forward)
    assert is_identical(loaded.log_backward(one), frozen.log_backward(other))
    if pair.log_flow is not None:
        assert is_identical(loaded.log_flow.log_flow(one.end), frozen.log_flow.log_flow(one.end))
    # And what was loaded can be saved again, as the same.
    save_pair(loaded, tmp_path / "again")
    assert header_of(tmp_path / "again") == header_of(tmp_path / "pair")
    again = load_pair(tmp_path / "again", LATTICE)
    assert all(is_identical(one, other) for one, other in zip(again.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("bound", [False, True])
def test_a_conditional_pair_is_loaded_as_a_family(bound: bool, tmp_path: Path) -> None:
    pair = GFlowNet(
        *networks(MLPPolicy, num_conditions=2),
        log_z=1.25,
        condition_names=("inverse_temperature", "field"),
        log_partition=LogPartition(2, hidden_size=5, seed=2),
        log_flow=MLPFlow(LATTICE, hidden_size=8, num_conditions=2),
    )
    condition = torch.tensor([[0.5, 1.0], [0.25, -1.0]])
    save_pair(pair.given(condition) if bound else pair, tmp_path / "pair")
    loaded = load_pair(tmp_path / "pair", LATTICE)
    assert loaded.condition is None
    assert loaded.condition_names == ("inverse_temperature", "field")
    assert float(loaded.log_z) == 1.25
    one, other = loaded.given(condition), pair.frozen().given(condition)
    path = one.sample_forward(LATTICE.source(2), PhiloxDraws(1, "x", 2))
    assert is_identical(one.log_z, other.log_z)
    assert is_identical(one.log_forward(path), other.log_forward(path))
    assert is_identical(one.log_flow.log_flow(path.end), other.log_flow.log_flow(path.end))


def test_pairs_of_the_first_version_are_still_read(tmp_path: Path) -> None:
    pair = network_pair(GRID, seed=4)
    save_pair(pair, tmp_path / "pair")
    header = header_of(tmp_path / "pair")
    for name in ("log_flow", "condition_names", "log_partition"):
        del header[name]
    for policy in header["policies"].values():
        for name in ("direct", "num_conditions"):
            del policy[name]
    rewrite(tmp_path / "pair", header, schema="gfnmc.pair/1")
    loaded, frozen = load_pair(tmp_path / "pair", GRID), pair.frozen()
    assert all(is_identical(one, other) for one, other in zip(loaded.parameters(), frozen.parameters(), strict=True))


def test_only_known_kinds_are_built(tmp_path: Path) -> None:
    save_pair(network_pair(GRID), tmp_path / "pair")
    header = header_of(tmp_path / "pair")
    for change, message in (
        ({"kind": "os.system"}, r"there is no kind 'os.system'; known are uniform, .*mlp"),
        ({"command": "true"}, r"a MLPPolicy is not made with .*'command'"),
        ({"hidden_size": 9}, "the weights of forward in .* do not fit"),
    ):
        altered = json.loads(json.dumps(header))
        altered["policies"]["forward"].update(change)
        rewrite(tmp_path / "pair", altered)
        with pytest.raises(OptionError, match=message):
            load_pair(tmp_path / "pair", GRID)


def test_what_is_not_known_how_to_build_is_not_saved(tmp_path: Path) -> None:
    class Mine(MLPPolicy):
        pass

    with pytest.raises(CapabilityError, match="a Mine cannot be saved; what can is of a kind among uniform,"):
        save_pair(GFlowNet(Mine(GRID)), tmp_path / "pair")
    with pytest.raises(CapabilityError, match="a TabularPolicy cannot be saved"):
        save_pair(GFlowNet(AveragedPolicy(random_pair(LATTICE).forward, SYMMETRIES)), tmp_path / "pair")
    with pytest.raises(CapabilityError, match="a TabularFlow cannot be saved"):
        flow = TabularFlow(enumerate_states(LATTICE))
        save_pair(GFlowNet(UniformPolicy(LATTICE, Direction.FORWARD), log_flow=flow), tmp_path / "pair")
    assert list(tmp_path.iterdir()) == []


def header_of(path: Path) -> dict[str, Any]:
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["header"])


def rewrite(path: Path, header: dict[str, Any], schema: str = "gfnmc.pair/2") -> None:
    import safetensors.torch

    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {"schema": schema, "header": json.dumps(header)})
