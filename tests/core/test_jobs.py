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
from unfool.core.parallel import jobs
from unfool.core.parallel.jobs import Job, run_jobs, urgency, workers_for
from unfool.studies.framework.workspace import Workspace


def workspace(folder):
    return Workspace(folder, None, "cpu", Console(quiet=True))


def note(name, folder):
    work = workspace(folder)
    with work.bar(f"piece {name}") as advance:
        advance("", 1, 2, "half")
        (work.out / name).write_text(f"{os.getpid()} {torch.get_num_threads()} {work.device}")


def note_after(name, before, folder):
    assert all((folder / other).exists() for other in before)
    note(name, folder)


def refuse():
    raise DataError("this piece cannot be made")


def test_all_pieces_are_made_elsewhere_with_one_thread_each(tmp_path):
    console = Console(file=io.StringIO())
    run_jobs([Job(name=name, call=functools.partial(note, name, tmp_path)) for name in "abc"], console, 2)
    notes = [(tmp_path / name).read_text().split() for name in "abc"]
    assert all(words[1:] == ["1", "cpu"] for words in notes)
    assert str(os.getpid()) not in {words[0] for words in notes}
    printed = console.file.getvalue()
    assert all(f"piece {name}: 0 s" in printed for name in "abc")


def test_a_job_waits_for_those_that_it_needs(tmp_path):
    needs = {"a": "", "b": "", "c": "ab", "d": "c"}
    jobs = [
        Job(name=name, call=functools.partial(note_after, name, before, tmp_path), needs=frozenset(before))
        for name, before in reversed(needs.items())
    ]
    run_jobs(jobs, Console(quiet=True), 2)
    assert {path.name for path in tmp_path.iterdir()} == set(needs)


def test_the_longest_chain_is_the_most_urgent():
    def job(name, cost, *needs):
        return Job(name=name, call=refuse, cost=cost, needs=frozenset(needs))

    jobs = [job("probe", 3, "short"), job("short", 1), job("long", 5), job("alone", 2), job("end", 4, "probe")]
    assert urgency(jobs) == {"long": 5, "alone": 2, "short": 1 + 3 + 4, "probe": 3 + 4, "end": 4}


def test_jobs_that_wait_for_each_other_are_refused():
    jobs = [Job(name="a", call=refuse, needs=frozenset("b")), Job(name="b", call=refuse, needs=frozenset("a"))]
    with pytest.raises(ValueError, match="cycle"):
        run_jobs(jobs, Console(quiet=True), 2)


def test_an_error_comes_back_as_it_was(tmp_path):
    jobs = [Job(name="r", call=refuse), Job(name="a", call=functools.partial(note, "a", tmp_path))]
    with pytest.raises(DataError, match="this piece cannot be made"):
        run_jobs(jobs, Console(quiet=True), 1)


def test_there_is_a_process_for_each_core_and_one_on_other_devices(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert (workers_for("cpu", 5), workers_for("cpu", 1), workers_for("cuda", 5)) == (2, 1, 1)


def test_workers_go_with_a_study_that_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import functools, os, sys, time
            from pathlib import Path
            from rich.console import Console
            from unfool.core.parallel.jobs import Job, run_jobs

            def sit(out):
                (out / str(os.getpid())).touch()
                time.sleep(60)

            if __name__ == "__main__":
                call = functools.partial(sit, Path(sys.argv[1]))
                run_jobs([Job(name=name, call=call) for name in "ab"], Console(), 2)
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
from unfool.core.parallel.jobs import Job, run_jobs
from unfool.studies.framework.workspace import Workspace

out = Path(__file__).parent

def refuse():
    while not (out / "begun").exists():
        time.sleep(0.05)
    raise ValueError("refused")

def go_on():
    with Workspace(out, None, "cpu", Console(quiet=True)).bar("piece") as advance:
        (out / "begun").touch()
        for step in range(3000):
            advance("", step, 3000, "x" * 100)
            time.sleep(0.1)

if __name__ == "__main__":
    first = refuse if sys.argv[1] == "error" else go_on
    run_jobs([Job(name="a", call=first), Job(name="b", call=go_on)], Console(quiet=True), 2)
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
    assert not jobs.in_worker()
    with jobs.report_to_parent("alone") as advance:
        advance("", 1, 1)
