"""Jobs for a real cluster, and the program that runs them and says in lines what came of it.

``python cluster_calls.py ADDRESS FOLDER DATA_DIR``, in the network of the cluster.
"""

import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

from unfool.core.errors import DataError, UnfoolError
from unfool.core.parallel.executor import executor_for
from unfool.core.parallel.job import ImageSet, Job

MEBIBYTES = 256


def write_large(place):
    with open(place.folder / "large", "wb") as file:
        for number in range(MEBIBYTES):
            file.write(bytes([number % 256]) * (1 << 20))


def read_large(place):
    digest = hashlib.blake2b()
    with open(place.folder / "large", "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    (place.folder / "digest").write_text(digest.hexdigest())


def read_elsewhere(place):
    image_set, words = place.data_dir / "words", place.file("words.txt").read_text()
    sent = "parcels" in image_set.resolve().parts
    (place.folder / "text").write_text(f"{words} {(image_set / 'a.txt').read_text()} {sent}")


def refuse(place):
    (place.folder / "before").write_text("kept")
    raise DataError("this piece cannot be made")


def count_up(place):
    """Counts up to 40 from where it was stopped; at the first 20 its worker ends as if it were killed."""
    file, log = place.folder / "counted", place.folder / "log"
    start = int(file.read_text()) if file.exists() else 0
    with open(log, "a") as log_file:
        for number in range(start, 41):
            log_file.write(f"{number}\n")
            log_file.flush()
            temporary = place.folder / ".counted"
            temporary.write_text(str(number))
            os.replace(temporary, file)
            time.sleep(0.05)
            if number == 20 and start == 0:
                time.sleep(1.5)
                os.kill(os.getpid(), signal.SIGKILL)
    (place.folder / "started-at").write_text(str(start))


def go_on(place):
    (place.folder / f"begun-{os.getpid()}").touch()
    for _ in range(2400):
        time.sleep(0.05)


def say(*words):
    print(*words, flush=True)


class PeakMemory(threading.Thread):
    """The most memory of its own that this process had, in MiB; pages of the object store are the cluster's."""

    def __init__(self):
        super().__init__(daemon=True)
        self.first = self.most = self.now()
        self.start()

    @staticmethod
    def now():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) >> 10

    def run(self):
        while True:
            self.most = max(self.most, self.now())
            time.sleep(0.01)


def main(address, folder, data_dir):
    executor = executor_for(address)
    console = Console(stderr=True)

    def run(*jobs, **options):
        executor.run(jobs, folder, console, **options)

    def job(call, *needs, **options):
        return Job(name=call.__name__, call=call, needs=frozenset(needs), **options)

    try:
        run(job(refuse))
    except UnfoolError as error:
        say("own error", type(error).__name__, error)
    Path("words.txt").write_text("here")
    words = ImageSet(folder=data_dir / "words", place="words")
    elsewhere = job(read_elsewhere, files=(Path("words.txt"),), data=frozenset({words}))
    try:
        executor_for(address, ship_data=False).run([elsewhere], folder, console, data_dir=data_dir)
    except UnfoolError as error:
        say("not sent", type(error).__name__, error)
    run(elsewhere, data_dir=data_dir)
    say("elsewhere", (folder / "text").read_text())
    run(job(count_up, reads=lambda: [folder / "counted", folder / "log"]))
    say((folder / "started-at").read_text(), (folder / "log").read_text().split()[-1])
    peak = PeakMemory()
    run(job(write_large), job(read_large, "write_large", reads=lambda: [folder / "large"]))
    say("large", peak.most - peak.first, (folder / "digest").read_text())
    try:
        run(*(Job(name=f"go on {number}", call=go_on) for number in range(3)))
    except KeyboardInterrupt:
        say("interrupted")
    sys.stdin.readline()
    try:
        run(job(count_up))
    except UnfoolError as error:
        say("refused", type(error).__name__, error)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
