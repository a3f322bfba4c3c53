"""The networks that benchmarks attack: one trained as usual, one on FGSM examples, made on first use and kept.

Images are CIFAR-10's where the data directory has them, else the embedded digits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.catalog import open_table
from unfool.data.folders import data_folder
from unfool.data.readers.parquet import hub_folders
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.training import RunConfig, StageConfig, TaskConfig, train

KINDS = ("standard", "robust")
KEPT = Path(__file__).resolve().parent.parent / "runs" / "benchmarks"
"""Where trained networks stay between runs."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is trained and measured on: a set, the threat model of training, that of the attack on each kind of network,
    the length of training."""

    name: str
    training: dict[str, Table]
    judged: Table
    threat: str
    attacked: Mapping[str, str]
    epochs: Mapping[str, int]
    batch_size: int = 64


def material(data_dir: str | None, images: int, trained_on: Mapping[str, int], epochs: Mapping[str, int]) -> Material:
    """CIFAR-10 of the data directory, else the digits; ``images`` of them to attack, none of which is trained on.

    ``trained_on`` and ``epochs`` say how many of CIFAR-10's images each kind of network sees, and how often.
    """
    folder = data_folder(data_dir)
    if "cifar10" in hub_folders(folder):
        train_table = open_table("cifar10", "train", data_dir=folder)
        return Material(
            name="cifar10",
            training={name: train_table.sample(count, Streams(0)) for name, count in trained_on.items()},
            judged=open_table("cifar10", "test", data_dir=folder).sample(images, Streams(0)),
            threat="linf:8/255",
            attacked=dict.fromkeys(KINDS, "linf:8/255"),
            epochs=epochs,
        )
    rest, held_out = open_table("digits", "train").cut(1024, Streams(0))
    return Material(
        name="digits",
        training={"standard": rest, "robust": rest},
        judged=held_out.sample(min(images, len(held_out)), Streams(0)),
        threat="linf:0.2",
        # On digits a normally trained network is hard to fool: it takes this much to fall as fast as CIFAR-10's does.
        attacked={"standard": "linf:0.3", "robust": "linf:0.2"},
        epochs={"standard": 20, "robust": 40},
        batch_size=32,
    )


def trained(
    name: str,
    kind: str,
    given: Material,
    trunk: Mapping[str, Any] | None,
    *,
    start: str | None = None,
    folder: Path = KEPT,
    **stage_settings: Any,
) -> Network:
    """The ``standard`` or ``robust`` network of the benchmark ``name``, trained in its folder or read from there.

    It has fresh weights of a ``trunk``, or is fine-tuned from those of the file ``start``.
    """
    eps = ThreatModel.parse(given.threat).eps
    settings: dict[str, Any] = {
        "tasks": {"labels": TaskConfig(task="labels")},
        "epochs": given.epochs[kind],
        "batch_size": given.batch_size,
        "optimizer": "sgd",
        "weight_decay": 5e-4,
        "schedule": "triangle",
        "precision": "bf16",
        "threat": given.threat,
        "perturb": f"fgsm:random_start=true,step_size={1.25 * eps}" if kind == "robust" else None,
    }
    stage = StageConfig(**{**settings, **stage_settings})
    config = RunConfig(data=given.name, stages=(stage,), trunk=trunk, start=start, classifier="labels")

    def tell(what: str, step: int, steps: int, note: str = "") -> None:
        if step % 20 == 0 or step == steps:
            print(f"\rtraining the {name} {kind} network: step {step}/{steps}, {note} ", end="", file=sys.stderr)

    run = train(config, given.training[kind], folder / f"{name}-{given.name}-{kind}", progress=tell)
    print(f"\r{name} {kind} network: trained in {run.cpu_seconds:.0f} CPU seconds".ljust(70), file=sys.stderr)
    return run.network.eval()
