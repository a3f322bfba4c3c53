"""``unfool train``: one or several tasks in parallel on one network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from unfool.cli.options import DataDir, Device, Json, Seed

if TYPE_CHECKING:
    from unfool.data.table import Table
    from unfool.training import RunConfig

_STAGE = (
    *("epochs", "steps", "batch_size", "optimizer", "learning_rate", "weight_decay", "momentum", "schedule"),
    *("trainable", "precision"),
    *("perturb", "threat", "adversarial", "statistics", "beta", "awp", "ema", "held_out", "stop_attack"),
)
_BESIDE_CONFIG = ("config", "out", "data_dir", "device", "json")


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a network on one or several tasks at once, clean or perturbed.

    A run that was stopped is resumed by the same command, to the same weights. Several stages, one after the other,
    are written in a YAML file (--config); a finished run's config.yaml is an example of one. Several
    processes share every batch, to the weights that one would get:
    `torchrun --nproc-per-node 2 -m unfool train ...`, or accelerate launch.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The run's folder: configuration, log, checkpoint, weights."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """YAML of a run, instead of the options that describe one."""
    data: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(required without --config)")] = None
    """Data set: a name that `unfool doctor` lists, folder:PATH or hub:OWNER/NAME."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 0
    """Scale and crop images to this side; 0 keeps their own."""
    fraction: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 1.0
    """Share of every class that the run has, such as 0.01, drawn by the seed; 1 for all images."""
    start: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: fresh weights)")] = None
    """Weights (.safetensors) to start from; trunk, normalisation and heads are then the file's."""
    trunk: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: resnet18)")] = None
    """resnet18, resnet50, preact-resnet18, wide-resnet, vgg16, alexnet or context-encoder; or convnet: narrow."""
    stem: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the trunk's)")] = None
    """The trunk's entry: cifar or imagenet (ResNets), dense or strided (convnet), stride-4 or stride-2 (alexnet)."""
    width: Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="(default: the trunk's)")] = None
    """Multiplier of the widths (all but convnet)."""
    depth: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the trunk's)")] = None
    """Layers (wide-resnet), or stages (context-encoder)."""
    widths: Annotated[
        tuple[int, int, int] | None, tyro.conf.arg(metavar="A B C", help_behavior_hint="(default: 24 64 128)")
    ] = None
    """Widths of the stem, the first block and the others (convnet)."""
    normalisation: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: cifar10)")] = None
    """Mean and deviation inside the network: none, cifar10, cifar100 or imagenet."""
    task: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint="(repeatable, default: labels)"),
    ] = ()
    """labels, contrast, rotation, jigsaw or inpainting, with settings; weight=W weighs it in the loss, as=HEAD names
    its head, and perturbed=false keeps --perturb from its views."""
    regime: Literal["joint", "classifier-first"] = "joint"
    """All tasks at once, or those with labels first and the others' heads then, on the frozen trunk."""
    classifier: Annotated[
        str | None, tyro.conf.arg(metavar="HEAD", help_behavior_hint="(default: the first labels task's)")
    ] = None
    """Head that gives the network's logits."""
    perturb: Annotated[str | None, tyro.conf.arg(metavar="ATTACK", help_behavior_hint="(default: none)")] = None
    """Train on images that this attack moved, such as pgd-7."""
    threat: Annotated[str, tyro.conf.arg(metavar="NORM:EPS")] = "linf:8/255"
    """Threat model of --perturb and --stop-attack."""
    adversarial: Literal["plain", "one-view", "dual-stream", "trades", "mart"] = "plain"
    """Learn from moved views alone, from one moved view and clean ones, from both in streams, or by TRADES or MART."""
    statistics: Literal["shared", "separate"] = "shared"
    """Batch norm of clean views beside moved ones: shared, or one of their own (one-view, dual-stream)."""
    beta: float = 6.0
    """Weight of the divergence in TRADES and MART."""
    awp: Annotated[float, tyro.conf.arg(metavar="GAMMA")] = 0.0
    """Size of the adversarial weight perturbation, such as 0.005; 0 for none."""
    ema: Annotated[float, tyro.conf.arg(metavar="DECAY")] = 0.0
    """End with a running average of the weights, such as 0.995; 0 for the last ones."""
    held_out: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Cut so many images from train, and end with the weights most robust on them."""
    stop_attack: Annotated[str, tyro.conf.arg(metavar="ATTACK")] = "pgd-10"
    """Attack that --held-out images are judged under."""
    trainable: Annotated[str, tyro.conf.arg(metavar="PART")] = "all"
    """What learns: all, heads alone, the trunk from:STAGE on, or after:N (all but its first N layers)."""
    epochs: int = 1
    """Passes over the training images."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Train for exactly so many steps instead of epochs; 0 for epochs."""
    batch_size: int = 256
    """Images a step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with Nesterov momentum."""
    learning_rate: float = 3e-4
    """Its peak, for schedules that move it."""
    weight_decay: float = 1e-4
    """L2 penalty of the optimizer."""
    momentum: float = 0.9
    """Of SGD."""
    schedule: Literal["constant", "cosine", "triangle"] = "constant"
    """The learning rate over the stage."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the network's computation; weights and losses stay fp32."""
    seed: Seed = 0
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

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
  unfool train --config runs/multi/config.yaml --out runs/again
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            self._train()

    def _train(self) -> None:
        from unfool.cli.printing import print_json, print_lines, stderr
        from unfool.cli.systems import choose_device
        from unfool.core.progress_display import progress_bar
        from unfool.training import train

        device = choose_device(self.device)
        config, table = self._read() if self.config is not None else self._described()
        with progress_bar(stderr(), str(self.out)) as advance:
            run = train(
                config,
                table,
                self.out,
                device=device,
                progress=advance,
            )
        cost = {"cpu_seconds": round(run.cpu_seconds, 2), "model_images": run.model_images}
        if self.json:
            print_json({"run": str(self.out), "weights": str(self.out / "weights.safetensors"), "cost": cost})
        else:
            # Without a head for labels there is nothing to attack yet.
            judged = f"evaluate {self.out} --attack pgd-20 --threat linf:8/255"
            print_lines(
                [
                    f"{self.out}: trained in {run.cpu_seconds:.0f} s of CPU, {run.model_images:,} model images",
                    "next: unfool " + (judged if run.network.classifier is not None else f"probe {self.out}"),
                ]
            )

    def _read(self) -> tuple[RunConfig, Table]:
        """The configuration of --config, which leaves nothing for the other options to say."""
        from unfool.core.errors import SpecError
        from unfool.training.config import read_config

        said = [f.name for f in fields(self) if f.name not in _BESIDE_CONFIG and getattr(self, f.name) != f.default]
        if said or self.config is None:
            options = ", ".join("--" + name.replace("_", "-") for name in said)
            raise SpecError(f"{options} and --config cannot be combined; write it into {self.config}")
        config = read_config(self.config)
        return config, self._table(config.data, config.size)

    def _described(self) -> tuple[RunConfig, Table]:
        """The one-stage run that the options describe."""
        from unfool.cli.task_options import read_tasks
        from unfool.core.config import build
        from unfool.core.errors import SpecError
        from unfool.models.trunks import TrunkSpec
        from unfool.training import RunConfig, StageConfig, in_regime

        if self.data is None:
            raise SpecError("no data set was given; give --data NAME (unfool doctor lists them) or --config FILE")
        trunk = {name: getattr(self, name) for name in ("stem", "width", "widths", "depth")} | {"name": self.trunk}
        trunk = {key: value for key, value in trunk.items() if value is not None}
        described = TrunkSpec.from_dict(trunk).to_dict() if trunk or self.start is None else None
        # Read before the data, which may take minutes to fetch, and again with the data's own label column.
        read_tasks(self.task or ("labels",), None)
        stage: dict[str, Any] = {name: getattr(self, name) for name in _STAGE}
        table = self._table(self.data, self.size)
        tasks = read_tasks(self.task or ("labels",), table.label_column)
        heads = [name for name, task in tasks.items() if task.task == "labels"]
        values = {
            "data": self.data,
            "stages": in_regime(self.regime, build(StageConfig, {"tasks": tasks, **stage}, "the run")),
            "size": self.size,
            "fraction": self.fraction,
            "start": self.start,
            "trunk": described,
            "normalisation": self.normalisation,
            "classifier": self.classifier or next(iter(heads), "labels"),
            "seed": self.seed,
        }
        return build(RunConfig, values, "the run"), table

    def _table(self, data: str, size: int) -> Table:
        from unfool.data.catalog import open_table

        return open_table(data, "train", data_dir=self.data_dir, size=size or None)
