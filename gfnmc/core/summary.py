"""What an object says of itself, in one line of text and as a plain block of HTML for notebooks.

The block needs no script and no network, carries its style under a class of its own, and is dark on light whatever the
page around it. Everything in it is escaped.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_STYLE = (
    ".gfnmc-summary{background:#fff;color:#1b2430;border:1px solid #dfe4ea;border-radius:6px;padding:.7em 1em;"
    "max-width:60em;overflow-x:auto;font:14px/1.5 system-ui,sans-serif}"
    ".gfnmc-summary p{margin:0 0 .4em;color:#1b2430}"
    ".gfnmc-summary .title{font-weight:600}"
    ".gfnmc-summary .warning{color:#8c1d18}"
    ".gfnmc-summary table{border-collapse:collapse;margin:.2em 0 .5em;background:#fff;color:#1b2430}"
    ".gfnmc-summary th,.gfnmc-summary td{padding:.15em .9em .15em 0;text-align:left;vertical-align:top;border:0;"
    "background:#fff;color:#1b2430;overflow-wrap:anywhere}"
    ".gfnmc-summary th{font-weight:400;color:#566270}"
    ".gfnmc-summary summary{cursor:pointer;color:#566270}"
)


@dataclass(frozen=True)
class Grid:
    """A small table.

    Attributes:
        columns: Headings; none for a table of names and values.
        rows: The lines, a text for each cell.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Summary:
    """What is worth knowing of an object at a glance.

    Attributes:
        name: The class.
        line: The rest of the one line.
        said: Sentences, shown in HTML only.
        warning: What must not be overlooked, or None.
        figures: The main table.
        details: Tables that are folded away, by title.
    """

    name: str
    line: str
    figures: Grid
    said: Sequence[str] = ()
    warning: str | None = None
    details: Mapping[str, Grid] | None = None

    def text(self) -> str:
        """Return the one line."""
        return f"{self.name}({_plain(self.line)})"

    def html(self) -> str:
        """Return the block of HTML."""
        parts = [f'<p class="title">{_escaped(self.name)}: {_escaped(self.line)}</p>']
        if self.warning is not None:
            parts.append(f'<p class="warning">{_escaped(self.warning)}</p>')
        parts += [f"<p>{_escaped(sentence)}</p>" for sentence in self.said]
        parts.append(_table(self.figures))
        for title, grid in (self.details or {}).items():
            parts.append(f"<details><summary>{_escaped(title)}</summary>{_table(grid)}</details>")
        return f'<div class="gfnmc-summary"><style>{_STYLE}</style>{"".join(parts)}</div>'


def names_and_values(values: Mapping[str, str]) -> Grid:
    """Return a table of two columns."""
    return Grid((), tuple(values.items()))


def of_size(count: int, noun: str) -> str:
    """Return such as "1 chain" or "1,024 chains"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return such as "0.42 s", "37 s" or "2 min 05 s"."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _table(grid: Grid) -> str:
    if not grid.rows:
        return ""
    head = "".join(f'<th scope="col">{_escaped(column)}</th>' for column in grid.columns)
    lines = []
    for first, *rest in grid.rows:
        cells = "".join(f"<td>{_escaped(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{_escaped(first)}</th>{cells}</tr>')
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{''.join(lines)}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(_plain(text))


def _plain(text: str) -> str:
    """Return a text on one line, with nothing in it that a terminal would obey."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
