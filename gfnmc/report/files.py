"""Comparisons in files: a page or the data, whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from gfnmc.core import storage
from gfnmc.core.errors import OptionError
from gfnmc.report import format as fmt
from gfnmc.report.html import render

_SUFFIXES = (".html", ".json")


def save(document: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a comparison: the page to a `.html` file, the data to a `.json` file.

    Args:
        document: The comparison as data.
        path: The file; one that exists is replaced as a whole.

    Raises:
        OptionError: If the path ends otherwise, or a page is asked of a document that is not a comparison.
        StorageError: If the file cannot be written; what was there is untouched.
    """
    text = render(document) if _suffix(path) == ".html" else fmt.json_text(document) + "\n"
    # A lone surrogate, which a file name can put into a title, must not cost the report.
    storage.write_atomically(path, text.encode("utf-8", "backslashreplace"))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise, before long work starts, what `save` would raise after it.

    Args:
        path: The file that the result is to be saved to; nothing is left behind.

    Raises:
        OptionError: If the path does not end in `.html` or `.json`.
        StorageError: If the file could not be written.
    """
    _suffix(path)
    storage.check_writable(path)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = PurePath(path).suffix.lower()
    if suffix not in _SUFFIXES:
        ending = f"ends in {suffix!r}" if suffix else "has no ending"
        raise OptionError(f"{fmt.plain(path)} {ending}; end it in .html for the report or .json for the numbers")
    return suffix
