"""What PGD-10 costs here, over the passes that it cannot do without and over foolbox, and that it finds the same.

    python benchmarks/attacks.py [--json] [--data-dir DIR] [--images N]

Ratios of CPU time on one thread, each the median over rounds; a round takes the next 128 images through every variant
in turn, in one process. The network is a ResNet-18 with CIFAR stem at half width.

* ``pgd10_over_floor``: every image kept for all steps, final check included, over ten forward and input-backward passes
  of the same fp32 network with frozen parameters (the floor);
* ``pgd10_folded_over_floor``: the same, searched by an fp32 copy with folded batch norm, stored channels-last;
* ``pgd10_bf16_over_floor``: searched by a bf16 copy, last step and all checks by the network itself;
* ``pgd10_over_foolbox``, ``pgd10_bf16_over_foolbox``: the same two over foolbox's LinfPGD with the same steps;
* ``active_over_full_standard``, ``active_over_full_robust``: fooled images leave the batch, over every image kept, on a
  normally and on an adversarially trained network.

Beside them stand the robust accuracies of every variant on the same images, and ``agreement_points``, the largest
difference between any two of them in percentage points. The network itself judges: of ours the image returned, of the
floor and of foolbox, which choose none, every iterate.

The two networks are trained on the first call (about ten CPU minutes, picked up where it was stopped) and kept in
``runs/benchmarks``. Images are CIFAR-10's where the data directory has them, else the embedded digits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import foolbox
import torch
import torch.nn.functional as F
from networks import KINDS, Material, material, trained
from torch import Tensor

from unfool.attacks import ProxySettings, make_attack
from unfool.core.threat import ThreatModel
from unfool.models.network import Network

CIFAR_IMAGES = {"standard": 40_000, "robust": 24_000}
"""How many images the two networks are trained on: as many as ten CPU minutes allow."""
TRUNK = {"name": "resnet18", "stem": "cifar", "width": 0.5}

CHUNK = 128
STEPS = 10
KEEP_ALL = f"pgd-{STEPS}:random_start=false,goal=best"
LEAVE = f"pgd-{STEPS}:random_start=false,goal=success"
LIMITS = {
    "pgd10_over_floor": 1.08,
    "pgd10_folded_over_floor": 0.97,
    "pgd10_bf16_over_floor": 0.60,
    "pgd10_over_foolbox": 0.70,
    "pgd10_bf16_over_foolbox": 0.40,
    "active_over_full_standard": 0.20,
    "active_over_full_robust": 0.85,
    "agreement_points": 0.2,
}


class Watched(foolbox.attacks.LinfPGD):
    """Foolbox's PGD, whose iterates can be seen."""

    iterates: list[Tensor]

    def value_and_grad(self, loss_fn: Any, x: Any) -> Any:
        self.iterates.append(x.raw)
        return super().value_and_grad(loss_fn, x)


Variant = Callable[[Tensor, Tensor], list[Tensor]]


def variants(network: Network, threat: ThreatModel) -> dict[str, Variant]:
    """Every way of running PGD-10 that is measured: images, labels → adversarial images, one set or several."""
    keep_all, leave = make_attack(KEEP_ALL, threat), make_attack(LEAVE, threat)
    proxies = {"folded": ProxySettings(dtype="fp32"), "bf16": ProxySettings(dtype="bf16")}
    proxy_models = {name: proxy.copy(network) for name, proxy in proxies.items()}
    foreign = foolbox.models.pytorch.PyTorchModel(network, bounds=(0.0, 1.0), device="cpu")
    theirs = Watched(rel_stepsize=0.25, steps=STEPS, random_start=False)

    def floor(images: Tensor, labels: Tensor) -> list[Tensor]:
        points, iterates = images, [images]
        for _ in range(STEPS):
            moving = points.detach().requires_grad_()
            loss = F.cross_entropy(network(moving), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moving)
            points = points + threat.eps / 4 * gradient.sign()
            points = torch.clamp(points, (images - threat.eps).clamp_(min=0), (images + threat.eps).clamp_(max=1))
            iterates.append(points)
        return iterates

    def frozen_floor(images: Tensor, labels: Tensor) -> list[Tensor]:
        network.requires_grad_(False)
        try:
            return floor(images, labels)
        finally:
            network.requires_grad_(True)

    def searched(name: str) -> Variant:
        settings = {"proxy_model": proxy_models[name], "proxy": proxies[name]}
        return lambda images, labels: [keep_all(network, images, labels, **settings).images]

    def by_foolbox(images: Tensor, labels: Tensor) -> list[Tensor]:
        theirs.iterates = []
        last = theirs(foreign, images, labels, epsilons=threat.eps)[1]
        return [*theirs.iterates, last]

    return {
        "floor": frozen_floor,
        "pgd10": lambda images, labels: [keep_all(network, images, labels).images],
        "folded": searched("folded"),
        "bf16": searched("bf16"),
        "active": lambda images, labels: [leave(network, images, labels).images],
        "foolbox": by_foolbox,
    }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """CPU seconds of each variant per round, and its robust accuracy in percent."""

    seconds: dict[str, list[float]]
    accuracies: dict[str, float]

    def ratio(self, ours: str, theirs: str) -> float:
        """Median over rounds."""
        return statistics.median(a / b for a, b in zip(self.seconds[ours], self.seconds[theirs], strict=True))

    @property
    def agreement_points(self) -> float:
        """The largest difference of the attacks' accuracies."""
        robust = [value for name, value in self.accuracies.items() if name != "clean"]
        return max(robust) - min(robust)


