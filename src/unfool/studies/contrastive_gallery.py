"""Pictures for system A's page: one image, clean and attacked, as the attacked network and the others see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unfool.models.network import Network
from unfool.report.gallery import GalleryItem
from unfool.studies.contrastive_networks import Trained, attacked_images, crafted
from unfool.studies.contrastive_scales import SINGLE, Scale
from unfool.studies.workspace import Workspace

_ATTACK = "pgd-20"
_IMAGES = 2
"""Images shown for each data set; each is shown once for every model."""


def gallery(networks: Sequence[Trained], work: Workspace, settings: Scale) -> list[GalleryItem]:
    """The first images that the single-task network gets right, clean, and wrong under PGD-20; seed 0."""
    items: list[GalleryItem] = []
    for data in settings.data:
        shown = [
            item for item in networks if item.data == data and item.variant is settings.variants[0] and item.seed == 0
        ]
        first = {item.model: item for item in reversed(shown)}
        source = first[SINGLE]
        examples = crafted(settings, source, _ATTACK, work)
        table = attacked_images(settings, data, work)
        clean = table.batch().images
        names = table.classes[settings.data[data][0]]
        right = _probabilities(source.run.network, clean).argmax(1) == examples.labels
        fooled = _probabilities(source.run.network, examples.images).argmax(1) != examples.labels
        for row in (right & fooled).nonzero().flatten()[:_IMAGES].tolist():
            for model, item in sorted(first.items(), key=lambda entry: entry[0] != SINGLE):
                network = item.run.network
                before, after = (
                    _top(_probabilities(network, images[row : row + 1]), names) for images in (clean, examples.images)
                )
                where = f"{data}, test image {int(examples.ids[row])}"
                items.append(
                    GalleryItem(
                        clean=clean[row],
                        adversarial=examples.images[row],
                        label=names[int(examples.labels[row])],
                        clean_prediction=before[0],
                        clean_probability=before[1],
                        adversarial_prediction=after[0],
                        adversarial_probability=after[1],
                        model=model,
                        caption=f"{where}; {_ATTACK} at {examples.threat}, crafted on {SINGLE}",
                        protocol="white-box" if model == SINGLE else "transfer",
                    )
                )
    return items


@torch.no_grad()
def _probabilities(network: Network, images: Tensor) -> Tensor:
    device = network.mean.device
    return torch.cat([network(part.to(device)).softmax(1).cpu() for part in images.split(250)])


def _top(probabilities: Tensor, names: Sequence[str]) -> tuple[str, float]:
    share, index = probabilities[0].max(0)
    return names[int(index)], min(1.0, float(share))
