"""An executor that stands for other machines: each job has a folder of its own, and nothing but what it declares."""

import pickle
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from unfool.core.parallel.job import Place
from unfool.core.parallel.schedule import Schedule


@dataclass
class Elsewhere:
    """Runs jobs one by one, in any order that their needs allow, in folders that share nothing."""

    seed: int = 0
    workers: int = 8
    device: str = "cpu"
    names: list[str] = field(default_factory=list)
    fails_at: int | None = None

    def run(self, jobs, folder, console, *, data_dir=None, more=None):
        waiting, order = {job.name: job for job in jobs}, random.Random(self.seed)
        Schedule(jobs)  # refuses circles and two of one name
        while waiting:
            ready = [job for job in waiting.values() if not job.needs & waiting.keys()]
            job = order.choice(ready)
            if self.fails_at == len(self.names):
                raise KeyboardInterrupt
            with tempfile.TemporaryDirectory() as place:
                for path in job.reads():
                    there = Path(place) / path.relative_to(folder)
                    there.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(path, there) if path.is_dir() else shutil.copy(path, there)
                before = set(Path(place).rglob("*"))
                call = pickle.loads(pickle.dumps(job.call))
                call(Place(folder=Path(place), data_dir=data_dir, files={path: path for path in job.files}))
                for path in set(Path(place).rglob("*")) - before:
                    if path.is_file():
                        here = folder / path.relative_to(place)
                        here.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, here)
            self.names.append(job.name)
            del waiting[job.name]
            assert not list(more(job.name))
