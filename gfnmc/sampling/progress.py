"""Live progress: a bar in a terminal, a log line every few seconds elsewhere, nothing when asked to be quiet."""

import logging
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("gfnmc")

_LOG_SECONDS = 5.0
_BAR_SECONDS = 0.1


class Progress(ABC):
    """Where long work says how far it is."""

    @abstractmethod
    def update(self, done: int, **figures: float | str) -> None:
        """Report that `done` units of the total are done, with the figures worth showing."""


class _Quiet(Progress):
    def update(self, done: int, **figures: float | str) -> None:
        return


class _Log(Progress):
    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._last = time.monotonic()

    def update(self, done: int, **figures: float | str) -> None:
        now = time.monotonic()
        if now - self._last >= _LOG_SECONDS or done >= self._total:
            self._last = now
            logger.info("%s: %.0f of %.0f%s", self._title, done, self._total, _format(figures))


class _Bar(Progress):
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._last = 0.0

    def update(self, done: int, **figures: float | str) -> None:
        now = time.monotonic()
        if now - self._last >= _BAR_SECONDS:
            self._last = now
            self._bar.update(self._task, completed=done, figures=_format(figures))


@contextmanager
def progress(title: str, total: int, *, progress_bar: bool) -> Iterator[Progress]:
    """Show the progress of a block of work.

    Args:
        title: What is being done.
        total: Units of work in all.
        progress_bar: False shows nothing.
    """
    if not progress_bar:
        yield _Quiet()
        return
    if not sys.stderr.isatty():
        yield _Log(title, total)
        return
    load_rich()
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, figures="")
        yield _Bar(bar, task)
        bar.update(task, completed=total)


def load_rich() -> None:
    """Import rich without a trace: while it loads it draws from Python's global generator, which is the user's."""
    state = random.getstate()
    try:
        import rich.style  # noqa: F401
    finally:
        random.setstate(state)


def _format(figures: dict[str, float | str]) -> str:
    shown = (f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in figures.items())
    return "".join(f"  {text}" for text in shown)
