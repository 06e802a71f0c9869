"""A user's model is found by its reference, and what is not one is refused with what to return."""

import sys
from pathlib import Path

import pytest

from gfnmc.core.errors import OptionError
from gfnmc.environments import Lattice
from gfnmc.experiments.own_model import is_reference, load_model
from gfnmc.targets import Ising

MODULE = """
import gfnmc

target = gfnmc.targets.Ising((2, 2), 0.5)
environment = gfnmc.environments.Lattice.for_target(target)


def model():
    return environment, target


def as_list():
    return [environment, target]


def turned():
    return target, environment


def no_energy():
    return environment, target.log_prob


def three():
    return environment, target, 1


def alone():
    return environment


def failing():
    return gfnmc.targets.Ising((0, 2), 0.5)


class Holder:
    pair = (environment, target)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_things", raising=False)
    (tmp_path / "own_things.py").write_text(MODULE, encoding="utf-8")


@pytest.mark.parametrize("reference", ["own_things.py:model", "own_things:model", "own_things:as_list"])
def test_a_model_is_loaded(reference: str) -> None:
    model = load_model(reference)
    assert model.name == reference
    assert isinstance(model.environment, Lattice) and isinstance(model.target, Ising)
    assert load_model("own_things:Holder.pair").target is sys.modules["own_things"].target


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("turned", "the first that own_things:turned returns is a Ising"),
        ("no_energy", "the second that own_things:no_energy returns is a method"),
        ("three", "gave a tuple of 3; let it return"),
        ("alone", "gave a Lattice; let it return"),
        ("failing", r"own_things:failing\(\) failed with the shape is"),
        ("absent", "own_things has no 'absent'; it has gfnmc, target"),
    ],
)
def test_what_is_no_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_model(f"own_things:{name}")


def test_references_are_told_from_names_of_problems() -> None:
    assert is_reference("model.py:model") and is_reference("module:model")
    assert not is_reference("ising-4x4")
