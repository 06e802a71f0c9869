"""`--json` in every command: a file, or standard output with nothing else on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gfnmc.cli import main
from gfnmc.experiments import PROBLEMS, Problem
from gfnmc.kernels.branch import FullRestart
from gfnmc.targets import Ising
from gfnmc.training import TrainingConfig
from tests.training.cases import TINY

FEW = ("--chains", "4", "--samples", "20", "--warmup", "5", "--quiet")


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the target "tiny" known, in an empty folder."""
    from gfnmc.environments import Lattice

    target = Ising((2, 2), coupling=0.3)
    config = TrainingConfig(**TINY)
    problem = Problem("tiny", "four spins", lambda: target, Lattice.for_target, config, FullRestart())
    monkeypatch.setitem(PROBLEMS, "tiny", problem)
    monkeypatch.chdir(tmp_path)
    yield


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def figures(*arguments: str) -> dict[str, Any]:
    """Return the figures on standard output, which holds nothing else."""
    result = run(*arguments, "--json", "-")
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def test_every_command_has_it() -> None:
    for name, command in main.commands.items():
        assert "--json" in [option for parameter in command.params for option in parameter.opts], name


def test_options_of_one_name_are_one_option() -> None:
    """What several commands share has one type, one default and one help; the defaults of a benchmark are a suite's."""
    shared: dict[str, set[tuple[object, ...]]] = {}
    for name, command in main.commands.items():
        for parameter in command.params:
            if name != "benchmark" and parameter.opts[-1] in ("--seed", "--threads", "--quiet", "--json", "--chains"):
                described = (repr(parameter.type), parameter.default, parameter.help)  # type: ignore[attr-defined]
                shared.setdefault(parameter.opts[-1], set()).add(described)
    assert set(shared) == {"--seed", "--threads", "--quiet", "--json", "--chains"}
    assert all(len(kinds) == 1 for kinds in shared.values()), shared


def test_targets_are_listed() -> None:
    found = figures("targets")
    assert found["schema"] == "gfnmc.targets/1"
    assert [target["name"] for target in found["targets"]] == list(PROBLEMS)


def test_training_gives_the_quality_of_the_pair() -> None:
    found = figures("train", "tiny", "--out", "pair", "--quiet")
    assert found["schema"] == "gfnmc.training/1"
    assert found["num_steps"] == 12
    assert 0.0 < found["quality"]["acceptance"] <= 1.0
    assert found["cost"]["target_calls"] > 0


def test_a_comparison_goes_to_standard_output_as_it_goes_to_a_file() -> None:
    run("train", "tiny", "--out", "pair", "--quiet")
    result = run("compare", "tiny", "--pair", "pair", "--json", "-", *FEW)
    found = json.loads(result.stdout)
    assert found["schema"] == "gfnmc.comparison/1"
    assert "random walk" in result.stderr
    again = run("compare", "tiny", "--pair", "pair", "--json", "figures.json", *FEW)
    assert "random walk" in again.stdout
    kept = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    assert kept["samplers"][0]["statistics"] == found["samplers"][0]["statistics"]


def test_a_check_gives_its_findings() -> None:
    model = "import gfnmc\n\ndef walk():\n    return gfnmc.environments.HyperGrid(1, 3)\n"
    Path("json_model.py").write_text(model, encoding="utf-8")
    found = figures("check", "json_model.py:walk")
    assert found["schema"] == "gfnmc.check/1"
    assert all(finding["reference"] == "json_model.py:walk" for finding in found["findings"])
    assert {finding["is_ok"] for finding in found["findings"]} <= {True, None}


def test_a_file_of_another_ending_or_in_no_folder_is_refused_first() -> None:
    for path, words in (("x.txt", "does not end in .json"), ("nowhere/x.json", "there is no folder")):
        result = run("targets", "--json", path)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stdout == ""
