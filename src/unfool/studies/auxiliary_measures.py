"""What system D's study measures: every figure a record or a file of its own, found again once it is made."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.data.table import Table
from unfool.evaluation import Records
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.evaluation.pretext.accuracy import pretext_quality
from unfool.evaluation.pretext.inpainting import filling_quality
from unfool.report.curves import Curve
from unfool.studies.auxiliary_networks import (
    Reversal,
    Trained,
    attacked_images,
    attacks,
    bound,
    crafted,
    reversals,
    reversed_by,
    tasks_of,
    trained,
)
from unfool.studies.auxiliary_scales import IN_SHORT, INPAINTING, JIGSAW, LOSSES, SOURCE, SOURCE_DATA, Scale
from unfool.studies.recipes import NORMAL
from unfool.studies.workspace import Workspace
from unfool.training.folder import METRICS
from unfool.training.regimes import CLASSIFIER_FIRST, REGIMES

CLEAN = "none"
AUDITED = "pgd-20"
"""The stored set that an audit looks at."""
BLOCK = 16
"""Pixels of the side of what JPEG codes together: four blocks of brightness, one of each colour at half the size."""
OFF_THE_GRID, ON_THE_GRID = "jigsaw moved by half a block", "jigsaw moved by a block"
"""The puzzle on images that are moved so that the blocks lie elsewhere, and, to compare, as far that they lie there
again."""
LINES = 10
"""Lines of a training log that its last accuracy is the mean of."""
GROUPS = 10
"""Disjoint parts of the test split whose fillings are judged one by one, so that their figures have an interval."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A system, bare or behind a reversal, on clean images and on the examples crafted on the bare network, by attack;
    ``ladder`` and ``audit`` are JSON."""

    network: Trained
    records: Mapping[str, Records]
    reversal: Reversal | None = None
    price: int = 1
    ladder: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    cost: Mapping[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What tells its rows apart beside model and defense."""
        variant = "" if self.reversal is None else self.reversal.variant
        regime = (
            {}
            if self.reversal is None and self.network.regime == CLASSIFIER_FIRST
            else {"regime": self.network.regime.replace("-", " ")}
        )
        return {"training": IN_SHORT[self.network.base], **regime, **({"variant": variant} if variant else {})}

    def rows(self) -> list[dict[str, Any]]:
        """One for each record, the ladder's after them."""
        found = []
        for attack, records in self.records.items():
            row = records.row(
                self.network.model, seed=0, settings=self.settings, source_value=self._source(attack)
            ).to_json()
            row["cost"]["model_images"] += (self.price - 1) * records.count
            if attack == CLEAN and self.cost is not None:
                row["cost"] = dict(self.cost)
            found.append(row | {"defense": "none" if self.reversal is None else self.reversal.defense})
        if self.ladder is not None:
            found += [
                {**row, "settings": {**row["settings"], **self.settings, "ladder": self.ladder["ladder"]["defense"]}}
                | {"panel": "ladder"}
                for row in self.ladder["rows"]
                if row["protocol"] != "clean"
            ]
        return found

    def _source(self, attack: str) -> float | None:
        """The source's figure, a share."""
        network, reversal = self.network, self.reversal
        told = SOURCE.get(network.regime, {}).get(attack)
        if told is None or (network.part.data, network.base) != (SOURCE_DATA, NORMAL):
            return None
        if reversal is None:
            return round(told[0] / 100, 6) if network.task in ("", INPAINTING) else None
        ours = reversal.task == INPAINTING and not reversal.variant and not reversal.gate
        return round(told[1] / 100, 6) if ours else None


def bare(settings: Scale, network: Trained, work: Workspace) -> Judged:
    """The network by itself."""
    run = trained(network, work)
    table = work.table(network.part.data, "test")
    found = {CLEAN: work.clean(network.path, run.network, table, settings.threat)}
    for attack, _, _ in attacks(settings):
        found[attack] = work.judged(
            network.path, run.network, lambda attack=attack: crafted(settings, network, attack, work), attack
        )
    cost = {"cpu_seconds": round(run.cpu_seconds, 1), "model_images": run.model_images}
    return Judged(network=network, records=found, cost=cost)


