"""`gfnmc sample --store` and `gfnmc resume`: a run that is stopped, and gone on with from its folder alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
from click.testing import CliRunner, Result

import gfnmc
from gfnmc.cli import main
from gfnmc.core.errors import MismatchError, OptionError
from gfnmc.environments import Lattice
from gfnmc.experiments import PROBLEMS, Problem, find_problem, kernel_of_run
from gfnmc.kernels.branch import FullRestart
from tests.cli.test_cli import TINY, Fragile
from tests.sampling.cases import assert_same_chains
from tests.support import network_pair

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_model.py"
FEW = ("--chains", "4", "--samples", "9", "--warmup", "5", "--quiet")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    know(monkeypatch, -1)
    target = Fragile(-1)
    gfnmc.save_pair(network_pair(Lattice.for_target(target)), "pair")
    yield


def know(monkeypatch: pytest.MonkeyPatch, breaks_at: int) -> None:
    """Make the target "tiny" known, whose energy breaks at one of its calls."""
    made = Problem("tiny", "four spins", lambda: Fragile(breaks_at), Lattice.for_target, TINY, FullRestart())
    monkeypatch.setitem(PROBLEMS, "tiny", made)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr


def test_a_run_that_broke_goes_on_from_its_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("sample", "tiny", "--pair", "pair", "--store", "whole", *FEW).exit_code in (0, 1)
    # The start, two calls a step of the cycle, and of the second of step 8.
    know(monkeypatch, 1 + 2 * 8 + 1)
    said = refused("sample", "tiny", "--pair", "pair", "--store", "run", "--block", "2", *FEW)
    assert "chain 3, step 8" in said and "the run can be gone on with from run" in said
    know(monkeypatch, -1)
    Path("pair").unlink()
    assert gfnmc.load_run("run").num_samples == 3
    result = run("resume", "run", "--out", "draws.nc", "--json", "figures.json", "--quiet")
    assert result.exit_code in (0, 1), result.output
    said = result.stdout.splitlines()
    assert said[0].startswith("36 draws in ") and said[0].endswith("draws.nc, run")
    assert_same_chains(gfnmc.load_run("run"), gfnmc.load_run("whole"))
    with xarray.open_datatree("draws.nc") as tree:
        np.testing.assert_array_equal(tree["posterior"]["x"], gfnmc.load_run("whole").x)
    figures = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    assert (figures["target"], figures["num_samples"], figures["nonfinite_count"]) == ("tiny", 9, 0)
    assert 0.0 < figures["acceptance_rate"] <= 1.0
    # The density of the objects where four chains began, and then as a run that was not stopped.
    assert figures["sampling_cost"]["target_calls"] == 4 + 2 * 4 * (5 + 9)
    assert run("resume", "run", "--samples", "12", "--quiet").exit_code in (0, 1)
    assert gfnmc.load_run("run").num_samples == 12


def test_sample_writes_figures_and_counts_energies_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, 7)
    options = ("--store", "run", "--json", "figures.json", "--on-nonfinite", "reject")
    result = run("sample", "tiny", "--pair", "pair", *options, *FEW)
    assert result.exit_code in (0, 1), result.output
    figures = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    assert figures["nonfinite_count"] == 1
    assert figures["remarks"] == {"on_nonfinite": "reject"}


def test_bad_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give --out FILE.nc, or --store FOLDER" in refused("sample", "tiny", "--pair", "pair")
    assert "there is no run of gfnmc in nowhere" in refused("resume", "nowhere")
    assert run("sample", "tiny", "--pair", "pair", "--store", "run", *FEW).exit_code in (0, 1)
    assert "run holds a run; go on with it" in refused("sample", "tiny", "--pair", "pair", "--store", "run")
    assert "cannot be written" in refused("resume", "run", "--out", "no/such/folder.nc")
    monkeypatch.setattr("gfnmc.sampling.fingerprint.version", lambda name: "9")
    assert "was made by something else: gfnmc was" in refused("resume", "run", "--samples", "12", "--quiet")
    result = run("resume", "run", "--samples", "12", "--quiet", "--allow-mismatch")
    assert result.exit_code in (0, 1)
    assert "statistically_continued" in gfnmc.load_run("run").remarks
    copied = bytearray(Path("run/pair.safetensors").read_bytes())
    copied[-1] ^= 1
    Path("run/pair.safetensors").write_bytes(copied)
    assert "pair.safetensors in run is damaged" in refused("resume", "run")


def test_a_model_of_ones_own_is_named_again() -> None:
    shutil.copy(EXAMPLE, "custom_model.py")
    reference = "custom_model.py:model"
    problem = find_problem(reference)
    target = problem.target()
    gfnmc.save_pair(network_pair(problem.environment(target)), "own")
    assert run("sample", reference, "--pair", "own", "--store", "run", *FEW).exit_code in (0, 1)
    # A folder that names a program does not have it run.
    Path("custom_model.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    assert "whose code is not run because a file names it" in refused("resume", "run")
    with pytest.raises(OptionError, match="whose code is not run"):
        gfnmc.load_run("run")
    assert gfnmc.load_run("run", target).num_samples == 9
    shutil.copy(EXAMPLE, "custom_model.py")
    assert run("resume", "run", "--target", reference, "--samples", "11", "--quiet").exit_code in (0, 1)


def test_runs_of_python_have_no_pair_and_may_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Fragile(-1)
    walk = gfnmc.kernels.RandomWalk(Lattice.for_target(target), target)
    chains = gfnmc.sample(walk, num_samples=4, num_warmup=0, store="run", progress_bar=False)
    assert_same_chains(gfnmc.load_run("run"), chains)
    with pytest.raises(OptionError, match="was not made by `gfnmc sample`"):
        kernel_of_run("run")
    monkeypatch.delitem(PROBLEMS, "tiny")
    with pytest.raises(OptionError, match="is of tiny, which `gfnmc targets` does not list; give target="):
        gfnmc.load_run("run")
    monkeypatch.setitem(PROBLEMS, "tiny", PROBLEMS["ising-4x4"])
    with pytest.raises(MismatchError, match="is of tiny, not of"):
        gfnmc.load_run("run")
