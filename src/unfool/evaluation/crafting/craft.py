"""Craft adversarial examples on a system, batch by batch: resumable, and shared between processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, ProxySettings
from unfool.attacks.inputs import check_model
from unfool.core.borders.checksum import checksum
from unfool.core.files import JsonObject
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.attack_folder import (
    BatchCheckpoint,
    PartCheckpoint,
    held_folder,
    stored_batch_size,
)
from unfool.evaluation.crafting.batches import device_of, fitting, own_batch_size, spans
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.crafting.processes import gathered
from unfool.evaluation.identity import one_identity
from unfool.evaluation.logits import checked_logits
from unfool.models.modes import frozen_eval

_PER_IMAGE = ("images", "distances", "zero_gradient", "fooled_by_part")


@keep_freed_memory()
def craft(
    model: nn.Module,
    data: TableLike,
    attack: AttackLike,
    *,
    threat: ThreatModel | str | None = None,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    right: Sequence[bool] | None = None,
    progress: Progress = silent,
) -> AdversarialSet:
    """Attack a model on every image of a table, and keep the adversarial examples with their provenance.

    In a group of processes (torch.distributed) each attacks its share of the batches, and all return the whole set.

    Args:
        model: Maps images in [0,1] to logits. It is attacked in eval mode and left as it was.
        data: A table, or what `as_table` makes one of: ``(images, labels)``, a data set, its name.
        attack: An attack, or its name such as ``"pgd-20"``.
        threat: Threat model of an attack that is given by name; default ``linf:8/255``.
        column: Label column; default: the table's own choice.
        seed: Seed of every random draw.
        proxy: Search on a faster copy of the model, which confirms each example; default: no copy.
        batch_size: Images at a time; default: what memory allows. A defense whose predictions depend on batch-mates
            has its own.
        folder: Where finished batches, and finished parts of the attack, are stored. The same call with the same folder
            continues where it was stopped, with the same bits.
        right: Which images the model classifies correctly without an attack, where that is known; else it classifies
            them once more, since an image that was wrong before is nobody's success.
        progress: Called with the images done.

    Returns:
        The adversarial set, in the order of the table.

    Raises:
        SpecError: An unknown attack, or one that does not stay within ``threat``.
        DataError: No images, or no such labels.
        ImagesError: Labels that the model's logits do not cover, or images that break the contract.
        NonFiniteError: NaN logits.
        OutputError: A folder that holds other examples, or that cannot be written.

    Example:
        >>> import torch
        >>> from unfool import craft
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> examples = craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 1]), "fgsm", threat="linf:0.1")
        >>> examples
        AdversarialSet(2 images of 3×4×4, fgsm at linf:0.1 on tensors test, 1 fooled)
        >>> [round(distance, 3) for distance in examples.distances.tolist()]
        [0.1, 0.1]
    """
    check_model(model)
    with one_identity(model) as own:
        return _craft(model, data, attack, threat, column, seed, proxy, batch_size, folder, right, progress, own)


def _craft(
    model: nn.Module,
    data: TableLike,
    attack: AttackLike,
    threat: ThreatModel | str | None,
    column: str | None,
    seed: int,
    proxy: ProxySettings | None,
    batch_size: int | None,
    folder: str | Path | None,
    right: Sequence[bool] | None,
    progress: Progress,
    own_identity: str,
) -> AdversarialSet:
    table = as_table(data)
    attack = choose_attack(attack, threat).attack
    labels = table.labels(column)
    spans(len(table), 1 if batch_size is None else batch_size)  # refuse no images before anything is computed
    rank, processes = rank_and_world_size()
    # Each process keeps its own share: a lock on one folder would shut the others out.
    share = f"process-{rank}-of-{processes}" if processes > 1 else ""
    home = Path(folder) / share if folder is not None else None
    batch_size = own_batch_size(model) or batch_size
    if batch_size is None:
        own = (stored_batch_size(home) if home is not None else None) or fitting(
            model, table.batch(torch.arange(1)).images
        )
        batch_size = min(gathered({rank: own}).values())
    cuts = spans(len(table), batch_size)
    manifest: JsonObject = {
        "attack": attack.name,
        "threat": str(attack.threat),
        "data": table.name,
        "split": table.split,
        "column": column or table.label_column or "",
        "seed": seed,
        "crafted_on": own_identity,
        "settings": dict(attack.settings),
        "parts": attack.part_names,
    }
    progress(attack.name, 0, len(table))
    work = _Crafting(model, table, attack, labels, Streams(seed).named("attack"), proxy, right, progress)
    if home is None:
        done = {
            number: work.batch(cuts[number], _NotStored(work.part_done(cuts[number])))
            for number in range(rank, len(cuts), processes)
        }
    else:
        requested = {"search": vars(proxy) if proxy is not None else None, "ids": checksum({}, {"ids": table.ids})}
        with held_folder(home):
            stored = BatchCheckpoint(home, {**manifest, **requested, "batch_size": batch_size})
            done = {number: work.resumed(number, cuts[number], stored) for number in range(rank, len(cuts), processes)}
    batches = [part for _, part in sorted(gathered(done).items())]
    return AdversarialSet(
        **{name: torch.cat([tensors[name] for tensors, _ in batches]) for name in _PER_IMAGE},
        labels=labels.clone(),
        ids=table.ids.clone(),
        cpu_seconds=sum(seconds for _, seconds in batches),
        model_images=sum(int(tensors["model_images"]) for tensors, _ in batches),
        follows_gradients=[kind == "gradient" for kind in attack.learns_from],
        **manifest,
    )


class _Crafting:
    """Crafts one adversarial set batch by batch; a batch gives its tensors and CPU seconds."""

    def __init__(
        self,
        model: nn.Module,
        table: Table,
        attack: Attack,
        labels: Tensor,
        streams: Streams,
        proxy: ProxySettings | None,
        right: Sequence[bool] | None,
        progress: Progress,
    ):
        self.right = None if right is None else torch.tensor(right)
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

    def resumed(self, number: int, span: slice, folder: BatchCheckpoint) -> tuple[dict[str, Tensor], float]:
        """A batch that the folder holds, or else one that is crafted now and stored there."""
        finished = folder.batch(number)
        if finished is not None:
            self._report(span.stop)
            return finished
        started = time.process_time()
        checkpoint = folder.parts(number, lambda: time.process_time() - started, self.part_done(span))
        tensors, seconds = self.batch(span, checkpoint)
        folder.finish(number, tensors, seconds)
        return tensors, seconds

    def part_done(self, span: slice) -> Callable[[int], None]:
        """What reports how many parts of the attack are done with a batch, as a share of its images."""
        count, parts = span.stop - span.start, len(self.attack.part_names)
        return lambda done: self._report(span.start + count * done // (parts + 1))

    def batch(self, span: slice, checkpoint: PartCheckpoint | _NotStored) -> tuple[dict[str, Tensor], float]:
        """Attack one batch."""
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
        )
        tensors = {name: getattr(attacked, name).cpu() for name in _PER_IMAGE}
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
