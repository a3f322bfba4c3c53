"""An evaluation shared out: jobs fill its folder with everything that `evaluate` and `craft` then find there.

A part is the same images, in the same batches, as in one process, so what is joined is the same to the bit. Clean
images are classified first; a batch is attacked as soon as its images are, and classified again once it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path

from unfool.attacks.lean.attack import Lean
from unfool.core.borders.reading import is_file
from unfool.core.parallel.job import Place
from unfool.core.parallel.sharing import Part, Sharing
from unfool.core.progress import Progress, silent
from unfool.core.threat import ThreatModel
from unfool.data.corruptions import CORRUPTIONS
from unfool.evaluation.crafting.attack_folder import BatchCheckpoint, held_folder
from unfool.evaluation.crafting.batches import BATCH_SIZE, own_batch_size, spans_for
from unfool.evaluation.crafting.evaluation_folder import (
    attack_folder,
    checks_folder,
    clean_folder,
    corrupted_folder,
    judged_folder,
)
from unfool.evaluation.crafting.plan import plan_crafting
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.identity import one_identity
from unfool.evaluation.lean.escalation import SHORT
from unfool.evaluation.outcomes import part_path
from unfool.evaluation.parts import jobs
from unfool.evaluation.parts.opened import Opened, Opener, Subject, ready
from unfool.evaluation.reliability.report import CHECKED, CHECKS

_PARTS = 32
"""Parts of the images, if there are enough of these, that are classified by a job each, whoever runs them: another
number of workers then finds what is done."""
_CLASSIFY, _ATTACK = 1.0, 20.0
"""What it costs to classify an image, and to attack it, roughly: for the order of jobs alone."""


def share_evaluation(
    sharing: Sharing,
    opens: Opener,
    opened: Opened,
    *,
    clean: bool = True,
    tell_right: bool = True,
    seed: int = 0,
    precision: str = "fp32",
    batch_size: int | None = None,
    severities: Sequence[int] = (),
    threat: ThreatModel | None = None,
    progress: Progress = silent,
) -> None:
    """Classify the clean images, attack them with every attack and classify what comes of that, all in parts.

    `evaluate`, or `craft` and `classify_or_read`, called with the same folder and settings then find all of it.

    Args:
        sharing: Who does it, and where it lands: the folder that `evaluate` or `craft` is given then.
        opens: Opens the system again where a part is done.
        opened: The system as the asker has opened it.
        clean: Whether clean images are classified.
        tell_right: Whether attacks are told which clean images are right, as `evaluate` does; else they look.
        seed: Seed of the attacks' draws.
        precision: Precision in which attacks search.
        batch_size: Images at a time; default: what memory allows.
        severities: Severities of the common corruptions under which images are classified too; none by default.
        threat: Threat model of the reliability report; none: there is no report.
        progress: Called with the images done, each counted for every part that it is in.

    Raises:
        WorkerError: A worker that died, or opened another system.
        OutputError: A folder that holds another evaluation, or that cannot be written.
    """
    with ExitStack() as stack:
        opened = ready(opened)
        identity = stack.enter_context(one_identity(opened.model))
        subject = Subject(opens=opens, identity=identity, seed=seed, precision=precision)
        plan = _Planner(sharing.folder, opened, subject, batch_size)
        if clean:
            plan.clean()
        for number in range(len(opened.attacks)):
            plan.attack(number, stack, tell_right=tell_right)
        plan.corruptions(severities)
        if threat is not None:
            plan.checks(threat)
        sharing.run(plan.parts, "in parts", progress)


class _Planner:
    """Collects what is missing of an evaluation."""

    def __init__(self, folder: Path, opened: Opened, subject: Subject, batch_size: int | None):
        self.folder, self.opened, self.subject, self.batch_size = folder, opened, subject, batch_size
        self.proxy = proxy_for(opened.model, subject.precision)
        self.size = own_batch_size(opened.model) or batch_size or BATCH_SIZE
        cuts = spans_for(opened.model, len(opened.table), self.size)
        together = max(1, len(cuts) // _PARTS)
        self.blocks = [cuts[start : start + together] for start in range(0, len(cuts), together)]
        self.parts: list[Part] = []
        self._clean: tuple[Path, dict[str, slice]] | None = None
        """Where clean outcomes lie, and the rows of each part by its name."""

    def clean(self) -> None:
        """Classify the clean images."""
        where = clean_folder(self.folder, self.opened.table, self.opened.column, self.subject.identity, self.size)
        if where is None:
            return
        parts = {f"clean {rows.start}": (block, rows) for block in self.blocks for rows in [_rows(block)]}
        self._clean = where, {name: rows for name, (_, rows) in parts.items()}
        for name, (block, rows) in parts.items():
            if not is_file(part_path(where, rows)):
                call = partial(jobs.classify_clean, self.subject, self._named(where), block)
                self._add(name, call, rows, _CLASSIFY)

    def attack(self, number: int, stack: ExitStack, *, tell_right: bool) -> None:
        """Attack the images batch by batch, and classify what comes of it."""
        chosen, table = self.opened.attacks[number], self.opened.table
        home = attack_folder(self.folder, chosen.title, chosen.attack)
        lean = isinstance(chosen.attack, Lean)
        if lean:
            home = home / SHORT  # what more there is to do, `craft` sees from these
        stack.enter_context(held_folder(home))
        plan = plan_crafting(
            self.opened.model,
            table,
            chosen.attack,
            crafted_on=self.subject.identity,
            column=self.opened.column,
            seed=self.subject.seed,
            proxy=self.proxy,
            batch_size=self.batch_size,
            home=home,
        )
        stored = BatchCheckpoint(home)
        stored.claim(plan.stored)
        title = f"{chosen.title} at {chosen.attack.threat}"
        batches = {f"{title}, {span.start}": span for span in plan.spans}
        known = self._clean if tell_right else None
        where = self._named(known[0]) if known is not None else ""
        for place, (name, span) in enumerate(batches.items()):
            if not is_file(stored.path(place)):
                call = partial(
                    jobs.craft_batch, self.subject, number, self._named(home), place, span, plan.at_once, where
                )
                self._add(name, call, span, _ATTACK, known, (stored.underway(place),))
        judged = judged_folder(home, self.size)
        for block in self.blocks:
            rows = _rows(block)
            if lean or is_file(part_path(judged, rows)):
                continue
            names = {name: place for place, (name, span) in enumerate(batches.items()) if _overlap(span, rows)}
            call = partial(
                jobs.classify_attacked,
                self.subject,
                self._named(home),
                self._named(judged),
                tuple(names.values()),
                plan.spans[min(names.values())].start,
                block,
            )
            files = tuple(stored.path(place) for place in names.values())
            self._add(f"{title}, classified {rows.start}", call, rows, _CLASSIFY, reads=files, needs=names)

    def corruptions(self, severities: Sequence[int]) -> None:
        """Classify all images under every corruption at each severity."""
        if not severities:
            return
        table, column, subject = self.opened.table, self.opened.column, self.subject
        where = corrupted_folder(self.folder, table, column, subject.identity, self.size, subject.seed)
        if where is None:
            return
        for name, severity in product(CORRUPTIONS, severities):
            if not is_file(file := where / f"{name}-{severity}.json"):
                call = partial(jobs.classify_under, subject, name, severity, self.size, self._named(file))
                self._add(f"{name} {severity}", call, slice(0, len(table)), _CLASSIFY)

    def checks(self, threat: ThreatModel) -> None:
        """Run the attacks of the reliability report, as far as they do not follow from those on all images.

        An ensemble leaves other images standing than the report's own attacks: then the rest is left to the asker.
        """
        attacks = [chosen.attack for chosen in self.opened.attacks]
        table, column, subject = self.opened.table, self.opened.column, self.subject
        where = checks_folder(self.folder, table, column, subject.identity, subject.seed, attacks, str(threat))
        if where is None:
            return
        known = CHECKS if all(len(attack.parts) == 1 for attack in attacks) else CHECKS[:2]
        for check in known if not where.is_dir() else ():
            call = partial(jobs.check_reliability, subject, check, str(threat), self._named(where))
            needs = () if check == CHECKS[0] else (f"check {CHECKS[0]}",)
            self._add(f"check {check}", call, slice(0, CHECKED), _ATTACK, reads=(where,), needs=needs)

    def _named(self, path: Path) -> str:
        """A path as jobs know it."""
        return path.relative_to(self.folder).as_posix()

    def _add(
        self,
        name: str,
        call: Callable[[Place], None],
        rows: slice,
        cost: float,
        after: tuple[Path, dict[str, slice]] | None = None,
        reads: tuple[Path, ...] = (),
        needs: Iterable[str] = (),
    ) -> None:
        """Add a part about some rows, which waits for those parts of ``after`` that have some of the rows."""
        count = rows.stop - rows.start
        before = {} if after is None else {each: part for each, part in after[1].items() if _overlap(part, rows)}
        files = () if after is None else tuple(part_path(after[0], part) for part in before.values())
        names = frozenset({*before, *needs})
        self.parts.append(
            Part(name=name, call=call, images=count, cost=cost * count, needs=names, reads=(*reads, *files))
        )


def _rows(block: Sequence[slice]) -> slice:
    return slice(block[0].start, block[-1].stop)


def _overlap(first: slice, second: slice) -> bool:
    return first.start < second.stop and second.start < first.stop
