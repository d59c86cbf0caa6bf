"""How far long work is: on a terminal, or in lines where they were asked for, and nowhere else."""

import io
import sys
import time

import pytest

from npgemma.base import progress
from npgemma.base.progress import Progress, duration


class Terminal(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def work(clock, seconds=10):
    """Ten seconds of work."""
    with Progress("computing") as tell:
        for second in range(1, seconds + 1):
            clock[0] += 1
            tell(second, seconds)


def test_a_terminal_is_told_what_how_far_and_how_long_and_is_left_as_it_was(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.delenv("TERM", raising=False)
    work(clock)
    drawn = [line.strip() for line in stream.getvalue().split("\r") if line.strip()]
    assert drawn[0] == "computing …"
    assert drawn[3] == "computing: 30 %, 7 s left" and drawn[-1] == "computing: 100 %"
    assert stream.getvalue().endswith("\r") and not stream.getvalue().split("\r")[-2].strip()


@pytest.mark.parametrize("where", ["pipe", "dumb terminal"])
def test_elsewhere_nothing_is_said(monkeypatch, clock, where):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO() if where == "pipe" else Terminal())
    monkeypatch.setenv("TERM", "dumb")
    work(clock)
    assert stream.getvalue() == ""


def test_where_it_was_asked_for_there_are_lines_now_and_then(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    progress.say_lines(True)
    try:
        work(clock, 20)
    finally:
        progress.say_lines(False)
    assert stream.getvalue().splitlines() == [
        "npgemma: computing: 30 %, 14 s left",
        "npgemma: computing: 60 %, 8 s left",
        "npgemma: computing: 90 %, 2 s left",
    ]


def test_other_work_is_timed_from_its_own_beginning(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    tell = Progress("loading")
    clock[0] += 1000
    tell.begin("computing")
    clock[0] += 1
    assert tell.line(1, 4, clock[0]) == "computing: 25 %, 3 s left"


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3590, "1 h 0 min"), (9000, "2 h 30 min")]
)
def test_a_time_is_as_exact_as_it_can_be_guessed(seconds, text):
    assert duration(seconds) == text
