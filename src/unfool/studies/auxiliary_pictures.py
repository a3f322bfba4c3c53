"""Pictures of system D: regions masked and filled, tiles shuffled and put back, images attacked and reversed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.evaluation.pretext.inpainting import inpainted
from unfool.models.modes import frozen_eval
from unfool.report.strips import Strip
from unfool.studies.auxiliary_measures import AUDITED, fills
from unfool.studies.auxiliary_networks import Reversal, Trained, attacked_images, bound, crafted, reversed_by, trained
from unfool.studies.auxiliary_scales import INPAINTING, JIGSAW, LOSSES, Scale
from unfool.studies.recipes import NORMAL
from unfool.studies.workspace import Workspace
from unfool.tasks.jigsaw import Jigsaw
from unfool.tasks.tiles import laid_out
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

SHOWN = 3
"""Images in each kind of picture."""


def strips(settings: Scale, networks: Sequence[Trained], reversals: Sequence[Reversal], work: Workspace) -> list[Strip]:
    """All of them, of the normally trained networks."""
    found: list[Strip] = []
    normal = [network for network in networks if network.base == NORMAL]
    for network in normal:
        if fills(network) and network.regime == JOINT:
            found += _filled(network, "", f"Regions filled, {network.model}", work)
        elif fills(network) and network.part.arguments:
            for variant in ("", *LOSSES):
                words = variant or "both losses"
                found += _filled(network, variant, f"Regions filled on the frozen classifier, {words}", work)
    for network in normal:
        if network.task == JIGSAW:
            found += _put_back(network, work)
    for reversal in reversals:
        network = reversal.network
        if (network.regime, network.base) == (CLASSIFIER_FIRST, NORMAL) and not reversal.variant and not reversal.gate:
            found += _brought_back(settings, reversal, work)
    return found


def _images(network: Trained, work: Workspace) -> Tensor:
    return work.table(network.part.data, "test").batch(torch.arange(SHOWN)).images


def _filled(network: Trained, variant: str, group: str, work: Workspace) -> list[Strip]:
    run = trained(network, work)
    told = inpainted(run.network, bound(network, INPAINTING, variant, work), _images(network, work))
    return [
        Strip(group=group, pictures=(("masked", masked), ("filled", filled), ("original", original)))
        for masked, filled, original in zip(told.masked, told.filled, told.original, strict=True)
    ]


def _put_back(network: Trained, work: Workspace) -> list[Strip]:
    """Tiles as the network sees them, in the order that it predicts, and in the right one."""
    run, task = trained(network, work), bound(network, JIGSAW, "", work)
    if not isinstance(task, Jigsaw) or task.settings.form == "whole":
        return []
    images = _images(network, work)
    with frozen_eval(run.network), frozen_eval(task), torch.no_grad():
        views = task.views(Batch(images=images, ids=torch.arange(len(images))), None)
        answers = task.head(run.network.features(views.images, views.stage)).argmax(1)
    tiles = views.images.unflatten(0, (views.count, -1)).transpose(0, 1)
    found = []
    for row, shown in enumerate(tiles):
        order, answer = task.permutations[views.targets[row]], task.permutations[answers[row]]
        pictures = (
            ("shuffled", laid_out(shown)),
            ("as predicted", laid_out(shown[answer.argsort()])),
            ("right order", laid_out(shown[order.argsort()])),
            ("original", images[row]),
        )
        right = int((order == answer).sum())
        caption = f"{right} of {len(order)} tiles in their place; tiles are normalised by themselves"
        found.append(
            Strip(group=f"Tiles put back, {network.part.data}, {_told(network)}", pictures=pictures, caption=caption)
        )
    return found


def _told(network: Trained) -> str:
    return network.model if network.regime == JOINT else network.regime


def _brought_back(settings: Scale, reversal: Reversal, work: Workspace) -> list[Strip]:
    """The first images that are right when clean and wrong when attacked: clean, attacked and reversed."""
    network = reversal.network
    run, defense = trained(network, work), reversed_by(settings, reversal, work)
    examples = crafted(settings, network, AUDITED, work)
    table = attacked_images(settings, network.part, work)
    names = table.classes[table.label_column or ""]
    count = min(len(examples), 50)
    clean, attacked, labels = table.batch(torch.arange(count)).images, examples.images[:count], examples.labels[:count]
    with frozen_eval(run.network), torch.no_grad():
        purified = defense.purified_images(attacked, examples.ids[:count])[:count]  # type: ignore[operator]
        says = [run.network(images).argmax(1) for images in (clean, attacked, purified)]
    turned = (says[0] == labels) & (says[1] != labels)
    found = []
    for row in turned.nonzero().flatten()[:2].tolist():
        shown = zip(("clean", "attacked", "reversed"), (clean, attacked, purified), says, strict=True)
        pictures = tuple((f"{words}: {names[int(said[row])]}", images[row]) for words, images, said in shown)
        caption = f"{names[int(labels[row])]}, test image {int(examples.ids[row])}; {AUDITED} at {settings.threat}"
        found.append(Strip(group=f"Attacked and reversed down {reversal.task}", pictures=pictures, caption=caption))
    return found
