"""Files that somebody else made, to do harm: each is a typed error, or loads as inert data; nothing in it runs."""

import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from gfnmc.core.errors import GfnmcError, OptionError, StorageError
from gfnmc.environments import Lattice
from gfnmc.experiments import Plan, find_problem, find_sampler, run_benchmark
from gfnmc.policies import GFlowNet
from gfnmc.targets import Ising
from gfnmc.training import TrainingConfig, load_pair, resume_training, save_pair, train
from tests.training.cases import TINY

TARGET = Ising((2, 2), coupling=0.3)
ENVIRONMENT = Lattice.for_target(TARGET)
# What takes the place of every value of a header in turn.
ODD = (None, True, -1, 10**12, 1e300, float("nan"), "<script>", "../../canary", [], {}, [[]], {"kind": "os.system"})


class Canary:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Return what is made where anything runs; there must be none after the test."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "a hostile file was run"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return sound files: a pair and a checkpoint."""
    folder = tmp_path_factory.mktemp("sound")
    config = TrainingConfig(**TINY)
    result = train(ENVIRONMENT, TARGET, config=config, checkpoint=folder / "checkpoint", progress_bar=False)
    save_pair(result.pair, folder / "pair")
    return {"pair": folder / "pair", "checkpoint": folder / "checkpoint"}


def load(kind: str, path: Path) -> object:
    if kind == "pair":
        return load_pair(path, ENVIRONMENT)
    return resume_training(path, ENVIRONMENT, TARGET, progress_bar=False)


def content(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Return header, tensors and schema of a file."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return json.loads(metadata["header"]), tensors, metadata["schema"]


def write(path: Path, header: Any, tensors: dict[str, torch.Tensor], schema: str) -> None:
    path.write_bytes(safetensors.torch.save(tensors, {"schema": schema, "header": json.dumps(header)}))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value of some plain data, of long lists that of the first."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    if by is _GONE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = by
    return changed


_GONE = object()


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Canary(canary))


def saved_by_torch(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"forward": Canary(canary)}, buffer)
    return buffer.getvalue()


