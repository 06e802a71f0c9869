"""`gfnmc check`: what it says of the example, of broken classes, and of references that lead nowhere."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gfnmc.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLE = "custom_model.py"

BROKEN = """
import gfnmc
import torch
from custom_model import Queues, log_prob, model
from gfnmc.environments import Direction
from gfnmc.kernels import Gibbs, RandomWalk
from gfnmc.policies import GFlowNet, UniformPolicy


class Wrong(RandomWalk):
    name = "wrong walk"

    def _propose(self, draws, position):
        proposal = super()._propose(draws, position)
        return proposal._replace(log_hastings=proposal.log_hastings + 0.1 * position[:, 0])


class OneWay(Queues):
    def change_mask(self, objects):
        return objects[:, :1] > objects[:, 1:2] + torch.zeros(10)


def wrong_kernel():
    return Wrong(*model())


def wrong_changes():
    return OneWay()


def wrong_energy():
    return gfnmc.targets.from_function(lambda x: x.sum(1) * float("nan"), (2,), values=(0, 1), name="not a number")


def raising():
    def log_prob(x):
        raise KeyError("mine")

    return gfnmc.targets.from_function(log_prob, (2,), values=(0, 1))


def all_kinds():
    environment, target = model()
    forward = UniformPolicy(environment, Direction.FORWARD)
    return {"pair": GFlowNet(forward), "policy": forward, "kernel": RandomWalk(environment, target)}


def model_and_pair():
    environment, target = model()
    return environment, target, GFlowNet(UniformPolicy(environment, Direction.FORWARD))


def nothing():
    return 3


def failing():
    raise RuntimeError("no data")


def unknown():
    target = gfnmc.targets.from_function(lambda x: x.sum(1).double(), (40,), values=(0, 1), name="unknown")
    return RandomWalk(gfnmc.environments.Lattice.for_target(target), target)


constant = 5
environment = Queues()
policy = UniformPolicy(environment, Direction.FORWARD)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, with the example and a module of broken things."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(ROOT / "examples" / EXAMPLE, tmp_path)
    (tmp_path / "broken_things.py").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "not_python.py").write_text("def :", encoding="utf-8")
    (tmp_path / "torch.py").write_text("x = 1", encoding="utf-8")
    yield tmp_path
    for name in ("custom_model", "broken_things", "not_python"):
        sys.modules.pop(name, None)


def run(*references: str) -> Result:
    return CliRunner().invoke(main, ["check", *references], catch_exceptions=False)


def test_the_example_passes_every_check() -> None:
    result = run("custom_model.py:model")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("ok   ") for line in lines)
    assert "325 edges of 326 states, 120 objects" in result.stdout
    assert "random walk on queues: invariant to" in result.stdout
    assert "1 broken twin fails (every proposal accepted)" in lines[-2]
    assert "2 broken twins fail (no correction, the correction inverted)" in lines[-1]
    for reference in ("./custom_model.py:Queues", "custom_model:Queues"):
        assert run(reference).stdout.splitlines() == lines[:3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_kernel", "FAIL wrong walk: wrong walk is not invariant under queues"),
        ("wrong_changes", "changes lead back; it must be 1"),
        ("wrong_energy", "FAIL target not a number:"),
        ("raising", "KeyError: 'mine'"),
    ],
)
def test_a_broken_class_fails_and_says_why(name: str, message: str) -> None:
    result = run(f"broken_things.py:{name}", "custom_model:Queues")
    assert result.exit_code == 1, result.output
    assert message in result.stdout
    assert result.stdout.count("FAIL ") == 1
    # The other reference is checked all the same, and each is named.
    assert "custom_model:Queues\nok   Queues: random walks up and down" in result.stdout


def test_every_kind_of_object_has_its_checks() -> None:
    result = run("broken_things:all_kinds")
    assert result.exit_code == 0, result.output
    for line in (
        "ok   GFlowNet: policies agree",
        "ok   forward UniformPolicy: one law",
        "ok   random walk: invariant to",
    ):
        assert line in result.stdout
    # Objects that are no functions are taken as they are, a policy too, which torch lets one call.
    assert run("broken_things:environment").exit_code == 0
    assert "ok   forward UniformPolicy: one law" in run("broken_things:policy").stdout
    assert "ok   suffix resampling on queues" in run("broken_things:model_and_pair").stdout


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("custom_model.py", "is no reference; give module:function or file.py:function"),
        (":model", "is no reference"),
        ("custom_model.py:a b", "is no reference"),
        ("missing.py:model", "there is no file missing.py"),
        ("missing_module:model", "missing_module cannot be imported: ModuleNotFoundError"),
        ("not_python.py:model", "not_python cannot be imported: SyntaxError"),
        ("torch.py:x", "another module is called 'torch' already; rename torch.py"),
        ("custom_model.py:nobody", "has no 'nobody'; it has "),
        ("broken_things.py:failing", "failed with RuntimeError: no data"),
        ("broken_things.py:nothing", "there is nothing to check in an object of type int"),
        ("broken_things.py:constant", "there is nothing to check in an object of type int"),
        ("broken_things.py:unknown", "none of the checks of broken_things.py:unknown could be made"),
    ],
)
def test_bad_references_are_refused_in_one_line(reference: str, message: str) -> None:
    result = run(reference)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_what_cannot_be_checked_is_skipped_and_does_not_fail() -> None:
    result = run("broken_things.py:unknown", "broken_things.py:environment")
    assert result.exit_code == 0
    assert "skip random walk: not checked: random walk on unknown cannot be judged" in result.stdout


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "how-to" / "own-model.md").read_text(encoding="utf-8")
    code = (ROOT / "examples" / EXAMPLE).read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert f"```python\n{code}```" in page
