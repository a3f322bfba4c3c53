"""Evaluating until a claim is settled: images are attacked in random order, and a sequential test looks at each few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.attacks import Attack, Lean, ProxySettings
from unfool.core.errors import SpecError
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import own_batch_size, spans_for
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.records import Records
from unfool.evaluation.results.claims import FAILS, HOLDS, OUT_OF_REACH, UNDECIDED
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.comparison import concatenate
from unfool.evaluation.statistics.sequential import AccuracyClaim, SequentialTest

LOOK = 32
"""Images between two looks: few, since those beyond the first that would have settled the claim are wasted."""


def order(ids: Tensor, seed: int) -> Tensor:
    """Row numbers (N,) of a table with these ids in random order, a pure function of ids and seed.

    Which of two images comes first depends on their ids alone, so it is the same in every table that holds both.
    """
    return torch.argsort(Streams(seed).named("sequential").bits(ids), stable=True)


@dataclass(frozen=True, kw_only=True)
class SequentialResult:
    """How a sequential evaluation ended: ``verdict`` holds, fails, undecided (the images ran out) or out of reach.

    Out of reach is a claim that was not settled and could not have held whatever the attack did; ``reason`` says why.
    ``records`` are those of the images attacked, in the order taken, out of ``available``. ``low`` and ``high`` are
    the confidence sequence where it stopped, at confidence 1 - ``alpha``; use them and not the records' own interval.
    """

    claim: AccuracyClaim
    alpha: float
    verdict: str
    records: Records
    low: float
    high: float
    available: int
    reason: str = ""

    def words(self) -> str:
        """The result in one sentence."""
        return (
            f"robust accuracy {self.claim} {'' if self.verdict in (HOLDS, FAILS) else 'is '}{self.verdict}: "
            f"{100 * self.records.accuracy:.1f} % after {self.records.count} of {self.available} images, "
            f"[{100 * self.low:.1f}, {100 * self.high:.1f}] at {100 * (1 - self.alpha):g} % confidence at any stop"
            f"{f'; {self.reason}' if self.reason else ''}"
        )

    def row(self, model: str, *, settings: Mapping[str, Any] | None = None) -> Row:
        """The records' row, its interval replaced by the one that is valid after stopping."""
        stopped = {"claim": str(self.claim), "error rate": self.alpha, "verdict": self.verdict, **(settings or {})}
        row = self.records.row(model, settings=stopped)
        return replace(row, low=round(self.low, 6), high=round(self.high, 6))


def check_claimed(attack: Attack) -> None:
    """Refuse an attack whose verdicts are on all images together: a claim is settled on a few at a time."""
    if isinstance(attack, Lean):
        raise SpecError(
            f"attack {attack.name} looks at all images before it says whether its verdicts stand, and a claim is "
            "settled on a few at a time; give autoattack"
        )


def evaluate_claim(
    model: nn.Module,
    data: TableLike,
    attack: AttackLike,
    claim: AccuracyClaim | str,
    *,
    threat: ThreatModel | str | None = None,
    alpha: float = 0.05,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int = LOOK,
    right: Sequence[bool] | None = None,
    progress: Progress = silent,
) -> SequentialResult:
    """Attack a table's images in random order, ``batch_size`` at a time, until a claim is settled or none is left.

    ``right`` says of each image whether it is classified correctly without an attack, where that is known.
    Each image is attacked as in the full evaluation of the same seed; where predictions depend on batch-mates, in
    batches of the model's own size, though among others. The claim is about the accuracy on images like the table's, of
    which they are a sample. The other arguments and errors are those of `craft` and `classify`; a claim, an error rate
    or a batch size that is not allowed raises SpecError.
    """
    test = SequentialTest(claim, alpha)
    table, chosen = as_table(data), choose_attack(attack, threat)
    check_claimed(chosen.attack)
    rows = order(table.ids, seed)
    parts: list[Records] = []
    for records in records_in_order(
        model, table, chosen.attack, column=column, seed=seed, proxy=proxy, batch_size=batch_size
    ):
        parts.append(records)
        verdict = test.update(records.correct)
        progress(f"{chosen.title}: {test.claim}?", test.count, len(table))
        if verdict is not None:
            break
    low, high = test.interval()
    standing = np.ones(len(table), dtype=bool) if right is None else np.asarray(right)[rows.numpy(force=True)]
    reason = "" if test.verdict else test.out_of_reach(standing, own_batch_size(model) or batch_size)
    return SequentialResult(
        claim=test.claim,
        alpha=alpha,
        verdict=test.verdict or (OUT_OF_REACH if reason else UNDECIDED),
        reason=reason,
        records=concatenate(parts),
        low=low,
        high=high,
        available=len(table),
    )


def records_in_order(
    model: nn.Module,
    table: Table,
    attack: AttackLike | None,
    *,
    threat: ThreatModel | str | None = None,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int = LOOK,
) -> Iterator[Records]:
    """Outcomes on a table's images in random order, ``batch_size`` at a time, or in batches of the model's own size;
    without an attack on clean images."""
    rows = order(table.ids, seed)
    for span in spans_for(model, len(table), batch_size):
        images: Table | AdversarialSet = table.subset(rows[span])
        if attack is not None:
            images = craft(
                model,
                images,
                attack,
                threat=threat,
                column=column,
                seed=seed,
                proxy=proxy,
                batch_size=batch_size,
                others=table,
            )
        yield classify(model, images, column=None if attack is not None else column, batch_size=batch_size)
