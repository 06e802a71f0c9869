"""The draws of a run directory: a zarr store, with a chunk of each array for a block of draws of all chains.

Groups and variables are named as ArviZ names them, so that other programs read the store of a finished run as well.
The arrays are made by zarr; chunks are written and read here, since zarr takes ten times as long for the small ones. A
chunk is the little-endian bytes of the array behind zstd, and is written whole: one that was written before it was full
is replaced by itself and more.
"""

import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnmc.core.errors import DamageError, StorageError
from gfnmc.core.storage import storage_error
from gfnmc.sampling.block_log import Block, Part
from gfnmc.sampling.chains import Record
from gfnmc.sampling.checked_files import digest_of

PHASES = ("warmup", "samples")
_PREFIX = {"warmup": "warmup_", "samples": ""}
_FIELDS = {"position": "posterior/x", "log_prob": "sample_stats/lp", "seconds": "sample_stats/seconds"}
_STATS = "sample_stats/"
_ZSTD_LEVEL = 3


class DrawArrays:
    """Writes blocks of draws, and reads them again.

    Args:
        path: The zarr store.
        block_size: Draws a chunk holds.
    """

    def __init__(self, path: Path, block_size: int) -> None:
        # The draws may be read after the process has gone to another folder.
        self.path = path.absolute()
        self._block_size = block_size
        self._made: dict[str, Any] = {}

    def write(self, phase: str, number: int, record: Record, capacity: int) -> Block:
        """Write a block, or write it anew with more draws in it.

        Args:
            phase: "warmup" or "samples".
            number: Blocks of the phase before it.
            record: Its draws.
            capacity: Draws of the phase to make room for.

        Raises:
            StorageError: If it cannot be written.
        """
        parts = {}
        for name, value in _named(record):
            path = _array_path(phase, name)
            try:
                self._make_room(path, value, (number + 1) * self._block_size, capacity)
                self._write_chunk(self._chunk(path, number, value.ndim), value)
            except OSError as error:
                raise storage_error(self.path / path, error) from error
            parts[name] = Part(value.dtype.str, list(value.shape), digest_of(value.tobytes()))
        return Block(phase, number, record.log_prob.shape[1], parts)

    def check(self, block: Block) -> None:
        """Read a block and compare it with what was written.

        Raises:
            DamageError: If it is not that.
        """
        for name in block.parts:
            self._read_chunk(block, name)

    def read(self, blocks: list[Block], name: str) -> Any:
        """Return one attribute of the record of some blocks that follow each other.

        Args:
            blocks: One at least.
            name: "position", "log_prob", "stats" or "seconds".

        Raises:
            DamageError: If a block is not what was written.
        """
        if name == "stats":
            stored = [stored for stored in blocks[0].parts if stored not in _FIELDS]
            return {urllib.parse.unquote(name): self._joined(blocks, name) for name in stored}
        return self._joined(blocks, name)

    def cut(self, lengths: dict[str, int]) -> None:
        """Make every array as long as its phase, so that other programs see nothing but draws.

        Raises:
            StorageError: If that cannot be written.
        """
        import zarr

        try:
            for phase, length in lengths.items():
                for group in (f"{_PREFIX[phase]}posterior", f"{_PREFIX[phase]}sample_stats"):
                    if (self.path / group).exists():
                        for _, array in zarr.open_group(self.path / group, mode="r+").arrays():
                            _resize(array, length)
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._made.clear()

    def _make_room(self, path: str, value: np.ndarray, end: int, capacity: int) -> None:
        """Make an array, or make it long enough."""
        array = self._made.get(path)
        if array is None:
            array = self._made[path] = self._open(path, value, end)
        length = array.shape[_draw_axis(array.ndim)]
        if length < end:
            # zarr looks at every chunk when it changes the length, so not for every block.
            _resize(array, max(end, min(2 * length, -(-capacity // self._block_size) * self._block_size)))

    def _open(self, path: str, value: np.ndarray, length: int) -> Any:
        import zarr
        from zarr.codecs import BytesCodec, ZstdCodec

        root = zarr.open_group(self.path, mode="a", zarr_format=3)
        if path in root:
            return root[path]
        axis = _draw_axis(value.ndim)
        dims = [*("chain", "draw")[1 - axis :], *(f"x_dim_{place}" for place in range(value.ndim - axis - 1))]
        return root.create_array(
            path,
            shape=self._with_draws(value, length),
            chunks=self._with_draws(value, self._block_size),
            dtype=value.dtype,
            serializer=BytesCodec(endian="little"),
            compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=False),
            dimension_names=dims,
            fill_value=0,
        )

    def _write_chunk(self, path: Path, value: np.ndarray) -> None:
        """Write a chunk in one `os.replace`; what is behind its draws is 0."""
        from numcodecs import Zstd

        whole = np.zeros(self._with_draws(value, self._block_size), value.dtype)
        whole[(slice(None),) * _draw_axis(value.ndim) + (slice(value.shape[_draw_axis(value.ndim)]),)] = value
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.partial")
        part.write_bytes(Zstd(level=_ZSTD_LEVEL).encode(whole))
        os.replace(part, path)

    def _joined(self, blocks: list[Block], name: str) -> Tensor:
        chunks = [torch.from_numpy(self._read_chunk(block, name)) for block in blocks]
        return torch.cat(chunks, _draw_axis(chunks[0].dim()))

    def _read_chunk(self, block: Block, name: str) -> np.ndarray:
        path = _array_path(block.phase, name)
        try:
            value = self._decoded(path, block, Part(*block.parts[name]))
        except MemoryError:
            raise
        except Exception as error:
            # Whatever becomes of bytes that are not ours.
            raise DamageError(
                f"{block.name} is damaged in {self.path / path}: {error}. Read what is before it with "
                "load_run(..., damaged='cut'), or make the run again from its seed",
                part=block.name,
            ) from error
        return value

    def _decoded(self, array: str, block: Block, part: Part) -> np.ndarray:
        """Return the draws of a chunk.

        Raises:
            StorageError: If it is not what was written there.
        """
        from numcodecs import Zstd

        dtype, shape = np.dtype(part.dtype), tuple(part.shape)
        if dtype.kind not in "biuf":
            raise StorageError(f"it would hold {dtype}, which gfnmc does not write")
        axis, expected = _draw_axis(len(shape)), list(shape)
        expected[axis] = self._block_size
        data = self._chunk(array, block.number, len(shape)).read_bytes()
        whole = np.frombuffer(Zstd().decode(data), dtype).reshape(expected)
        value = np.ascontiguousarray(whole[(slice(None),) * axis + (slice(shape[axis]),)]).copy()
        if digest_of(value.tobytes()) != part.digest:
            raise StorageError("it is not what was written there")
        return value

    def _chunk(self, array: str, number: int, num_dims: int) -> Path:
        """Return the file of a chunk, as zarr names it."""
        place = [0] * num_dims
        place[_draw_axis(num_dims)] = number
        return self.path.joinpath(array, "c", *map(str, place))

    @staticmethod
    def _with_draws(value: np.ndarray, num_draws: int) -> tuple[int, ...]:
        """Return the shape of an array with another number of draws."""
        axis = _draw_axis(value.ndim)
        return (*value.shape[:axis], num_draws, *value.shape[axis + 1 :])


def _draw_axis(num_dims: int) -> int:
    """Return the dimension that counts draws: chains come first, where there are any."""
    return min(num_dims - 1, 1)


def _resize(array: Any, length: int) -> None:
    axis = _draw_axis(array.ndim)
    if array.shape[axis] != length:
        array.resize((*array.shape[:axis], length, *array.shape[axis + 1 :]))


def _named(record: Record) -> Iterator[tuple[str, np.ndarray]]:
    for name in _FIELDS:
        yield name, _little_endian(getattr(record, name))
    for name, value in record.stats.items():
        yield _stored_stat(name), _little_endian(value)


def _little_endian(value: Tensor) -> np.ndarray:
    array = np.ascontiguousarray(value.cpu().numpy())
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _array_path(phase: str, name: str) -> str:
    return _PREFIX[phase] + _FIELDS.get(name, _STATS + name)


def _stored_stat(name: str) -> str:
    """Return a name of `stats` as a file may be called, and as nothing else here is."""
    quoted = urllib.parse.quote(name, safe=" []()+,=|'")
    is_taken = quoted in ("lp", *_FIELDS) or quoted[:1] in (".", "_") or quoted.startswith("zarr.json")
    return f"%{ord(quoted[0]):02X}{quoted[1:]}" if is_taken else quoted
