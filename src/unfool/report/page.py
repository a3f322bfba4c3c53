"""The page of a study: one self-contained HTML file that loads nothing and escapes every name."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unfool.core.errors import DataError
from unfool.core.files import write_text
from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.evaluation.results.claims import VERDICTS
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell
from unfool.report.curves import Curve
from unfool.report.evaluation import grids, trust
from unfool.report.gallery import GalleryItem, image_uri
from unfool.report.ladder import ladders, letter, successes
from unfool.report.strips import Strip, strip_groups
from unfool.report.tables import Table, TableRow, attack_title, caption, interval, percent, study_tables


@dataclass(frozen=True)
class Page:
    """What a page shows: a title, the results of a study, and what the run left beside them (these optional).

    ``notes`` are deviations and remarks.
    """

    title: str
    subtitle: str
    result: StudyResult
    curves: list[Curve] = field(default_factory=list)
    gallery: list[GalleryItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)


def write_page(path: str | Path, page: Page) -> Path:
    """Write the page whole or not at all and return its path.

    An unreadable training curve becomes a note on the page. Raises OutputError.
    """
    path = Path(path)
    # JSON can smuggle in lone surrogates, which UTF-8 cannot hold
    write_text(path, render(page).encode("utf-8", "replace").decode("utf-8"))
    return path


def render(page: Page) -> str:
    """The page as HTML; every text from outside passes through Jinja's escaping."""
    # Here, because drawing takes long to import, and worker processes of a study draw nothing.
    from unfool.report.charts import chart_pictures
    from unfool.report.figures import curve_picture, model_colours, step_picture

    result = page.result
    tables = study_tables(result)
    curves, unread = _readable(page.curves)
    style = files("unfool.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("unfool", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        percent=percent, interval=interval, caption=caption, amount=_amount, count=_count, attack_title=attack_title
    )
    environment.filters.update(letter=letter, successes=successes)
    return environment.get_template("page.html").render(
        page=page,
        style=Markup(style),  # the package's own file; its hash is what the page's policy admits
        digest=digest,
        facts=_facts(result),
        claims=result.claims,
        trust=trust(result),
        ladders=ladders(result),
        grids=grids(result),
        tally=[(verdict, sum(claim.verdict == verdict for claim in result.claims)) for verdict in VERDICTS],
        tables=[(table, _groups(table)) for table in tables],
        protocols={row.protocol for table in tables for row in table.rows},
        has_source=any(column.has_source for table in tables for column in table.columns),
        steps=step_picture(result),
        charts=chart_pictures(result.charts),
        curves=curve_picture(curves, model_colours(tables)),
        strips=strip_groups(page.strips),
        gallery=[_card(item) for item in page.gallery],
        costs=_costs(tables),
        notes=list(dict.fromkeys([*result.notes, *page.notes, *unread])),
    )


def _readable(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    read, unread = [], []
    for curve in curves:
        try:
            read.append(Curve(curve.name, curve.columns()))
        except DataError as error:
            unread.append(f"Not shown: {error}")
    return read, unread


def _groups(table: Table) -> list[list[TableRow]]:
    return [list(rows) for _, rows in groupby(table.rows, key=lambda row: row.group)]


def _facts(result: StudyResult) -> list[tuple[str, list[str]]]:
    """What was evaluated: names with one or more short texts each, in the order of the page."""
    seeds = sorted({str(row.seed) for row in result.rows if row.seed is not None})
    facts = [
        ("study", _words(result.study)),
        ("scale", _words(result.scale)),
        ("data", _words(result.data)),
        ("training seeds" if result.study else "seed", [", ".join(seeds)] if seeds else []),
        ("time", [_duration(result.seconds)] if result.seconds is not None else []),
        ("versions", [" · ".join(_words(result.versions))] if result.versions else []),
    ]
    return [(name, texts) for name, texts in facts if texts]


def _words(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, Mapping):
        return [f"{name}{':' if isinstance(item, Mapping) else ''} {_inline(item)}" for name, item in value.items()]
    return [_inline(item) for item in value] if isinstance(value, list) else [_inline(value)]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_inline(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class _CardPicture:
    """A clean or adversarial picture of a card with the model's answer; ``image`` is (URI, width, height)."""

    kind: str
    image: tuple[str, int, int]
    prediction: str
    probability: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A gallery item as the page shows it, with its difference magnified ``factor`` times."""

    item: GalleryItem
    pictures: list[_CardPicture]
    difference: tuple[str, int, int]
    factor: int


def _card(item: GalleryItem) -> _Card:
    difference, factor = magnified_difference(item.clean, item.adversarial)
    seen = [
        ("clean", item.clean, item.clean_prediction, item.clean_probability),
        ("adversarial", item.adversarial, item.adversarial_prediction, item.adversarial_probability),
    ]
    pictures = [
        _CardPicture(kind=kind, image=image_uri(image), prediction=name, probability=share, right=name == item.label)
        for kind, image, name, share in seen
    ]
    return _Card(item=item, pictures=pictures, difference=image_uri(difference), factor=factor)


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """The cost table: ``rows`` with their cells by attack, and the ``titles`` of attacks whose cost any row knows."""

    rows: list[tuple[Table, TableRow, dict[str, Cell]]]
    titles: dict[str, str]


def _costs(tables: Sequence[Table]) -> _Costs | None:
    """The cost table; None where nothing was counted."""
    titles: dict[str, str] = {}
    rows = []
    for table in tables:
        for number, row in ((n, row) for group in _groups(table) for n, row in enumerate(group)):
            # the natural cell belongs to the model: shown once, not under each protocol
            own = {a: c for a, c in row.cells.items() if (a != "none" or number == 0) and c.cpu_seconds is not None}
            if own:
                rows.append((table, row, own))
        titles |= {c.attack: c.title for c in table.columns if any(c.attack in own for _, _, own in rows)}
    return _Costs(rows=rows, titles=titles) if rows else None


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10.0 else f"{value:.1f}"


def _count(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
