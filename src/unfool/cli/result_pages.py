"""The page that results are shown on: its title, by what they are the results of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfool.evaluation.results.study_result import StudyResult
    from unfool.report import Page


def page_of(result: StudyResult) -> Page:
    """A page of results by themselves, without the curves and pictures of a study's folder."""
    from unfool.report import Page
    from unfool.studies import STUDIES

    if result.study in STUDIES:
        study: Any = STUDIES[result.study]()
        return Page(title=study.title, subtitle=study.subtitle, result=result)
    if result.ladders:
        title = "Does the defense help?"
    elif any(row.protocol != "clean" for row in result.rows):
        title = "How robust is it?"
    else:
        title = "Results"
    return Page(title=title, subtitle=result.system or result.study, result=result)