def behind(settings: Scale, reversal: Reversal, work: Workspace) -> Judged:
    """The network behind a reversal: replayed examples, an audit, and the ladder unless it is a mere variant."""
    network, plain = reversal.network, not reversal.variant
    defense = reversed_by(settings, reversal, work)
    whole = work.table(network.part.data, "test")
    few = attacked_images(settings, network.part, work)
    found = {CLEAN: work.clean(reversal.path, defense, whole, settings.threat)}
    for attack, _, _ in attacks(settings):
        found[attack] = work.judged(
            reversal.path, defense, lambda attack=attack: crafted(settings, network, attack, work), attack
        )
    audit = None
    if not reversal.gate:
        audit = work.audited(reversal.path, lambda: defense, few, lambda: crafted(settings, network, AUDITED, work))
    return Judged(
        network=network,
        records=found,
        reversal=reversal,
        price=int(getattr(defense, "images_per_prediction", 1)),
        ladder=_climbed(settings, reversal, defense, few, work) if plain else None,
        audit=audit,
    )


def _climbed(settings: Scale, reversal: Reversal, defense: nn.Module, few: Table, work: Workspace) -> dict[str, Any]:
    return work.climbed(
        reversal.path,
        f"ladder on {reversal.path}",
        lambda: defense,
        few,
        attack=settings.strongest,
        rungs="abcdefg" if reversal.gate else "abcdef",
        name=f"{reversal.network.model}, {reversal.network.base}",
        defended=reversal.defense,
        settings=LadderSettings(
            threat=settings.threat,
            images=min(settings.laddered, len(few)),
            precision=settings.precision,
            **settings.ladder,
        ),
    )


def judged_all(settings: Scale, network: Trained, work: Workspace) -> list[Judged]:
    """A network, bare and behind each of its reversals."""
    return [
        bare(settings, network, work),
        *(behind(settings, reversal, work) for reversal in reversals(network)),
    ]


def learnt(network: Trained, work: Workspace) -> dict[str, dict[str, Any]]:
    """How well the network does each of its tasks on the test split, and a jigsaw without augmentation on images whose
    JPEG blocks have moved."""
    tasks = [network.task] if network.task else tasks_of(network.part)

    def judge_tasks() -> dict[str, Any]:
        run, table = trained(network, work), work.table(network.part.data, "test")
        found = {}
        for task in tasks:
            made = bound(network, task, "", work)
            found[task] = vars(pretext_quality(run.network, made, table))
            # In smaller images than that, moving them by a block leaves no tile whole.
            fits = task == JIGSAW and table.shape[2] >= made.settings.grid * BLOCK
            if fits and made.settings.augmentation == "none":
                for name, pixels in ((OFF_THE_GRID, BLOCK // 2), (ON_THE_GRID, BLOCK)):
                    change = functools.partial(moved, pixels=pixels)
                    found[name] = vars(pretext_quality(run.network, made, table, change=change))
        return found

    return work.found(f"pretext/{network.path}", judge_tasks)


def in_training(network: Trained, work: Workspace) -> dict[str, float]:
    """What share of its training batches' images each head got right over the last lines of the log, as it saw them.

    Far above the held-out share, it tells of more than overfitting: of features in training that eval mode has not.
    """
    columns = Curve(network.path, work.run_folder(network.path) / METRICS).columns()
    found = {name: [value for value in values if math.isfinite(value)][-LINES:] for name, values in columns.items()}
    prefix = "accuracy/"
    return {
        name.removeprefix(prefix): float(np.mean(values))
        for name, values in found.items()
        if name.startswith(prefix) and values
    }


def moved(images: Tensor, pixels: int) -> Tensor:
    """The images (B, C, H, W) moved by so much each way; what leaves at one side comes in at the other."""
    return images.roll((pixels, pixels), (2, 3))


def fillings(network: Trained, work: Workspace) -> dict[str, list[dict[str, float]]]:
    """How well the network fills regions, for each part of the test split: as trained, and with each variant of the
    loss that it has a decoder for."""
    variants = ["", *(one.variant for one in reversals(network) if one.variant in LOSSES)]

    def judge_fillings() -> dict[str, Any]:
        run, table = trained(network, work), work.table(network.part.data, "test")
        parts = [table.subset(rows) for rows in torch.arange(len(table)).chunk(GROUPS)]
        found = {}
        for variant in variants:
            task = bound(network, INPAINTING, variant, work)
            judged = [filling_quality(run.network, task, part) for part in parts]
            found[variant] = [{**vars(one), "ratio": one.ratio} for one in judged]
        return found

    return work.found(f"fillings/{network.path}", judge_fillings)


def fills(network: Trained) -> bool:
    """Whether the network has an inpainting head."""
    return network.regime in REGIMES and INPAINTING in ([network.task] if network.task else tasks_of(network.part))
