"""Pieces made side by side: all of them, in other processes, and the first error comes back."""

import functools
import importlib
import io
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import job_calls
import pytest
from rich.console import Console

import unfool
from unfool.core import plugins
from unfool.core.errors import DataError, UnfoolError, UnsettledClaimError
from unfool.core.parallel import reporting
from unfool.core.parallel.job import Job, Place
from unfool.core.parallel.local import LocalExecutor, deaf_to_interrupts, worker_context, workers_for
from unfool.core.parallel.schedule import Schedule, urgency
from unfool.training.running.trainer import DivergedError

SOURCE = Path(unfool.__file__).parent


def test_all_pieces_are_made_elsewhere_with_one_thread_each_after_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    console = Console(file=io.StringIO())
    needs = {"a": "", "b": "", "c": "ab", "d": "c"}
    calls = dict.fromkeys("abc", job_calls.note) | {"d": job_calls.note_in_workspace}
    jobs = [
        Job(name=name, call=functools.partial(calls[name], name, before), needs=frozenset(before))
        for name, before in reversed(needs.items())
    ]
    LocalExecutor(2).run(jobs, tmp_path, console)
    assert {path.name for path in tmp_path.iterdir()} == set(needs)
    notes = [(tmp_path / name).read_text().split() for name in needs]
    assert all(threads == "1" for _, threads in notes)
    assert str(os.getpid()) not in {process for process, _ in notes}
    printed = console.file.getvalue()
    assert all(f"piece {name}: 0 s" in printed for name in needs)
    assert "bar d: 0 s" in printed


def test_workers_have_the_environment_of_the_call(tmp_path, monkeypatch):
    """They are forked from a process that was started by an earlier call, with another environment."""
    monkeypatch.delenv("UNFOOL_TESTED", raising=False)
    for value in ("None", "second"):
        if value != "None":
            monkeypatch.setenv("UNFOOL_TESTED", value)
        job = Job(name=value, call=functools.partial(job_calls.note_environment, value))
        LocalExecutor(2).run([job], tmp_path, Console(quiet=True))
        assert (tmp_path / value).read_text() == value


def test_workers_start_from_nothing_beside_a_gpu_and_where_no_socket_can_be_made(monkeypatch):
    def fails():
        raise OSError("AF_UNIX path too long")

    assert worker_context("cuda").get_start_method() == "spawn"
    monkeypatch.setenv(plugins.VARIABLE, "mine.py")
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", fails)
    assert worker_context("cpu").get_start_method() == "spawn"
    assert os.environ[plugins.VARIABLE] == "mine.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("device", ["cpu", "cuda"])  # forked, and from nothing
def test_workers_and_what_they_are_forked_from_hear_no_interrupt_while_they_import(tmp_path, device):
    job = Job(name="masks", call=job_calls.note_blocked_signals)
    LocalExecutor(2, device).run([job], tmp_path, Console(quiet=True))
    interrupt = 1 << (signal.SIGINT - 1)
    masks = [int(word, 16) for word in (tmp_path / "masks").read_text().split()]
    assert masks[0] & interrupt
    # The asker itself starts those that begin from nothing, and hears it.
    assert bool(masks[1] & interrupt) == (device == "cpu")


