"""``unfool audit``: before a reversal is used, does its pretext loss tell it anything about attacks?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options import BatchSize, Json, Precision, Preset, Seed, SystemOptions, Threat


@dataclass(frozen=True, kw_only=True)
class AuditCommand(SystemOptions):
    """Look at a reversal before it is used: the shift of its loss, its gradient, its gain over noise.

    Attacked images are crafted on the bare network, or read from a set. The pretext loss is compared between clean,
    attacked and purified images (AUROC: can it tell them apart?), its gradient with that of the class loss, and the
    gain of the reversal with random noise and test-time augmentation at the same counted cost. A gain here is one
    against attacks that do not know of the reversal: `unfool evaluate --defense ... --adaptive` asks about the others.
    """

    defense: Annotated[
        str | None,
        tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint="(default: along the run's pretext task)"),
    ] = None
    """The reversal, or a gate around one: reverse:task=contrast,steps=10."""
    preset: Preset = None
    attack: Annotated[str, tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]")] = "pgd-10"
    """What crafts the attacked images."""
    threat: Threat = "linf:8/255"
    on: Annotated[Path | None, tyro.conf.arg(metavar="SET", help_behavior_hint="(default: crafted here)")] = None
    """Instead of --attack: a set that `unfool attack` wrote."""
    precision: Precision = "fp32"
    seed: Seed = 0
    batch_size: BatchSize = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write what was found as JSON, histograms included."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool audit runs/head --images 200
  unfool audit runs/head --defense reverse:task=contrast,steps=10 --attack pgd-50 --threat linf:8/255
  unfool audit runs/head --preset mao2021 --on pgd.safetensors --out audit.json
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            self._run()

    def _run(self) -> None:
        from unfool.attacks import make_attack
        from unfool.cli.defended import default_reversal, open_defense, training_images
        from unfool.cli.printing import check_writable, print_json, print_lines, stderr
        from unfool.cli.systems import open_system
        from unfool.core.errors import DataError
        from unfool.core.files import write_json
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation import craft, load_set
        from unfool.evaluation.adaptive.audit import audit
        from unfool.evaluation.crafting.batches import BATCH_SIZE
        from unfool.evaluation.evaluate import proxy_for

        attack = make_attack(self.attack, self.threat)
        system = open_system(self)
        if self.out is not None:
            check_writable(self.out)
        examples = load_set(self.on) if self.on is not None else None
        # A set's images may be any of the split's, as long as they are of that split.
        table, column = system.images(self if examples is None else replace(self, images=sys.maxsize))
        if examples is not None and (examples.data, examples.split) != (table.name, table.split):
            raise DataError(
                f"{self.on} holds {examples.data} {examples.split} images, and {system.name} was opened with "
                f"{table.name} {table.split}; give --data {examples.data}"
            )
        text = default_reversal(self.defense, self.preset, system)
        defense = open_defense(text, system, training_images(system, self.data, self.data_dir), self.seed)
        if examples is None:
            with progress_bar(stderr(), f"{self.attack} at {attack.threat}") as advance:
                examples = craft(
                    system.network,
                    table,
                    attack,
                    column=column,
                    seed=self.seed,
                    proxy=proxy_for(system.network, self.precision),
                    batch_size=self.batch_size,
                    report=lambda done, total: advance("", done, total),
                )
        found = audit(defense, table, examples, batch_size=self.batch_size or BATCH_SIZE, seed=self.seed)
        told = {"defense": text, "attack": examples.attack, "threat": str(examples.threat), **found.to_json()}
        if self.out is not None:
            write_json(self.out, told)
        if self.json:
            print_json(told)
        else:
            print_lines([f"{text} before {system.name}, under {examples.attack} at {examples.threat}:"])
            print_lines(found.sentences())
