"""What the documentation shows runs, and what it links to exists.

The blocks of a page run in the order in which a reader meets them, in one folder and one namespace, with fewer steps
and draws. The programs in examples/ run as they are.
"""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from gfnmc.cli import main
from gfnmc.training import TrainingConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("gfnmc/**/*.md")])
# A model alone is no program; tests/cli/test_check.py and test_benchmark.py run it.
EXAMPLES = [path for path in sorted(ROOT.glob("examples/*.py")) if "__main__" in path.read_text(encoding="utf-8")]
# What imports torchgfn runs where it is installed, as it is in CI.
_TORCHGFN = re.compile(r"^from gfn\.", re.MULTILINE)

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
_COUNT = re.compile(r"\b(num_steps|num_samples|num_warmup)=([\d_]+)")
_MOST = {"num_steps": 25, "num_samples": 20, "num_warmup": 10}
_TINY = {
    "benchmark": ["--steps", "4", "--chains", "4", "--samples", "16", "--seconds", "0.2", "--seeds", "1"],
    "check": [],
    # The others get the calls that training took; more chains spend them in fewer steps.
    "compare": ["--steps", "4", "--chains", "128", "--samples", "16", "--warmup", "4", "--quiet"],
    "report": [],
    "resume": ["--quiet"],
    "sample": ["--chains", "4", "--samples", "16", "--warmup", "4", "--quiet"],
    "targets": [],
    "train": ["--steps", "4", "--quiet"],
}


def _runs_here(path: Path) -> bool:
    return bool(find_spec("gfn")) or not _TORCHGFN.search(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(page: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the language, the text and the line of each block of code."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield match[1], match[2], text.count("\n", 0, match.start()) + 1


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each line that calls gfnmc, continued lines joined and comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["gfnmc"]:
            yield words[1:]


def _small(text: str) -> str:
    return _COUNT.sub(lambda found: f"{found[1]}={min(int(found[2]), _MOST[found[1]])}", text)


def _run_small(arguments: list[str]) -> None:
    is_new = "--help" not in arguments and "--version" not in arguments
    tiny = _TINY[arguments[0]] if is_new else []
    if "--resume" in arguments or ("--pair" in arguments and arguments[0] == "compare"):
        tiny = tiny[2:]
    result = CliRunner().invoke(main, [*arguments, *tiny], catch_exceptions=False)
    # 1: the work was done, but with so few draws nothing converges.
    assert result.exit_code in (0, 1), result.output


@pytest.mark.parametrize("page", [page for page in PAGES if any(_blocks(page)) and _runs_here(page)], ids=_name)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, object] = {"__name__": "documentation"}
    for language, text, line in _blocks(page):
        if language == "python":
            # Blank lines before the block, so that a traceback names the line of the page.
            code = compile("\n" * line + _small(text), _name(page), "exec")
            exec(code, namespace)  # noqa: S102 - our own pages
        elif language == "bash":
            for arguments in _commands(text):
                _run_small(arguments)


@pytest.mark.parametrize("example", [path for path in EXAMPLES if _runs_here(path)], ids=_name)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::UserWarning", str(example)]
    found = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("hybrid: ")
    assert [path.suffix for path in tmp_path.iterdir()] == [".html"]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link, anchor in _LINK.findall(text):
        if "://" in link:
            continue
        found = page if not link else (page.parent / link).resolve()
        assert found.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(found), f"{link}#{anchor} leads to no heading"


def test_every_page_of_the_documentation_is_listed() -> None:
    listed = {link for link, _ in _LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))}
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert pages - {"README.md"} <= listed


def _named_in_code(page: Path) -> set[str]:
    """Return what stands in backquotes in the tables of a page."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize(
    "module",
    ["", "targets", "environments", "policies", "objectives", "kernels", "diagnostics", "training", "testing"],
)
def test_the_library_page_lists_every_public_name(module: str) -> None:
    public = importlib.import_module(f"gfnmc.{module}" if module else "gfnmc").__all__
    assert set(public) - _named_in_code(ROOT / "docs" / "reference" / "library.md") == set()


def test_the_training_page_lists_every_option() -> None:
    named = _named_in_code(ROOT / "docs" / "reference" / "training.md")
    assert set(TrainingConfig().to_dict()) - named == set()
    # Negative control: a name that is no option is not there.
    assert "anneal_from" not in named


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
