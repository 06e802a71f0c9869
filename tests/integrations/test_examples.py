"""The programs in examples/integrations/ run, with fewer steps and draws, and are short."""

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "integrations"
_COUNT = re.compile(r"\b(num_steps|nsteps|draws|tune|num_samples|warmup_steps)=\d+")
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    smaller = tmp_path / example.name
    smaller.write_text(_COUNT.sub(r"\1=20", text), encoding="utf-8")
    runpy.run_path(str(smaller), run_name="__main__")
    printed = dict(re.findall(r"^.*, (with the pair|exact): (\S+)$", capsys.readouterr().out, re.MULTILINE))
    assert 0.0 <= float(printed["with the pair"]) <= 1.0
    assert 0.0 <= float(printed["exact"]) <= 1.0
    assert list(tmp_path.iterdir()) == [smaller]
