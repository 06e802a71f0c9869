"""Tables in the terminal."""

import sys
from collections.abc import Mapping
from typing import Any

from gfnmc.cli.output import Output


def show_comparison(document: Mapping[str, Any], output: Output) -> None:
    """Print the main table of a comparison, and what it means."""
    from rich.console import Console

    from gfnmc.report import comparison_table, verdict_lines

    stream = sys.stderr if output.is_for_programs else sys.stdout
    console = Console(width=None if stream.isatty() else 100, file=stream)
    console.print(comparison_table(document))
    for line in verdict_lines(document):
        console.print(line, markup=False, highlight=False)
