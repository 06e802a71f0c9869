"""Small files of a run directory that tell whether they are what was written: JSON with a digest of itself."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gfnmc.core.errors import DamageError, StorageError
from gfnmc.core.storage import write_atomically

_SEAL = "digest"


def digest_of(*parts: bytes) -> str:
    """Return a digest of 128 bits, as hexadecimal digits."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def digest_of_array(array: np.ndarray) -> str:
    """Return the digest of an array: of its dtype, its shape and every bit of it."""
    what = f"{array.dtype.str}{array.shape}".encode()
    return digest_of(what, np.ascontiguousarray(array).tobytes())


def sealed(content: dict[str, Any]) -> bytes:
    """Return JSON with a digest of itself."""
    return json.dumps(content | {_SEAL: _digest_of_json(content)}, sort_keys=True, allow_nan=False).encode()


def unsealed(data: bytes, path: Path, part: str) -> dict[str, Any]:
    """Return what `sealed` was given.

    Args:
        data: What it returned.
        path: Where that was read, for errors.
        part: What it is called in an error.

    Raises:
        DamageError: If it is not what was written.
    """
    try:
        content = json.loads(data)
        if content.pop(_SEAL) == _digest_of_json(content):
            return content
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        # Not an object, or no JSON at all.
        pass
    raise DamageError(f"{part} in {path} is damaged: it is not what was written there", part=part)


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file with a digest of itself, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    write_atomically(path, sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a file of `write_sealed`.

    Raises:
        StorageError: If it cannot be read.
        DamageError: If it is not what was written.
    """
    return unsealed(read_bytes(path), path.parent, path.name)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        StorageError: If that cannot be done.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _digest_of_json(content: dict[str, Any]) -> str:
    return digest_of(json.dumps(content, sort_keys=True).encode())
