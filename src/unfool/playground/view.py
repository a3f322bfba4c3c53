"""What the page shows of an attack and a reversal: pictures, bars, curves, and the sentence, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.evaluation.results.charts import Chart, Point
from unfool.evaluation.statistics.chart_kinds import bars, lines
from unfool.playground.attack import AttackOutcome
from unfool.playground.pictures import Picture
from unfool.playground.reversal import ReversalOutcome
from unfool.playground.systems import PlaygroundSystem, Seen
from unfool.playground.words import percent, say, say_clean, say_gate
from unfool.report.pictures.gallery import image_uri
from unfool.report.plots.charts import chart_figures
from unfool.report.rendering import fragment, template_text

_LIKELIEST = 5
_SEEN = 0.005
"""Classes whose bars are shown: the likeliest of each image, down to this probability."""
ROOM = "playground"


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """A picture of the page: what it is, its ``data:`` URI, what the network sees in it, and whether that is right.

    ``verdict`` is ``right``, ``wrong``, or empty where the class of the picture is not known.
    """

    kind: str
    uri: str
    answer: str = ""
    share: str = ""
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """What the page shows, as HTML: the sentence with the pictures, and the charts."""

    pictures: str
    charts: str


def style() -> str:
    """The style of the playground's page: the colours and charts of the reports, and its own."""
    palette, charts, own = (
        template_text(name) for name in ("report/palette.css", "report/charts.css", "playground/play.css")
    )
    return f"{palette}\n.play {{\n{charts}\n}}\n{own}"


def clean_view(system: PlaygroundSystem, picture: Picture, seen: Seen) -> View:
    """An image before any attack."""
    label = seen.top if picture.label is None else picture.label
    return _result(
        say_clean(system, seen, picture.label),
        [_picture(system, "clean", seen, label, picture.label is not None)],
        [_probabilities(system, {"clean": seen})],
    )


def empty_view(sentence: str) -> View:
    """No image yet."""
    return _result(sentence, [], [])


def attack_view(system: PlaygroundSystem, outcome: AttackOutcome, reversal: ReversalOutcome | None = None) -> View:
    """An attack, and a reversal if there is one."""
    difference, factor = magnified_difference(outcome.clean.image, outcome.attacked.image)
    kind = "borrowed" if outcome.borrowed else "attacked"
    pictures = [
        _picture(system, "clean", outcome.clean, outcome.label, outcome.known),
        _picture(system, kind, outcome.attacked, outcome.label, outcome.known),
        ShownPicture(kind=f"difference ×{factor}", uri=image_uri(difference)[0]),
    ]
    seen = {"clean": outcome.clean, kind: outcome.attacked}
    charts = [_path(system, outcome)]
    if reversal is not None:
        pictures.append(_picture(system, "reversed", reversal.reversed, outcome.label, outcome.known))
        seen["reversed"] = reversal.reversed
        charts.append(_losses(reversal))
    gate = "" if reversal is None or reversal.gate is None else say_gate(reversal.gate)
    return _result(say(system, outcome, reversal), pictures, [_probabilities(system, seen), *charts], gate=gate)


def _result(sentence: str, pictures: Sequence[ShownPicture], charts: Sequence[Chart], gate: str = "") -> View:
    values = {"sentence": sentence, "pictures": pictures, "gate": gate}
    return View(
        pictures=fragment("pictures_seen.html", values, ROOM),
        charts=fragment("charts_seen.html", {"figures": chart_figures(charts)}, ROOM) if charts else "",
    )


def _picture(system: PlaygroundSystem, kind: str, seen: Seen, label: int, known: bool) -> ShownPicture:
    right = "right" if known else ""
    return ShownPicture(
        kind=kind,
        uri=image_uri(seen.image)[0],
        answer=system.class_name(seen.top),
        share=percent(seen.share),
        verdict=right if seen.top == label else "wrong",
    )


def shown_classes(seen: Sequence[Seen]) -> list[int]:
    """The classes whose probabilities are shown, in their order: the likeliest of each image."""
    shown: set[int] = set()
    for each in seen:
        top = each.probabilities.topk(min(_LIKELIEST, len(each.probabilities)))
        shown |= {int(number) for share, number in zip(top.values, top.indices, strict=True) if share >= _SEEN}
    return sorted(shown)


def _probabilities(system: PlaygroundSystem, seen: dict[str, Seen]) -> Chart:
    classes = shown_classes(list(seen.values()))
    series = {
        kind: [[system.class_name(number), round(float(each.probabilities[number]), 2)] for number in classes]
        for kind, each in seen.items()
    }
    rest = len(next(iter(seen.values())).probabilities) - len(classes)
    text = f"The other {rest} classes are less likely." if rest > 1 else ""
    return bars("What the network sees", "class", "probability", series, text)


def _path(system: PlaygroundSystem, outcome: AttackOutcome) -> Chart:
    """The probability of the class that the attack leads away from, and of the strongest other, at every step."""
    own, rival = rivals(outcome.path, outcome.label)
    series = {system.class_name(outcome.label): _points(own), "the strongest other class": _points(rival)}
    text = "The distance between the lines is the margin; where they cross, the network changes its mind."
    return lines("Step by step", "step of the attack", "probability", series, text)


def rivals(path: Tensor, label: int) -> tuple[list[float], list[float]]:
    """Of class probabilities (S + 1, K) those of one class, and of the strongest other at each step."""
    others = path.clone()
    others[:, label] = -1.0
    return path[:, label].tolist(), others.max(1).values.tolist()


def _losses(reversal: ReversalOutcome) -> Chart:
    text = f"Step by step the image moves down the loss of the {reversal.task} task, which knows no classes."
    return lines(
        "The reversal", "step of the reversal", "pretext loss", {reversal.task: _points(reversal.losses)}, text
    )


def _points(values: Sequence[float]) -> list[Point]:
    return [[step, round(value, 4)] for step, value in enumerate(values)]