@pytest.fixture
def hears_interrupts():
    """Python's own handler, also where the tests run in the background of a shell, which lets these ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no masks of signals")
def test_an_interrupt_while_workers_start_is_heard_when_they_have_started(hears_interrupts):
    """Even one that another thread of this process takes."""
    asked, over = threading.Event(), threading.Event()

    def hear():
        asked.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        over.set()

    def start():
        with deaf_to_interrupts():
            asked.set()
            over.wait()
            started.append("all")

    before, started = signal.getsignal(signal.SIGINT), []
    threading.Thread(target=hear, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        start()
    assert started == ["all"]
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_longest_chain_is_the_most_urgent():
    def job(name, cost, *needs):
        return Job(name=name, call=job_calls.refuse, cost=cost, needs=frozenset(needs))

    jobs = [job("probe", 3, "short"), job("short", 1), job("long", 5), job("alone", 2), job("end", 4, "probe")]
    assert urgency(jobs) == {"long": 5, "alone": 2, "short": 1 + 3 + 4, "probe": 3 + 4, "end": 4}


def test_the_most_urgent_of_those_that_are_ready_goes_first():
    costs = {"cheap": 1, "dear": 5, "waits": 9, "middle": 3}
    jobs = [
        Job(name=name, call=job_calls.refuse, cost=cost, needs=frozenset(["cheap"] if name == "waits" else []))
        for name, cost in costs.items()
    ]
    schedule, order = Schedule(jobs), []
    while job := schedule.begin():
        order.append(job.name)
        schedule.done(job.name)
    assert order == ["cheap", "waits", "dear", "middle"]
    assert not schedule.active


def test_jobs_that_wait_for_each_other_are_refused():
    calls = {"a": "b", "b": "a"}
    jobs = [Job(name=name, call=job_calls.refuse, needs=frozenset(need)) for name, need in calls.items()]
    with pytest.raises(ValueError, match="cycle"):
        Schedule(jobs)


def kinds_of(kind):
    return {kind}.union(*map(kinds_of, kind.__subclasses__()))


def test_errors_of_every_kind_come_back_from_other_processes_as_they_were():
    for path in sorted(SOURCE.rglob("*.py")):
        if re.search(r"^class \w+Error\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    own = {kind for kind in kinds_of(UnfoolError) if kind.__module__.startswith("unfool.")}
    assert {DataError, UnsettledClaimError, DivergedError} < own
    for error in [*(kind("loss is nan") for kind in own), DivergedError("nan", cpu_seconds=1.5, model_images=3)]:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_an_error_comes_back_as_it_was_whatever_else_is_being_made(tmp_path):
    jobs = [
        Job(name="a", call=job_calls.refuse_when_begun),
        Job(name="b", call=job_calls.go_on),
    ]
    others = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="this piece cannot be made"):
        LocalExecutor(2).run(jobs, tmp_path, Console(quiet=True))
    assert not (tmp_path / "finished").exists()
    assert set(multiprocessing.active_children()) <= others


def test_there_is_a_process_for_each_core_and_one_on_other_devices(monkeypatch):
    # Of this process, number 0 by its own account.
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1} if process == 0 else {0})
    assert (workers_for("cpu"), workers_for("cuda")) == (2, 1)


def started(folder):
    """Two jobs of two minutes, begun in a process of their own, and its workers."""
    # A shell's background job ignores interrupts, and hands that on to what it starts.
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    program = [sys.executable, job_calls.__file__, str(folder)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    deadline = time.monotonic() + 120
    while len(begun := list(folder.glob("begun-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, [int(path.name.partition("-")[2]) for path in begun]


def all_end(workers):
    deadline = time.monotonic() + 60
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_go_with_a_study_that_is_killed(tmp_path):
    process, workers = started(tmp_path)
    process.kill()
    process.wait()
    all_end(workers)
    process.stderr.close()


def test_an_interrupt_of_the_study_alone_ends_it_and_is_told_once(tmp_path):
    process, workers = started(tmp_path)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert told.count("Traceback") == told.count("KeyboardInterrupt") == 1
    all_end(workers)


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_nobody_is_told_where_there_is_no_parent():
    assert not reporting.in_worker()
    with reporting.report_to_parent("alone") as advance:
        advance("", 1, 1)


def test_one_worker_is_this_process_and_jobs_that_follow_from_others_are_run(tmp_path):
    def leave(place):
        place.progress("", 1, 1)
        calls.append((place.folder, place.data_dir, place.device, os.getpid()))

    def more(name):
        return [Job(name=f"{name}+", call=leave)] if len(name) < 3 else []

    calls = []
    LocalExecutor(1, "meta").run(
        [Job(name="a", call=leave)], tmp_path, Console(quiet=True), data_dir=tmp_path / "data", more=more
    )
    assert calls == [(tmp_path, tmp_path / "data", "meta", os.getpid())] * 3


def test_a_job_finds_the_files_that_it_names_alone(tmp_path):
    place = Place(folder=tmp_path, files={Path("weights"): tmp_path / "elsewhere"})
    assert place.file("weights") == tmp_path / "elsewhere"
    with pytest.raises(ValueError, match="other is not among the files of the job"):
        place.file("other")


def test_a_job_that_ran_can_wait_again_and_names_are_unique():
    schedule = Schedule([Job(name="a", call=job_calls.refuse)])
    schedule.begin()
    schedule.again("a")
    assert schedule.begin().name == "a"
    with pytest.raises(ValueError, match="two jobs are called a"):
        schedule.add([Job(name="a", call=job_calls.refuse)])
