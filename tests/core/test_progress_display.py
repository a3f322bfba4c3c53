"""What is shown of long work: bars on a terminal, lines now and then elsewhere, and nothing left of either."""

import io
import re
import time

import pytest
from rich.console import Console

from unfool.core import progress_display
from unfool.core.progress_display import progress_bar, progress_bars


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=False, width=40)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0.05)


def written(console, piece):
    """The lines so far, once one of them holds a piece of text."""
    deadline = time.monotonic() + 5
    while piece not in console.file.getvalue():
        assert time.monotonic() < deadline, console.file.getvalue()
        time.sleep(0.01)
    return console.file.getvalue().splitlines()


@pytest.mark.usefixtures("often")
def test_a_line_now_and_then_without_a_terminal(console):
    with progress_bar(console, "runs/a") as advance:
        assert written(console, "runs/a")[0] == "runs/a, 0 s"
        advance("stage 1/1: labels", 3, 10, "loss 0.5")
        line = written(console, "3/10")[-1]
        assert line == "runs/a, 3/10, stage 1/1: labels, loss 0.5, 0 s"
        advance("stage 1/1: labels", 4, 10, "loss 0.4")
        line = written(console, "about")[-1]
        assert re.fullmatch(r"runs/a, 4/10, stage 1/1: labels, loss 0.4, \d s, about \d s left", line)
        advance("stage 1/1: labels", 10, 10)
        # What is over stays in sight until something else begins: a slow start of the next part is no silence.
        assert written(console, "10/10")
    size = len(console.file.getvalue())
    time.sleep(0.2)
    assert len(console.file.getvalue()) == size


@pytest.mark.usefixtures("often")
def test_of_several_pieces_those_that_are_not_done(console):
    with progress_bars(console) as advance:
        advance("[one]", 1, 2)
        advance("two", 5, 9)
        lines = written(console, "two")
        assert {line.split(",")[0] for line in lines} == {"[one]", "two"}
        advance("[one]", 2, 2)
        time.sleep(0.1)
        console.file.truncate(0)
        console.file.seek(0)
        assert not any(line.startswith("[one]") for line in written(console, "two"))


def test_short_work_writes_nothing(console):
    with progress_bar(console, "quick") as advance:
        advance("", 1, 2)
    assert console.file.getvalue() == ""


def test_on_a_terminal_a_bar_that_vanishes():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console, "[work]") as advance:
        advance("part", 1, 2, "a note")
    shown = console.file.getvalue()
    assert re.search(r"\[work\].*1/2.*part, a note", shown)
    # The last thing written clears the bar's line.
    assert shown.rstrip("\n").endswith("\x1b[2K") or "\x1b[2K" in shown[-40:]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds, words):
    assert progress_display._duration(seconds) == words