def saved_by_numpy(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped_out_of_its_folder(canary: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../canary", "out")
        archive.writestr(str(canary), "out")
    return buffer.getvalue()


NOT_OURS: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda _: b"",
    "a pickle": pickled,
    "a file of torch": saved_by_torch,
    "a file of numpy": saved_by_numpy,
    "a zip that leaves its folder": zipped_out_of_its_folder,
    "a header longer than the file": lambda _: struct.pack("<Q", 2**40) + b"{}",
    "a header of all memory": lambda _: struct.pack("<Q", 2**63) + b"{}",
    "a header that is no JSON": lambda _: struct.pack("<Q", 4) + b"\xff\xfe{}",
    "a header without end": lambda _: struct.pack("<Q", 9) + b'{"a": {"b',
    "a deep header": lambda _: struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    "tensors outside the file": lambda _: _tensors_of(
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "tensors over each other": lambda _: _tensors_of(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("x", "y")}
    ),
    "no schema": lambda _: safetensors.torch.save({"x": torch.zeros(1)}),
    "another schema": lambda _: safetensors.torch.save({"x": torch.zeros(1)}, {"schema": "<script>", "header": "{}"}),
}


def _tensors_of(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 8


@pytest.mark.parametrize("kind", ["pair", "checkpoint"])
@pytest.mark.parametrize("name", NOT_OURS)
def test_files_of_other_kinds_are_refused(kind: str, name: str, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(NOT_OURS[name](canary))
    with pytest.raises(StorageError, match=r"file"):
        load(kind, path)


@pytest.mark.parametrize("payload", [pickled, saved_by_torch, saved_by_numpy])
def test_the_payloads_are_live(payload: Callable[[Path], bytes], tmp_path: Path) -> None:
    """Negative control: read without care, they run."""
    path = tmp_path / "canary"
    data = io.BytesIO(payload(path))
    if payload is pickled:
        pickle.load(data)  # noqa: S301 - our own canary
    elif payload is saved_by_torch:
        torch.load(data, weights_only=False)
    else:
        np.load(data, allow_pickle=True)
    assert path.exists()


@pytest.mark.parametrize("header", ["", "[]", "null", "{", '"x"', "NaN", "[" * 100_000])
@pytest.mark.parametrize("kind", ["pair", "checkpoint"])
def test_a_header_that_is_no_object_is_refused(files: dict[str, Path], kind: str, header: str, tmp_path: Path) -> None:
    _, tensors, schema = content(files[kind])
    path = tmp_path / "file"
    path.write_bytes(safetensors.torch.save(tensors, {"schema": schema, "header": header}))
    with pytest.raises(StorageError):
        load(kind, path)
    path.write_bytes(safetensors.torch.save(tensors, {"schema": schema}))
    with pytest.raises(StorageError):
        load(kind, path)


def test_a_pair_with_any_value_of_another_kind_is_refused_or_inert(
    files: dict[str, Path], tmp_path: Path, canary: Path
) -> None:
    header, tensors, schema = content(files["pair"])
    path = tmp_path / "pair"
    refused = tried = 0
    for at in places(header):
        for by in (*ODD, _GONE):
            write(path, replaced(header, at, by), tensors, schema)
            tried += 1
            try:
                loaded = load_pair(path, ENVIRONMENT)
            except GfnmcError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1, error
                continue
            assert isinstance(loaded, GFlowNet)
    # What is only shown, such as a name, may be anything.
    assert refused > tried / 3
    assert not canary.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"pair"}


@pytest.mark.parametrize("part", ["config", "progress", "seeds", "cost", "seed", "num_added", "target_name"])
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(files: dict[str, Path], part: str, tmp_path: Path) -> None:
    header, tensors, schema = content(files["checkpoint"])
    path = tmp_path / "checkpoint"
    for by in ("<script>", [], [[]], _GONE):
        write(path, replaced(header, (part,), by), tensors, schema)
        with pytest.raises(GfnmcError):
            load("checkpoint", path)


def test_a_checkpoint_with_any_option_of_another_kind_is_refused_or_goes_on(
    files: dict[str, Path], tmp_path: Path
) -> None:
    header, tensors, schema = content(files["checkpoint"])
    path = tmp_path / "checkpoint"
    for name in header["config"]:
        for by in (None, "<script>", [], {}, -1):
            write(path, replaced(header, ("config", name), by), tensors, schema)
            try:
                load("checkpoint", path)
            except GfnmcError as error:
                assert len(str(error).splitlines()) == 1, error


def test_a_network_larger_than_its_file_takes_no_memory(files: dict[str, Path], tmp_path: Path) -> None:
    header, tensors, schema = content(files["pair"])
    path = tmp_path / "pair"
    write(path, replaced(header, ("policies", "forward", "hidden_size"), 10**7), tensors, schema)
    with pytest.raises(OptionError, match="weights of shape"):
        load("pair", path)
    header, tensors, schema = content(files["checkpoint"])
    write(path, replaced(header, ("config", "hidden_size"), 10**7), tensors, schema)
    with pytest.raises(OptionError, match="weights of shape"):
        load("checkpoint", path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '"<script>"'])
def test_settings_of_a_benchmark_that_are_no_object_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=r"settings\.json is not the JSON file that was written here"):
        run_benchmark(
            [find_problem("ising-4x4")], [find_sampler("random walk")], tmp_path, plan=Plan(budget=9.0), seeds=[0]
        )


def test_tensors_of_odd_names_shapes_and_dtypes_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    header, tensors, schema = content(files["pair"])
    path, first = tmp_path / "pair", next(iter(tensors))
    for change in (
        {"forward.../../canary": torch.zeros(1)},
        {first: tensors[first][..., :-1].contiguous()},
        {first: torch.zeros(0)},
    ):
        write(path, header, tensors | change, schema)
        with pytest.raises(GfnmcError):
            load("pair", path)
    write(path, header, {name: value for name, value in tensors.items() if name != first}, schema)
    with pytest.raises(GfnmcError):
        load("pair", path)
