"""The accuracies on a card, measured again on a fresh sample.

The sample is attacked image by image in a random order. After every look the confidence sequence of
`statistics.sequential` holds the accuracy at an error rate that survives looking often. A figure holds once that
interval lies within ``tolerance`` of it, and does not once it lies outside the card's own interval, or farther away
than ``tolerance``. Where all images of the split were taken, nothing is left to chance, and the accuracies themselves
are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from unfool.core.errors import UnfoolError
from unfool.core.progress import Progress
from unfool.data.table import Table
from unfool.evaluation.cards.making import images_hash, split_table
from unfool.evaluation.cards.verification import FAILS, HOLDS, NOT_CHECKED, UNDECIDED, Check, VerificationSettings
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.identity import one_identity
from unfool.evaluation.statistics.sequential import anytime_interval
from unfool.evaluation.statistics.settling import LOOK, records_in_order
from unfool.models.zoo.model_card import Card, Figure
from unfool.training.folder import TrainedRun

SAME_IMAGES, SAME_ATTACK = 0.005, 0.02
"""By how much two evaluations of the same images may differ: by rounding, and by the random draws of an attack."""

ACCURACIES = {"clean": "clean accuracy", "attacked": "accuracy under attack"}
"""What the figures of a card are called once they are measured again."""


def measured_again(run: TrainedRun, card: Card, settings: VerificationSettings, progress: Progress) -> Iterator[Check]:
    """Both accuracies on a fresh sample; unchecked, saying why, where the images are missing."""
    figures = {name: getattr(card, kind) for kind, name in ACCURACIES.items()}
    if not settings.images:
        yield Check(name="accuracies", verdict=NOT_CHECKED, text="no image was to be attacked")
        return
    try:
        table = split_table(run.config, next((each.split for each in figures.values() if each is not None), "test"))
    except UnfoolError as error:
        shown = " and ".join(f"{said.words} {name}" for name, said in figures.items() if said is not None)
        if shown:
            yield Check(name="accuracies", verdict=NOT_CHECKED, text=f"for want of data ({shown}): {error}")
        return
    same = card.test_images is None or images_hash(table) == card.test_images
    with one_identity(run.network):
        for name, said in figures.items():
            if said is not None:
                yield _accuracy(run, table, name, said, settings, same, progress)


def _accuracy(
    run: TrainedRun,
    table: Table,
    name: str,
    said: Figure,
    settings: VerificationSettings,
    same: bool,
    progress: Progress,
) -> Check:
    """Attack images in random order until the figure is settled, or no image is left."""
    clean = said.threat is None
    most = len(table) if clean else min(settings.images, len(table))
    correct = count = 0
    low, high = 0.0, 1.0
    verdict: str | None = None
    attack = None if clean else said.attack
    for records in records_in_order(
        run.network,
        table,
        attack,
        threat=said.threat,
        seed=settings.seed,
        proxy=proxy_for(run.network, "bf16"),
        batch_size=8 * LOOK if clean else LOOK,
    ):
        correct, count = correct + sum(records.correct), count + records.count
        low, high = anytime_interval(correct, count, 1 - settings.alpha)
        verdict = _settled(said, low, high, settings.tolerance)
        progress(f"{name}: {said.words}?", count, most)
        if verdict is not None or count >= most:
            break
    sampled = f"{100 * correct / count:.1f} % of {count:,} test images, [{100 * low:.1f}, {100 * high:.1f}]"
    if count == len(table) and verdict is None:
        sampled = f"{100 * correct / count:.1f} % of all {count:,} test images"
        whole = same and said.images == len(table)
        nearest = min(max(correct / count, said.low), said.high)
        off = abs(correct / count - (said.accuracy if whole else nearest))
        outcome = HOLDS if off <= (SAME_IMAGES if clean else SAME_ATTACK) else FAILS
    else:
        outcome = verdict or UNDECIDED
    more = "" if same else "; these are not the card's own test images"
    under = "" if clean else f" under {said.attack} at {said.threat}"
    return Check(name=name, verdict=outcome, text=f"the card says {said.words}, here {sampled}{under}{more}")


def _settled(said: Figure, low: float, high: float, tolerance: float) -> str | None:
    """The verdict of an interval that holds the accuracy; None while it is open."""
    if high < max(said.low, said.accuracy - tolerance) or low > min(said.high, said.accuracy + tolerance):
        return FAILS
    return HOLDS if said.accuracy - tolerance <= low and high <= said.accuracy + tolerance else None
