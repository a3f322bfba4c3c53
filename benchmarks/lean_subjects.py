"""The networks that `lean.py` attacks, each with its images and what earlier runs kept about it.

Results are kept by network, threat model and chunk of images, so that a benchmark of hours goes on where it was
stopped. Those of lean follow from unfool's own code, and are looked up only as long as that stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from networks import material, trained
from passes import counted
from torch import Tensor, nn

import unfool
from unfool import craft, zoo
from unfool.attacks import ProxySettings
from unfool.core.files import write_json
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.catalog import open_table
from unfool.data.folders import data_folder
from unfool.data.readers.parquet import hub_folders
from unfool.data.table import Table
from unfool.evaluation.identity import identity
from unfool.models.foreign import load_classifier
from unfool.models.outside.preparation import Adaptation
from unfool.models.weights import load_network
from unfool.training import TaskConfig

CHUNK, IMAGES = 64, 256
WIDE = {"name": "convnet", "stem": "strided", "widths": [32, 64, 128]}
"""That of the network ``robust``, which the other benchmarks attack too."""
NARROW = {"name": "convnet", "stem": "strided", "widths": [16, 32, 64]}
ZOO = {"digits-robust": "linf:16/255", "cifar10-robust": "linf:8/255", "cifar10-multitask": "linf:8/255",
       "cifar10-plain": "linf:0.5/255", "digits": "linf:4/255"}  # fmt: skip
PGD = "two steps of PGD"
BOTH = {"labels": TaskConfig(task="labels"), "rotation": TaskConfig(task="rotation", weight=0.5)}
TRAINED: dict[str, dict[str, Any]] = {
    "standard": {"learning_rate": 0.25},
    "robust": {},
    "fgsm-rs": {},
    "pgd": {"perturb": PGD},
    "trades": {"perturb": PGD, "adversarial": "trades"},
    "mart": {"perturb": PGD, "adversarial": "mart", "awp": 0.005},
    "multitask": {"tasks": BOTH},
    "fine-tuned": {"epochs": 2, "learning_rate": 0.05, "start": "standard"},
}
"""Networks that the first call trains: settings of their stage beside FGSM-RS, ``standard`` without a perturbation."""
WIDE_IMAGES, NARROW_IMAGES = {"standard": 20_000, "robust": 50_000}, {"standard": 20_000, "robust": 20_000}
EPOCHS = {"standard": 4, "robust": 6}
THEIRS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def code() -> str:
    """A hash of the code that attacks and checks: results of lean are those of one such code."""
    root = Path(unfool.__file__).parent
    files = sorted(path for room in ("attacks", "evaluation", "defenses") for path in (root / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


CODE = code()
"""Of the code as it was when this program began."""


class Subject:
    """A network, the images that it is attacked on, and where results about it are kept."""

    def __init__(self, name: str, network: nn.Module, table: Table, threat: str, kept: Path):
        self.name = name
        self.network = network.eval().requires_grad_(False)
        self.table = table
        self.threat = ThreatModel.parse(threat)
        self.identity = identity(self.network)
        self.kept = kept

    def around(self, name: str, network: nn.Module) -> Subject:
        """The same images before another classifier."""
        return Subject(name, network, self.table, str(self.threat), self.kept)

    def kept_or(self, what: str, table: Table, make: Callable[[], Mapping[str, Any]], **of: Any) -> dict[str, Any]:
        """What an earlier run kept of this very network, threat model, table and ``of``; otherwise it is made."""
        path = self.kept / f"{self.name}-{what}.json"
        request = {"network": self.identity, "threat": str(self.threat), **of}
        if path.is_file():
            stored = json.loads(path.read_text())
            if all(stored.get(key) == value for key, value in request.items()) and stored["ids"] == table.ids.tolist():
                return stored
        stored = {**request, "ids": table.ids.tolist(), **make()}
        self.kept.mkdir(parents=True, exist_ok=True)
        write_json(path, stored)
        return stored

    def reference(self, chunk: int) -> dict[str, Any]:
        """What pyautoattack does with one chunk of the images."""
        table = self.table.subset(torch.arange(len(self.table))[chunk * CHUNK : (chunk + 1) * CHUNK])

        def attacked() -> dict[str, Any]:
            images, labels = table.batch().images, table.labels()
            adversary = pyautoattack.AutoAttack(
                self.network, norm=THEIRS[self.threat.norm_name], eps=self.threat.eps, seed=0
            )
            started = time.process_time()
            with counted() as passes:
                images, _ = adversary.run_standard_evaluation(images, labels, batch_size=CHUNK)
            seconds = time.process_time() - started
            return {"fooled": self.fooled(images, labels), **vars(passes), "seconds": seconds}

        return self.kept_or(f"pyautoattack-{chunk}", table, attacked)

    def lean(self, precision: str) -> dict[str, Any]:
        """What lean does with all images, checks and escalation included."""

        def attacked() -> dict[str, Any]:
            proxy = ProxySettings(dtype=precision)
            started = time.process_time()
            with counted() as passes:
                examples = craft(self.network, self.table, "lean", threat=self.threat, proxy=proxy)
            seconds = time.process_time() - started
            fooled = self.fooled(examples.read(slice(None)), examples.labels)
            return {"fooled": fooled, **vars(passes), "seconds": seconds, "remark": examples.settings["remark"]}

        return self.kept_or(f"lean-{precision}-{len(self.table)}", self.table, attacked, code=CODE)

    def fooled(self, images: Tensor, labels: Tensor) -> list[bool]:
        """Which images the network gets wrong."""
        with torch.no_grad():
            logits = torch.cat([self.network(part) for part in images.split(CHUNK)])
        return (logits.argmax(1) != labels).tolist()


def subjects(arguments: argparse.Namespace) -> dict[str, Callable[[], Subject]]:
    """What makes each network's subject, by name; nothing is trained or read before it is called."""
    data_dir = arguments.data_dir
    folder = data_folder(data_dir)
    has_cifar, kept = "cifar10" in hub_folders(folder), Path(arguments.kept)
    networks = kept / "networks"

    def images(data: str) -> Table:
        table = open_table("digits", "test") if data == "digits" else open_table("cifar10", "test", data_dir=folder)
        # Fewer images are the first of the usual ones, so that what is kept of them is of use.
        drawn = table.sample(min(max(IMAGES, arguments.images), len(table)), Streams(0))
        return drawn.subset(torch.arange(min(arguments.images, len(drawn))))

    def of_zoo(name: str, threat: str) -> Subject:
        return Subject(name, zoo.load(name), images(name.split("-")[0]), threat, kept)

    def of_folder(name: str, path: str) -> Subject:
        return Subject(name, load_network(Path(path) / "weights.safetensors"), images("cifar10"), "linf:8/255", kept)

    def of_file() -> Subject:
        network = load_classifier(
            arguments.model, arguments.weights, adaptation=Adaptation(mean=arguments.mean, std=arguments.std)
        )
        return Subject("given", network, images("cifar10"), f"linf:{arguments.eps}", kept)

    def of_training(kind: str) -> Subject:
        judged_of = max(IMAGES, arguments.images)
        used = material(data_dir, judged_of, WIDE_IMAGES if kind == "robust" else NARROW_IMAGES, EPOCHS)
        judged = used.judged.subset(torch.arange(min(arguments.images, len(used.judged))))
        if kind == "robust":
            network = trained("autoattack", kind, used, WIDE, learning_rate=0.1)
            return Subject(kind, network, judged, used.threat, kept)
        eps = ThreatModel.parse(used.threat).eps
        perturb = f"pgd:steps=2,step_size={0.75 * eps}"
        settings = {name: perturb if value is PGD else value for name, value in TRAINED[kind].items()}
        base = "standard" if kind == "standard" else "robust"
        start = settings.pop("start", None)
        if start is not None:
            of_training(start)
            start = str(networks / f"lean-{used.name}-{start}" / "weights.safetensors")
        name = "lean" if kind == base else f"lean-{kind}"
        network = trained(
            name,
            base,
            used,
            None if start else NARROW,
            start=start,
            folder=networks,
            **{"learning_rate": 0.1, **settings},
        )
        small = "linf:0.5/255" if used.name == "cifar10" else "linf:4/255"
        return Subject(kind, network, judged, small if kind == "standard" else used.threat, kept)

    makers: dict[str, Callable[[], Subject]] = {}
    for name, threat in ZOO.items():
        if has_cifar or name.startswith("digits"):
            makers[name] = lambda name=name, threat=threat: of_zoo(name, threat)
    for text in arguments.folder:
        name, _, path = text.partition("=")
        makers[name] = lambda name=name, path=path: of_folder(name, path)
    for kind in TRAINED:
        makers[kind] = lambda kind=kind: of_training(kind)
    if arguments.model is not None:
        makers["given"] = of_file
    return makers
