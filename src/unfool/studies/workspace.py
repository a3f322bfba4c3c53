"""The folder of a study: every trained network, adversarial set and judgement in it is made once and found again.

So a study that was stopped goes on where it stopped, and asking for a finished one costs nothing.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from unfool.attacks import Attack, ProxySettings
from unfool.core.files import JsonObject, write_json
from unfool.core.parallel.jobs import Job, in_worker, report_to_parent, run_jobs, workers_for
from unfool.core.progress import Progress, silent
from unfool.core.progress_display import progress_bar
from unfool.data.catalog import open_table
from unfool.data.corruptions import CORRUPTIONS
from unfool.data.table import Table
from unfool.evaluation import AdversarialSet, Records, craft, identity, judge, load_set, save_set
from unfool.evaluation.adaptive.audit import audit
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.corruptions import judge_corrupted
from unfool.training import RunConfig, TrainedRun, train


class Workspace:
    """Makes and finds the pieces of a study under ``out``; names are paths such as ``cifar10/single-task/0``."""

    def __init__(self, out: Path, data_dir: Path | None, device: str, console: Console):
        self.out, self.data_dir, self.device, self.console = out, data_dir, device, console
        self._tables: dict[tuple[str, str, int], Table] = {}

    def table(self, data: str, split: str, size: int = 0) -> Table:
        """A split of a data set, opened once; ``size`` in pixels a side, 0 for the set's own."""
        key = (data, split, size)
        if key not in self._tables:
            self._tables[key] = open_table(data, split, data_dir=self.data_dir, size=size or None)
        return self._tables[key]

    def together(self, jobs: Sequence[Callable[[Workspace], object]]) -> None:
        """Make pieces side by side: each job (picklable) is called with this workspace, in a process of its own.

        What they make is kept here; ask for it afterwards. On one core, or a device other than the CPU, it is left to
        whoever asks.
        """
        workers = workers_for(self.device, len(jobs))
        if workers > 1 and not in_worker():
            # The first is to be begun first.
            place = (self.out, self.data_dir, self.device)
            named = [
                Job(name=str(number), call=functools.partial(_make, job, *place), cost=len(jobs) - number)
                for number, job in enumerate(jobs)
            ]
            run_jobs(named, self.console, workers)

    def run_folder(self, name: str) -> Path:
        """Where the run of that name lies."""
        return self.out / "models" / name

    def trained(self, name: str, config: RunConfig, table: Table | None = None) -> TrainedRun:
        """The run of that name: trained (on ``table``, by default the whole training set), resumed or found."""
        table = table or self.table(config.data, "train")
        with self.bar(f"train {name}", self.run_folder(name) / "weights.safetensors") as advance:
            run = train(
                config,
                table,
                self.run_folder(name),
                device=self.device,
                progress=advance,
            )
        run.network.to(self.device)
        return run

    def clean(
        self,
        name: str,
        system: nn.Module,
        table: Table,
        threat: str,
        key: str = "clean",
        column: str | None = None,
    ) -> Records:
        """A system judged on clean images; ``column`` names the labels (default: the table's primary ones)."""
        path = self._records(name, key)
        if path.is_file():
            found = Records.load(path)
            if found.ids == table.ids.tolist():
                return found
        judge(system, table, column=column, threat=threat).save(path)
        return Records.load(path)

    def corrupted(self, name: str, system: nn.Module, table: Table, severities: Sequence[int]) -> list[Records]:
        """A system judged under each common corruption at each severity."""
        paths = {
            (kind, severity): self._records(name, f"{kind}-{severity}")
            for kind in CORRUPTIONS
            for severity in severities
        }
        if not all(path.is_file() for path in paths.values()):
            with self.bar(f"corruptions on {name}") as advance:
                made = judge_corrupted(system, table, severities=severities, progress=advance)
            for records in made:
                records.save(paths[records.settings["corruption"], records.settings["severity"]])
        return [Records.load(path) for path in paths.values()]

    def adversarial(
        self,
        name: str,
        run: TrainedRun,
        table: Table,
        attack: Attack,
        *,
        seed: int,
        proxy: ProxySettings | None,
        keep: bool,
        column: str | None = None,
    ) -> AdversarialSet:
        """Adversarial examples crafted on the run; ``keep`` stores them, for others to be judged on."""
        path = self.out / "sets" / f"{name}-{attack.name}.safetensors"
        if path.is_file():
            found = load_set(path)
            if found.crafted_on == identity(run.network):
                return found
        with self.bar(f"{attack.name} on {name}") as advance:
            made = craft(
                run.network,
                table,
                attack,
                column=column,
                seed=seed,
                proxy=proxy,
                progress=advance,
            )
        if keep:
            save_set(made, path)
        return made

    def judged(self, name: str, system: nn.Module, on: Callable[[], AdversarialSet], key: str) -> Records:
        """A system judged on adversarial examples, which are only made if no record of them is there."""
        path = self._records(name, key)
        if path.is_file():
            found = Records.load(path)
            # Weights that were trained again are another system: what is known of the old ones says nothing of them.
            if found.judged_on == identity(system):
                return found
        made = judge(system, on())
        made.save(path)
        return made

    def audited(
        self, name: str, defense: Callable[[], nn.Module], table: Table, on: Callable[[], AdversarialSet]
    ) -> dict[str, Any]:
        """The audit of a defense on examples and their clean images, as JSON."""
        return self.found(f"audits/{name}", lambda: audit(defense(), table, on()).to_json())

    def climbed(
        self, name: str, title: str, defense: Callable[[], nn.Module], table: Table, /, **settings: Any
    ) -> dict[str, Any]:
        """The adaptive ladder on a defense, as JSON; ``settings`` are the arguments of `ladder`."""

        def climb() -> dict[str, Any]:
            folder = self.out / "ladders" / name
            with self.bar(title) as advance:
                return ladder(defense(), table, folder=folder, progress=advance, **settings).to_json()

        return self.found(f"ladders/{name}", climb)

    def found(self, name: str, make: Callable[[], JsonObject]) -> JsonObject:
        """What is kept as JSON under that name, made if it is not there."""
        path = self.out / f"{name}.json"
        if not path.is_file():
            write_json(path, make())
        return json.loads(path.read_text(encoding="utf-8"))

    def _records(self, name: str, key: str) -> Path:
        return self.out / "records" / name / f"{key}.json"

    @contextmanager
    def bar(self, title: str, done: Path | None = None) -> Iterator[Progress]:
        """A progress bar with the time left; where nobody watches, a line when it is over."""
        if done is not None and done.is_file():
            yield silent
            return
        if in_worker():
            with report_to_parent(title) as advance:
                yield advance
            return
        started = time.monotonic()
        with progress_bar(self.console, title) as advance:
            yield advance
        self.console.print(f"  {title}: {time.monotonic() - started:.0f} s", highlight=False, soft_wrap=True)


def _make(job: Callable[[Workspace], object], out: Path, data_dir: Path | None, device: str) -> None:
    """In a worker: a job in a workspace of its own."""
    job(Workspace(out, data_dir, device, Console(quiet=True)))
