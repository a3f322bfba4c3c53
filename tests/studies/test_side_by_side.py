"""Pieces made side by side: all of them, in other processes, and the first error comes back."""

import functools
import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from rich.console import Console

from unfool.core.errors import DataError
from unfool.studies import side_by_side
from unfool.studies.side_by_side import Place, run_jobs, workers_for
from unfool.studies.workspace import Workspace


def note(name, work):
    with work.bar(f"piece {name}") as advance:
        advance("half", 1, 2)
        (work.out / name).write_text(f"{os.getpid()} {torch.get_num_threads()} {work.device}")


def refuse(work):
    raise DataError("this piece cannot be made")


def place(folder):
    return Place(out=folder, data_dir=None, device="cpu")


def test_all_pieces_are_made_elsewhere_with_one_thread_each(tmp_path):
    console = Console(file=io.StringIO())
    run_jobs([functools.partial(note, name) for name in "abc"], place(tmp_path), console, 2)
    made = [(tmp_path / name).read_text().split() for name in "abc"]
    assert all(words[1:] == ["1", "cpu"] for words in made)
    assert str(os.getpid()) not in {words[0] for words in made}
    told = console.file.getvalue()
    assert all(f"piece {name}: 0 s" in told for name in "abc")


def test_an_error_comes_back_as_it_was(tmp_path):
    with pytest.raises(DataError, match="this piece cannot be made"):
        run_jobs([refuse, functools.partial(note, "a")], place(tmp_path), Console(quiet=True), 1)


def test_without_cores_to_share_it_is_left_to_whoever_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    Workspace(tmp_path, None, "cpu", Console(quiet=True)).together([functools.partial(note, "a")] * 2)
    assert not list(tmp_path.iterdir())
    assert workers_for("cuda", 5) == 1


def test_workers_go_with_a_study_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from rich.console import Console
            from unfool.studies.side_by_side import Place, run_jobs

            def sit(work):
                import os
                (work.out / str(os.getpid())).touch()
                time.sleep(60)

            if __name__ == "__main__":
                run_jobs([sit, sit], Place(out=Path(sys.argv[1]), data_dir=None, device="cpu"), Console(), 2)
            """
        )
    )
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(program), str(folder)])
    deadline = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    workers = [int(path.name) for path in folder.iterdir()]
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG_AFTER = """
import sys, time
from pathlib import Path
from rich.console import Console
from unfool.studies.side_by_side import Place, run_jobs

def refuse(work):
    while not (work.out / "begun").exists():
        time.sleep(0.05)
    raise ValueError("refused")

def go_on(work):
    with work.bar("piece") as advance:
        (work.out / "begun").touch()
        for step in range(3000):
            advance("x" * 100, step, 3000)
            time.sleep(0.1)

if __name__ == "__main__":
    place = Place(out=Path(__file__).parent, data_dir=None, device="cpu")
    run_jobs([refuse if sys.argv[1] == "error" else go_on, go_on], place, Console(quiet=True), 2)
"""
"""A piece of five minutes, beside one that fails or as long a one."""


def test_an_error_ends_the_study_whatever_else_is_being_made(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(LONG_AFTER)
    done = subprocess.run([sys.executable, str(program), "error"], capture_output=True, text=True, timeout=120)
    assert "ValueError: refused" in done.stderr


def test_an_interrupt_of_the_study_alone_ends_it_and_is_told_once(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(LONG_AFTER)
    # A shell's background job ignores interrupts, and hands that on to what it starts.
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    process = subprocess.Popen(
        [sys.executable, str(program), "long"], stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert told.count("Traceback") == told.count("KeyboardInterrupt") == 1


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_nobody_is_told_where_there_is_no_parent():
    assert not side_by_side.in_worker()
    with side_by_side.report_to_parent("alone") as advance:
        advance("", 1, 1)
