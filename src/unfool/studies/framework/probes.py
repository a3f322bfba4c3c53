"""Linear probes on stages of a frozen trunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from unfool.core.files import JsonObject
from unfool.evaluation import Records
from unfool.evaluation.pretext.probe_records import probe_records
from unfool.studies.framework.measurements import SystemMeasurement, row_of, training_cost
from unfool.studies.framework.networks import NetworkSpec, identity_of
from unfool.studies.framework.pieces import Images, Measured
from unfool.studies.framework.workspace import Workspace
from unfool.training.probing.probe import ProbeResult, probe
from unfool.training.probing.settings import ProbeSettings


@dataclass(frozen=True, kw_only=True)
class ProbedStages:
    """Linear probes of a trunk: ``records`` by stage and split, one a seed; ``curves`` by stage and split, the seeds'
    mean accuracy after each epoch; ``best``, the stage whose probes are best on held-out images (if there are any)."""

    records: Mapping[tuple[str, str], list[Records]]
    curves: Mapping[str, Mapping[str, list[float]]]
    best: str


@dataclass(frozen=True, kw_only=True)
class Probed(SystemMeasurement):
    """Linear probes on stages of a frozen trunk; the rows of test images carry what training the trunk cost.

    Probes learn from ``images``, are measured on ``test`` and, with ``held_out``, a best stage is chosen on those.
    ``{stage}`` in the values of ``words`` is the stage's name. The page shows rows of training images in its charts.
    """

    folder: ClassVar[str] = "probes"

    system: NetworkSpec
    images: Images
    test: Images
    settings: ProbeSettings
    stages: tuple[str, ...] = ("last",)
    splits: tuple[str, ...] = ("test",)
    held_out: Images | None = None
    threat: str = "linf:8/255"

    def cost(self, work: Workspace) -> float:
        return float(len(self.images.table(work)) + len(self.test.table(work)))

    def make(self, work: Workspace) -> ProbedStages:
        summary = work.json("probes", self.path, lambda: self._probe(work))
        if summary["extractor"] != identity_of(self.system, work):  # Of a study that noted no identities yet.
            work.file("probes", self.path).unlink()
            summary = work.json("probes", self.path, lambda: self._probe(work))
        records = {
            (stage, split): [Records.load(self._file(stage, split, seed, work)) for seed in self.settings.seeds]
            for stage, split in itertools.product(self.stages, self.splits)
        }
        return ProbedStages(records=records, curves=summary["curves"], best=summary["best"])

    def _file(self, stage: str, split: str, seed: int, work: Workspace) -> Path:
        return work.file("records", f"{self.path}/{stage}-{split}-{seed}")

    def _probe(self, work: Workspace) -> JsonObject:
        """Train the probes and keep their records; the summary that is returned is written after everything else."""
        with work.bar(f"probe of {self.system.path} {self.name}".rstrip()) as advance:
            result = probe(
                work.get(self.system).network,
                self.images.table(work),
                self.test.table(work),
                held_out=self.held_out.table(work) if self.held_out is not None else None,
                stages=self.stages,
                settings=self.settings,
                device=work.device,
                progress=advance,
            )
        for stage, split, seed in itertools.product(self.stages, self.splits, self.settings.seeds):
            records = probe_records(result, stage, seed, split=split, threat=self.threat)
            records.save(self._file(stage, split, seed, work))
        best = result.best_stage() if self.held_out is not None else self.stages[-1]
        self.keep(result, best, work)
        curves = {stage: {split: result.curve(stage, split) for split in ("train", "test")} for stage in self.stages}
        return {"extractor": identity_of(self.system, work), "best": best, "curves": curves}

    def keep(self, result: ProbeResult, best: str, work: Workspace) -> None:
        """What else a study measures of probes while their weights are at hand; nothing here."""

    def measured(self, result: ProbedStages, work: Workspace) -> Iterator[Measured]:
        cost = training_cost(self.system, work)
        for (stage, split), every in result.records.items():
            words = {word: text.format(stage=stage) for word, text in self.words.items()}
            other = {"cost": cost} if split == "test" else {"panel": "charts"}
            for seed, records in zip(self.settings.seeds, every, strict=True):
                yield Measured(row=replace(row_of(records, self.system, words), seed=seed, **other), records=records)
