"""The adaptive ladders of results as the page shows them: rungs, verdict, and images on their way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unfool.evaluation.results.ladder import LadderRung, LadderSection, Picture, PicturedExample
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.pictures.gallery import decoded, image_uri

BADGES = {"helps": "holds", "fails": "fails", "undecided": "undecided"}
"""The badge that shows each verdict of a ladder."""
_WIDTH, _HEIGHT, _MARGIN = 160.0, 36.0, 3.0


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """A picture of the page: ``image`` is (URI, width, height); ``right`` whether the likeliest class is the true one.

    ``classes`` are (name, probability), the likeliest first.
    """

    kind: str
    image: tuple[str, int, int]
    right: bool
    classes: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """One image clean, attacked and purified; the path of the pretext loss as points of a polyline and in words, both
    empty where there is none."""

    label: str
    attack: str
    protocol: str
    pictures: list[ShownPicture]
    points: str
    path: str


@dataclass(frozen=True, kw_only=True)
class ShownLadder:
    """One ladder of the page; ``badge`` is the claim's verdict that looks like this one's."""

    section: LadderSection
    badge: str
    remarks: list[str]
    examples: list[ShownExample]


def ladders(result: StudyResult) -> list[ShownLadder]:
    """The ladders of results; DataError for a picture that is no PNG, which no page shall carry on."""
    return [
        ShownLadder(
            section=section,
            badge=BADGES[section.verdict],
            remarks=[*(f"({key}) was not run: {reason}." for key, reason in section.absent.items()), *section.notes],
            examples=[_example(example) for example in section.examples],
        )
        for section in result.ladders
    ]


def letter(rung: LadderRung) -> str:
    """What a rung is called, such as ``(c)``; nothing for the worst case."""
    return f"({rung.key}) " if rung.key != "worst" else ""


def successes(rung: LadderRung) -> str:
    """The parts of the rung's attack that fooled images, and how many."""
    return "; ".join(f"{name} {count}" for name, count in rung.fooled_by.items() if count)


def _example(example: PicturedExample) -> ShownExample:
    path = example.path
    return ShownExample(
        label=example.label,
        attack=f"({example.rung}) {example.attack}",
        protocol="transfer" if example.rung == "b" else "adaptive",
        pictures=[_picture(picture, example.label) for picture in example.pictures],
        points=_polyline(path) if len(path) > 1 else "",
        path=f"{path[0]:.3g} → {path[-1]:.3g} in {len(path) - 1} steps" if len(path) > 1 else "",
    )


def _picture(picture: Picture, label: str) -> ShownPicture:
    return ShownPicture(
        kind=picture.kind,
        image=image_uri(decoded(picture.png)),
        right=bool(picture.classes) and picture.classes[0].name == label,
        classes=[(each.name, each.probability) for each in picture.classes],
    )


def _polyline(values: Sequence[float]) -> str:
    """Points of a line through the values, from the left edge to the right one of a small plot, high values on top."""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    across, down = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    return " ".join(
        f"{_MARGIN + across * place / (len(values) - 1):.1f},{_MARGIN + down * (high - value) / spread:.1f}"
        for place, value in enumerate(values)
    )
