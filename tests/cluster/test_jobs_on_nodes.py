"""Jobs on three nodes: errors, checkpoints, large files, interrupts and nodes that differ."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_calls
import pytest
from three_nodes import ADDRESS, until

import unfool

pytestmark = pytest.mark.cluster

MOST_MEBIBYTES = 128
"""What the asker's memory may grow by while files of any size pass: a few chunks of 16 MiB."""


@pytest.fixture(scope="module")
def program(nodes, tmp_path_factory):
    """A program that runs one set of jobs after the other, and a function that gives its next line."""
    folder = tmp_path_factory.mktemp("asker")
    (nodes.hidden / "words").mkdir()
    (nodes.hidden / "words" / "a.txt").write_text("there")
    command = [sys.executable, cluster_calls.__file__, ADDRESS, str(folder), str(nodes.hidden)]
    process = nodes.popen(
        command, {"PYTHONPATH": python_path()}, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.folder = folder
    yield process
    process.kill()
    process.wait()


def python_path():
    return os.pathsep.join([str(Path(unfool.__file__).parents[1]), str(Path(__file__).parent)])


def test_a_jobs_own_error_comes_back_and_what_it_left_is_kept(program):
    assert program.stdout.readline().strip() == "own error DataError this piece cannot be made"
    assert (program.folder / "before").read_text() == "kept"


def test_files_and_image_sets_of_the_asker_are_sent_unless_that_is_refused(program):
    words = program.stdout.readline()
    assert words.startswith("not sent DataError node ")
    assert " lacks the image set words, or has another version of it; put it into its UNFOOL_DATA_DIR, or" in words
    assert program.stdout.readline().strip() == "elsewhere here there True"


def test_a_job_whose_worker_dies_goes_on_from_what_has_landed(program):
    line = program.stdout.readline()
    assert len(line.split()) == 2, line
    start, end = line.split()
    assert end == "40", line
    assert 15 <= int(start) <= 20


def test_large_files_pass_in_bounded_memory(program):
    words, grown, digest = program.stdout.readline().split()
    content = b"".join(bytes([number % 256]) * (1 << 20) for number in range(cluster_calls.MEBIBYTES))
    assert (words, digest) == ("large", hashlib.blake2b(content).hexdigest())
    assert int(grown) <= MOST_MEBIBYTES


def test_an_interrupt_ends_every_task_within_seconds(program):
    # One of the three waits for a core that another one has.
    begun = until(lambda: [path.name for path in program.folder.glob("begun-*")], of=program)
    workers = [int(name.partition("-")[2]) for name in begun]
    program.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert program.stdout.readline().strip() == "interrupted"
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert time.monotonic() - started < 10


def test_a_node_with_other_code_is_refused_before_any_work(program, nodes, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(Path(unfool.__file__).parent, source / "unfool", ignore=shutil.ignore_patterns("__pycache__"))
    with open(source / "unfool" / "core" / "errors.py", "a") as file:
        file.write("# another version\n")
    nodes.start("other", f"--address={ADDRESS}", source=source).wait()
    program.stdin.write("\n")
    program.stdin.flush()
    try:
        words = program.stdout.readline()
        assert words.startswith("refused WorkerError node ")
        assert " differs from this machine in code: there unfool " in words
        assert words.count("(code ") == 2
    finally:
        nodes.kill("other")
    assert not list(Path("/tmp").glob("unfool-cluster-*/*/work*"))
