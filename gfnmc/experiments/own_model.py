"""A user's own model, found by its name: `module:function`, or `file.py:function`.

The function takes no arguments and returns an environment and a target:

    def model():
        return Subsets(8, 3), gfnmc.targets.from_function(log_prob, (8,))

A module is imported as `python -m` would, a file as `python file.py` would: from the current folder, or the file's own.
So the code of the model runs; a reference is as trustworthy as a program.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gfnmc.core.errors import GfnmcError, OptionError
from gfnmc.environments.base import DiscreteEnvironment
from gfnmc.targets.base import Target

_FORM = "give module:function or file.py:function"


@dataclass(frozen=True)
class Model:
    """What a user's function returned.

    Attributes:
        name: The reference it was found by.
        environment: How objects are built.
        target: Their energy.
    """

    name: str
    environment: DiscreteEnvironment
    target: Target


def is_reference(text: str) -> bool:
    """Say whether a text has the form of a reference; names of built-in problems have no colon."""
    return ":" in text


def load_model(reference: str) -> Model:
    """Return the environment and target of a user's function.

    Args:
        reference: `module:function` or `file.py:function`.

    Raises:
        OptionError: If there is no such module or function, it fails, or it returns something else.
    """
    made = call(load_object(reference), reference)
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise OptionError(f"{reference} gave {_described(made)}; let it return (environment, target)")
    environment, target = made
    if not isinstance(environment, DiscreteEnvironment):
        raise OptionError(
            f"the first that {reference} returns is {_described(environment)}; let it return (environment, target), "
            "the environment a gfnmc.environments.DiscreteEnvironment"
        )
    if not isinstance(target, Target):
        raise OptionError(
            f"the second that {reference} returns is {_described(target)}; let it return (environment, target), the "
            "target a gfnmc.targets.Target, such as gfnmc.targets.from_function makes"
        )
    return Model(reference, environment, target)


def load_object(reference: str) -> Any:
    """Return what a reference names.

    Raises:
        OptionError: If there is no such module, it cannot be imported, or it has no such name.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not all(part.isidentifier() for part in name.split(".")):
        raise OptionError(f"{reference!r} is no reference; {_FORM}")
    found: Any = _imported_file(Path(place)) if place.endswith(".py") else _imported(place, Path())
    for part in name.split("."):
        if not hasattr(found, part):
            raise OptionError(f"{place} has no {name!r}; it has {_public(found)}")
        found = getattr(found, part)
    return found


def call(function: Any, reference: str) -> Any:
    """Call a function without arguments; what is not meant to be called, a policy among it, stays as it is.

    Raises:
        OptionError: If it fails.
    """
    if not callable(function) or isinstance(function, torch.nn.Module):
        return function
    try:
        return function()
    except Exception as error:
        raise OptionError(f"{reference}() failed with {_error(error)}") from error


def _imported_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise OptionError(f"there is no file {path}; {_FORM}")
    module = _imported(path.stem, path.parent)
    if Path(getattr(module, "__file__", None) or "").resolve() != path.resolve():
        raise OptionError(f"another module is called {path.stem!r} already; rename {path}")
    return module


def _imported(name: str, folder: Path) -> ModuleType:
    """Import a module, looked for in a folder first, as for a program that lies there."""
    where = str(folder.resolve())
    if where not in sys.path:
        sys.path.insert(0, where)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise OptionError(f"{name} cannot be imported: {_error(error)}; {_FORM}") from error


def _public(owner: object) -> str:
    return ", ".join(name for name in vars(owner) if not name.startswith("_")) or "no public names"


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _error(error: Exception) -> str:
    return str(error) if isinstance(error, GfnmcError) else f"{type(error).__name__}: {error}"
