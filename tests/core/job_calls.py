"""What worker processes do in the tests of jobs, apart from pytest so that a worker starts soon.

As a program, two jobs that last two minutes: ``python job_calls.py FOLDER``.
"""

import functools
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from unfool.core.errors import DataError
from unfool.core.parallel.jobs import Job, report_to_parent, run_jobs


def note(name, folder, before=()):
    """Writes which process it is and how many threads it has; the jobs ``before`` must have written already."""
    import torch

    assert all((folder / other).exists() for other in before)
    with report_to_parent(f"piece {name}") as advance:
        advance("", 1, 2, "half")
        (folder / name).write_text(f"{os.getpid()} {torch.get_num_threads()}")


def note_in_workspace(name, folder, before=()):
    from unfool.studies.framework.workspace import Workspace

    with Workspace(folder, None, "cpu", Console(quiet=True)).bar(f"bar {name}") as advance:
        advance("", 1, 1)
    note(name, folder, before)


def refuse():
    raise DataError("this piece cannot be made")


def refuse_when_begun(folder):
    while not list(folder.glob("begun-*")):
        time.sleep(0.05)
    refuse()


def go_on(folder):
    """Two minutes of progress."""
    with report_to_parent("piece") as advance:
        (folder / f"begun-{os.getpid()}").touch()
        for step in range(1200):
            advance("", step, 1200, "x" * 100)
            time.sleep(0.1)
    (folder / "finished").touch()


if __name__ == "__main__":
    call = functools.partial(go_on, Path(sys.argv[1]))
    run_jobs([Job(name=name, call=call) for name in "ab"], Console(quiet=True), 2)
