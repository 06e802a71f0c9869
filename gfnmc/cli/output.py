"""What commands print: words for people on standard output, or figures for programs in their place."""

from pathlib import Path
from typing import Any

import click

STANDARD_OUTPUT = Path("-")


class Output:
    """Where a command's words and figures go.

    With `--json -` standard output holds the figures and nothing else; the words go to standard error.

    Args:
        json_file: Where the figures go: a file, "-" for standard output, or None for nowhere.

    Raises:
        StorageError: If the file could not be written.
        OptionError: If it does not end in `.json`.
    """

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file
        if json_file is not None and json_file != STANDARD_OUTPUT:
            _check_json(json_file)

    @property
    def is_for_programs(self) -> bool:
        """Whether standard output is for the figures."""
        return self._json_file == STANDARD_OUTPUT

    def say(self, words: object = "") -> None:
        """Print a line for people."""
        click.echo(words, err=self.is_for_programs)

    def figures(self, figures: Any) -> None:
        """Write the figures, if somebody wants them.

        Args:
            figures: Plain data.

        Raises:
            StorageError: If the file cannot be written.
        """
        from gfnmc.core.storage import write_atomically
        from gfnmc.report.format import json_text

        if self._json_file is None:
            return
        text = json_text(figures) + "\n"
        if self.is_for_programs:
            click.echo(text, nl=False)
            return
        write_atomically(self._json_file, text.encode())
        self.say(f"wrote {self._json_file}")


def _check_json(path: Path) -> None:
    from gfnmc.core.errors import OptionError
    from gfnmc.core.storage import check_writable
    from gfnmc.report.format import plain

    if path.suffix.lower() != ".json":
        raise OptionError(f"{plain(path)} does not end in .json; end it so, or give - for standard output")
    check_writable(path)
