"""What searching in bf16 costs FAB and Square: the rise in margin that each reaches, over that of its search in fp32.

    python benchmarks/bf16.py [--json] [--data-dir DIR] [--images 40]

On images that APGD-T leaves standing, of the robust network of `autoattack.py` (linf), each search runs once on the
fp32 copy and once on the bf16 copy, as in AutoAttack but for the repeats: FAB with the points that it leaves unseen,
Square with all its queries. Keys, for ``fab`` and ``square``: ``…_lowest``, ``…_highest`` and ``…_median``, the rise in
bf16 over that in fp32, minus 1, of all images; ``…_passes`` and ``…_cpu``, images through the network and CPU time in
bf16 over those in fp32; ``…_fooled``, the images that each fooled, fp32 first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from autoattack import BUDGETS, CIFAR_IMAGES, EPOCHS, network_of
from networks import material

from unfool.attacks import Problem, ProxySettings, make_attack
from unfool.attacks.objective import LabelLoss
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

NEVER = 1e-9
"""A share that no trial of FAB lacks: it leaves points unseen, and repeats nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description="What searching in bf16 costs FAB and Square.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--images", type=int, default=40, help="images that stand (default: 40)")
    options = parser.parse_args()
    if options.images < 1:
        parser.error(f"--images {options.images} is not allowed; give 1 or more")
    torch.set_num_threads(1)
    given = material(options.data_dir, 256, CIFAR_IMAGES, EPOCHS)
    network, threat = network_of("robust", given).requires_grad_(False), ThreatModel.parse(BUDGETS[given.name]["linf"])
    batch = given.judged.batch()
    fooled = make_attack("apgd-t", threat)(network, batch.images, batch.labels("label"), ids=batch.ids).fooled
    rows = (~fooled).nonzero().squeeze(1)[: options.images]
    if not len(rows):
        raise SystemExit("no image stands under APGD-T; give another data directory")
    images, labels, ids = batch.images[rows], batch.labels("label")[rows], batch.ids[rows]
    with torch.no_grad():
        clean = LabelLoss(network, labels, "margin")(images, torch.arange(len(rows))).losses
    figures: dict[str, Any] = {"data": given.name, "images": len(rows)}
    for name, text, near in (("fab", "fab-t", NEVER), ("square", "square", 0.0)):
        (part,) = make_attack(text, threat).parts
        loss = "difference" if name == "fab" else part.loss
        rises, passes, seconds, won = [], [], [], []
        for dtype, share in (("fp32", 0.0), ("bf16", near)):
            copied = ProxySettings(dtype=dtype).copy(network)
            problem = Problem(
                objective=LabelLoss(network, labels, loss),
                images=images,
                ids=ids,
                streams=Streams(0),
                proxy_objective=LabelLoss(copied, labels, loss),
                exact_share=0.0,
                near=share,
            )
            started = time.process_time()
            found = part.engine.run(problem)
            seconds.append(time.process_time() - started)
            rises.append(found.losses - clean)
            passes.append(found.model_images)
            won.append(int(found.fooled.sum()))
        over = (rises[1] / rises[0].clamp(min=1e-12) - 1).double()
        figures |= {
            f"{name}_lowest": round(float(over.min()), 4),
            f"{name}_median": round(float(over.median()), 4),
            f"{name}_highest": round(float(over.max()), 4),
            f"{name}_passes": round(passes[1] / passes[0], 3),
            f"{name}_cpu": round(seconds[1] / seconds[0], 3),
            f"{name}_fooled": won,
        }
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{key:<16}{value}" for key, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
