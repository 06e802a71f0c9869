"""Files are written whole or not at all, and what cannot work is said before the work."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gfnmc.core import storage
from gfnmc.core.errors import OptionError, StorageError
from gfnmc.report import check_writable, save


@pytest.fixture(params=["save", "check_writable"])
def attempt(request: pytest.FixtureRequest, document: dict[str, Any]) -> Callable[[Path], None]:
    """Both ways to meet a bad path."""
    return check_writable if request.param == "check_writable" else lambda path: save(document, path)


def test_json_round_trips(document: dict[str, Any], tmp_path: Path) -> None:
    save(document, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == document


def test_html_is_the_page(document: dict[str, Any], tmp_path: Path) -> None:
    document["title"] = "a lone surrogate \ud800 and 名前"
    save(document, str(tmp_path / "out.HTML"))
    page = (tmp_path / "out.HTML").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "名前" in page


@pytest.mark.parametrize("name", ["out.pdf", "out", "out.html.gz", ".html"])
def test_other_endings_are_refused_with_advice(attempt: Callable[[Path], None], tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"\.html for the report or \.json"):
        attempt(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no folder .*missing; create it"):
        attempt(tmp_path / "missing" / "out.json")


def test_a_folder_is_not_a_file(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        attempt(tmp_path / "out.json")


def test_a_file_is_not_a_folder(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="not a folder"):
        attempt(tmp_path / "file" / "out.json")


def test_a_name_that_no_file_can_have(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="too long"):
        attempt(tmp_path / ("x" * 300 + ".json"))
    with pytest.raises(StorageError, match="cannot be written"):
        attempt(tmp_path / "a\0b.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.json")
    with pytest.raises(StorageError, match="not a regular file"):
        attempt(tmp_path / "out.json")
    assert stat.S_ISFIFO((tmp_path / "out.json").stat().st_mode)


def test_a_write_protected_file_is_not_replaced(
    attempt: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.json").write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="write-protected"):
        attempt(tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "old"


def test_no_permission(attempt: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with _as_a_user(), pytest.raises(StorageError, match="permission denied; choose another folder"):
        attempt(folder / "out.json")


@contextlib.contextmanager
def _as_a_user() -> Iterator[None]:
    """Give up root, who may write everywhere, for the time of a block."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EACCES, "permission"), (errno.EROFS, "read-only"), (errno.ENOSPC, "disk is full"), (errno.EIO, "another")],
)
def test_what_the_system_refuses_is_explained(
    attempt: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage, "_write_new", refuse)
    with pytest.raises(StorageError, match=advice):
        attempt(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_checking_leaves_nothing_behind_and_touches_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.html")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.json").write_text("old")
    check_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("broken", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, error: BaseException
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "fsync" if broken == "write" else "replace", fail)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        storage.write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_is_complete_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    seen = []
    replace = os.replace

    def spy(source: Path, destination: Path) -> None:
        seen.append((Path(source).read_bytes(), path.read_bytes(), Path(source).parent == path.parent))
        replace(source, destination)

    monkeypatch.setattr(os, "replace", spy)
    storage.write_atomically(path, b"new")
    assert seen == [(b"new", b"old", True)]
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")
def test_permissions_follow_the_umask_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    before = os.umask(0o022)
    try:
        storage.write_atomically(tmp_path / "link.json", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "real.json").stat().st_mode) == 0o644
