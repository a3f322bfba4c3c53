"""Two published defenses that were broken, on small networks, by the whole adaptive ladder.

    python benchmarks/known_breaks.py [--json] [--data-dir DIR] [--images 64] [--kept DIR]

Shi et al. (SOAP, ICLR 2021) move an image down a self-supervised loss that the network learnt beside its labels, here
rotation: five steps from the image, the point of lowest loss kept. Wu et al. (Hedge Defense, 2021) move it up the
cross-entropy to all classes, twenty steps from a random point. Croce et al. (ICML 2022) measured 3.7 % for the first
(4.3 % for its network alone) and 59.2 % for the second (59.5 %). Both stand here before a network that learnt labels
and rotations from clean images and one that learnt them from FGSM-RS examples (a minute of training each). Keys, for
each of ``{soap|hedge}_{plain|robust}``: ``…_clean`` (defended), ``…_bare`` (the network under AutoAttack),
``…_replayed`` (its examples on the defense), ``…_worst`` (of all rungs), ``…_rungs`` and ``…_verdict``. Exit code 1
where a worst case lies above its network's. Finished batches are kept, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from lean_subjects import BOTH, EPOCHS, NARROW, NARROW_IMAGES
from networks import KEPT, Material, material, trained
from torch import nn

from unfool import LadderSettings, ladder, make_defense
from unfool.core.threat import ThreatModel

DEFENSES = {
    "soap": "reverse:task=rotation,augmentation=none,start=image,keep=best,steps=5,eps={eps}",
    "hedge": "hedge:eps={eps}",
}
SMALL = {"cifar10": "linf:1/255", "digits": "linf:4/255"}
"""What a normally trained network partly withstands."""


def network_of(kind: str, given: Material, folder: Path) -> tuple[nn.Module, str]:
    """The network that learnt labels and rotations, and the ball in which it is attacked."""
    if kind == "plain":
        network = trained("lean-joint", "standard", given, NARROW, folder=folder, tasks=BOTH, learning_rate=0.1)
        return network, SMALL[given.name]
    network = trained("lean-multitask", "robust", given, NARROW, folder=folder, tasks=BOTH, learning_rate=0.1)
    return network, given.threat


def main() -> int:
    parser = argparse.ArgumentParser(description="Two broken defenses under the adaptive ladder.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--images", type=int, default=64, help="images that are attacked (default: 64)")
    parser.add_argument("--kept", default=str(KEPT / "lean"), metavar="DIR", help="where networks and results are kept")
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images {arguments.images} is not allowed; give 1 or more")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    given = material(arguments.data_dir, max(256, arguments.images), NARROW_IMAGES, EPOCHS)
    judged = given.judged.subset(torch.arange(min(arguments.images, len(given.judged))))
    figures: dict[str, Any] = {"data": given.name, "images": len(judged)}
    higher: list[str] = []
    for kind in ("plain", "robust"):
        network, threat = network_of(kind, given, Path(arguments.kept) / "networks")
        for name, text in DEFENSES.items():
            key, parsed = f"{name}_{kind}", ThreatModel.parse(threat)
            result = ladder(
                make_defense(text.format(eps=parsed.eps), network),
                judged,
                settings=LadderSettings(threat=parsed),
                name=kind,
                defended=name,
                folder=Path(arguments.kept) / f"ladder-{key}-{len(judged)}",
            )
            shares = {rung: round(100 * records.accuracy, 2) for rung, records in result.records.items()}
            measured = {
                "clean": round(100 * result.clean[1].accuracy, 2),
                "bare": shares["a"],
                "replayed": shares["b"],
                "worst": round(100 * result.worst.accuracy, 2),
                "rungs": shares,
                "verdict": result.verdict,
                "threat": threat,
            }
            figures |= {f"{key}_{what}": value for what, value in measured.items()}
            higher += [key] if measured["worst"] > measured["bare"] else []
            print(f"{key}: {measured}", file=sys.stderr, flush=True)
    figures["higher"] = higher
    print(json.dumps(figures) if arguments.json else f"worst case above the network's: {higher or 'none'}")
    return 1 if higher else 0


if __name__ == "__main__":
    sys.exit(main())
