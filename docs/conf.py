"""Sphinx's configuration: ``make docs`` builds the site into build/docs."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).parent))

import percent
import published

from unfool.cli import main

project = "unfool"
author = copyright = "The unfool developers"
release = version = version_of("unfool")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["__pycache__", "templates"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"
"""A name between single backticks in a docstring is code."""
autosummary_generate = True
templates_path = ["templates"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__, __new__"}
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"unfool {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["tables.css"]


class _References(HTMLParser):
    """What a page links to inside the site, and the names that can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        self.links += [value for key in ("href", "src") if (value := values.get(key))]


def broken_links(folder: Path) -> list[str]:
    """Links of the built pages that lead to no file, or to no place in one."""
    pages: dict[Path, _References] = {}
    for path in folder.rglob("*.html"):
        pages[path.resolve()] = references = _References()
        references.feed(path.read_text(encoding="utf-8"))
    broken: list[str] = []
    for path, references in pages.items():
        for link in references.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].anchors)
            if not (known or (target not in pages and target.is_file())):
                broken.append(f"{path.relative_to(folder.resolve())} links to {link}")
    return sorted(set(broken))


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    for study in published.MARKER.findall(source[0]):
        for path in published.files_of(study):
            app.env.note_dependency(str(path))
    for notebook in percent.MARKER.findall(source[0]):
        app.env.note_dependency(str(percent.NOTEBOOKS / f"{notebook}.py"))
    source[0] = percent.filled(published.filled(source[0]))


def _escape_stars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A star before a name, as in ``(B, *shape)``, opens no emphasis: the docstrings have none."""
    lines[:] = [re.sub(r"(?<![\w*`\\])\*(?=\w)", r"\\*", line) for line in lines]


def _finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    published.write_pages(Path(app.outdir) / published.PAGES)
    if main(["play", "--static", str(Path(app.outdir) / "play.html")]) != 0:
        raise ExtensionError("unfool play --static wrote no page")
    broken = broken_links(Path(app.outdir))
    if broken:
        raise ExtensionError("broken links: " + "; ".join(broken))


def setup(app: Sphinx) -> None:
    """Fill in results, and check links once all is written."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _escape_stars)
    app.connect("build-finished", _finish)
