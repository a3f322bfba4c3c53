"""``unfool report``: show results again, and put them into a repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from unfool.cli.options.shared import DataDir, Device, Json


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Render the page of a finished study or of a results file, and publish the results.

    A study's folder is opened again: nothing that is finished is computed twice, and its page gets its curves and
    gallery. A lone results file (.json) gives a page with what the file holds.
    """

    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS")]
    """A finished study's folder, or a results file (.json)."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: beside the results file)")
    ] = None
    """The page (.html), for a results file; a study's page is report.html in its folder."""
    publish: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: not)")] = None
    """Copy the results file to DIR/STUDY/SCALE.json."""
    readme: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: not)")] = None
    """Markdown file in which the table between the markers of this study and scale is replaced."""
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

    examples: ClassVar[str] = """
  unfool report runs/contrastive-multitask-demo
  unfool report results/contrastive-multitask/small.json --out small.html
  unfool report runs/a-small --data-dir ../data --publish results --readme README.md
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_lines
        from unfool.core.borders.reading import is_folder
        from unfool.report.publish import publish

        path = self._reopened() if is_folder(self.results) else self.results
        written = publish(path, self.publish, self.readme)
        page = self.results / "report.html" if is_folder(self.results) else self._rendered()
        if self.json:
            print_json({"page": str(page), "results": str(path), "written": [str(item) for item in written]})
        else:
            print_lines([f"page: {page}", *(f"written: {item}" for item in written)])

    def _reopened(self) -> Path:
        """The results file of a finished study, whose page and file are made again."""
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.printing import stderr
        from unfool.core.errors import SpecError
        from unfool.studies import reopen_study

        if self.out is not None:
            raise SpecError(f"--out is for a results file; the page of {self.results} is its report.html")
        device = choose_device(self.device)
        return reopen_study(self.results, data_dir=self.data_dir, device=device, console=stderr())

    def _rendered(self) -> Path:
        """The page of a results file by itself."""
        from unfool.core.borders.shapes import of_known_form
        from unfool.evaluation.results.study_result import StudyResult
        from unfool.report import Page, write_page
        from unfool.studies import STUDIES

        results = StudyResult.load(self.results)
        title, subtitle = "Results", results.system
        if results.study in STUDIES:
            study: Any = STUDIES[results.study]()
            title, subtitle = study.title, study.subtitle
        page = self.out or self.results.with_suffix(".html")
        with of_known_form(self.results, "give the JSON file that unfool wrote"):
            return write_page(page, Page(title=title, subtitle=subtitle, result=results))
