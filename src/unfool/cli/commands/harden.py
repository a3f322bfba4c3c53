"""``unfool harden``: fine-tune any classifier on adversarial examples for a stated time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.from_settings import explicit, options_from
from unfool.cli.options.shared import (
    Device,
    Eps,
    ImageOptions,
    Json,
    ModelOptions,
    Norm,
    Track,
)

if TYPE_CHECKING:
    from unfool.evaluation.hardening import Hardened

SETTINGS = "unfool.evaluation.hardening.settings:HardenSettings"
_TRAINING = ("minutes", "steps", "perturb", "adversarial", "awp", "learning_rate", "weight_decay", "batch_size", "ema",
             "augmentation", "held_out", "precision")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataOptions(ImageOptions):
    """The images: the train split is learnt from, the test split evaluated on."""


@options_from(SETTINGS, only=("threat",))
class ThreatOptions:
    """What the classifier learns to withstand."""

    norm: Norm = None
    eps: Eps = None


@options_from(SETTINGS, only=_TRAINING)
class TrainingOptions:
    """How long and how it is fine-tuned."""


@options_from(SETTINGS, only=("attack", "at", "images"))
class EvaluationOptions:
    """How it is evaluated before and after."""


@options_from(SETTINGS, only=("seed",))
class MachineOptions:
    """Random draws and hardware."""

    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class HardenCommand:
    """Harden any classifier: fine-tune its own weights on adversarial examples, and test what that bought and cost.

    All of it ends within --minutes on this machine: both evaluations, and between them training for what is left. The
    hardened weights are DIR/model.safetensors, under the classifier's own parameter names, for its own code to load;
    of a network that unfool trained (SYSTEM) DIR is a run like any other. The same command goes on where it was
    stopped.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The run's folder."""
    track: Track = ()
    json: Json = False
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    threat: ThreatOptions = field(default_factory=ThreatOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool harden --model net.py:build --weights net.pt --data cifar10 --threat linf:2/255 --minutes 15 --out hard
  unfool harden --model net.py:build --mean cifar10 --std cifar10 --data folder:pets --size 64 --out hard
  unfool harden --model hf:my-model --data folder:pets --eps 4/255 --adversarial trades --minutes 60 --out hard
  unfool harden --model net.py:build --data cifar10 --threat linf:2/255 --at linf:1/255 --attack autoattack --out hard
  unfool harden runs/digits --threat linf:8/255 --minutes 2 --out runs/hardened
"""

    def run(self) -> None:
        # What is imported from here on takes seconds, and they count too.
        started = time.monotonic()
        from unfool.cli.printing import shared

        with shared():
            self._harden(started)

    def _harden(self, started: float) -> None:
        from unfool.cli.parsing.systems import choose_device, open_system
        from unfool.cli.parsing.threats import read_threat
        from unfool.cli.parsing.trackers import read_trackers
        from unfool.cli.printing import print_json, stderr
        from unfool.core.config import build
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation.hardening import HardenSettings, harden

        groups = (self.training, self.evaluation, self.machine)
        values = {name: value for group in groups for name, value in explicit(group, without=["device"]).items()}
        options = self.threat
        settings = build(
            HardenSettings, {**values, "threat": read_threat(options.threat, options.norm, options.eps)}, "hardening"
        )
        trackers = read_trackers(self.track)
        opened = open_system(self.model, self.machine.device)
        train, test, column = opened.splits(self.data, self.training.batch_size)
        with progress_bar(stderr(), opened.name) as progress:
            hardened = harden(
                opened.network,
                train,
                test,
                self.out,
                settings=settings,
                name=opened.name,
                column=column,
                framing=opened.framing(self.data),
                image=self.data.image or (opened.config.image if opened.config is not None else None),
                device=choose_device(self.machine.device),
                started=started,
                progress=progress,
                track=trackers,
            )
        if self.json:
            print_json(hardened.to_json())
        else:
            self._print(hardened)

    def _print(self, hardened: Hardened) -> None:
        """Before and after in one table, the paired tests, the cost, and what comes next."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        from unfool.cli.printing import print_lines, stdout

        table = Table(box=box.SIMPLE_HEAD, title=f"{escape(hardened.before.name)}, hardened", title_justify="left")
        for word in ("attack", "before %", "after %", "difference", "95 % interval", "n"):
            table.add_column(word, justify="left" if word == "attack" else "right", no_wrap=True)
        rows = zip(hardened.comparisons.items(), hardened.before.rows, hardened.after.rows, strict=True)
        for (title, comparison), before, after in rows:
            table.add_row(
                "none (clean)" if title == "none" else escape(title),
                f"{100 * before.accuracy:.1f}",
                f"{100 * after.accuracy:.1f}",
                f"{100 * comparison.difference:+.1f}",
                escape(f"[{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"),
                str(comparison.n),
            )
        stdout().print(table)
        run = hardened.run
        lines = [
            f"{hardened.steps} training steps, {run.cpu_seconds:.0f} s of CPU, {run.model_images:,} model images; "
            + ", ".join(f"{part} {seconds:.0f} s" for part, seconds in hardened.seconds.items()),
            f"{hardened.weights}: the hardened weights, under the classifier's own names",
        ]
        print_lines(
            [*lines, *(f"not to be believed: {doubt}" for doubt in hardened.after.doubts), self._next(hardened)]
        )

    def _next(self, hardened: Hardened) -> str:
        """The line of the command that attacks the hardened classifier harder."""
        from unfool.cli.next_command import attack_options, command, options

        if self.model.system is not None:
            words = [str(self.out), *options(self.model, without=("system",))]
        else:
            without = ("weights", "key", "prefix")
            words = [*options(self.model, without=without), "--weights", str(hardened.weights)]
        threat = hardened.before.rows[-1].threat or ""
        return command(["evaluate", *words, *options(self.data), *attack_options(threat), "--threat", threat])
