"""Run the demo: train, teach the lessons one by one, write results and page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from unfool.attacks import Attack, AutoAttack
from unfool.core.config import configured
from unfool.core.progress import Progress, silent
from unfool.demo import lessons
from unfool.demo.lesson import Lesson
from unfool.demo.networks import THREAT, test_images, train_networks
from unfool.evaluation.results.study_result import StudyResult
from unfool.report import Page, write_page


@configured
class DemoSettings:
    """How long the demo trains, and how many images it attacks."""

    epochs: int = Field(default=10, ge=1, description="Epochs of each of the four networks.")
    images: int = Field(default=200, ge=10, description="Images that PGD attacks.")
    strong_attack: Attack = Field(
        default=AutoAttack(THREAT), description="Attack on the plain and on the hardened network."
    )
    strong_images: int = Field(default=24, ge=4, description="Images that it attacks.")
    ladder_images: int = Field(default=20, ge=4, description="Images that the ladder attacks.")


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo showed: its lessons, their results, and the page."""

    lessons: Sequence[Lesson]
    result: StudyResult
    page: Path


def run_demo(
    folder: str | Path,
    *,
    settings: DemoSettings | None = None,
    teach: Callable[[int, Lesson], object] = lambda number, lesson: None,
    progress: Progress = silent,
) -> Demo:
    """Teach four lessons on embedded digits, and write ``results.json`` and ``report.html`` into a folder.

    Args:
        folder: Where networks, results and page are kept; the same call goes on where it was stopped.
        settings: How long it trains and how much it attacks; default: what two cores do in under two minutes.
        teach: Called with the number (from 1) and the lesson as soon as each is done.
        progress: Called with what is being done, and how much of it is done.

    Returns:
        The lessons, the results as one file holds them, and the page.

    Raises:
        OutputError: A folder that cannot be written, or that holds something else.
    """
    folder, settings, started = Path(folder), settings or DemoSettings(), time.monotonic()
    networks = train_networks(folder / "networks", settings.epochs, progress)
    table = test_images()
    images = lessons.drawn(table, settings.images)
    strong, few = lessons.drawn(table, settings.strong_images), lessons.drawn(table, settings.ladder_images)
    taught: list[Lesson] = []
    for each in (
        lambda: lessons.borrowed_examples(networks, images, progress),
        lambda: lessons.hardening(networks, table, strong, settings.strong_attack, progress),
        lambda: lessons.masking(networks, images, progress),
        lambda: lessons.reversal(networks, images, few, progress),
    ):
        taught.append(each())
        teach(len(taught), taught[-1])
    result = StudyResult(
        system="unfool demo",
        summary=" ".join(lesson.sentences[0] for lesson in taught),
        seconds=round(time.monotonic() - started, 1),
        rows=[
            replace(row, settings={**row.settings, "lesson": number})
            for number, lesson in enumerate(taught, 1)
            for row in lesson.rows
        ],
        claims=[claim for lesson in taught for claim in lesson.claims],
        charts=[lesson.chart for lesson in taught],
        ladders=[lesson.ladder for lesson in taught if lesson.ladder is not None],
    )
    result.save(folder / "results.json")
    page = Page(
        title="Four lessons on digits",
        subtitle="Every attack has the budget linf:16/255. Small networks, few images: look at the kind of difference.",
        result=result,
        gallery=[item for lesson in taught for item in lesson.gallery],
        strips=[strip for lesson in taught for strip in lesson.strips],
        lessons=True,
    )
    return Demo(lessons=taught, result=result, page=write_page(folder / "report.html", page))
