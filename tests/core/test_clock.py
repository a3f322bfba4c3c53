"""The time of a study: all calls that made something, also of a process that was killed; none that only read."""

import subprocess
import sys
import time

import pytest

from unfool.core.parallel import clock
from unfool.core.parallel.clock import SECONDS, study_clock


def kept(out):
    return float((out / SECONDS).read_text())


def call(out, seconds, piece=None):
    with study_clock(out) as spent:
        time.sleep(seconds)
        if piece:
            (out / "models").mkdir(exist_ok=True)
            (out / "models" / piece).write_text("made")
        return spent()


def test_calls_that_make_something_add_up_and_others_cost_nothing(tmp_path):
    first = call(tmp_path, 0.2, "a")
    assert 0.2 <= first < 5
    assert kept(tmp_path) == pytest.approx(first, abs=0.5)
    assert call(tmp_path, 0.3) == kept(tmp_path)
    (tmp_path / "report.html").write_text("again")
    (tmp_path / ".lock").write_text("")
    assert call(tmp_path, 0.0) == pytest.approx(first, abs=0.5)
    assert call(tmp_path, 0.4, "b") >= first + 0.35


def test_an_error_keeps_the_time(tmp_path):
    def fail():
        with study_clock(tmp_path):
            time.sleep(0.2)
            (tmp_path / "piece.json").write_text("{}")
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        fail()
    assert kept(tmp_path) >= 0.2


def test_a_killed_process_has_written_its_time(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from unfool.core.parallel import clock\n"
        "clock.EVERY = 0.1\n"
        "with clock.study_clock(Path(sys.argv[1])):\n"
        "    time.sleep(1)\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=120)
    assert done.returncode == 9
    assert 0.1 <= kept(tmp_path) <= 1.5
    assert clock.EVERY >= 1


def test_nonsense_is_no_time(tmp_path):
    (tmp_path / SECONDS).write_text("soon")
    assert call(tmp_path, 0.1, "a") < 5


def test_what_was_told_is_what_is_kept(tmp_path):
    with study_clock(tmp_path) as spent:
        (tmp_path / "piece.json").write_text("{}")
        told = spent()
        time.sleep(0.3)
    assert kept(tmp_path) == round(told, 1)
    assert call(tmp_path, 0.2) == round(told, 1)
