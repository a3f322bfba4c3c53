"""``unfool audit``: before a reversal is used, does its pretext loss tell it anything about attacks?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options.from_settings import explicit, options_from
from unfool.cli.options.shared import DataOptions, Device, Eps, Json, ModelOptions, Norm, Preset, Threat

AUDIT = "unfool.evaluation.adaptive.settings:AuditSettings"
_ATTACK = "pgd-10"


@options_from(AUDIT, only=("precision",), own_first=True)
class AttackOptions:
    """The attacked images."""

    attack: Annotated[
        str | None, tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint=f"(default: {_ATTACK})")
    ] = None
    """The attack that crafts them on the classifier without the reversal."""
    threat: Threat = None
    norm: Norm = None
    eps: Eps = None
    on: Annotated[Path | None, tyro.conf.arg(metavar="SET", help_behavior_hint="(default: crafted here)")] = None
    """Instead of --attack: a set that `unfool attack` wrote, all of it; crafted on another system it is transfer."""


@options_from(AUDIT, only=("draws",), own_first=True)
class DefenseOptions:
    """The reversal."""

    defense: Annotated[
        str | None,
        tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint="(default: along the run's pretext task)"),
    ] = None
    """The reversal, or a gate around one: reverse:task=contrast,steps=10."""
    preset: Preset = None


@options_from(AUDIT, only=("seed", "batch_size"))
class MachineOptions:
    """Random draws and hardware."""

    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class AuditCommand:
    """Measure whether a reversal can help: the shift of its loss under attack, its gradient, its gain over noise.

    The pretext loss is compared between clean, attacked and purified images (AUROC: does it separate them?), its
    gradient with that of the class loss, and the gain of the reversal with random noise and test-time augmentation at
    the same counted cost. A gain here is one against attacks that ignore the reversal: `unfool evaluate --defense ...
    --adaptive` measures the others.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the results as JSON, histograms included."""
    json: Json = False
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    defense: DefenseOptions = field(default_factory=DefenseOptions)
    attack: AttackOptions = field(default_factory=AttackOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

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
        from unfool.cli.next_command import next_line
        from unfool.cli.parsing.defended import default_reversal, open_defense
        from unfool.cli.parsing.systems import open_system
        from unfool.cli.parsing.threats import read_threat
        from unfool.cli.printing import check_writable, print_json, print_lines, stderr
        from unfool.core.config import build
        from unfool.core.errors import DataError
        from unfool.core.files import write_json
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation import load_set
        from unfool.evaluation.adaptive.audit import audit
        from unfool.evaluation.adaptive.settings import AuditSettings
        from unfool.evaluation.records import TRANSFER

        options = self.attack
        self._check_companions()
        values = {
            **explicit(options, without=["attack", "threat", "norm", "eps", "on"]),
            **explicit(self.defense, without=["defense", "preset"]),
            **explicit(self.machine, without=["device"]),
        }
        settings = build(AuditSettings, values, "the audit")
        attack = make_attack(options.attack or _ATTACK, read_threat(options.threat, options.norm, options.eps))
        system = open_system(self.model, self.machine.device)
        if self.out is not None:
            check_writable(self.out, streams=True)
        examples = load_set(options.on) if options.on is not None else None
        # A set's images may be any of the split's, as long as they are of that split.
        table, column = system.images(self.data if examples is None else replace(self.data, images=sys.maxsize))
        if examples is not None and (examples.data, examples.split) != (table.name, table.split):
            raise DataError(
                f"{options.on} holds {examples.data} {examples.split} images, and {system.name} was opened with "
                f"{table.name} {table.split}; give --data {examples.data}"
            )
        text = default_reversal(self.defense.defense, self.defense.preset, system)
        training = system.split(self.data, "train")
        with progress_bar(stderr(), system.name) as progress:
            defense = open_defense(text, system, training, settings.seed)
            report = audit(defense, table, examples or attack, settings=settings, column=column, progress=progress)
        results = {"defense": text, **report.to_json()}
        if self.out is not None:
            write_json(self.out, results)
        streams = str(self.out) == "-"
        if self.json and not streams:
            print_json(results)
        elif not streams:
            kind = " (TRANSFER)" if report.protocol == TRANSFER else ""
            print_lines([f"{text} before {system.name}, under {report.attack} at {report.threat}{kind}:"])
            print_lines(report.sentences())
            print_lines(next_line(report.next_step, self.model, self.data, device=self.machine.device, defense=text))

    def _check_companions(self) -> None:
        """Refuse what chooses or crafts examples beside a set that holds them."""
        from unfool.core.errors import SpecError

        ignored = [*explicit(self.attack, without=["on"]), *(name for name in explicit(self.data) if name == "images")]
        if self.attack.on is not None and ignored:
            raise SpecError(
                f"--on {self.attack.on} audits all examples of that set, so --{ignored[0]} does nothing; give one of "
                "the two"
            )
