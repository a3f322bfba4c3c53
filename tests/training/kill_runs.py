"""Run as a program: trains each of tiny_runs.KILLED whole, and again under kill -9 at chosen steps and at odd moments.

Forks its children from a process that has imported everything, so that a death costs milliseconds.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # an optimizer's first step would import it, in every child anew
from tiny_runs import KILLED, make_table

from unfool.training import train
from unfool.training.processes import make_accelerator

MOMENTS = 12
"""Deaths at odd moments, at most."""


def child(config, folder, die_after=None):
    """Fork a process that trains; it kills itself after so many steps of its own, if told to."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        steps = 0

        def count(what, done, total, note):
            nonlocal steps
            steps += 1
            if steps == die_after:
                os.kill(os.getpid(), signal.SIGKILL)

        train(config, make_table(), folder, progress=count, checkpoint_seconds=0)
        code = 0
    finally:
        os._exit(code)


def died(process):
    """Wait; whether the process was killed. Any other failure ends this program."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status):
        sys.exit("a child failed")
    return False


def main(out):
    torch.set_num_threads(1)
    make_accelerator(torch.device("cpu"))

    for number, (name, config) in enumerate(KILLED.items()):
        started = time.monotonic()
        assert not died(child(config, out / name / "whole"))
        whole = time.monotonic() - started
        deaths = 0
        for steps in (1, 3, 2, 1):
            deaths += died(child(config, out / name / "at steps", die_after=steps))
        assert not died(child(config, out / name / "at steps"))
        assert deaths >= 3, f"{name}: only {deaths} deaths at chosen steps"
        moments = 0
        for attempt in range(MOMENTS):
            process = child(config, out / name / "at moments")
            time.sleep(whole * (0.15 + 0.07 * ((attempt * 7 + number) % 10)))
            os.kill(process, signal.SIGKILL)
            if not died(process):
                break
            moments += 1
        if moments == MOMENTS:
            assert not died(child(config, out / name / "at moments"))
        print(f"{name}: {deaths} + {moments} deaths")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
