"""Chains and their way to ArviZ: groups, dimensions, dtypes, and files that are read back as they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfnmc.core.cost import Cost
from gfnmc.core.errors import StorageError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.kernels import Cycle, Mixture, RandomWalk, SuffixResampling
from gfnmc.sampling import Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising, from_function
from tests.support import Stairs, random_pair, stairs_target

ISING = Ising((2, 3), 0.3)


def ising_chains(**options: object) -> Chains:
    lattice = Lattice.for_target(ISING)
    pair = random_pair(Lattice((2, 3), (-1, 1), dtype=torch.int8))
    pair.training_cost = Cost(100, 2_000, 1.5)
    pair_lattice = pair.environment
    kernel = Cycle([SuffixResampling(pair, ISING), RandomWalk(pair_lattice, ISING)])
    assert lattice.num_actions == pair_lattice.num_actions
    counts = {"num_chains": 4, "num_samples": 60, "num_warmup": 7, "seed": 1} | options
    return sample(kernel, progress_bar=False, **counts)


@pytest.fixture(scope="module")
def chains() -> Chains:
    return ising_chains()


def test_shapes_and_names(chains: Chains) -> None:
    assert (chains.num_chains, chains.num_samples, chains.num_warmup) == (4, 60, 7)
    assert chains.x.shape == (4, 60, 2, 3)
    assert chains.x.dtype == torch.int8
    assert chains.samples.seconds.shape == (60,)
    assert chains.kernel_name == "suffix resampling + random walk"
    assert chains.target is ISING
    for record, draws in ((chains.samples, 60), (chains.warmup, 7)):
        assert record.log_prob.shape == (4, draws)
        assert {value.shape for value in record.stats.values()} == {(4, draws)}


def test_statistics_are_those_of_the_draws(chains: Chains) -> None:
    flat = chains.x.flatten(0, 1)
    assert list(chains.statistics) == ["log_prob", "energy_per_site", "magnetisation", "abs_magnetisation"]
    for name, value in ISING.statistics(flat).items():
        assert np.array_equal(chains.statistics[name], value.reshape(4, 60).numpy())
    assert np.array_equal(chains.statistics["log_prob"], ISING.log_prob(flat).reshape(4, 60).numpy())
    mode_ids = chains.mode_ids(chains.samples)
    assert mode_ids is not None
    assert np.array_equal(mode_ids, ISING.modes().assign(flat).reshape(4, 60).numpy())


def groups_of(tree: Any) -> set[str]:
    """The groups of what `to_arviz` returns: an InferenceData of ArviZ 0.23, or a DataTree."""
    return set(tree.groups()) if callable(tree.groups) else set(tree.children)


def test_arviz_gets_every_group(chains: Chains) -> None:
    tree = chains.to_arviz()
    assert groups_of(tree) == {"posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"}
    posterior, stats = tree.posterior, tree.sample_stats
    assert set(posterior.data_vars) == {"x", "occ", "energy_per_site", "magnetisation", "abs_magnetisation"}
    assert posterior["x"].dims == ("chain", "draw", "x_dim_0", "x_dim_1")
    assert posterior["magnetisation"].dims == ("chain", "draw")
    assert posterior["occ"].dims == ("chain", "draw", "mode")
    assert posterior["mode"].values.tolist() == ["spins down", "spins up"]
    assert dict(posterior.sizes) == {"chain": 4, "draw": 60, "x_dim_0": 2, "x_dim_1": 3, "mode": 2}
    assert {"lp", "acceptance_rate", "accepted", "log_ratio", "num_back_steps", "num_forward_steps"} <= set(stats)
    assert {"reason", "target_calls", "policy_calls", "mode_id"} <= set(stats)
    assert {"acceptance_rate[suffix resampling]", "acceptance_rate[random walk]"} <= set(stats)
    assert all(variable.dims == ("chain", "draw") for variable in stats.data_vars.values())
    assert np.array_equal(posterior["x"].values, chains.x.numpy())
    assert np.array_equal(stats["lp"].values, chains.samples.log_prob.numpy())
    assert np.array_equal(posterior["occ"].sum("mode").values, (stats["mode_id"] >= 0).values)
    assert np.array_equal(tree.warmup_posterior["x"].values, chains.warmup.position.numpy())
    assert tree.warmup_sample_stats["lp"].shape == (4, 7)


def test_nothing_is_boolean_and_small_numbers_stay_small(chains: Chains) -> None:
    tree = chains.to_arviz()
    for group in groups_of(tree):
        for name, variable in tree[group].data_vars.items():
            assert variable.dtype.kind in "if", (group, name)
    assert tree.posterior["x"].dtype == tree.posterior["occ"].dtype == tree.sample_stats["accepted"].dtype == np.int8
    assert tree.sample_stats["num_back_steps"].dtype == tree.sample_stats["mode_id"].dtype == np.int32
    assert tree.sample_stats["lp"].dtype == np.float64


def test_a_run_without_warm_up_or_modes_has_no_such_groups() -> None:
    environment = Stairs(5)
    target = stairs_target(environment)
    tree = sample(
        RandomWalk(environment, target), num_chains=2, num_samples=9, num_warmup=0, progress_bar=False
    ).to_arviz()
    assert groups_of(tree) == {"posterior", "sample_stats"}
    assert set(tree.posterior.data_vars) == {"x"}
    assert "mode_id" not in tree.sample_stats


def test_attributes_are_plain_and_say_where_the_draws_come_from(chains: Chains) -> None:
    attributes = chains.to_arviz().posterior.attrs
    assert attributes["inference_library"] == "gfnmc"
    assert attributes["target"] == "ising-2x3"
    assert attributes["kernel"] == chains.kernel_name
    assert (attributes["seed"], attributes["thinning"]) == (1, 1)
    training = {"target_calls": 100, "policy_calls": 2_000, "seconds": 1.5, "delta_calls": 0, "gradient_calls": 0}
    assert json.loads(attributes["training_cost"]) == training
    assert json.loads(attributes["sampling_cost"])["target_calls"] == chains.sampling_cost.target_calls
    # What netCDF can hold: no dict, no None, no bool.
    assert all(type(value) in (str, int, float, list) for value in attributes.values())


def test_arviz_can_summarise_them(chains: Chains) -> None:
    import arviz as az

    summary = az.summary(chains.to_arviz(), var_names=["magnetisation", "energy_per_site"])
    assert float(summary.loc["energy_per_site", "mean"]) == pytest.approx(
        float(chains.statistics["energy_per_site"].mean()), abs=2e-3
    )


def assert_read_back(tree: object, chains: Chains) -> None:
    assert np.array_equal(tree["posterior"]["x"].values, chains.x.numpy())
    assert tree["posterior"]["x"].dtype == np.int8
    assert tree["posterior"]["mode"].values.tolist() == ["spins down", "spins up"]
    assert tree["posterior"].attrs["seed"] == chains.seed
    assert json.loads(tree["posterior"].attrs["training_cost"])["target_calls"] == 100
    for name, value in chains.samples.stats.items():
        assert np.array_equal(tree["sample_stats"][name].values, value.numpy()), name
    assert np.array_equal(tree["warmup_posterior"]["x"].values, chains.warmup.position.numpy())


def test_a_netcdf_file_is_read_back_as_it_was(chains: Chains, tmp_path: Path) -> None:
    import arviz as az

    chains.to_arviz().to_netcdf(str(tmp_path / "run.nc"), engine="h5netcdf")
    assert_read_back(az.from_netcdf(str(tmp_path / "run.nc"), engine="h5netcdf"), chains)


def test_saved_chains_are_read_back_as_they_were(chains: Chains, tmp_path: Path) -> None:
    import xarray

    chains.save(tmp_path / "run.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    with xarray.open_datatree(tmp_path / "run.nc", engine="h5netcdf") as tree:
        assert_read_back(tree, chains)
    # It replaces what was there.
    chains.save(str(tmp_path / "run.nc"))
    assert len(list(tmp_path.iterdir())) == 1


def test_chains_that_cannot_be_saved_say_so(chains: Chains, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no folder"):
        chains.save(tmp_path / "missing" / "run.nc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        chains.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("seed", [-(2**63), 2**63, 2**100])
def test_any_seed_can_be_written_to_a_file(seed: int, tmp_path: Path) -> None:
    ising_chains(num_samples=5, seed=seed).save(tmp_path / "run.nc")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64])
def test_objects_of_any_dtype_can_be_written(dtype: torch.dtype, tmp_path: Path) -> None:
    target = from_function(lambda x: x.double().sum(1), (3,), values=(0, 1), dtype=dtype)
    chains = sample(
        RandomWalk(Lattice.for_target(target), target), num_chains=2, num_samples=8, num_warmup=0, progress_bar=False
    )
    assert chains.x.dtype == dtype
    x = chains.to_arviz().posterior["x"]
    assert x.dtype.kind in "iuf"
    assert np.array_equal(x.values.astype(float), chains.x.double().numpy())
    chains.save(tmp_path / "run.nc")


def test_truth_values_become_numbers() -> None:
    """Of an environment with objects of True and False."""
    target = from_function(lambda x: x.double().sum(1), (3,), dtype=torch.bool)
    whole = from_function(lambda x: x.double().sum(1), (3,), values=(0, 1))
    walk = RandomWalk(Lattice.for_target(whole), whole)
    chains = sample(walk, num_chains=2, num_samples=8, num_warmup=0, progress_bar=False)
    objects = replace(chains.samples, position=chains.x == 1)
    x = replace(chains, target=target, samples=objects).to_arviz().posterior["x"]
    assert x.dtype == np.int8
    assert np.array_equal(x.values, chains.x.numpy())


def test_a_mixture_of_cycles_has_a_value_at_every_draw() -> None:
    environment, target = HyperGrid(2, 4), HyperGridTarget(2, 4)
    walk = RandomWalk(environment, target)
    kernel = Mixture([Cycle([SuffixResampling(random_pair(environment), target), walk]), walk])
    chains = sample(kernel, num_chains=3, num_samples=20, num_warmup=0, progress_bar=False)
    assert {value.shape for value in chains.samples.stats.values()} == {(3, 20)}
    assert dict(chains.to_arviz().sample_stats.sizes) == {"chain": 3, "draw": 20}
