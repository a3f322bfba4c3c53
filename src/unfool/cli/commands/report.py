"""``unfool report``: show results again, and put them into a repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options.shared import DataDir, Device, Json


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Render the page of a finished study or of a results file, and publish the results; or an index of many.

    A study's folder is opened again: nothing that is finished is computed twice, and its page gets its curves and
    gallery. A lone results file (.json) gives a page with what the file holds, as does a sweep. Any other folder gives
    a page beside every results file below it, and an index of them all.
    """

    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS")]
    """A finished study's or sweep's folder, a results file (.json), or a folder of results files."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: beside the results)")] = (
        None
    )
    """The page (.html), for a results file, or the index of a folder; a study's page is report.html in its folder."""
    publish: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: not)")] = None
    """Copy the study's results file to DIR/STUDY/SCALE.json, from which `make docs` makes its page (DIR: results)."""
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

    examples: ClassVar[str] = """
  unfool report runs/contrastive-multitask-demo
  unfool report results/contrastive-multitask/small.json --out small.html
  unfool report results --out index.html
  unfool report runs/trades-sweep
  unfool report runs/a-small --data-dir ../data --publish results
"""

    def run(self) -> None:
        from unfool.cli.printing import check_page, print_json, print_lines
        from unfool.core.borders.reading import is_folder
        from unfool.report.publishing.publish import publish

        if self.out is not None:
            check_page(self.out)
        if self._holds_sweep():
            self._swept()
            return
        if is_folder(self.results) and self._holds_results():
            self._indexed()
            return
        path = self._reopened() if is_folder(self.results) else self.results
        written = [] if self.publish is None else [publish(path, self.publish)]
        page = self.results / "report.html" if is_folder(self.results) else self._rendered()
        if self.json:
            print_json({"page": str(page), "results": str(path), "written": [str(item) for item in written]})
        else:
            print_lines([f"page: {page}", *(f"written: {item}" for item in written)])

    def _holds_sweep(self) -> bool:
        """Whether the results are those of a sweep: its folder or its file."""
        from unfool.core.borders.json_text import read_json
        from unfool.core.borders.reading import is_file, is_folder

        if is_folder(self.results):
            return is_file(self.results / "sweep.json")
        values = read_json(self.results, "give the JSON file that unfool wrote")
        return isinstance(values, dict) and "vary" in values

    def _swept(self) -> None:
        """The page of a sweep."""
        from unfool.cli.printing import print_json, print_lines
        from unfool.core.borders.reading import is_folder
        from unfool.core.errors import SpecError
        from unfool.report.sweeps.page import write_sweep_page
        from unfool.training.sweeping.result import SweepResult

        if self.publish is not None:
            raise SpecError(f"--publish is for studies; {self.results} is a sweep")
        folder = self.results if is_folder(self.results) else self.results.parent
        page = write_sweep_page(SweepResult.load(self.results), folder, self.out)
        if self.json:
            print_json({"page": str(page), "results": str(folder / "sweep.json"), "written": []})
        else:
            print_lines([f"page: {page}"])

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

    def _holds_results(self) -> bool:
        """Whether the folder is no study's, and results files lie in it."""
        from unfool.report.index import results_files

        return not (self.results / "study.json").is_file() and next(results_files(self.results), None) is not None

    def _indexed(self) -> None:
        """The pages of all results in the folder, and their index."""
        from unfool.cli.printing import print_json, print_lines
        from unfool.cli.result_pages import page_of
        from unfool.core.errors import SpecError
        from unfool.report.index import write_index

        if self.publish is not None:
            raise SpecError(f"--publish takes one result; give a results file of {self.results}")
        index = write_index(self.results, page_of, self.out)
        if self.json:
            print_json({"index": str(index)})
        else:
            print_lines([f"index: {index}"])

    def _rendered(self) -> Path:
        """The page of a results file by itself."""
        from unfool.cli.result_pages import page_of
        from unfool.core.borders.shapes import of_known_form
        from unfool.evaluation.results.study_result import StudyResult
        from unfool.report import write_page

        results = StudyResult.load(self.results)
        page = self.out or self.results.with_suffix(".html")
        with of_known_form(self.results, "give the JSON file that unfool wrote"):
            return write_page(page, page_of(results))
