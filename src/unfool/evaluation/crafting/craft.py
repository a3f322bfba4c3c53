"""Craft adversarial examples on a system, batch by batch: resumable, and shared between processes."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, Lean, ProxySettings
from unfool.attacks.inputs import check_model
from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, OutputError
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.attack_folder import BatchCheckpoint, held_folder
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.crafting.crafted_batches import PER_IMAGE, CraftedBatch, CraftedBatches, Crafting
from unfool.evaluation.crafting.plan import plan_crafting
from unfool.evaluation.crafting.processes import gathered
from unfool.evaluation.crafting.sharded_images import Shard, ShardedImages
from unfool.evaluation.crafting.stored_set import ONE_FILE, image_bytes
from unfool.evaluation.identity import one_identity


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
    others: Table | None = None,
    in_memory: int = ONE_FILE,
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
        others: The table in which an attack by decisions may look for a point to begin with; default: that of ``data``.
        in_memory: Bytes of images that may stay in memory, by default 256 MiB. More are read from files as they are
            needed: those of ``folder``, or of a temporary folder that goes with the set.
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
    whole, chosen = as_table(data), choose_attack(attack, threat).attack
    home = Path(folder) if folder is not None else None
    with one_identity(model) as own:

        def craft_on(
            table: Table, attack: Attack, folder: Path | None, search: ProxySettings | None = None
        ) -> AdversarialSet:
            known = right if table is whole else None
            search = search or proxy
            return _craft(
                model, table, attack, column, seed, search, batch_size, folder, known, others, in_memory, progress, own
            )

        if isinstance(chosen, Lean):
            from unfool.evaluation.lean.escalation import craft_lean  # judges what was crafted with this module's sets

            return craft_lean(
                model,
                whole,
                chosen,
                craft_on,
                column=column,
                seed=seed,
                proxy=proxy,
                batch_size=batch_size or BATCH_SIZE,
                folder=home,
                progress=progress,
            )
        return craft_on(whole, chosen, home)


def _craft(
    model: nn.Module,
    table: Table,
    attack: Attack,
    column: str | None,
    seed: int,
    proxy: ProxySettings | None,
    batch_size: int | None,
    folder: str | Path | None,
    right: Sequence[bool] | None,
    others: Table | None,
    in_memory: int,
    progress: Progress,
    own_identity: str,
) -> AdversarialSet:
    """Attack a table with one attack as it is."""
    labels = table.labels(column)
    rank, processes = rank_and_world_size()
    in_files = image_bytes((len(table), *table.shape)) > in_memory
    # Each process keeps its own share: a lock on one folder would shut the others out.
    share = f"process-{rank}-of-{processes}" if processes > 1 else ""
    owner = _temporary(processes) if in_files and folder is None else None
    if owner is not None:
        folder = owner.name
    home = Path(folder) / share if folder is not None else None
    plan = plan_crafting(
        model,
        table,
        attack,
        crafted_on=own_identity,
        column=column,
        seed=seed,
        proxy=proxy,
        batch_size=batch_size,
        home=home,
    )
    progress(attack.name, 0, len(table))
    begins = (others, others.labels(column)) if others is not None else None
    work = Crafting(model, table, attack, labels, Streams(seed).named("attack"), proxy, right, begins, progress)
    own_share, done = range(rank, len(plan.spans), processes), CraftedBatches(plan.spans)
    if home is None:
        for number in own_share:
            done.add(number, work.batch(plan.spans[number], plan.at_once))
    else:
        with held_folder(home):
            stored = BatchCheckpoint(home)
            stored.claim(plan.stored)
            for number in own_share:
                done.add(number, work.stored(number, plan.spans[number], plan.at_once, stored, in_files=in_files))
    batches = [batch for _, batch in sorted(gathered(done.by_number()).items())]
    return AdversarialSet(
        images=_joined(batches, table.shape, owner),
        **{name: torch.cat([batch.per_image[name] for batch in batches]) for name in PER_IMAGE},
        labels=labels.clone(),
        ids=table.ids.clone(),
        cpu_seconds=sum(batch.cpu_seconds for batch in batches),
        model_images=sum(batch.model_images for batch in batches),
        follows_gradients=[kind == "gradient" for kind in attack.learns_from],
        **plan.manifest,
    )


def _temporary(processes: int) -> tempfile.TemporaryDirectory[str]:
    """A folder for images that goes with the set, or, where other processes read them too, with this process."""
    try:
        owner = tempfile.TemporaryDirectory(prefix="unfool-set-")
    except OSError as error:
        raise OutputError(f"no temporary folder can be made: {error.strerror}; set TMPDIR to a writable one") from error
    if processes > 1:
        atexit.register(owner.cleanup)
    return owner


def _joined(batches: Sequence[CraftedBatch], shape: tuple[int, int, int], owner: object) -> Tensor | ShardedImages:
    """The images of all batches: one tensor, or what reads them from the batches' files."""
    tensors = [batch.images for batch in batches if isinstance(batch.images, Tensor)]
    shards = [batch.images for batch in batches if isinstance(batch.images, Shard)]
    if not shards:
        return torch.cat(tensors)
    absent = next((shard.path for shard in shards if not is_file(shard.path)), None)
    if absent is not None:
        raise DataError(
            f"{absent} of another process is not on this machine; sets of more than {ONE_FILE >> 20} MiB need a "
            "folder that all processes see: give --state DIR, or folder= in Python"
        )
    return ShardedImages(shards, shape, owner, checked=True)
