"""Hostile inputs by the thousand: none may end in a traceback, in exit code 70, above 1 GiB, or after 10 CPU seconds.

    python benchmarks/faults.py [--seconds 600] [--seed 0] [--only CLASS ...] [--number N] [--json]

Each class of `hostile_inputs.py` gets its share of the time, in a process of its own, whose inputs are numbered: the
same seed and number make the same input. A table by class says how many inputs were refused and accepted, what
failed, and the worst memory and time of a reading. Exit code 1 if any input failed; --only and --number read one of
them again, with its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hostile_inputs import CLASSES
from hostile_material import Material, emptied, material

from unfool.core.errors import LONGEST_MESSAGE, UnfoolError

MOST_SECONDS, MOST_MIB = 10.0, 1024
"""CPU seconds, so that a busy machine changes nothing, and MiB of one reading."""
BLOCKED_SECONDS = 60.0
"""Seconds by the clock, after which a reading waits for something that never comes."""
ADDRESS_SPACE = 6 << 30
"""Beyond this a reading meets a MemoryError, which counts as a fault."""
UNEXPECTED = 70


@dataclass
class Tally:
    """What became of the inputs of one class."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    exit_70: int = 0
    tracebacks: int = 0
    over_memory: int = 0
    over_time: int = 0
    worst_mib: int = 0
    worst_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])

    @property
    def failed(self) -> int:
        """Inputs that broke a promise."""
        return self.exit_70 + self.tracebacks + self.over_memory + self.over_time

    def add(self, outcome: str, number: int, seconds: float, mib: int) -> None:
        """Count one input."""
        self.inputs += 1
        self.worst_mib, self.worst_seconds = max(self.worst_mib, mib), max(self.worst_seconds, seconds)
        if seconds > MOST_SECONDS or outcome in ("too long", "hung"):
            self.over_time += 1
            outcome = f"took {seconds:.0f} CPU seconds" if seconds > MOST_SECONDS else "waits without an end"
        elif mib > MOST_MIB:
            self.over_memory += 1
            outcome = f"took {mib} MiB"
        elif outcome in ("refused", "accepted"):
            setattr(self, outcome, getattr(self, outcome) + 1)
            return
        elif outcome.startswith("exit 70"):
            self.exit_70 += 1
        else:
            self.tracebacks += 1
        self.faults[f"{outcome[:300]} (first: {number})" if outcome not in str(self.faults) else outcome[:300]] += 1


class _TooLongError(BaseException):
    """An input that takes longer than it may."""


_reading = False
"""Whether an alarm belongs to a reading that is still going on."""


def _alarm(*_: object) -> None:
    if _reading:
        raise _TooLongError


def _outcome(read: Any) -> str:
    """Refused, accepted, or what went wrong."""
    global _reading
    said = io.StringIO()
    try:
        _reading = True
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = read()
        _reading = False
    except UnfoolError as error:
        return "refused" if len(str(error)) <= LONGEST_MESSAGE and "\n" not in str(error) else "a message of many lines"
    except _TooLongError:
        return "too long"
    except RecursionError as error:
        return f"RecursionError {error}"
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "unfool" in frame.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"{type(error).__name__} at {where}: {str(error)[:120]}"
    finally:
        _reading = False
    text = said.getvalue()
    if "Traceback" in text or any(len(line) > LONGEST_MESSAGE + 100 for line in text.splitlines()):
        return f"printed a traceback or a long line: {text[-160:]}"
    if isinstance(code, int) and not isinstance(code, bool):
        return f"exit 70: {text[-200:].strip()}" if code == UNEXPECTED else "refused" if code else "accepted"
    return "accepted"


def _peak_mib(reset: bool = False) -> int:
    """The most memory that this process had since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _work(name: str, seed: int, first: int, end: float, sound: Material, folder: Path, pipe: Connection) -> None:
    """Feed inputs of one class until the time is over, and send what became of each."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    os.environ.update(UNFOOL_CACHE_DIR=str(folder / "cache"), HF_HUB_OFFLINE="1")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPROF, _alarm)
    place, number = folder / name, first
    os.chdir(emptied(place))
    while time.monotonic() < end:
        pipe.send(("begun", number, 0.0, 0))
        try:
            read = CLASSES[name](random.Random(f"{seed} {name} {number}"), emptied(place / "input"), sound)
        except Exception:  # not even a hostile program can write this one
            number += 1
            continue
        _peak_mib(reset=True)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, BLOCKED_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        outcome = _outcome(read)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send((outcome, number, time.process_time() - started, _peak_mib()))
        number += 1
    pipe.send(("over", number, 0.0, 0))


def run_class(name: str, seed: int, seconds: float, sound: Material, folder: Path) -> Tally:
    """Feed one class for some seconds; a process that hangs or dies is counted and followed by another."""
    tally, number, end = Tally(), 0, time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    while time.monotonic() < end:
        pipe, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(name, seed, number, end, sound, folder, theirs))
        worker.start()
        theirs.close()
        while True:
            try:
                answer = pipe.recv() if pipe.poll(2 * BLOCKED_SECONDS) else ("hung", number, 0.0, 0)
            except EOFError:
                worker.join()
                answer = (f"the process ended with {worker.exitcode}", number, 0.0, 0)
            outcome, at, spent, mib = answer
            if outcome == "over":
                break
            number = at
            if outcome == "begun":
                continue
            tally.add(outcome, number, spent, mib)
            number += 1
            if outcome == "hung" or outcome.startswith("the process ended"):
                break
        if worker.is_alive():
            worker.join(1)
            worker.kill()
        worker.join()
    return tally


def main() -> int:
    """Run all classes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--number", type=int, help="read this input of the class of --only once, with its traceback")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warnings.simplefilter("ignore")
        sound = material(emptied(folder / "sound"))
        (folder / "sound" / "results.json").write_text(json.dumps(sound.results))
        if options.number is not None:
            [name] = options.only
            draw = random.Random(f"{options.seed} {name} {options.number}")
            os.chdir(emptied(folder / name))
            print(CLASSES[name](draw, emptied(folder / name / "input"), sound)())
            return 0
        share = options.seconds / len(options.only)
        tallies = {name: run_class(name, options.seed, share, sound, folder) for name in options.only}
    print(json.dumps({name: asdict(tally) for name, tally in tallies.items()}) if options.json else _table(tallies))
    return 1 if any(tally.failed for tally in tallies.values()) else 0


def _table(tallies: dict[str, Tally]) -> str:
    """A line for each class, and each fault below."""
    columns = ("inputs", "refused", "accepted", "exit_70", "tracebacks", "over_memory", "over_time")
    lines = [
        f"{'class':<9}" + "".join(f"{column.replace('_', ' '):>12}" for column in columns) + "   worst MiB  worst s"
    ]
    for name, tally in tallies.items():
        counts = "".join(f"{getattr(tally, column):>12,}" for column in columns)
        lines.append(f"{name:<9}{counts}{tally.worst_mib:>12,}{tally.worst_seconds:>9.2f}")
    total, failed = (sum(getattr(tally, key) for tally in tallies.values()) for key in ("inputs", "failed"))
    lines.append(f"{total:,} inputs, {failed:,} failed")
    faults = [(name, fault, count) for name, tally in tallies.items() for fault, count in tally.faults.items()]
    return "\n".join([*lines, *(f"  {name}: {count} x {fault}" for name, fault, count in faults)])


if __name__ == "__main__":
    sys.exit(main())
