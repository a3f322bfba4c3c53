"""What worker processes do in the tests of jobs, apart from pytest so that a worker starts soon.

As a program, two jobs that last two minutes: ``python job_calls.py FOLDER``.
"""

import os
import sys
import time
from pathlib import Path

from rich.console import Console

from unfool.core.errors import DataError
from unfool.core.parallel.job import Job
from unfool.core.parallel.local import LocalExecutor
from unfool.core.parallel.reporting import report_to_parent


def note(name, before, place):
    """Writes which process it is and how many threads it has; the jobs ``before`` must have written already."""
    import torch

    folder = place.folder
    assert all((folder / other).exists() for other in before)
    with report_to_parent(f"piece {name}") as advance:
        advance("", 1, 2, "half")
        (folder / name).write_text(f"{os.getpid()} {torch.get_num_threads()}")


def note_in_workspace(name, before, place):
    from unfool.studies.framework.workspace import Workspace

    with Workspace(place.folder, None, "cpu", Console(quiet=True)).bar(f"bar {name}") as advance:
        advance("", 1, 1)
    note(name, before, place)


def note_blocked_signals(place):
    """Writes which signals this process and the one that it comes from do not hear, as bits."""
    masks = []
    for process in (os.getpid(), os.getppid()):
        status = Path(f"/proc/{process}/status").read_text()
        masks.append(status.partition("SigBlk:")[2].split()[0])
    (place.folder / "masks").write_text(" ".join(masks))


def note_environment(name, place):
    """Writes a variable of the environment."""
    (place.folder / name).write_text(str(os.environ.get("UNFOOL_TESTED")))


def refuse(place):
    raise DataError("this piece cannot be made")


def refuse_when_begun(place):
    while not list(place.folder.glob("begun-*")):
        time.sleep(0.05)
    refuse(place)


def go_on(place):
    """Two minutes of progress."""
    with report_to_parent("piece") as advance:
        (place.folder / f"begun-{os.getpid()}").touch()
        for step in range(1200):
            advance("", step, 1200, "x" * 100)
            time.sleep(0.1)
    (place.folder / "finished").touch()


if __name__ == "__main__":
    jobs = [Job(name=name, call=go_on) for name in "ab"]
    LocalExecutor(2).run(jobs, Path(sys.argv[1]), Console(quiet=True))
