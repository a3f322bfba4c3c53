"""A page of attacks on digits that needs no server: every image and number is computed as the page is written."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unfool.core.errors import DataError
from unfool.core.files import write_text
from unfool.core.progress import Progress, silent
from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.playground.attack import AttackOutcome
from unfool.playground.budgets import budget_of
from unfool.playground.pictures import example_pictures
from unfool.playground.play import Playground
from unfool.playground.reversal import ReversalOutcome
from unfool.playground.systems import PlaygroundSystem, Seen
from unfool.playground.view import ROOM
from unfool.playground.words import percent, say, say_clean, say_gate
from unfool.report.rendering import STYLES, look_of, rendered

PLACES = {"linf": (4.0, 8.0, 16.0), "l2": (0.5, 1.0), "l1": (10.0, 20.0)}
"""The budgets of each norm, as places on its slider; the page opens with the second of the first norm."""
STEPS = 10
_STYLES = (*STYLES, "playground/play.css", "playground/static.css")


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """An image of the page: its tile, what the network sees in it in percent by class, and the sentence on it."""

    tile: int
    said: str
    answer: str
    share: str
    right: bool
    percents: Sequence[int]
    factor: int = 0
    losses: Sequence[float] = ()
    gate: str = ""

    def to_json(self) -> dict[str, object]:
        """The object that the page's script reads; what is empty is left out."""
        return {name: value for name, value in vars(self).items() if value not in (0, (), "") or name == "tile"}


@dataclass
class _Digit:
    """The tiles of one digit, and what is shown of it by norm, eps and source."""

    name: str
    tiles: list[Tensor] = field(default_factory=list[Tensor])
    shown: dict[str, object] = field(default_factory=dict[str, object])

    def add(self, image: Tensor) -> int:
        """Keep a tile; gives its place."""
        self.tiles.append(image)
        return len(self.tiles) - 1

    def to_json(self) -> dict[str, object]:
        """The object that the page's script reads."""
        return {"name": self.name, "tiles": _strip(self.tiles), **self.shown}


def write_static_page(
    path: str | Path,
    play: Playground,
    *,
    places: Mapping[str, Sequence[float]] = PLACES,
    progress: Progress = silent,
) -> int:
    """Attack the digits of the first system that has some and a lender, reverse them, and write all as one page.

    Args:
        path: Where to write it (.html).
        play: The playground.
        places: The budgets of each norm, as places on its slider, at least two of each.
        progress: Called with what is being done, and how much of it is done.

    Returns:
        The size of the page in bytes.

    Raises:
        DataError: No system of the playground has digits, a lender and a pretext head.
        OutputError: The page cannot be written.
    """
    name = _first_with_digits(play)
    page = _page(play, name, places, progress)
    write_text(Path(path), page)
    return len(page.encode())


def _first_with_digits(play: Playground) -> str:
    for name in play.names:
        system = play.system(name)
        if system.sees_digits and system.pretext_heads and play.lenders(name):
            return name
    raise DataError(
        "no network here sees digits, lends and can be reversed; give none, and the package's own are taken"
    )


def _page(play: Playground, name: str, places: Mapping[str, Sequence[float]], progress: Progress) -> str:
    system, lender = play.system(name), play.lenders(name)[0]
    head, pictures = system.pretext_heads[0], example_pictures(system)
    digits = [_Digit(name=picture.words) for picture in pictures]
    for digit, picture in zip(digits, pictures, strict=True):
        seen = play.look(name, picture)
        shown = _shown(system, digit.add(seen.image), seen, picture.label, say_clean(system, seen, picture.label))
        digit.shown["clean"] = shown.to_json()
    turned = [0] * len(digits)
    budgets = [(norm, place) for norm, each in places.items() for place in each]
    for number, (norm, place) in enumerate(budgets, 1):
        threat = budget_of(norm).threat(place)
        own, borrowed = (play.attack_all(name, pictures, threat, STEPS, other) for other in (None, lender))
        reversals = play.reverse_all(name, head, own)
        for row, (digit, mine, lent, reversal) in enumerate(zip(digits, own, borrowed, reversals, strict=True)):
            turned[row] += mine.fooled and reversal.reversed.top == mine.label
            digit.shown[f"{norm} {place:g}"] = {
                "own": _attacked(system, digit, mine).to_json(),
                "borrowed": _attacked(system, digit, lent).to_json(),
                "reversed": _reversed(system, digit, mine, reversal).to_json(),
            }
        progress("attack", number, len(budgets))
    data = {
        "digits": [digit.to_json() for digit in digits],
        "side": system.shape[1],
        "classes": list(system.classes),
        "start": max(range(len(digits)), key=lambda place: (turned[place], -place)),
        "norms": [
            {"norm": norm, "places": [{"place": f"{place:g}", "words": _eps_words(norm, place)} for place in each]}
            for norm, each in places.items()
        ],
    }
    values = {"data": data, "system": name, "lender": lender, "steps": STEPS, "head": head}
    look = look_of(_STYLES, ("playground/static.js",))
    return rendered("static.html", "Fool a network, then un-fool it", values, look, ROOM)


def _eps_words(norm: str, place: float) -> str:
    return str(budget_of(norm).threat(place)).partition(":")[2]


def _attacked(system: PlaygroundSystem, digit: _Digit, outcome: AttackOutcome) -> _Shown:
    _, factor = magnified_difference(outcome.clean.image, outcome.attacked.image)
    seen, said = outcome.attacked, say(system, outcome)
    return _shown(system, digit.add(seen.image), seen, outcome.label, said, factor=factor)


def _reversed(system: PlaygroundSystem, digit: _Digit, outcome: AttackOutcome, reversal: ReversalOutcome) -> _Shown:
    seen, said = reversal.reversed, say(system, outcome, reversal)
    return _shown(
        system,
        digit.add(seen.image),
        seen,
        outcome.label,
        said,
        losses=[round(loss, 2) for loss in reversal.losses],
        gate="" if reversal.gate is None else say_gate(reversal.gate),
    )


def _shown(
    system: PlaygroundSystem,
    tile: int,
    seen: Seen,
    label: int | None,
    said: str,
    factor: int = 0,
    losses: Sequence[float] = (),
    gate: str = "",
) -> _Shown:
    return _Shown(
        tile=tile,
        said=said,
        answer=system.class_name(seen.top),
        share=percent(seen.share),
        right=label is None or seen.top == label,
        percents=[round(100 * share) for share in seen.probabilities.tolist()],
        factor=factor,
        losses=losses,
        gate=gate,
    )


def _strip(tiles: Sequence[Tensor]) -> str:
    """Images (C, H, W) side by side as a lossless WebP ``data:`` URI."""
    pixels = (torch.cat(list(tiles), dim=2) * 255.0).round().clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, format="WEBP", lossless=True, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
