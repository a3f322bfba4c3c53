"""``unfool train``: one or several tasks in parallel on one network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from unfool.cli.options.from_settings import options_from
from unfool.cli.options.shared import DataDir, Device, Eps, Json, Norm, OutsideOptions, Track

STAGE, RUN = "unfool.training.stage_config:StageConfig", "unfool.training.config:RunConfig"
_OF_PERTURBATION = ("perturb", "threat", "adversarial", "statistics", "beta", "awp")
_OF_SELECTION = ("held_out", "stop_attack", "ema")


@options_from(RUN, only=("data", "size", "crop", "image", "fraction"))
class DataOptions:
    """The training images."""

    label: Annotated[
        str | None,
        tyro.conf.arg(metavar="COLUMN", aliases=["--column"], help_behavior_hint="(default: the set's primary column)"),
    ] = None
    """Label column of labels tasks that name none."""
    data_dir: DataDir = None


@options_from(RUN, only=("start", "normalisation"), own_first=True)
class ModelOptions:
    """The network."""

    trunk: Annotated[
        str | None,
        tyro.conf.arg(
            help="resnet18, vgg16, convnet (narrow), or with settings such as wide-resnet:depth=28,width=10; "
            "`unfool list trunks` names all.",
            metavar="NAME[:KEY=VALUE,..]",
            help_behavior_hint="(default: resnet18)",
        ),
    ] = None
    stem: Annotated[
        str | None,
        tyro.conf.arg(
            help="The trunk's first layers: cifar or imagenet (ResNets), dense or strided (convnet), stride-4 or "
            "stride-2 (alexnet).",
            metavar="NAME",
            help_behavior_hint="(default: the trunk's)",
        ),
    ] = None
    width: Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="(default: the trunk's)")] = None
    """Multiplier of the widths (all but convnet)."""
    depth: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the trunk's)")] = None
    """Layers (wide-resnet), or stages (context-encoder)."""
    widths: Annotated[
        tuple[int, int, int] | None, tyro.conf.arg(metavar="A B C", help_behavior_hint="(default: 24 64 128)")
    ] = None
    """Widths of the stem, the first block and the others (convnet)."""


@options_from(RUN, only=("classifier",), own_first=True)
class TaskOptions:
    """What the network learns."""

    task: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(
            help="labels, rotation, contrast (also simclr) or another of `unfool list tasks`, with settings; "
            "weight=W weighs it in the loss, as=HEAD names its head, and perturbed=false keeps its views "
            "clean under --perturb.",
            metavar="NAME[:KEY=VALUE,..]",
            help_behavior_hint="(repeatable, default: labels)",
        ),
    ] = ()
    regime: Literal["joint", "classifier-first"] = "joint"
    """joint: all tasks at once; classifier-first: labels, then the heads of other tasks on the frozen trunk."""


@options_from(STAGE, without=("tasks", *_OF_PERTURBATION, *_OF_SELECTION))
class TrainingOptions:
    """How long, and with which optimizer."""


@options_from(STAGE, only=_OF_PERTURBATION)
class PerturbationOptions:
    """Training on adversarial examples."""

    norm: Norm = None
    eps: Eps = None


@options_from(STAGE, only=_OF_SELECTION)
class SelectionOptions:
    """Which weights the run ends with."""


@options_from(RUN, only=("seed",))
class MachineOptions:
    """Random draws and hardware."""

    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a network on one or several tasks at once, clean or perturbed.

    The same command resumes a run that was stopped, to the same weights. Several stages, one after the other, are
    written in a YAML file (--config); a finished run's config.yaml is an example of one. Several processes share every
    batch and give the weights of a single one, to rounding (docs/processes.md): `torchrun --nproc-per-node 2 -m unfool
    train ...`, or accelerate launch.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The run's folder: configuration, log, checkpoint, weights."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """YAML of a run, instead of the options that describe one."""
    track: Track = ()
    json: Json = False
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    outside: OutsideOptions = field(default_factory=OutsideOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    perturbation: PerturbationOptions = field(default_factory=PerturbationOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool train --data digits --trunk convnet --epochs 8 --optimizer sgd --learning-rate 0.1 --out runs/digits
  unfool train --data cifar10 --stem cifar --task labels:weight=0.5 --task contrast:temperature=0.1 --out runs/multi
  unfool train --data cifar100 --task labels --task labels:column=coarse_label,as=coarse --out runs/coarse
  unfool train --data cifar10 --trunk convnet --stem strided --perturb pgd-7 --threat linf:8/255 --out runs/robust
  unfool train --data cifar10 --trunk convnet --perturb pgd-10 --adversarial trades --held-out 1000 --out runs/trades
  unfool train --data cifar10 --start runs/trades/weights.safetensors --trainable heads --task contrast --out runs/head
  unfool train --data cifar100 --task contrast --task rotation --task jigsaw --epochs 10 --out runs/pretext
  unfool train --data cifar10 --trunk context-encoder --task labels --task inpainting:weight=10 --out runs/both
  unfool train --data cifar10 --task labels --task inpainting --regime classifier-first --out runs/first
  unfool train --data cifar10 --start runs/pretext/weights.safetensors --fraction 0.01 --trainable heads --out runs/few
  unfool train --model net.py:build --weights net.pt --data cifar10 --perturb pgd-2 --threat linf:2/255 --out runs/own
  unfool train --model net.py:build --features body --data cifar10 --task contrast --trainable heads --out runs/head
  unfool train --config runs/multi/config.yaml --out runs/again
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            self._train()

    def _train(self) -> None:
        from unfool.cli.next_command import command, options
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.parsing.trackers import read_trackers
        from unfool.cli.printing import print_json, print_lines, stderr
        from unfool.cli.train_config import look, read_classifier, read_run
        from unfool.core.progress_display import progress_bar
        from unfool.training import train

        device, trackers = choose_device(self.machine.device), read_trackers(self.track)
        classifier = read_classifier(self)
        config, table = read_run(self, classifier)
        if classifier is not None:
            table = look(self, classifier, table)
        with progress_bar(stderr(), str(self.out)) as advance:
            run = train(
                config,
                table,
                self.out,
                model=classifier,
                device=device,
                progress=advance,
                track=trackers,
            )
        cost = {"cpu_seconds": round(run.cpu_seconds, 2), "model_images": run.model_images}
        if self.json:
            print_json({"run": str(self.out), "weights": str(self.out / "weights.safetensors"), "cost": cost})
        else:
            # Without a head for labels there is nothing to attack yet.
            evaluated = run.network.classifier is not None
            whose = options(self.outside, without=("weights", "key", "prefix"))
            whose += ["--data-dir", str(self.data.data_dir)] if self.data.data_dir is not None else []
            attack = ["--attack", "pgd-20", "--threat", "linf:8/255"] if evaluated else []
            print_lines(
                [
                    f"{self.out}: trained in {run.cpu_seconds:.0f} s of CPU, {run.model_images:,} model images",
                    command(["evaluate" if evaluated else "probe", str(self.out), *whose, *attack]),
                ]
            )
