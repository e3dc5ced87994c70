"""Progress on a terminal, in a log file, and switched off."""

import io
import sys

import pytest

from astri_gpu import progress as module
from astri_gpu.progress import progress


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 11.0, 12.0, 25.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(100, "process", "images") as bar:
        bar.note("run 7")
        for _ in range(4):
            bar.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "process: 20 of 100 images (20 %), 1.818 images/s, 44 s left, run 7",
        "process: 40 of 100 images (40 %), 1.6 images/s, 38 s left, run 7",
    ]


def test_lines_without_a_total(monkeypatch, capsys):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(None, "ingest", "events") as bar:
        bar.advance(10)
    assert capsys.readouterr().err == "ingest: 10 events, 0.5 events/s\n"


def test_nothing_when_switched_off(capsys):
    with progress(10, "x", "images", enabled=False) as bar:
        bar.advance(10)
        bar.note("y")
    assert bar.done == 10
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [50, None])
def test_bar_on_a_terminal(total, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress(total, "process", "images") as bar:
        bar.note("[b]run 7")
        bar.advance(20)
        bar.advance(30)
    assert bar.done == 50
    assert "process" in terminal.getvalue()
