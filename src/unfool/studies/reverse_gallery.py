"""Pictures of system B's attacks, which the source left as TODO: one image in three norms, on both classifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unfool.report.gallery import GalleryItem
from unfool.studies.reverse_networks import attacked_images, crafted, trained
from unfool.studies.reverse_scales import BASES, NORMS, SET_STEPS, Scale
from unfool.studies.workspace import Workspace


def gallery(settings: Scale, work: Workspace) -> list[GalleryItem]:
    """For each classifier and norm the first image that is right when clean and wrong when attacked."""
    items: list[GalleryItem] = []
    for base in BASES:
        network = trained(settings, base, work).network
        table = attacked_images(settings, work)
        clean = table.batch().images
        names = table.classes[table.label_column or ""]
        before = _probabilities(network, clean)
        for norm in NORMS:
            examples = crafted(settings, base, norm, SET_STEPS, work)
            after = _probabilities(network, examples.images)
            turned = (before.argmax(1) == examples.labels) & (after.argmax(1) != examples.labels)
            for row in turned.nonzero().flatten()[:1].tolist():
                items.append(
                    GalleryItem(
                        clean=clean[row],
                        adversarial=examples.images[row],
                        label=names[int(examples.labels[row])],
                        **_seen("clean", before[row], names),
                        **_seen("adversarial", after[row], names),
                        model=base,
                        caption=f"{settings.data}, test image {int(examples.ids[row])}; {examples.attack} at "
                        f"{examples.threat}",
                        protocol="white-box",
                    )
                )
    return items


def _seen(kind: str, shares: Tensor, names: list[str]) -> dict[str, Any]:
    share, index = shares.max(0)
    return {f"{kind}_prediction": names[int(index)], f"{kind}_probability": min(1.0, float(share))}


@torch.no_grad()
def _probabilities(network: nn.Module, images: Tensor) -> Tensor:
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).softmax(1).cpu() for part in images.split(250)])