def measured(network: Network, given: Material, kind: str) -> Measured:
    """Attack all images, a chunk at a time, with every variant; the warm-up is not counted."""
    runs = variants(network, ThreatModel.parse(given.attacked[kind]))
    batch = given.judged.batch()
    labels = batch.labels("label")

    def standing(sets: list[Tensor], labels: Tensor) -> int:
        with torch.no_grad():
            right = torch.stack([network(images.detach()).argmax(1) == labels for images in sets])
        return int(right.all(0).sum())

    for run in runs.values():
        run(batch.images[:CHUNK], labels[:CHUNK])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    correct = dict.fromkeys(("clean", *runs), 0)
    for start in range(0, len(labels), CHUNK):
        chunk, target = batch.images[start : start + CHUNK], labels[start : start + CHUNK]
        correct["clean"] += standing([chunk], target)
        for name, run in runs.items():
            before = time.process_time()
            adversarial = run(chunk, target)
            seconds[name].append(time.process_time() - before)
            correct[name] += standing(adversarial, target)
        print(f"\rattacking the {kind} network: {start + len(target)}/{len(labels)} ", end="", file=sys.stderr)
    print("\r".ljust(70), end="\r", file=sys.stderr)
    accuracies = {name: round(100 * count / len(labels), 3) for name, count in correct.items()}
    return Measured(seconds=seconds, accuracies=accuracies)


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of unfool's projected-gradient attack.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--images", type=int, default=1024, help="images to attack, a multiple of 128 from 640 to 1024")
    arguments = parser.parse_args()
    if arguments.images % CHUNK or not 5 * CHUNK <= arguments.images <= 1024:
        parser.error(f"--images {arguments.images} is not allowed; give a multiple of {CHUNK} from 640 to 1024")
    torch.set_num_threads(1)
    given = material(arguments.data_dir, arguments.images, CIFAR_IMAGES, dict.fromkeys(KINDS, 2))
    results = {kind: measured(trained("attacks", kind, given, TRUNK, learning_rate=0.1), given, kind) for kind in KINDS}
    robust = results["robust"]
    figures: dict[str, object] = {
        "pgd10_over_floor": robust.ratio("pgd10", "floor"),
        "pgd10_folded_over_floor": robust.ratio("folded", "floor"),
        "pgd10_bf16_over_floor": robust.ratio("bf16", "floor"),
        "pgd10_over_foolbox": robust.ratio("pgd10", "foolbox"),
        "pgd10_bf16_over_foolbox": robust.ratio("bf16", "foolbox"),
        "active_over_full_standard": results["standard"].ratio("active", "pgd10"),
        "active_over_full_robust": robust.ratio("active", "pgd10"),
        "agreement_points": max(result.agreement_points for result in results.values()),
    }
    figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    figures["robust_accuracy"] = {kind: result.accuracies for kind, result in results.items()}
    figures |= {"data": given.name, "threat": dict(given.attacked), "images": len(given.judged)}
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"PGD-10 on {given.name}, {len(given.judged)} images, one thread, CPU time, medians")
    for name, limit in LIMITS.items():
        value = figures[name]
        state = "met" if isinstance(value, float) and value <= limit else "MISSED"
        print(f"  {name:<28}{value:8.3f}   (≤ {limit:.2f}: {state})")
    for kind, result in results.items():
        print(f"  accuracy in percent, {kind}: " + ", ".join(f"{k} {v:.2f}" for k, v in result.accuracies.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
