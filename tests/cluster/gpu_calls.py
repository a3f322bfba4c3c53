"""Four jobs with a quarter of a GPU each, which wait for one another; after a line on the standard input, what
``auto`` computes on: ``python gpu_calls.py ADDRESS FOLDER``.
"""

import functools
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from unfool.core.parallel.executor import executor_for
from unfool.core.parallel.job import Job


def meet(meeting, place):
    """Waits for the three others, and says how many came, and on what."""
    (meeting / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while (met := len(list(meeting.iterdir()))) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    (place.folder / f"met-{os.getpid()}").write_text(f"{met} on {place.device} {os.environ['CUDA_VISIBLE_DEVICES']}")


def main(address, folder):
    (meeting := folder / ".meeting").mkdir()
    jobs = [Job(name=f"quarter {number}", call=functools.partial(meet, meeting)) for number in range(4)]
    executor_for(address, device="cuda", gpu_share=0.25).run(jobs, folder, Console(stderr=True))
    print("done", flush=True)
    sys.stdin.readline()
    print(executor_for(address, device="auto").device)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
