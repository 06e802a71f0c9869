"""Content of files that somebody else may have written: what does not fit is an error that names the file.

Files of gfnmc hold numbers, JSON and names, and nothing that is run. What is read from them is used as if gfnmc had
written it; where that fails, the file is to blame.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gfnmc.core.errors import GfnmcError, StorageError

# What Python and torch raise where a value is missing, of another type or shape, or too large.
_MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MOST_WORDS = 200


@contextmanager
def foreign_content(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Blame a file for what fails while its content is used.

    Args:
        path: The file.
        what: What it should be, such as "a pair".

    Raises:
        StorageError: If something in the file is missing, or of another type, shape or size than it should be.
    """
    try:
        yield
    except GfnmcError:
        raise
    except _MISFITS as error:
        words = " ".join(str(error).split())[:_MOST_WORDS]
        raise StorageError(
            f"{path} is not {what} as gfnmc writes it ({type(error).__name__}: {words}); get the file anew, or make it "
            "again"
        ) from error
