"""``unfool evaluate``: how accurate is a classifier, clean and attacked, and are the figures reliable."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options.cluster import WorkOptions
from unfool.cli.options.from_settings import options_from
from unfool.cli.options.shared import (
    DataOptions,
    Eps,
    Json,
    MachineOptions,
    ModelOptions,
    Norm,
    Preset,
    Threat,
)

EVALUATION = "unfool.evaluation.settings:EvaluationSettings"
LADDER = "unfool.evaluation.adaptive.settings:LadderSettings"
_NONE = "(default: none)"
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


@options_from(EVALUATION, only=("claim", "alpha", "curve", "union", "precision"), own_first=True)
class AttackOptions:
    """The attacks."""

    attack: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(
            help="fgsm, fgsm-rs, pgd-20 (or pgd20), apgd-ce, autoattack (or aa), or with settings such as "
            "pgd-20:restarts=5; `unfool list attacks` names all.",
            metavar="NAME[:KEY=VALUE,..]",
            aliases=["--attacks"],
            help_behavior_hint="(repeatable)",
        ),
    ] = ()
    threat: Threat = None
    norm: Norm = None
    eps: Eps = None
    on: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]],
        tyro.conf.arg(metavar="SET", help_behavior_hint="(repeatable)"),
    ] = ()
    """A set that `unfool attack` wrote: evaluate on its images as they are."""


@dataclass(frozen=True, kw_only=True)
class DefenseOptions:
    """A defense before the classifier."""

    defense: Annotated[str | None, tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint=_NONE)] = None
    """The defense: reverse:task=contrast,steps=10, or gate:rate=0.05,task=contrast."""
    preset: Preset = None
    adaptive: Flag = False
    """Run the adaptive ladder: attacks that know more and more of --defense, or of a model that defends itself."""


@options_from(LADDER, only=("steps", "draws", "targets", "queries", "lambdas", "restarts"))
class LadderOptions:
    """How hard the attacks of --adaptive try."""


@options_from(EVALUATION, only=("corruptions",))
class CorruptionOptions:
    """Images that are corrupted, not attacked."""

    severity: Annotated[
        tyro.conf.UseAppendAction[tuple[int, ...]],
        tyro.conf.arg(metavar="1..5", help_behavior_hint="(repeatable, default: all five)"),
    ] = ()
    """Severity of --corruptions."""


@options_from(EVALUATION, only=("binarization_test",))
class ReliabilityOptions:
    """Whether the figures can be trusted."""

    reliability: Flag = True
    """Leave out the reliability report."""
    strict: Flag = False
    """End with exit code 9 if there is any reason to doubt the figures."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_NONE)] = None
    """Write a results file (.json), which `unfool report` shows as a page; - prints it instead of the table."""
    page: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_NONE)] = None
    """Write the page of the results (.html)."""
    sarif: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_NONE)] = None
    """Write what does not pass as SARIF 2.1.0, for code scanning (.sarif): failed claims and reasons for doubt."""
    state: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: FILE.state of --out, until it is done)")
    ] = None
    """Store finished batches here, so that the same command resumes where it was stopped."""
    json: Json = False

    @property
    def folder(self) -> Path | None:
        """Where finished batches are stored; None where nothing says so."""
        return self.state or (self.out.with_suffix(".state") if self.out is not None and not self.streams else None)

    @property
    def streams(self) -> bool:
        """Whether the results are printed in place of a table."""
        return str(self.out) == "-"


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Evaluate a classifier on clean images, under attack, and on examples that were crafted elsewhere.

    Every accuracy comes with its 95 % interval and its protocol: clean, white-box, or TRANSFER where the examples were
    crafted on another system. A reliability report on a few images says when the figures are not to be believed. Where
    less than half of the clean accuracy stands an attack, the last line names the command that hardens the classifier.
    With --claim the exit code is 10 where the claim fails, 11 where the images cannot settle it (docs/ci.md).
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    attack: AttackOptions = field(default_factory=AttackOptions)
    defense: DefenseOptions = field(default_factory=DefenseOptions)
    ladder: LadderOptions = field(default_factory=LadderOptions)
    corruption: CorruptionOptions = field(default_factory=CorruptionOptions)
    reliability: ReliabilityOptions = field(default_factory=ReliabilityOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    work: WorkOptions = field(default_factory=WorkOptions)

    to_resume: ClassVar[str] = "give --out FILE or --state DIR"
    examples: ClassVar[str] = """
  unfool evaluate runs/digits --attack fgsm --attack pgd-20 --threat linf:8/255
  unfool evaluate weights.safetensors --data cifar10 --attack pgd-50:restarts=5 --norm l2 --eps 0.5 --images 500
  unfool evaluate --model mine.py:build --weights w.safetensors --data cifar10 --attacks autoattack --out mine.json
  unfool evaluate --model mine.py:build --mean imagenet --std imagenet --data folder:pets --attack apgd-ce --strict
  unfool evaluate runs/a --attack autoattack --claim '>=0.45' --alpha 0.01 --sarif robust.sarif
  unfool evaluate runs/a --attack pgd-20 --curve eps=2/255,4/255,8/255 --page curve.html
  unfool evaluate runs/a --attacks autoattack --union linf:8/255,l2:0.5,l1:12
  unfool evaluate runs/a --attack pgd-20 --corruptions --severity 3
  unfool evaluate runs/a --attacks autoattack --images 10000 --workers 4 --out a.json
  unfool evaluate runs/b --on pgd-on-a.safetensors --json
  unfool evaluate runs/b --defense reverse:task=contrast,steps=10 --on pgd-on-b.safetensors --no-reliability
  unfool evaluate runs/b --defense reverse:task=contrast,steps=10 --adaptive --images 100 --out ladder.json
  unfool evaluate --model mine.py:build --weights w.safetensors --data cifar10 --adaptive --images 100
"""

    @property
    def resumes(self) -> bool:
        """Whether finished batches are stored, so that the same command goes on where it was stopped."""
        return self.output.folder is not None

    def run(self) -> None:
        from unfool.cli.printing import shared
        from unfool.cli.run_evaluation import run_evaluation, run_ladder

        with shared():
            if self.defense.adaptive:
                run_ladder(self)
            else:
                run_evaluation(self)
