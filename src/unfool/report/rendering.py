"""The templates of pages with their style and script, whose hashes are all that a page's policy admits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unfool.report.ladder import letter, successes
from unfool.report.tables import attack_title, caption, interval, percent


@dataclass(frozen=True, kw_only=True)
class Look:
    """The package's own style and script, and their hashes as a policy names them."""

    style: Markup
    script: Markup
    style_digest: str
    script_digest: str


def rendered(template: str, title: str, values: Mapping[str, object]) -> str:
    """A page as HTML; every text from outside passes through Jinja's escaping."""
    return _environment().get_template(template).render(title=title, look=_look(), **values)


@lru_cache(maxsize=1)
def _look() -> Look:
    folder = files("unfool.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return Look(style=Markup(style), script=Markup(script), style_digest=_digest(style), script_digest=_digest(script))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unfool", "report/templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        percent=percent, interval=interval, caption=caption, amount=_amount, count=_count, attack_title=attack_title
    )
    environment.filters.update(letter=letter, successes=successes)
    return environment


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10.0 else f"{value:.1f}"


def _count(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
