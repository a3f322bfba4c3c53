"""The networks that `lean.py` attacks, each with its images and what earlier runs kept about it.

Results are kept by network, threat model and chunk of images, so that a benchmark of hours goes on where it was
stopped. Those of lean follow from unfool's own code, and are looked up only as long as that stays as it is; what lean
has finished of a network is kept batch by batch, with what it took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from kept_results import code, kept_or
from networks import material, trained
from passes import counted
from resnet20 import WEIGHTS
from torch import Tensor, nn

from unfool import craft, open_run
from unfool.attacks import ProxySettings
from unfool.core.files import remove_folder, write_json
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.catalog import open_table
from unfool.data.folders import data_folder
from unfool.data.readers.parquet import hub_folders
from unfool.data.table import Table
from unfool.evaluation.identity import identity
from unfool.models.foreign import load_classifier
from unfool.models.outside.preparation import Adaptation
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
CODE = code(Path(__file__).with_name("passes.py"))
"""Of all that lean's results follow from, the networks apart: what it does, and how its passes are counted."""
RESNET, RESNET_EPS = "resnet20", "0.5/255"
"""The name of the network that nobody here trained, and the size of its ball."""
THEIRS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Subject:
    """A network, whether it is ``adversarial``ly trained, the images it is attacked on, where results are kept."""

    def __init__(self, name: str, network: nn.Module, table: Table, threat: str, kept: Path, *, adversarial: bool):
        self.name = name
        self.adversarial = adversarial
        self.network = network.eval().requires_grad_(False)
        self.table = table
        self.threat = ThreatModel.parse(threat)
        self.identity = identity(self.network)
        self.kept = kept

    def around(self, name: str, network: nn.Module) -> Subject:
        """The same images before another classifier."""
        return Subject(name, network, self.table, str(self.threat), self.kept, adversarial=self.adversarial)

    def kept_or(self, what: str, table: Table, make: Callable[[], Mapping[str, Any]], **of: Any) -> dict[str, Any]:
        """What an earlier run kept of this very network, threat model, table and ``of``; otherwise it is made."""
        request = {"network": self.identity, "threat": str(self.threat), "ids": table.ids.tolist(), **of}
        return kept_or(self.kept / f"{self.name}-{what}.json", request, make)

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
        """What lean does with all images, checks and escalation included.

        A run that was stopped goes on where it was; what it did twice then counts twice.
        """
        what = f"lean-{precision}-{len(self.table)}"
        underway = self.kept / f"{self.name}-{what}-{self.identity.rstrip('?~')}-{CODE}"
        tally = underway.with_suffix(".json")

        def attacked() -> dict[str, Any]:
            proxy = ProxySettings(dtype=precision)
            before = {"forward": 0, "backward": 0, "seconds": 0.0}
            if underway.is_dir() and tally.is_file():
                before = json.loads(tally.read_text())
            started = time.process_time()
            with counted() as passes:

                def spent() -> dict[str, Any]:
                    own = {**vars(passes), "seconds": time.process_time() - started}
                    return {key: value + own[key] for key, value in before.items()}

                def tell(*_: object) -> None:
                    write_json(tally, spent())

                self.kept.mkdir(parents=True, exist_ok=True)
                examples = craft(
                    self.network, self.table, "lean", threat=self.threat, proxy=proxy, folder=underway, progress=tell
                )
            total = spent()
            fooled = self.fooled(examples.read(slice(None)), examples.labels)
            return {"fooled": fooled, **total, "remark": examples.settings["remark"]}

        result = self.kept_or(what, self.table, attacked, code=CODE)
        remove_folder(underway)
        tally.unlink(missing_ok=True)
        return result

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
        return of_run(name, f"zoo:{name}", name.split("-")[0], threat)

    def of_run(name: str, path: str, data: str, threat: str) -> Subject:
        run = open_run(path)
        # A network that was only pretrained on perturbed images is not robust any more.
        adversarial = run.config.stages[-1].perturb is not None
        return Subject(name, run.network, images(data), threat, kept, adversarial=adversarial)

    def of_file(name: str, model: str, weights: str | None, adaptation: Adaptation, eps: str) -> Subject:
        network = load_classifier(model, weights, adaptation=adaptation)
        return Subject(name, network, images("cifar10"), f"linf:{eps}", kept, adversarial=False)

    def of_training(kind: str) -> Subject:
        judged_of = max(IMAGES, arguments.images)
        used = material(data_dir, judged_of, WIDE_IMAGES if kind == "robust" else NARROW_IMAGES, EPOCHS)
        judged = used.judged.subset(torch.arange(min(arguments.images, len(used.judged))))
        if kind == "robust":
            network = trained("autoattack", kind, used, WIDE, learning_rate=0.1)
            return Subject(kind, network, judged, used.threat, kept, adversarial=True)
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
        threat = small if kind == "standard" else used.threat
        return Subject(kind, network, judged, threat, kept, adversarial=kind != "standard")

    makers: dict[str, Callable[[], Subject]] = {}
    for name, threat in ZOO.items():
        if has_cifar or name.startswith("digits"):
            makers[name] = lambda name=name, threat=threat: of_zoo(name, threat)
    for text in arguments.folder:
        name, _, path = text.partition("=")
        makers[name] = lambda name=name, path=path: of_run(name, path, "cifar10", "linf:8/255")
    for kind in TRAINED:
        makers[kind] = lambda kind=kind: of_training(kind)
    checkpoint = shared_checkpoint(folder) if has_cifar else None
    if checkpoint is not None:
        source = str(Path(__file__).with_name("resnet20.py")) + f":{RESNET}"
        normalised = Adaptation(mean="imagenet", std="imagenet")
        makers[RESNET] = lambda: of_file(RESNET, source, str(checkpoint), normalised, RESNET_EPS)
    if arguments.model is not None:
        own = Adaptation(mean=arguments.mean, std=arguments.std)
        name = arguments.model.rpartition(":")[2]
        name = name if name == RESNET or (name.isidentifier() and name not in makers) else "given"
        makers[name] = lambda: of_file(name, arguments.model, arguments.weights, own, arguments.eps)
    return makers


def shared_checkpoint(folder: Path | None) -> Path | None:
    """The public checkpoint of ResNet-20: in the data directory, or in the folder ``models`` beside it."""
    places = [] if folder is None else [folder / WEIGHTS, folder.resolve().parent / "models" / WEIGHTS]
    return next((path for path in places if path.is_file()), None)
