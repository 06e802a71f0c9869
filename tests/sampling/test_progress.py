"""Progress: silence when asked for, a log line where there is no terminal, a bar where there is one."""

import io
import logging
import re
import sys

import pytest

from gfnmc.environments import HyperGrid
from gfnmc.kernels import RandomWalk
from gfnmc.sampling import progress as module
from gfnmc.sampling import sample
from gfnmc.targets import HyperGrid as HyperGridTarget

KERNEL = RandomWalk(HyperGrid(2, 4), HyperGridTarget(2, 4))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silence_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        sample(KERNEL, num_chains=2, num_samples=3, progress_bar=False)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_elsewhere_than_in_a_terminal_lines_are_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gfnmc"):
        sample(KERNEL, num_chains=2, num_samples=3, num_warmup=4)
    assert capfd.readouterr().out == ""
    assert [record.name for record in caplog.records] == ["gfnmc"]
    said = caplog.messages[0]
    assert said.startswith("sampling, random walk: 7 of 7")
    assert re.search(r"  acceptance [01][.\d]*$", said)
    assert "ETA" not in said


def test_lines_are_seconds_apart_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = iter([0.0, 1.0, 4.9, 5.0, 9.0, 11.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO, logger="gfnmc"), module.progress("work", 100, progress_bar=True) as shown:
        for done in (1, 2, 3, 4, 5, 100):
            shown.update(done, lambda: {"loss": 0.123456, "phase": "warm-up"})
    monkeypatch.undo()
    assert caplog.messages == [
        "work: 3 of 100  1.7 s a step  ETA 2:42  loss 0.1235  phase warm-up",
        "work: 5 of 100  2.2 s a step  ETA 3:29  loss 0.1235  phase warm-up",
        "work: 100 of 100  8.3 steps/s  loss 0.1235  phase warm-up",
    ]


def test_figures_are_asked_for_only_where_they_are_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0)
    for progress_bar in (True, False):
        with module.progress("work", 100, progress_bar=progress_bar) as shown:
            shown.update(7, lambda: asked.append(7) or {})
    assert asked == []


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    pace = module.Pace(10_000, "steps", 0.0)
    assert pace.words(0, 1.0) == ""
    assert pace.words(1_000, 10.0) == "  100 steps/s  ETA 1:30"
    for second in range(11, 80):
        words = pace.words(1_000 + second - 10, float(second))
    assert words == "  1.0 steps/s  ETA 2:28:51"


def test_in_a_terminal_there_is_a_bar_and_its_last_figures_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with module.progress("work [bold]\x1b[31m", 10, progress_bar=True) as shown:
        shown.update(1, lambda: {"loss": 0.7})
        shown.update(10, lambda: {"loss": 0.5, "worst": "[link=x] in\x1b[5m"})
    said = terminal.getvalue()
    assert "work [bold]" in said
    assert "100%" in said
    assert "loss 0.5  worst [link=x] in" in said
    assert "\x1b[5m" not in said


def test_an_error_passes_through_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyError, match="lost"), module.progress("work", 10, progress_bar=True) as shown:
        shown.update(3, dict)
        raise KeyError("lost")
    assert "100%" not in terminal.getvalue()
