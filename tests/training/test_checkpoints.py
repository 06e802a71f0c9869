"""Saved pairs: the same numbers to the bit, the right environment or none, and no code in any file."""

from pathlib import Path

import pytest
import torch

from gfnmc.core.cost import Cost
from gfnmc.core.draws import PhiloxDraws
from gfnmc.core.errors import CapabilityError, OptionError, StorageError
from gfnmc.environments import Direction, HyperGrid, Lattice
from gfnmc.policies import GFlowNet, MLPPolicy, UniformPolicy
from gfnmc.training import load_pair, save_pair
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


def test_only_networks_and_uniform_policies_can_be_saved(tmp_path: Path) -> None:
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
    with pytest.raises(StorageError, match=r"is not a gfnmc.pair/1 file, but something else"):
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
