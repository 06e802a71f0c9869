"""`gfnmc report`: run directories in, one page out."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gfnmc.cli import main
from gfnmc.experiments import find_problem
from gfnmc.kernels import RandomWalk
from gfnmc.sampling import sample
from gfnmc.training import TrainingConfig, save_pair, train
from tests.training.cases import TINY

PROBLEM = find_problem("ising-4x4")
TARGET = PROBLEM.target()
ENVIRONMENT = PROBLEM.environment(TARGET)
FEW = ("--chains", "8", "--samples", "20", "--warmup", "2", "--quiet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair") / "pair"
    result = train(ENVIRONMENT, TARGET, config=TrainingConfig(**TINY), progress_bar=False)
    save_pair(result.pair, path)
    return path


@pytest.fixture(autouse=True)
def here(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    assert run("sample", "ising-4x4", "--pair", str(pair), "--store", "hybrid", *FEW).exit_code in (0, 1)
    yield


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_a_page_and_figures_are_made_of_runs_alone() -> None:
    sample(RandomWalk(ENVIRONMENT, TARGET), num_chains=8, num_samples=20, store="walk", progress_bar=False)
    before = {path.name for path in Path().iterdir()}
    result = run("report", "hybrid", "walk", "--target", "ising-4x4", "--out", "r.html", "--json", "r.json")
    document = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert {path.name for path in Path().iterdir()} - before == {"r.html", "r.json"}
    assert [sampler["name"] for sampler in document["samplers"]] == ["hybrid", "walk"]
    assert result.exit_code == (0 if document["samplers"][0]["status"] == "ok" else 1)
    # What training recorded comes from the pair in the run directory.
    assert document["samplers"][0]["training"]["num_steps"] == 12
    assert document["samplers"][1]["training"] is None
    page = Path("r.html").read_text(encoding="utf-8")
    for words in ("When not to trust this", "What the proposal bought", "Quality during training"):
        assert words in page
    assert "wrote r.html" in result.stdout


def test_a_run_of_the_command_line_needs_no_target() -> None:
    result = run("report", "hybrid", "--json", "-")
    assert json.loads(result.stdout)["target"]["name"] == TARGET.name
    assert Path("report.html").exists()


def test_bad_input_is_refused_before_anything_is_read() -> None:
    for arguments, words in (
        (["nowhere"], "there is no run of gfnmc in nowhere"),
        (["hybrid", "--out", "nowhere/r.html"], "there is no folder"),
        (["hybrid", "--out", "r.txt"], "r.txt ends in '.txt'"),
        (["hybrid", "hybrid"], "named twice"),
        (["hybrid", "--target", "ising"], "there is no target 'ising'"),
        (["hybrid", "--target", "ising-8x8"], "another target"),
        ([], "RUN"),
    ):
        result = run("report", *arguments)
        assert result.exit_code == 2, arguments
        assert words in result.stderr
        assert result.stdout == ""
    assert {path.name for path in Path().iterdir()} == {"hybrid"}
