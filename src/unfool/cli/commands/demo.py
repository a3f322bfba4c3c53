"""``unfool demo``: what this is about, in four short lessons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.demo import Lesson

_WIDTH = 40
"""Columns of a whole bar."""


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Teach in four short lessons what robust means: on embedded digits, in about two minutes on two cores.

    Borrowed examples against own ones; what hardening buys and costs; a number that is not to be believed; a reversal
    before and after, and what it is worth. Each is a sentence and a picture here, and all of it a page.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo")
    """Folder for the networks, the results and the page."""
    json: Json = False

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool demo
  unfool demo --out runs/lessons --json
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_lines, stderr
        from unfool.core.progress_display import progress_bar
        from unfool.demo import run_demo

        def show(number: int, lesson: Lesson) -> None:
            if not self.json:
                print_lesson(number, lesson)

        with progress_bar(stderr(), "demo") as progress:
            demo = run_demo(self.out, teach=show, progress=progress)
        if self.json:
            print_json({**demo.result.to_json(), "page": str(demo.page)})
        else:
            print_lines([f"page: {demo.page}"])


def print_lesson(number: int, lesson: Lesson) -> None:
    """A lesson: its title, a bar for each accuracy, what it says, and the verdict on what was claimed."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from unfool.cli.printing import print_claims, stdout

    console = stdout()
    console.print(Text(f"{number}. {lesson.title}", "bold"))
    bars = Table.grid(padding=(0, 2))
    for bar in lesson.bars:
        cells = round(_WIDTH * bar.accuracy)
        shown = Text("█" * cells, "cyan").append("░" * (_WIDTH - cells), "dim")
        bars.add_row(bar.label, shown, Text(f"{100 * bar.accuracy:.0f} %", justify="right"))
    console.print(Padding(bars, (0, 0, 0, 3), expand=False))
    for sentence in lesson.sentences:
        console.print(Padding(Text(sentence), (0, 0, 0, 3), expand=False))
    print_claims(lesson.claims, reasons=False, indent=3)
    console.print()
