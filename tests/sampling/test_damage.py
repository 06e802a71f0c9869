"""What is not what was written is named, and never used; files of others execute nothing."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

from gfnmc.core.errors import DamageError, StorageError
from gfnmc.kernels import RandomWalk
from gfnmc.sampling import Chains, Store, open_run, resume, sample
from gfnmc.sampling.block_log import EMPTY_DIGEST, line_of, read_lines
from gfnmc.sampling.checked_files import read_sealed, sealed, write_sealed
from tests.sampling.cases import GRID, GRID_TARGET, assert_same_chains, assert_same_draws, is_prefix

WALK = RandomWalk(GRID, GRID_TARGET)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    options = {"num_chains": 3, "num_samples": 7, "num_warmup": 2, "progress_bar": False}
    sample(WALK, store=Store(path, block_size=3), **options)
    return path


@pytest.fixture(scope="module")
def whole(made: Path) -> Chains:
    chains = open_run(made, GRID_TARGET)
    assert (chains.num_warmup, chains.num_samples) == (2, 7)
    return chains


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def is_safe(path: Path, whole: Chains) -> bool:
    """Whether a run is refused with an error that is typed; otherwise it must be the run that was written."""
    try:
        chains = open_run(path, GRID_TARGET)
    except StorageError:
        return True
    assert_same_chains(chains, whole)
    return False


@pytest.mark.parametrize("harm", [flipped, truncated, None], ids=["a bit", "the end", "all"])
def test_damage_to_any_file_is_seen_or_does_no_harm(
    harm: Callable[[bytes, random.Random], bytes] | None, copy: Path, whole: Chains
) -> None:
    rng = random.Random(5)  # noqa: S311
    seen = {}
    for path in sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size):
        data = path.read_bytes()
        if harm is None:
            path.unlink()
        else:
            path.write_bytes(harm(data, rng))
        seen[path] = is_safe(copy, whole)
        path.write_bytes(data)
    chunks = [path for path in seen if "c" in path.relative_to(copy).parts]
    assert len(chunks) > 30
    # A chunk of fewer draws than it has room for, or of a frame with bits that mean nothing, may be harmed in vain.
    assert sum(seen[path] for path in chunks) > 0.8 * len(chunks)
    needed = [copy / name for name in ("manifest.json", "commit.json", "blocks.jsonl", "start.safetensors")]
    assert all(seen[path] for path in needed)
    assert_same_chains(open_run(copy, GRID_TARGET), whole)


def test_without_digests_damage_would_go_through(copy: Path, whole: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    array = zarr.open_array(copy / "draws.zarr", path="posterior/x", mode="r+")
    array[:, 3:6] = (array[:, 3:6] + 1) % 8
    assert is_safe(copy, whole)
    monkeypatch.setattr("gfnmc.sampling.arrays.digest_of", lambda data: Agreeing())
    with pytest.raises(AssertionError):
        is_safe(copy, whole)


class Agreeing:
    """A digest that agrees with every other."""

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_a_damaged_block_is_named_and_what_is_before_it_can_be_read(copy: Path, whole: Chains) -> None:
    (chunk,) = (
        path for path in (copy / "draws.zarr" / "posterior" / "x" / "c" / "0" / "1").rglob("*") if path.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(DamageError, match=r"block 1 of the samples is damaged in .*posterior/x") as caught:
        open_run(copy, GRID_TARGET)
    assert caught.value.part == "block 1 of the samples"
    cut = open_run(copy, GRID_TARGET, damaged="cut")
    assert (cut.num_warmup, cut.num_samples) == (2, 3)
    assert is_prefix(cut.samples, whole.samples)
    assert_same_draws(cut.warmup, whole.warmup)
    assert cut.to_arviz().attrs["damaged"] == "block 1 of the samples"
    # A block that is damaged after it was looked at is not used either.
    again = open_run(copy, GRID_TARGET, damaged="cut")
    first = next(
        path for path in (copy / "draws.zarr" / "posterior" / "x" / "c" / "0" / "0").rglob("*") if path.is_file()
    )
    first.write_bytes(b"rubbish")
    with pytest.raises(DamageError, match="block 0 of the samples"):
        again.x.sum()


def test_a_damaged_log_is_cut_at_the_line(copy: Path, whole: Chains) -> None:
    log = copy / "blocks.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], lines[2].replace(b"samples", b"sampled"), *lines[3:]]))
    with pytest.raises(DamageError, match=r"line 3 of blocks\.jsonl"):
        open_run(copy, GRID_TARGET)
    cut = open_run(copy, GRID_TARGET, damaged="cut")
    assert (cut.num_warmup, cut.num_samples) == (2, 3)
    assert "blocks.jsonl, after 3 draws of the samples" in str(cut.remarks["damaged"])
    # Sound lines in another order are no log.
    log.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(DamageError, match="does not follow the line before it"):
        open_run(copy, GRID_TARGET)
    log.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DamageError, match="shorter than it was"):
        open_run(copy, GRID_TARGET)


def test_a_damaged_state_is_not_gone_on_from(copy: Path) -> None:
    (state,) = copy.glob("state-*.safetensors")
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(bytes(data))
    with pytest.raises(DamageError, match=rf"{state.name} in .* is damaged"):
        resume(copy, WALK, num_samples=9, progress_bar=False)


@pytest.mark.parametrize("state", ["../../secret.safetensors", "/etc/passwd", "manifest.json", "state-1.safetensors/x"])
def test_a_commit_leads_nowhere_else(state: str, copy: Path) -> None:
    write_sealed(copy / "commit.json", read_sealed(copy / "commit.json") | {"state": state})
    with pytest.raises(DamageError, match="names"):
        resume(copy, WALK, progress_bar=False)


class Executed(Exception):
    """What hostile bytes would raise if somebody ran them."""


def explode() -> None:
    raise Executed


def test_arrays_of_others_execute_nothing(copy: Path) -> None:
    """zarr's older format knows a codec that unpickles; nothing that says so is asked what a chunk is."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return explode, ()

    bomb = pickle.dumps(Bomb())
    with pytest.raises(Executed):
        pickle.loads(bomb)  # noqa: S301
    folder = copy / "draws.zarr" / "posterior" / "x"
    old = {"zarr_format": 2, "shape": [3, 9, 2], "chunks": [3, 3, 2], "dtype": "|O", "fill_value": None, "order": "C"}
    old |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (folder / ".zarray").write_text(json.dumps(old), encoding="utf-8")
    (folder / "zarr.json").unlink()
    for chunk in folder.rglob("c/0/*/0"):
        chunk.write_bytes(bomb)
    with pytest.raises(DamageError, match="block 0 of the samples"):
        open_run(copy, GRID_TARGET)
    # Nor where the log says that objects of Python are to be made.
    blocks, error = read_lines((copy / "blocks.jsonl").read_bytes(), copy / "blocks.jsonl")
    assert error is None
    lines, digest = b"", EMPTY_DIGEST
    for block in blocks:
        parts = {name: [*("|O", part[1], part[2])] for name, part in block.parts.items()}
        line, digest = line_of(block._replace(parts=parts), digest)
        lines += line
    (copy / "blocks.jsonl").write_bytes(lines)
    changed = {"log_bytes": len(lines), "log_digest": digest}
    write_sealed(copy / "commit.json", read_sealed(copy / "commit.json") | changed)
    with pytest.raises(DamageError, match="it would hold object"):
        open_run(copy, GRID_TARGET)


def test_what_is_no_json_of_ours_is_refused(copy: Path) -> None:
    for text in (b"", b"[]", b"{}", b"null", b"[" * 5_000, b"\xff\xfe", b'{"digest": 3}', sealed({"schema": "other"})):
        (copy / "manifest.json").write_bytes(text)
        with pytest.raises(StorageError):
            open_run(copy, GRID_TARGET)
