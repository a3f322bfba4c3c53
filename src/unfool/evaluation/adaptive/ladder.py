"""The adaptive ladder: is a defended system harder to fool than the network inside it, by an attacker who knows it?

(a) the static network under a strong attack, the yardstick; (b) those examples replayed on the defense; (c) the
gradient passed straight through the purification (BPDA, Athalye et al., ICML 2018); (d) the same averaged over redrawn
randomness (EOT); (e) the static loss and the pretext loss together (Mao et al., ICCV 2021); (f) the exact gradient; (g)
the gate attacked jointly. Published reversals beat (b) and were judged by it; what counts is the worst of (b) to (g)
on each image, against (a) (Croce et al., ICML 2022).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unfool.attacks import Attack, ProxySettings, make_attack
from unfool.core.config import build
from unfool.core.errors import SpecError
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, renamed, silent
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses import as_defense
from unfool.evaluation.adaptive.engines import WarmStarts
from unfool.evaluation.adaptive.examples import pictured
from unfool.evaluation.adaptive.ladder_result import Ladder, restricted
from unfool.evaluation.adaptive.rungs import NAMES, LadderSettings, make_rung, remarks, unfit
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.judge import judge
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.statistics.comparison import WORST_CASE, compare_records, worst_case

RUNGS = ("a", "b", *NAMES)


def ladder(
    defense: nn.Module,
    table: Table,
    *,
    threat: str = "linf:8/255",
    attack: str = "autoattack",
    rungs: str = "abcdefg",
    images: Mapping[str, int] | None = None,
    name: str = "model",
    defended: str = "defense",
    column: str | None = None,
    precision: str = "fp32",
    batch_size: int | None = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Ladder:
    """Climb the ladder with a ``defense`` (images in [0,1] → logits) on a table of labelled images.

    A defense is any module with ``network``, the classifier inside it, and ``purify(images, ids, streams)``, whose
    result has ``images``; one with a ``task``, a gate or ``images_per_prediction`` is attacked and counted by them.
    ``attack`` is that of (a) and its examples those of (b); both are run whatever ``rungs`` says. ``images`` gives a
    rung fewer images than the table: the same for all who get as many, and the fewest lie inside the others. ``name``
    and ``defended`` are what rows call model and defense, ``settings`` those of `LadderSettings`, ``precision`` the
    search's in (a). With ``folder`` a ladder that was stopped goes on where it was; one of another defense, other
    images or other settings is refused. Raises SpecError for what is not understood, and what `craft` and `judge` do.
    """
    chosen = build(LadderSettings, settings, "the ladder")
    letters = _wanted(rungs, images or {}, len(table))
    run = _Climb(defense, table, ThreatModel.parse(threat), chosen, column, batch_size, folder, progress, images or {})
    run.static(attack, precision)
    for letter in letters:
        run.adaptive(letter)
    return run.result(name, defended)


def _wanted(rungs: str, images: Mapping[str, int], count: int) -> list[str]:
    """The adaptive rungs that are asked for, in order; SpecError for letters and numbers that are not understood."""
    for letter in (*rungs, *images):
        if letter not in RUNGS:
            raise unknown("rung of the ladder", letter, RUNGS)
    for letter, number in images.items():
        if not 1 <= number <= count:
            raise SpecError(f"{number} images of rung {letter} are not allowed; give 1 to {count}, what the table has")
    most = images.get("a", count)
    if images.get("b", most) != most or any(number > most for number in images.values()):
        raise SpecError(f"rung a has {most} images, so b has as many and the others, which start from them, no more")
    return [letter for letter in NAMES if letter in rungs]


class _Climb:
    """One ladder as it comes about."""

    def __init__(
        self,
        defense: nn.Module,
        table: Table,
        threat: ThreatModel,
        settings: LadderSettings,
        column: str | None,
        batch_size: int | None,
        folder: str | Path | None,
        progress: Progress,
        images: Mapping[str, int],
    ):
        self.defense = defense
        self.network = as_defense(defense).classifier
        self.threat = threat
        self.settings = settings
        self.column = column
        self.batch_size = batch_size
        self.folder = Path(folder) if folder is not None else None
        self.progress = progress
        self.images = images
        self.price = as_defense(defense).images_per_prediction
        self.whole = table
        self.table = self.part("a")
        self.rungs: dict[str, Records] = {}
        self.sets: dict[str, AdversarialSet] = {}
        self.absent: dict[str, str] = {}

    def part(self, letter: str) -> Table:
        """The images of a rung; smaller draws lie inside larger ones."""
        count = self.images.get(letter, self.images.get("a", len(self.whole)))
        return self.whole.sample(count, Streams(self.settings.seed).named("ladder images"))

    def craft(
        self, letter: str, model: nn.Module, attack: Attack, proxy: ProxySettings | None = None
    ) -> AdversarialSet:
        title = f"({letter}) {attack.name}"
        self.sets[letter] = craft(
            model,
            self.part(letter),
            attack,
            column=self.column,
            seed=self.settings.seed,
            proxy=proxy,
            batch_size=self.batch_size,
            folder=self.folder / letter if self.folder is not None else None,
            progress=renamed(self.progress, title),
        )
        return self.sets[letter]

    def judge(self, on: AdversarialSet | Table) -> Records:
        """The deployed defense on images, counted in images through a network."""
        found = judge(self.defense, on, column=self.column, threat=str(self.threat), batch_size=self.size)
        return dataclasses.replace(found, model_images=found.model_images + (self.price - 1) * len(on))

    @property
    def size(self) -> int:
        return self.batch_size or BATCH_SIZE

    def static(self, text: str, precision: str) -> None:
        """Clean images, (a) and (b)."""
        bare = judge(self.network, self.table, column=self.column, threat=str(self.threat), batch_size=self.size)
        self.clean = bare, self.judge(self.table)
        attack = make_attack(text, self.threat)
        examples = self.craft("a", self.network, attack, proxy_for(self.network, precision))
        self.rungs["a"] = judge(self.network, examples, batch_size=self.size)
        self.rungs["b"] = self.judge(examples)
        self.starts = WarmStarts(examples)

    def adaptive(self, letter: str) -> None:
        """One of (c) to (g), or why not."""
        reason = unfit(letter, self.defense)
        if reason is not None:
            self.absent[letter] = reason
            return
        rung = make_rung(letter, self.threat, self.starts, self.settings, self.price)
        self.rungs[letter] = self.judge(self.craft(letter, self.defense, rung))

    def result(self, name: str, defended: str) -> Ladder:
        """All of it, put together."""
        fewest = min(self.rungs.values(), key=lambda records: records.count).ids
        common = {letter: restricted(records, fewest) for letter, records in self.rungs.items()}
        worst = worst_case([records for letter, records in common.items() if letter != "a"])
        against = None
        if worst.protocol != TRANSFER:
            against = compare_records(
                *(dataclasses.replace(one, attack=WORST_CASE, settings={}) for one in (worst, common["a"]))
            )
        return Ladder(
            model=name,
            defense=defended,
            rungs=self.rungs,
            clean=self.clean,
            sets=self.sets,
            worst=worst,
            against=against,
            price=self.price,
            absent=self.absent,
            notes=remarks(self.defense, list(self.rungs)),
            examples=pictured(self.defense, self.table, self.sets, self.column),
        )


def discard_ladder(folder: Path) -> None:
    """Remove what `ladder` kept in its folder, and the folder if nothing else is in it; one process does it."""
    if rank_and_world_size()[0] != 0:
        return
    for letter in RUNGS:
        shutil.rmtree(folder / letter, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
