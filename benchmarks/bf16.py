"""What searching in bf16, and leaving points unseen, costs APGD-T, FAB and Square: the rise of each, over all of it.

    python benchmarks/bf16.py [--json] [--data-dir DIR] [--images 40]

On images that APGD-T leaves standing, of the robust network of `autoattack.py` (linf), each search runs once on the
fp32 copy and once on the bf16 copy, as in AutoAttack but without repeats: APGD towards the second to the ninth class,
FAB, Square with all its queries. FAB looks at all points in fp32 and leaves some unseen in bf16; ``unseen`` is FAB that
leaves them unseen in fp32 too. Keys, for ``apgd``, ``fab``, ``unseen`` and ``square``: ``…_lowest``, ``…_highest`` and
``…_median``, the rise of the second search over that of the first, minus 1; ``…_passes`` and ``…_cpu``, its images
through the network and CPU time over those of the first; ``…_fooled``, how often both fooled. Rises are those of the
margin of all images; of ``apgd`` those of the targeted DLR loss in the ``apgd_trials`` trials that lack at most
`COUNTED` of their rise in fp32, since only of such does it matter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from autoattack import BUDGETS, CIFAR_IMAGES, EPOCHS, network_of
from networks import material
from torch import Tensor, nn

from unfool.attacks import Engine, Perturbed, Problem, ProxySettings, make_attack
from unfool.attacks.engines import fab
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.engines.near_misses import lacking_share
from unfool.attacks.objective import LabelLoss
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

NEVER = 1e-9
"""A share that no trial lacks, so that nothing is repeated."""

COUNTED = 1.0
"""Share of its rise that a trial of APGD may lack in fp32 to be counted: it came half of the way, or further."""


@dataclass(frozen=True)
class Search:
    """An engine, what it climbs, and the loss of each image at its start."""

    engine: Engine
    objective: LabelLoss
    before: Tensor

    def run(self, images: Tensor, ids: Tensor, proxy: nn.Module, near: float) -> Perturbed:
        """Search on a copy of the network."""
        problem = Problem(
            objective=self.objective,
            images=images,
            ids=ids,
            streams=Streams(0),
            proxy_objective=self.objective.through(proxy),
            exact_share=0.0,
            near=near,
        )
        return self.engine.run(problem)


def main() -> int:
    parser = argparse.ArgumentParser(description="What searching in bf16 costs APGD-T, FAB and Square.")
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
    figures: dict[str, Any] = {"data": given.name, "images": len(rows)}
    for name, searches in searches_of(network, images, labels, threat).items():
        figures |= compared(name, searches, network, images, ids)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{key:<16}{value}" for key, value in figures.items()))
    return 0


def searches_of(network: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel) -> dict[str, list[Search]]:
    """What is searched, by name: one search by APGD for each target."""
    every = torch.arange(len(images))
    margin = LabelLoss(network, labels, "margin")
    with torch.no_grad():
        others = network(images).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
        clean = margin(images, every).losses
        aims = [margin.with_loss("dlr-targeted", others[:, rank]) for rank in range(1, 9)]
        climbs = AutoProjectedGradient(threat=threat, goal="best")
        towards = [Search(climbs, aim, aim(images, every).losses) for aim in aims]
    (nearest,), (square,) = make_attack("fab-t", threat).parts, make_attack("square", threat).parts
    boundary = Search(nearest.engine, margin.with_loss("difference"), clean)
    return {
        "apgd": towards,
        "fab": [boundary],
        "unseen": [boundary],
        "square": [Search(square.engine, margin, clean)],
    }


def compared(name: str, searches: Sequence[Search], network: nn.Module, images: Tensor, ids: Tensor) -> dict[str, Any]:
    """The figures of a second search over those in fp32, in which FAB looks at all points."""
    rises, passes, seconds, won = [], [], [], []
    before = torch.cat([search.before for search in searches])
    for dtype, near in (("fp32", 0.0), ("fp32" if name == "unseen" else "bf16", NEVER)):
        fab.NEAR_UNSEEN = near
        proxy, started = ProxySettings(dtype=dtype).copy(network), time.process_time()
        found = [search.run(images, ids, proxy, near) for search in searches]
        seconds.append(time.process_time() - started)
        rises.append(torch.cat([run.losses for run in found]) - before)
        passes.append(sum(run.model_images for run in found))
        won.append(sum(int(run.fooled.sum()) for run in found))
    figures: dict[str, Any] = {}
    over = (rises[1] / rises[0].clamp(min=1e-12) - 1).double()
    if name == "apgd":
        over = over[lacking_share(rises[0] + before, before) <= COUNTED]
        figures["apgd_trials"] = len(over)
    if len(over):
        for key, value in (("lowest", over.min()), ("median", over.median()), ("highest", over.max())):
            figures[f"{name}_{key}"] = round(float(value), 4)
    figures[f"{name}_passes"] = round(passes[1] / passes[0], 3)
    figures[f"{name}_cpu"] = round(seconds[1] / seconds[0], 3)
    return figures | {f"{name}_fooled": won}


if __name__ == "__main__":
    sys.exit(main())
