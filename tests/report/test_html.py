"""The page: complete, offline, and inert whatever the document's strings are."""

import base64
import html.parser
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gfnmc.core.errors import OptionError
from gfnmc.report import gallery, render
from gfnmc.report import html as html_module

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></pre><iframe src=https://example.org/>",
)
INLINE = {"span", "tr", "th", "td", "tbody"}
ALLOWED_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "section",
        "article",
        "div",
        "h1",
        "h2",
        "h3",
    ),
    *("p", "ul", "li", "table", "thead", "figure", "img", "figcaption", "dl", "dt", "dd", "pre", "details", "summary"),
    *INLINE,
}


class _Page(html.parser.HTMLParser):
    """Collects the elements, their attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]


def _hostile(value: Any, string: str, *, key: str = "") -> Any:
    """Replace every string of a document, the names in mappings included."""
    if key == "schema":
        return value
    if isinstance(value, dict):
        if key in ("versions", "parts"):
            return {string + str(index): _hostile(item, string) for index, item in enumerate(value.values())}
        return {name: _hostile(item, string, key=name) for name, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item, string) for item in value]
    return string if isinstance(value, str) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


@pytest.fixture
def real_pictures() -> None:
    """Have the pictures drawn."""


@pytest.fixture(autouse=True)
def quick_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one small image in the place of every picture; how they are drawn is tested in test_plots.py."""
    if "real_pictures" in request.fixturenames:
        return

    def picture_of(draw: object, document: object, title: str, caption: str, alternative: str) -> gallery.Picture:
        return gallery.Picture(title, caption, alternative, base64.b64encode(b"\x89PNG").decode())

    for module in (gallery, html_module):
        monkeypatch.setattr(module, "picture_of", picture_of)


@pytest.fixture(scope="module", params=HOSTILE)
def hostile_string(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_string_is_inert(trained_document: dict[str, Any], hostile_string: str) -> None:
    clean, page = _Page(render(trained_document)), _Page(render(_hostile(trained_document, hostile_string)))
    assert {tag for tag, _ in page.elements} <= ALLOWED_TAGS
    # Not one block more than the harmless page has; names that become equal share lines of a table.
    blocks = [[tag for tag, _ in each.elements if tag not in INLINE] for each in (page, clean)]
    assert blocks[0] == blocks[1]
    assert not {name for _, found in page.elements for name in found if name.startswith("on") or name == "href"}
    assert hostile_string in "".join(page.text)


def test_one_hostile_field_at_a_time_is_escaped(document: dict[str, Any]) -> None:
    document["target"]["name"] = "<script>alert(1)</script>"
    document["samplers"][0]["worst"]["r_hat"] = "<b>inf</b>"
    page = render(document)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_nothing_is_fetched_and_nothing_runs(document: dict[str, Any]) -> None:
    text = render(document)
    page = _Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert page.attributes("href") == []
    for forbidden in ("http:", "https:", "//", "url(", "@import", "<script", "<link"):
        assert forbidden not in _without_images(text)
    assert any("default-src 'none'" in content for content in page.attributes("content"))


@pytest.mark.usefixtures("real_pictures")
def test_images_are_pngs_with_words_for_them(document: dict[str, Any]) -> None:
    images = [attributes for tag, attributes in _Page(render(document)).elements if tag == "img"]
    assert len(images) == 9
    for attributes in images:
        data = (attributes["src"] or "").removeprefix("data:image/png;base64,")
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
        assert "hybrid" in (attributes["alt"] or "")


def test_the_verdict_comes_first_and_every_number_is_there(document: dict[str, Any]) -> None:
    text = " ".join("".join(_Page(render(document)).text).split())
    places = [
        text.index(words)
        for words in (
            document["verdict"][0],
            "What the proposal bought",
            "When not to trust this",
            "Comparison",
            "Pictures",
            "Provenance",
        )
    ]
    assert places == sorted(places)
    for words in (*_texts(document["setup"]), document["command"], "0.4967 ± 0.0021", "did not move", "154 M"):
        assert words in text


def test_the_raw_data_can_be_read_back_from_the_page(document: dict[str, Any]) -> None:
    document["target"]["name"] = "</pre><script>"
    text = "".join(_Page(render(document)).text)
    found, _ = json.JSONDecoder().raw_decode(text[text.index('{\n  "schema"') :])
    assert found == document


def test_nulls_and_nothing(document: dict[str, Any]) -> None:
    document["target"].update(log_z=None, modes=[], num_states=None, event_shape=[])
    document.update(command=None, verdict=[])
    document["setup"].update(num_threads=None, versions={})
    for sampler in document["samplers"]:
        sampler.update(modes=[], modes_found=0, total_variation=None, log_z=None, switches_per_1000_steps=None)
        for statistic in sampler["statistics"]:
            statistic.update(mcse=None, exact=None, ess_bulk=None, ess_tail=None, r_hat=None)
    page = render(document)
    assert not re.search(r"\b(None|nan|inf)\b", _without_images(page.partition("<details>")[0]))
    document["samplers"] = []
    assert "Provenance" in render(document)


@pytest.mark.parametrize("num_samplers", [1, 3])
def test_other_numbers_of_samplers(document_of: Callable[[int, int], dict[str, Any]], num_samplers: int) -> None:
    page = _Page(render(document_of(num_samplers, 20)))
    assert sum("card" in value.split() for value in page.attributes("class")) == num_samplers


@pytest.mark.usefixtures("real_pictures")
def test_equal_documents_give_equal_pages(document: dict[str, Any]) -> None:
    assert render(document) == render(document)


def test_a_document_of_another_schema_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"gfnmc\.comparison/1"):
        render({**document, "schema": "gfnmc.comparison/9"})


def _without_images(page: str) -> str:
    first, *rest = page.split("data:image/png;base64,")
    return first + "".join(part.partition('"')[2] for part in rest)
