"""What all figures of a page share: colours, style, panels, legend, and how a figure becomes a data URI.

Drawn by matplotlib's Agg-side machinery without pyplot, as self-contained SVG. Every name is drawn as plain text: ``$``
starts no formula, and unprintable characters are replaced.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by every kind of colour vision, in an order that also differs in lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D1F", "#444444", "#E69F00")
_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "unfool",
}
_WIDTH = 11.4
_INCH = 96


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page: a ``data:`` URI, what it shows in words, and its size in CSS pixels."""

    uri: str
    alt: str
    caption: str
    width: int
    height: int


def panels(count: int, across: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, at most ``across`` in a row."""
    from matplotlib.figure import Figure  # here, because it takes long to import

    if count == 1:
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        return figure, [figure.subplots()]
    across = min(count, across)
    down = -(-count // across)
    figure = Figure(figsize=(_WIDTH, 3.1 * down + 0.5), layout="constrained")
    return figure, [figure.add_subplot(down, across, number + 1) for number in range(count)]


def legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """One legend for all panels: below them, or beside a single one."""
    beside = len(figure.axes) == 1
    place = "outside right upper" if beside else "outside lower center"
    # a leading underscore would hide the entry
    labels = [drawable(f" {name}" if name.startswith("_") else name) for name in names]
    across = max(1, int(190 / (10 + max(len(label) for label in labels))))
    across = 1 if beside else min(len(handles), across, 5)
    if not beside:
        figure.set_figheight(figure.get_figheight() + 0.19 * (-(-len(handles) // across) - 1))
    figure.legend(handles, labels, loc=place, ncols=across, handlelength=2.8)


def drawable(text: str) -> str:
    """A name as matplotlib can draw it, 72 characters at most."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= 72 else f"{text[:71]}…"


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, while one is drawn."""
    import matplotlib

    with matplotlib.rc_context(cast(Any, _STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """A drawn figure as a picture for the page."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    width, height = figure.get_size_inches()
    uri = "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(uri=uri, alt=alt, caption=caption, width=round(width * _INCH), height=round(height * _INCH))
