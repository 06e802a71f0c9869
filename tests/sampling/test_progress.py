"""Progress: silence when asked for, a log line where there is no terminal, a bar where there is one."""

import io
import logging
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
    assert caplog.messages[0].startswith("sampling, random walk: 7 of 7  acceptance ")


def test_lines_are_seconds_apart(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 1.0, 4.9, 5.0, 9.0, 11.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO, logger="gfnmc"), module.progress("work", 100, progress_bar=True) as shown:
        for done in (1, 2, 3, 4, 5, 100):
            shown.update(done, loss=0.123456, phase="warm-up")
    monkeypatch.undo()
    assert caplog.messages == [
        "work: 3 of 100  loss 0.1235  phase warm-up",
        "work: 5 of 100  loss 0.1235  phase warm-up",
        "work: 100 of 100  loss 0.1235  phase warm-up",
    ]


def test_in_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with module.progress("work", 10, progress_bar=True) as shown:
        shown.update(10, loss=0.5)
    assert "work" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert "loss 0.5" in terminal.getvalue()


def test_an_error_passes_through_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyError, match="lost"), module.progress("work", 10, progress_bar=True) as shown:
        shown.update(3)
        raise KeyError("lost")
    assert "100%" not in terminal.getvalue()
