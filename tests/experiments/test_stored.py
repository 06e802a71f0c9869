"""The comparison of stored runs: the figures of the chains that were stored, and what must be known of them."""

from dataclasses import replace
from pathlib import Path

import pytest

import gfnmc
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.environments import HyperGrid, Lattice
from gfnmc.experiments import compare_runs, stored
from gfnmc.kernels import Gibbs, RandomWalk
from gfnmc.report import render
from gfnmc.sampling import Budget, Chains, sample
from gfnmc.targets import HyperGrid as HyperGridTarget
from gfnmc.targets import Ising

TARGET = Ising((2, 2), coupling=0.3)
ENVIRONMENT = Lattice.for_target(TARGET)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two runs of one target, one of them not finished, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"num_chains": 8, "num_samples": 120, "num_warmup": 5, "progress_bar": False}
    sample(Gibbs(ENVIRONMENT, TARGET), store=folder / "gibbs", seed=1, **options)
    sample(RandomWalk(ENVIRONMENT, TARGET), store=folder / "walk", budget=Budget(target_calls=500), **options)
    grid = HyperGridTarget(2, 8)
    sample(RandomWalk(HyperGrid(2, 8), grid), store=folder / "grid", **options)
    return {path.name: path for path in folder.iterdir()}


def chains_of(path: Path) -> Chains:
    return gfnmc.load_run(path, TARGET)


def test_the_figures_are_those_of_the_stored_chains(runs: dict[str, Path]) -> None:
    comparison = compare_runs([runs["gibbs"], runs["walk"]], TARGET, title="two", command="gfnmc report")
    document = comparison.document
    assert [sampler["name"] for sampler in document["samplers"]] == ["gibbs", "walk"]
    assert (document["title"], document["command"]) == ("two", "gfnmc report")
    for sampler in document["samplers"]:
        chains = chains_of(runs[sampler["name"]])
        assert sampler["statistics"][0]["mean"] == pytest.approx(float(chains.samples.log_prob.mean()))
        assert sampler["cost"]["sampling"]["target_calls"] == chains.sampling_cost.target_calls
        assert sampler["num_samples"] == chains.num_samples
    assert "gibbs" in render(document)


def test_what_must_be_known_of_a_run_is_said_first(runs: dict[str, Path]) -> None:
    num_samples = chains_of(runs["walk"]).num_samples
    assert num_samples < 120
    cautions = compare_runs([runs["gibbs"], runs["walk"]], TARGET).document["cautions"]
    assert cautions[0] == f"walk is not finished: {num_samples} of 120 draws a chain are there."
    assert not any("gibbs is not finished" in line for line in cautions)


def test_what_a_diagnosis_finds_in_single_chains_is_said(runs: dict[str, Path]) -> None:
    chains = chains_of(runs["gibbs"])
    assert list(stored._doubts({"name": "gibbs", "status": "stuck"}, chains)) == []
    x = chains.x.clone()
    x[3] = x[3, :1]
    log_prob = TARGET.log_prob(x.flatten(0, 1)).reshape(chains.samples.log_prob.shape)
    one_is_stuck = replace(chains, samples=replace(chains.samples, position=x, log_prob=log_prob))
    (said,) = stored._doubts({"name": "gibbs", "status": "ok"}, one_is_stuck)
    assert said.startswith("gibbs: stuck: chain 3")


def test_runs_of_other_targets_and_no_runs_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at least one run"):
        compare_runs([])
    with pytest.raises(OptionError, match="named twice"):
        compare_runs([runs["walk"], runs["walk"].parent / "gibbs" / ".." / "walk"], TARGET)
    with pytest.raises(ValueError, match="another target"):
        compare_runs([runs["walk"], runs["grid"]], TARGET)
    with pytest.raises(StorageError, match="no run of gfnmc"):
        compare_runs([tmp_path], TARGET)


def test_folders_of_one_name_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "walk").symlink_to(runs["walk"])
    other = tmp_path / "copies" / "walk"
    sample(RandomWalk(ENVIRONMENT, TARGET), num_chains=4, num_samples=20, store=other, progress_bar=False)
    names = list(compare_runs([runs["walk"], other], TARGET).chains)
    assert names == [str(runs["walk"]), str(other)]
