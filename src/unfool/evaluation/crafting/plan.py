"""What an attack on the images of a table is, cut into batches: whoever crafts some of them needs no more to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from unfool.attacks import Attack, ProxySettings
from unfool.attacks.proxy import SurrogateSettings
from unfool.core.borders.checksum import checksum
from unfool.core.files import JsonObject
from unfool.core.processes import rank_and_world_size
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.crafting.attack_folder import TOGETHER, stored_batches
from unfool.evaluation.crafting.batches import batches_together, device_of, fitting, own_batch_size, spans, spans_for
from unfool.evaluation.crafting.processes import gathered
from unfool.evaluation.results.rows import is_unverified
from unfool.models.modes import frozen_eval
from unfool.models.surrogates.pinned import pinned_draws

_ASKED = 8
"""Images that a model without a verified identity is known by."""


@dataclass(frozen=True, kw_only=True)
class CraftingPlan:
    """The pieces of an attack (``spans``), each a batch or several of ``at_once`` images, what their set says of
    itself (``manifest``), and what else decides its bits (``search``)."""

    spans: list[slice]
    at_once: int | None
    manifest: JsonObject
    search: JsonObject

    @property
    def stored(self) -> JsonObject:
        """What the folder of the attack says of itself."""
        return {**self.manifest, **self.search}


def plan_crafting(
    model: nn.Module,
    table: Table,
    attack: Attack,
    *,
    crafted_on: str,
    column: str | None,
    seed: int,
    proxy: ProxySettings | None,
    batch_size: int | None,
    home: Path | None,
) -> CraftingPlan:
    """Cut an attack into batches: of the model's own size, or ``batch_size``, or that of the folder ``home`` where it
    was begun, or what memory allows. In the last case an attack of several parts may take several batches together.
    Raises SpecError for a size below 1, DataError for no images."""
    spans(len(table), 1 if batch_size is None else batch_size)  # refuse no images before anything is computed
    image = table.batch(torch.arange(1)).images
    stored = stored_batches(home) if home is not None else None
    batch_size, together = own_batch_size(model) or batch_size, 1
    if batch_size is None:
        begun = stored or (fitting(model, image), None)
        every = list(gathered({rank_and_world_size()[0]: begun}).values())
        batch_size, known = min(size for size, _ in every), [each for _, each in every if each is not None]
        if known:
            together = min(known)
        # A search with the draws of each image fixed goes through all of a piece at once.
        elif len(attack.parts) > 1 and not isinstance(proxy, SurrogateSettings):
            together = batches_together(len(table), batch_size, image)
    return CraftingPlan(
        spans=spans_for(model, len(table), batch_size * together),
        at_once=batch_size if together > 1 else None,
        manifest={
            "attack": attack.name,
            "threat": str(attack.threat),
            "data": table.name,
            "split": table.split,
            "column": column or table.label_column or "",
            "seed": seed,
            "crafted_on": crafted_on,
            "settings": dict(attack.settings),
            "parts": attack.part_names,
        },
        search={
            "search": proxy.described if proxy is not None else None,
            "ids": checksum({}, {"ids": table.ids}),
            "images": table.pixel_digest,
            "labels": checksum({}, {"labels": table.labels(column)}),
            "batch_size": batch_size,
            **({TOGETHER: together} if together > 1 else {}),
            # Equal identities prove nothing there.
            **({"answers": _answers(model, table)} if is_unverified(crafted_on) else {}),
        },
    )


def _answers(model: nn.Module, table: Table) -> list[float]:
    """What a model says of the first images: one whose answers are others is another."""
    images = table.batch(torch.arange(min(_ASKED, len(table))), device_of(model)).images
    with torch.no_grad(), frozen_eval(model), pinned_draws(model, Streams(0)):
        return [float(f"{value:.6g}") for value in model(images).flatten().tolist()]
