"""Run directories that somebody else made, with digests that are right: typed errors or inert data, nothing runs.

Damage by accident, and chunks of others, are in tests/sampling/test_damage.py.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from gfnmc.core.errors import GfnmcError, OptionError
from gfnmc.experiments import compare_runs, kernel_of_run, load_run
from gfnmc.report import render
from gfnmc.sampling import sample
from gfnmc.sampling.checked_files import read_sealed, write_sealed
from tests.faults.test_hostile_files import ODD, places, replaced
from tests.sampling.cases import GRID_TARGET
from tests.sampling.test_damage import WALK

CODE = "from pathlib import Path\n\nPath('canary').write_text('ran')\n\n\ndef model():\n    raise RuntimeError\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "run"
    sample(WALK, num_chains=3, num_samples=8, num_warmup=2, store=path, progress_bar=False)
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.mark.parametrize("name", ["manifest.json", "commit.json"])
def test_any_value_of_another_kind_is_refused_or_inert(run: Path, name: str, tmp_path: Path) -> None:
    sound = read_sealed(run / name)
    tried = refused = 0
    for at in places(sound):
        for by in ODD[::2]:
            if isinstance(by, float) and not abs(by) < 1e308:
                # Strict JSON has no NaN.
                continue
            write_sealed(run / name, replaced(sound, at, by))
            tried += 1
            try:
                chains = load_run(run, GRID_TARGET)
                assert chains.samples.position.shape[0] == chains.num_chains
            except GfnmcError:
                refused += 1
    assert refused > tried / 4
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


def test_code_that_a_manifest_names_is_not_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    Path("evil.py").write_text(CODE, encoding="utf-8")
    for name in ("evil.py:model", "evil:model", "os:getcwd"):
        write_sealed(run / "manifest.json", read_sealed(run / "manifest.json") | {"problem": name})
        for read in (load_run, kernel_of_run, lambda path: compare_runs([path])):
            with pytest.raises(OptionError):
                read(run)
    assert not Path("canary").exists()


def test_a_report_of_a_run_with_hostile_names_is_inert(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)<"
    shutil.copytree(made, folder)
    manifest = read_sealed(folder / "manifest.json")
    changed: dict[str, Any] = copy.deepcopy(manifest)
    changed["made_by"]["kernel"]["name"] = "<img src=x onerror=alert(2)>"
    write_sealed(folder / "manifest.json", changed)
    page = render(compare_runs([folder], GRID_TARGET, title="</title><script>").document)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
