"""Files that are either the old one or the new one, never half of either.

The bytes go to a temporary file in the same folder, reach the disk, and take the final name in one `os.replace`.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from gfnmc.core.errors import StorageError

_NO_PERMISSION = "{path} cannot be written: permission denied; choose another folder or change its permissions"
_ADVICE = {
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: "{path} cannot be written: the file system is read-only; choose another folder",
    errno.ENOSPC: "{path} cannot be written: the disk is full; free some space or choose another folder",
    errno.EDQUOT: "{path} cannot be written: the disk quota is used up; free some space or choose another folder",
    errno.ENAMETOOLONG: "{path} cannot be written: the file name is too long; choose a shorter one",
    errno.ELOOP: "{path} cannot be written: its symbolic links go in a circle; choose another path",
}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, or leave what was there untouched.

    A symbolic link is followed: the file it points at is replaced, not the link.

    Args:
        path: The file to write; its folder must exist.
        data: The whole content.

    Raises:
        StorageError: If the file cannot be written; no temporary file is left.
    """
    destination = _destination(path)
    temporary = _temporary(destination)
    try:
        _write_new(temporary, data)
        os.replace(temporary, destination)
        _sync_folder(destination.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        # Also on KeyboardInterrupt; after the replace there is nothing under this name.
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what `write_atomically` would raise later, and leave nothing behind.

    A real file is made and removed, because permission bits alone say too little on network and read-only file systems.

    Args:
        path: The file that is to be written once the work is done.

    Raises:
        StorageError: If the file could not be written.
    """
    destination = _destination(path)
    temporary = _temporary(destination)
    try:
        _check_name(destination)
        _write_new(temporary, b"")
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _destination(path: str | os.PathLike[str]) -> Path:
    """Follow links and refuse what can be seen not to be a file in a folder."""
    try:
        destination = Path(os.path.realpath(path))
        if destination.is_dir():
            raise StorageError(f"{path} is a folder; give the name of a file in it")
        if not destination.parent.exists():
            raise StorageError(f"{path} cannot be written: there is no folder {destination.parent}; create it first")
        if not destination.parent.is_dir():
            raise StorageError(f"{path} cannot be written: {destination.parent} is a file, not a folder")
        if destination.exists():
            _check_existing(path, destination)
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise storage_error(path, error) from error
    return destination


def _check_existing(path: str | os.PathLike[str], destination: Path) -> None:
    """Refuse to replace a device, a pipe, or a file that its owner has write-protected."""
    if not destination.is_file():
        raise StorageError(f"{path} is not a regular file and would be replaced by one; choose another name")
    if not os.access(destination, os.W_OK):
        raise StorageError(f"{path} is write-protected; choose another name, or allow writing to it")


def _check_name(destination: Path) -> None:
    """Let the file system say whether it takes this name, which the temporary file's name would not tell."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(destination)


def _temporary(destination: Path) -> Path:
    """Return a fresh name beside the file, short enough whatever the file's own name."""
    return destination.parent / f".gfnmc-{secrets.token_hex(8)}.partial"


def _write_new(path: Path, data: bytes) -> None:
    """Make a file with the permissions that the user's umask gives, and wait until it is on the disk."""
    # tempfile would make it private to the user, and a report is for sharing.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where folders can be synchronised at all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def storage_error(path: str | os.PathLike[str], error: OSError | ValueError) -> StorageError:
    """Say what went wrong with a file and what to do about it."""
    reason = getattr(error, "strerror", None) or str(error)
    advice = _ADVICE.get(getattr(error, "errno", None) or 0, "{path} cannot be written: {reason}; choose another path")
    # Not str(): a path may hold bytes that no terminal can print.
    return StorageError(advice.format(path=_printable(path), reason=reason))


def _printable(path: str | os.PathLike[str]) -> str:
    return "".join(character if character.isprintable() else "?" for character in os.fspath(path))
