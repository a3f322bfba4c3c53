"""Fill a study's results into its page when the site is built.

A page says where: ``<!-- unfool:results STUDY -->`` becomes a section for each scale that lies in ``results/STUDY``, as
``unfool report RUN --publish results`` put it there, and a link to the whole page of that scale, with charts.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmark_tables import filled_tables

from unfool.cli.result_pages import page_of
from unfool.evaluation.results.study_result import StudyResult
from unfool.report import results_section, write_page
from unfool.studies import STUDIES

RESULTS = Path(__file__).resolve().parent.parent / "results"
MARKER = re.compile(r"^<!-- unfool:results (\S+) -->$", re.MULTILINE)
SCALES = ("full", "source", "small", "demo")
"""The order of sections: what is nearest to the source comes first."""
PAGES = "pages"
"""Folder of the site with the whole pages."""


class MissingResultsError(Exception):
    """A page asks for results that nobody published."""


def files_of(study: str, results: Path = RESULTS) -> list[Path]:
    """The published results of a study, nearest to the source first; MissingResultsError if there are none."""
    files = sorted((results / study).glob("*.json"), key=lambda path: (*map(path.stem.__ne__, SCALES), path.stem))
    if not files:
        raise MissingResultsError(f"no results of {study} lie in {results}; write unfool report RUN --publish results")
    return files


def filled(page: str, results: Path = RESULTS) -> str:
    """A page of Markdown with results in place of its markers."""

    def sections(match: re.Match[str]) -> str:
        blocks: list[str] = []
        for path in files_of(match[1], results):
            result = StudyResult.load(path)
            links = [
                f'<a href="../{PAGES}/{match[1]}-{path.stem}.html">The same as one page, with charts</a>',
                f'<a href="../{PAGES}/{match[1]}-{path.stem}.json">results/{match[1]}/{path.name}</a>',
            ]
            head, _, rest = results_section(result).partition("\n")
            blocks.append(f"{head}\n\n<p>{' · '.join(links)}</p>\n{rest}")
        return "\n".join(blocks)

    return filled_tables(MARKER.sub(sections, page), results)


def write_pages(folder: Path, results: Path = RESULTS) -> list[Path]:
    """Write the whole page and the file of every published scale of a study; return the pages."""
    pages: list[Path] = []
    for study in STUDIES:
        for path in files_of(study, results):
            target = folder / f"{study}-{path.stem}.html"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_suffix(".json").write_bytes(path.read_bytes())
            pages.append(write_page(target, page_of(StudyResult.load(path))))
    return pages
