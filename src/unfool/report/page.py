"""The page of results: one self-contained HTML file that loads nothing and escapes every name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unfool.core.errors import DataError
from unfool.core.files import write_text
from unfool.evaluation.results.claims import tally
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.costs import cost_table, systems
from unfool.report.downloads import downloads
from unfool.report.evaluation import grids, trust
from unfool.report.facts import facts
from unfool.report.headline import Headline, headline
from unfool.report.ladder import ladders
from unfool.report.pictures.gallery import GalleryItem, item_card, stored_card
from unfool.report.pictures.strips import Strip, strip_groups
from unfool.report.plots.attack_curves import eps_figure, model_colours, step_figure
from unfool.report.plots.charts import chart_figures
from unfool.report.plots.curves import Curve
from unfool.report.plots.forest import families
from unfool.report.plots.overview import WORDS, overview
from unfool.report.plots.training import training_figure
from unfool.report.rendering import rendered
from unfool.report.tables import study_tables

_SECTIONS = {
    "overview": "Overview",
    "lessons": "Lessons",
    "trust": "Reliability",
    "eps": "Over eps",
    "steps": "Over steps",
    "families": "Claims",
    "gallery": "Gallery",
    "strips": "Pictures",
    "tables": "Accuracy",
    "ladders": "Adaptive ladder",
    "charts": "Charts",
    "grids": "Details",
    "curves": "Training",
    "costs": "Cost",
    "cuts": "Cuts",
    "notes": "Notes",
    "facts": "How it came about",
}
_IDS = {"trust": "reliability", "families": "claims", "tables": "accuracy", "ladders": "ladder", "grids": "details"}
_IDS |= {"strips": "pictures", "curves": "training", "costs": "cost", "facts": "run"}
"""Names of sections that differ from the values that they show."""


@dataclass(frozen=True)
class Page:
    """What a page shows: a title, the results of a study, and what the run left beside them (these optional).

    ``notes`` are deviations and remarks. A page of ``lessons`` begins with its charts and their sentences, in
    place of the headline and the overview that other pages begin with.
    """

    title: str
    subtitle: str
    result: StudyResult
    curves: list[Curve] = field(default_factory=list)
    gallery: list[GalleryItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    lessons: bool = False


def write_page(path: str | Path, page: Page) -> Path:
    """Write the page whole or not at all and return its path.

    An unreadable training curve becomes a note on the page. Raises OutputError.
    """
    path = Path(path)
    # JSON can smuggle in lone surrogates, which UTF-8 cannot hold
    write_text(path, render(page).encode("utf-8", "replace").decode("utf-8"))
    return path


def render(page: Page) -> str:
    """The page as HTML."""
    result = page.result
    tables = study_tables(result)
    curves, unread = _readable(page.curves)
    first = Headline(text="") if page.lessons else headline(result, tables)
    charts = chart_figures(result.charts)
    shown: dict[str, object] = {
        "overview": None if page.lessons else overview(result, tables),
        "lessons": charts if page.lessons else [],
        "trust": trust(result),
        "eps": eps_figure(result.rows),
        "steps": step_figure(tables),
        "families": families(result.claims),
        "gallery": [*map(stored_card, result.pictures), *map(item_card, page.gallery)],
        "tables": [(table, systems(table)) for table in tables],
        "ladders": ladders(result),
        "charts": [] if page.lessons else charts,
        "grids": grids(result),
        "strips": strip_groups(page.strips),
        "curves": training_figure(curves, model_colours(tables)),
        "costs": cost_table(tables),
        "notes": list(dict.fromkeys([*result.notes, *page.notes, *unread])),
        "facts": facts(result),
    }
    values = {
        "page": page,
        "headline": first,
        "protocol_words": WORDS,
        "tally": tally(result.claims),
        "tested": any(claim.claims_tested for claim in result.claims),
        "protocols": {row.protocol for table in tables for row in table.rows},
        "has_source": any(column.has_source for table in tables for column in table.columns),
        "downloads": downloads(result),
    }
    sections = _sections({**shown, "overview": first.text or shown["overview"], "cuts": result.cuts})
    return rendered("page.html", page.title, {**shown, **values, "sections": sections})


def _sections(shown: Mapping[str, object]) -> list[tuple[str, str]]:
    """The identifiers and names of the sections that the page has."""
    return [(_IDS.get(name, name), title) for name, title in _SECTIONS.items() if shown[name]]


def _readable(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    read: list[Curve] = []
    unread: list[str] = []
    for curve in curves:
        try:
            read.append(Curve(curve.name, curve.columns()))
        except DataError as error:
            unread.append(f"Not shown: {error}")
    return read, unread
