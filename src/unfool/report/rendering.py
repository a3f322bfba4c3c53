"""The templates of pages with their style and script, whose hashes are all that a page's policy admits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unfool.report.ladder import letter, successes
from unfool.report.tables import attack_title, caption, interval, loss, percent, seeds


@dataclass(frozen=True, kw_only=True)
class Look:
    """The package's own style and script, and their hashes as a policy names them."""

    style: Markup
    script: Markup
    style_digest: str
    script_digest: str


STYLES = ("report/palette.css", "report/charts.css", "report/page.css")
SCRIPTS = ("report/page.js",)
_ROOM = "report"


def rendered(
    template: str, title: str, values: Mapping[str, object], look: Look | None = None, room: str = _ROOM
) -> str:
    """A page as HTML, by default in the look of results; every text from outside passes through Jinja's escaping."""
    return fragment(template, {**values, "title": title, "look": look or look_of(STYLES, SCRIPTS)}, room)


def fragment(template: str, values: Mapping[str, object], room: str = _ROOM) -> str:
    """A part of a page as HTML, escaped as a page is; templates of other rooms may use those of this one."""
    return _environment(room).get_template(template).render(**values)


def template_text(name: str) -> str:
    """A style or script, named by its room: ``report/palette.css``."""
    room, _, file = name.partition("/")
    return (files(f"unfool.{room}") / "templates" / file).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def look_of(styles: Sequence[str], scripts: Sequence[str]) -> Look:
    """The look of a page of some styles and scripts, in this order."""
    style, script = ("".join(map(template_text, names)) for names in (styles, scripts))
    return Look(style=Markup(style), script=Markup(script), style_digest=_digest(style), script_digest=_digest(script))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=4)
def _environment(room: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("unfool", f"{name}/templates") for name in dict.fromkeys((room, _ROOM))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        percent=percent, interval=interval, caption=caption, amount=_amount, count=_count, attack_title=attack_title
    )
    environment.filters.update(loss=loss, seeds=seeds, letter=letter, successes=successes)
    return environment


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10.0 else f"{value:.1f}"


def _count(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
