"""Live progress: a bar in a terminal, a log line every few seconds elsewhere, nothing when asked to be quiet."""

import logging
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("gfnmc")

_LOG_SECONDS = 5.0
_BAR_SECONDS = 0.1
_PACE_SECONDS = 30.0

Figures = Callable[[], Mapping[str, float | str]]


class Progress(ABC):
    """Where long work says how far it is.

    Attributes:
        is_shown: Whether anybody sees it; if not, nothing needs to be counted for it.
    """

    is_shown: bool = True

    @abstractmethod
    def update(self, done: int, figures: Figures) -> None:
        """Report that `done` units of the total are done; `figures` is called where they will be shown."""


class Pace:
    """How fast work goes, over the last half minute.

    Args:
        total: Units of work in all.
        unit: What they are, in the plural.
        now: Seconds at the start.
        done: Units that are done already.
    """

    def __init__(self, total: int, unit: str, now: float, done: int = 0) -> None:
        self._total, self._unit = total, unit
        self._seen = deque([(now, done)])

    def words(self, done: int, now: float) -> str:
        """Return the rate and the time that is left, such as "12 steps/s  ETA 0:42"; nothing while they are unknown."""
        begun, before = self._seen[0]
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _PACE_SECONDS:
            self._seen.popleft()
        if now <= begun or done <= before:
            return ""
        rate = (done - before) / (now - begun)
        left = "" if done >= self._total else f"  ETA {_duration((self._total - done) / rate)}"
        return f"  {_rate(rate, self._unit)}{left}"


class _Quiet(Progress):
    is_shown = False

    def update(self, done: int, figures: Figures) -> None:
        return


class _Log(Progress):
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._total = title, total
        self._last = time.monotonic()
        self._pace = Pace(total, unit, self._last, done)

    def update(self, done: int, figures: Figures) -> None:
        now = time.monotonic()
        if now - self._last >= _LOG_SECONDS or done >= self._total:
            self._last = now
            pace = self._pace.words(done, now)
            logger.info("%s: %.0f of %.0f%s%s", self._title, done, self._total, pace, _format(figures()))


class _Bar(Progress):
    def __init__(self, bar: Any, task: Any, pace: Pace) -> None:
        self._bar, self._task, self._pace = bar, task, pace
        self._last = -_BAR_SECONDS
        # What came too soon after the update before to be shown.
        self._late: tuple[int, Figures] | None = None

    def update(self, done: int, figures: Figures) -> None:
        now = time.monotonic()
        if now - self._last < _BAR_SECONDS:
            self._late = done, figures
            return
        self._show(done, figures, now)

    def finish(self) -> None:
        """Show the last update."""
        if self._late is not None:
            self._show(*self._late, time.monotonic())

    def _show(self, done: int, figures: Figures, now: float) -> None:
        self._last, self._late = now, None
        words = self._pace.words(done, now) + _format(figures())
        self._bar.update(self._task, completed=done, figures=words)


@contextmanager
def progress(title: str, total: int, *, progress_bar: bool, unit: str = "steps", done: int = 0) -> Iterator[Progress]:
    """Show the progress of a block of work.

    Args:
        title: What is being done.
        total: Units of work in all.
        progress_bar: False shows nothing.
        unit: What the units are, in the plural.
        done: Units that are done already, where work goes on.
    """
    title = _plain(title)
    if not progress_bar:
        yield _Quiet()
        return
    if not sys.stderr.isatty():
        yield _Log(title, total, unit, done)
        return
    load_rich()
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        # Names may hold brackets, which are no markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, figures="")
        shown = _Bar(bar, task, Pace(total, unit, time.monotonic(), done))
        yield shown
        shown.finish()


def load_rich() -> None:
    """Import rich without a trace: while it loads it draws from Python's global generator, which is the user's."""
    state = random.getstate()
    try:
        import rich.style  # noqa: F401
    finally:
        random.setstate(state)


def _format(figures: Mapping[str, float | str]) -> str:
    shown = (f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in figures.items())
    return "".join(f"  {_plain(text)}" for text in shown)


def _rate(rate: float, unit: str) -> str:
    if rate < 1.0:
        return f"{1.0 / rate:.1f} s a {unit.removesuffix('s')}"
    return f"{rate:,.0f} {unit}/s" if rate >= 10.0 else f"{rate:.1f} {unit}/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _plain(text: str) -> str:
    """Return a text without what a terminal would obey: names may come from anywhere."""
    return "".join(character if character.isprintable() else " " for character in text)
