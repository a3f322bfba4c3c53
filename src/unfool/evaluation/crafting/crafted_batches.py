"""Attacking the images of a table batch by batch; a batch is the same work whoever does it, and gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, ProxySettings
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.crafting.attack_folder import BatchCheckpoint, PartCheckpoint
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.crafting.sharded_images import IMAGES, Shard
from unfool.evaluation.logits import checked_logits
from unfool.models.modes import frozen_eval

_OTHERS = 64
"""Images of the table, of each class about as many, where an attack by decisions may begin."""

PER_IMAGE = ("distances", "zero_gradient", "fooled_by_part")
"""What a crafted batch says of each image, beside the image itself."""


@dataclass(frozen=True, kw_only=True)
class CraftedBatch:
    """What became of a batch: its adversarial ``images``, or the file that holds them, and what is known of each."""

    images: Tensor | Shard
    per_image: dict[str, Tensor]
    model_images: int
    cpu_seconds: float

    @classmethod
    def of(cls, tensors: dict[str, Tensor], cpu_seconds: float, shard: Shard | None = None) -> CraftedBatch:
        """A batch as its file holds it; of a ``shard`` the images stay there."""
        return cls(
            images=tensors[IMAGES] if shard is None else shard,
            per_image={name: tensors[name] for name in PER_IMAGE},
            model_images=int(tensors["model_images"]),
            cpu_seconds=cpu_seconds,
        )


class CraftedBatches:
    """What becomes of batches, one after the other, by their numbers.

    What is known of each image is kept for all of them at once: a small tensor of each batch would keep the memory
    around it, which its images took, from being used again.
    """

    def __init__(self, spans: Sequence[slice]):
        self._spans = spans
        self._per_image: dict[str, Tensor] = {}
        self._others: dict[int, tuple[Tensor | Shard, int, float]] = {}

    def add(self, number: int, batch: CraftedBatch) -> None:
        """Take a batch in."""
        for name, values in batch.per_image.items():
            if name not in self._per_image:
                self._per_image[name] = torch.empty(self._spans[-1].stop, dtype=values.dtype)
            self._per_image[name][self._spans[number]] = values
        self._others[number] = batch.images, batch.model_images, batch.cpu_seconds

    def by_number(self) -> dict[int, CraftedBatch]:
        """The batches that were taken in; what they know of each image shares memory."""
        return {
            number: CraftedBatch(
                images=images,
                per_image={name: values[self._spans[number]] for name, values in self._per_image.items()},
                model_images=model_images,
                cpu_seconds=seconds,
            )
            for number, (images, model_images, seconds) in self._others.items()
        }


class Crafting:
    """One attack on the images of a table; each call attacks some of them, ``at_once`` in a group or all in one.

    A search by decisions may begin at images of ``others``, a table with its labels; default: at those of this table.
    """

    def __init__(
        self,
        model: nn.Module,
        table: Table,
        attack: Attack,
        labels: Tensor,
        streams: Streams,
        proxy: ProxySettings | None,
        right: Sequence[bool] | None = None,
        others: tuple[Table, Tensor] | None = None,
        progress: Progress = silent,
    ):
        self.right: Tensor | None = None if right is None else torch.tensor(right)
        self.model = model
        self.table = table
        self.attack = attack
        self.labels = labels
        self.streams = streams
        self.proxy = proxy
        self.progress = progress
        self.device = device_of(model)
        few = table.batch(torch.arange(min(4, len(table))), self.device).images
        self.proxy_model = proxy.copy(model, few) if proxy is not None else None
        self.others = _others(*(others or (table, labels)), streams) if "decisions" in attack.learns_from else None

    def stored(
        self, number: int, span: slice, at_once: int | None, folder: BatchCheckpoint, *, in_files: bool
    ) -> CraftedBatch:
        """A batch that the folder holds, or else one that is crafted now and stored there.

        ``in_files``: its images stay in its file.
        """
        finished = folder.batch(number)
        if finished is None:
            started = time.process_time()
            checkpoint = folder.parts(number, lambda: time.process_time() - started, self._part_done(span))
            finished = self._crafted(span, at_once, checkpoint)
            folder.finish(number, *finished)
        else:
            self._report(span.stop)
        return CraftedBatch.of(*finished, Shard.of(folder.path(number)) if in_files else None)

    def batch(self, span: slice, at_once: int | None) -> CraftedBatch:
        """A batch that is crafted now and stored nowhere."""
        return CraftedBatch.of(*self._crafted(span, at_once, _NotStored(self._part_done(span))))

    def _part_done(self, span: slice) -> Callable[[int], None]:
        """What reports how many parts of the attack are done with a batch, as a share of its images."""
        count, parts = span.stop - span.start, len(self.attack.part_names)
        return lambda done: self._report(span.start + count * done // (parts + 1))

    def _crafted(
        self, span: slice, at_once: int | None, checkpoint: PartCheckpoint | _NotStored
    ) -> tuple[dict[str, Tensor], float]:
        """Attack a batch; gives what its file holds, and CPU seconds."""
        started = time.process_time()
        rows = torch.arange(span.start, span.stop)
        batch = self.table.batch(rows, self.device)
        labels = self.labels[rows].to(self.device)
        attacked = self.attack(
            self.model,
            batch.images,
            labels,
            ids=batch.ids,
            streams=self.streams,
            proxy=self.proxy,
            proxy_model=self.proxy_model,
            checkpoint=checkpoint,
            others=self.others,
            at_once=at_once,
        )
        tensors = {name: getattr(attacked, name).cpu() for name in (IMAGES, *PER_IMAGE)}
        tensors["model_images"] = torch.tensor(attacked.model_images)
        # An attack of several parts looks at the clean images itself.
        if len(self.attack.parts) == 1:
            right = self._right(rows, batch.images, labels, tensors)
            tensors["fooled_by_part"] = torch.where(right, tensors["fooled_by_part"], -1)
        self._report(span.stop)
        return tensors, time.process_time() - started + checkpoint.spent

    def _right(self, rows: Tensor, images: Tensor, labels: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Which images (B,) the model classifies correctly without an attack, counted where it is asked."""
        if self.right is not None:
            return self.right[rows]
        with frozen_eval(self.model), torch.no_grad():
            right = checked_logits(self.model, images, labels).argmax(1) == labels
        tensors["model_images"] += len(images)
        return right.cpu()

    def _report(self, done: int) -> None:
        self.progress(self.attack.name, done, len(self.table))


def _others(table: Table, labels: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
    """A few images of each class of a table, drawn by their ids: the same for all of its batches."""
    order = streams.named("others").uniform(table.ids).argsort(stable=True)
    turns = torch.empty_like(order)
    for label in labels.unique():
        own = order[labels[order] == label]
        turns[own] = torch.arange(len(own))
    rows = order[turns[order].argsort(stable=True)][:_OTHERS]
    return table.batch(rows).images, labels[rows]


class _NotStored:
    """The state of a batch between the parts of an attack, where it is stored nowhere: its parts are only counted."""

    spent = 0.0

    def __init__(self, part_done: Callable[[int], None]):
        self.part_done = part_done

    def load(self) -> None:
        """Nothing: the attack begins at its first part."""

    def save(self, state: dict[str, Tensor]) -> None:
        """Report how many parts are done."""
        self.part_done(int(state["done"]))
