"""Content that somebody else may have written: the file is blamed, and nothing else is hidden."""

import pytest

from gfnmc.core.errors import OptionError, StorageError
from gfnmc.core.foreign import foreign_content


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), RuntimeError("x"), AssertionError()])
def test_what_does_not_fit_blames_the_file(error: Exception) -> None:
    with (
        pytest.raises(StorageError, match="here is not a pair as gfnmc writes it") as raised,
        foreign_content("here", "a pair"),
    ):
        raise error
    assert raised.value.__cause__ is error


def test_long_words_are_cut_and_on_one_line() -> None:
    with pytest.raises(StorageError) as raised, foreign_content("here", "a pair"):
        raise ValueError("a\nb " * 1_000)
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [OptionError("x"), KeyboardInterrupt()])
def test_errors_of_our_own_and_interruptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign_content("here", "a pair"):
        raise error
    assert raised.value is error
