"""Summaries: one line of text, and a block of HTML that is inert, complete in itself and dark on light."""

import html.parser

import pytest

from gfnmc.core.summary import Grid, Summary, duration, names_and_values, of_size

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m"
TAGS = {"div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}


class Block(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def summary(text: str) -> Summary:
    return Summary(
        text,
        text,
        names_and_values({text: text}),
        said=[text],
        warning=text,
        details={text: Grid((text, text), ((text, text),)), "nothing": Grid((), ())},
    )


def test_everything_is_escaped() -> None:
    block, harmless = Block(summary(HOSTILE).html()), Block(summary("word").html())
    assert set(block.tags) <= TAGS
    assert block.tags == harmless.tags
    assert block.attributes == {"class", "scope"}
    assert "alert(1)" in "".join(block.words)
    assert "\x1b" not in "".join(block.words)


def test_it_needs_no_network_and_its_style_is_its_own() -> None:
    text = summary("word").html()
    for forbidden in ("http", "//", "url(", "@import", "<script", "<link"):
        assert forbidden not in text
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert all(rule.startswith(".gfnmc-summary") for rule in style.split("}") if rule)
    assert "background:#fff" in style


def test_the_text_is_one_line_without_escape_codes() -> None:
    assert summary("a\nb\x1b[31m").text() == "a\nb\x1b[31m(a b [31m)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1234, "0.12 s"), (7.3, "7.3 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (3_900.0, "1 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes() -> None:
    assert [of_size(count, "draw") for count in (0, 1, 1_024)] == ["0 draws", "1 draw", "1,024 draws"]
