"""The checks of a lean attack: the reliability report on a few images, and the examples that its attacks ended with.

Legend: n examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from unfool.attacks import Part, Perturbed, Problem
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.ensemble import LearnsFrom
from unfool.attacks.lean.attack import Lean
from unfool.attacks.objective import LabelLoss
from unfool.attacks.proxy import ProxySettings
from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.files import write_json
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.lean.replay import OnModelAlone, matching
from unfool.evaluation.reliability.evidence import Example
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.results.reliability import Reliability
from unfool.models.weights import load_tensors, save_tensors

IMAGES = 32
"""Correctly classified images that are looked at: half of what the reliability report takes, at half of its cost."""


def checks(
    model: nn.Module,
    table: Table,
    attack: Lean,
    column: str | None,
    examples: AdversarialSet,
    seed: int,
    proxy: ProxySettings | None,
    folder: Path | None,
    progress: Progress,
) -> tuple[Reliability, Mapping[int, Example]]:
    """The reliability report on a few images, beside what the lean attack fooled, and by image id the examples that
    its attacks ended with; a folder keeps both."""
    report_path, examples_path = (None if folder is None else folder / name for name in _FILES)
    if report_path is not None and examples_path is not None and is_file(report_path) and is_file(examples_path):
        return Reliability.from_json(read_object(report_path, "remove the folder")), _stored(examples_path)
    own: dict[int, Example] = {}
    report = reliability(
        model,
        table,
        threat=attack.threat,
        column=column,
        attacks=(attack,),
        sets=(examples,),
        images=IMAGES,
        seed=seed,
        proxy=proxy,
        examples=own,
        progress=progress,
    )
    if report_path is not None and examples_path is not None and rank_and_world_size()[0] == 0:
        _store(own, examples_path, table)
        write_json(report_path, report.to_json())
    return report, own


_FILES = ("checks.json", "checks.safetensors")


def _store(examples: Mapping[int, Example], path: Path, table: Table) -> None:
    images = [example.image for example in examples.values()]
    tensors = {
        "ids": torch.tensor(list(examples), dtype=torch.int64),
        "images": torch.stack(images) if images else torch.empty(0, *table.shape),
    }
    attacks = [[example.attack, example.learns_from] for example in examples.values()]
    save_tensors(path, tensors, {"attacks": attacks})


def _stored(path: Path) -> dict[int, Example]:
    tensors, metadata = load_tensors(path)
    each = zip(tensors["ids"].tolist(), tensors["images"], metadata["attacks"], strict=True)
    return {
        number: Example(image=image, attack=str(attack), learns_from=cast(LearnsFrom, learns_from))
        for number, image, (attack, learns_from) in each
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """An engine that evaluates examples which are there already, by the ids of their images.

    Args:
        threat: Their threat model.
        ids: Ids of their images (n,), int64.
        images: The examples (n, C, H, W).
    """

    threat: ThreatModel
    ids: Tensor
    images: Tensor

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """The examples of the problem's ids; an image that has none, or whose own does not fool, stays as it is."""
        best_so_far = BestSoFar(problem.images, "success", gradients=False)
        rows, places = matching(problem.ids.cpu(), self.ids)
        if len(rows):
            rows = rows.to(problem.images.device)
            points = self.images[places].to(problem.images)
            with torch.no_grad():
                best_so_far.record(rows, points, best_so_far.evaluate(problem.objective, points, rows))
        return best_so_far.result()


def shown(attack: Lean, examples: Mapping[int, Example]) -> OnModelAlone:
    """The examples of the checks as an attack, whose parts are those that came upon them; one example at least."""
    by_attack: dict[tuple[str, LearnsFrom], list[int]] = {}
    for number, example in examples.items():
        by_attack.setdefault((example.attack, example.learns_from), []).append(number)
    parts = tuple(
        Part(
            name=name,
            engine=Shown(
                threat=attack.threat,
                ids=torch.tensor(numbers),
                images=torch.stack([examples[number].image for number in numbers]),
            ),
            loss="margin",
            learns_from=learns_from,
        )
        for (name, learns_from), numbers in by_attack.items()
    )
    return OnModelAlone(attack.threat, label=f"{attack.name}-checks", components=parts)
