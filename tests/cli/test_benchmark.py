"""`gfnmc benchmark`: what a user types, what is written, and how a run goes on."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gfnmc.cli import main
from gfnmc.experiments.samplers import DEFAULT

MODEL = Path(__file__).parents[2] / "examples" / "custom_model.py"
SMALL = ("--steps", "4", "--chains", "8", "--samples", "16", "--seconds", "0.3", "--seeds", "1")


@pytest.fixture(autouse=True)
def no_module_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other tests import a model of the same name from another folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("custom_model", None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *arguments], catch_exceptions=False)


def test_a_benchmark_of_ones_own_model_runs_and_goes_on(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    asked = ("--target", f"{MODEL}:model", "--kernel", DEFAULT, "--kernel", "random walk", *SMALL, "--out", out)
    result = run(*asked)
    # 1: so short a run does not mix.
    assert result.exit_code in (0, 1), result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith(f"{MODEL}:model, ") for line in lines) == 2
    document = json.loads((tmp_path / "run" / "leaderboard.json").read_text(encoding="utf-8"))
    assert [target["name"] for target in document["targets"]] == [f"{MODEL}:model"]
    assert {row["sampler"] for row in document["targets"][0]["rows"]} == {DEFAULT, "random walk"}
    assert document["command"].startswith("gfnmc")
    rows = list(csv.DictReader((tmp_path / "run" / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["sampler"] for row in rows} == {DEFAULT, "random walk"}
    assert (tmp_path / "run" / "leaderboard.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    again = run(*asked)
    assert not any(line.startswith(f"{MODEL}:model, ") for line in again.stdout.splitlines())


def test_the_default_cycle_runs_where_nothing_else_sets_the_budget(tmp_path: Path) -> None:
    asked = ("--target", "ising-4x4", "--kernel", "Swendsen-Wang", *SMALL, "--out", str(tmp_path))
    result = run(*asked)
    assert result.exit_code in (0, 1), result.output
    assert "ising-4x4, default cycle, one mode, seed 0" in result.stdout
    assert "ising-4x4, Swendsen-Wang, dispersed, seed 0" in result.stdout


def test_with_a_budget_only_what_is_named_runs(tmp_path: Path) -> None:
    asked = ("--target", "ising-4x4", "--kernel", "wolff", "--budget", "2000", *SMALL, "--out", str(tmp_path))
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert "default cycle" not in result.stdout
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "slow"), "there is no suite 'slow'"),
        (("--target", "ising"), "there is no target 'ising'"),
        (("--kernel", "Gibs"), "did you mean Gibbs?"),
        (("--target", "ising-4x4", "--target", "ising-4x4"), "named twice"),
        (("--target", "nowhere.py:model"), "there is no file nowhere.py"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
