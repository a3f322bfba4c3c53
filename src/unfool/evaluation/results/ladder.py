"""An adaptive ladder as a results file holds it: its rungs, its verdict, and a few images on their way back."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import JsonObject
from unfool.core.spec import unknown
from unfool.evaluation.results.check import PROTOCOLS
from unfool.evaluation.results.rows import Share

LADDER_VERDICTS = ("helps", "fails", "undecided")
"""What a ladder can say of a defense."""
PICTURES = ("clean", "attacked", "purified")
"""The three pictures of an example, in this order."""
_HOW = "give the JSON file that unfool evaluate --adaptive or a study wrote"


@dataclass(frozen=True, kw_only=True)
class ClassProbability:
    """A class by name, and its probability."""

    name: str
    probability: float

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as a PNG file, its ``kind`` (clean, attacked or purified), and the likeliest classes."""

    kind: str
    png: bytes
    classes: list[ClassProbability]

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, the file in base64."""
        text = base64.b64encode(self.png).decode("ascii")
        return {"kind": self.kind, "png": text, "classes": [each.to_json() for each in self.classes]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Picture:
        """The picture that `to_json` gave; DataError for what is no base64."""
        try:
            png = base64.b64decode(values["png"], validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise DataError(f"a picture of the ladder is no PNG ({error}); {_HOW}") from error
        classes = [
            ClassProbability(name=str(each["name"]), probability=_number(each["probability"], "a probability"))
            for each in values["classes"]
        ]
        return cls(kind=str(values["kind"]), png=png, classes=classes)


@dataclass(frozen=True, kw_only=True)
class PicturedExample:
    """One image of a rung: clean and attacked, as the network inside sees it, and purified, as the defense sees the
    attacked one. ``path`` is the pretext loss along the reversal, empty where the defense does not keep it."""

    rung: str
    attack: str
    id: int
    label: str
    path: list[float]
    pictures: list[Picture]

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return {**vars(self), "pictures": [picture.to_json() for picture in self.pictures]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PicturedExample:
        """The example that `to_json` gave; DataError for other pictures than the three, and for what is no number."""
        pictures = [Picture.from_json(each) for each in values["pictures"]]
        kinds = tuple(picture.kind for picture in pictures)
        if kinds != PICTURES:
            raise DataError(f"an example of the ladder shows {', '.join(kinds)}, not {', '.join(PICTURES)}; {_HOW}")
        return cls(
            rung=str(values["rung"]),
            attack=str(values["attack"]),
            id=int(values.get("id", 0)),
            label=str(values["label"]),
            path=[_number(value, "a pretext loss") for value in values["path"]],
            pictures=pictures,
        )


@dataclass(frozen=True, kw_only=True)
class LadderRung:
    """One rung by its ``key``, or the worst case of all: accuracy on its ``own`` images and on those ``common`` to all
    rungs, what it cost, which part of the attack fooled how many images, and how many had a zero gradient.

    Of a random system these are means over several draws; ``every_draw`` is the share of its own images that are right
    in all of them, None of other systems.
    """

    key: str
    title: str
    attack: str
    protocol: str
    own: Share
    common: Share
    cpu_seconds: float
    model_images: int
    fooled_by: Mapping[str, int]
    zero_gradient: int
    every_draw: Share | None = None

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        draws = {} if self.every_draw is None else {"every_draw": self.every_draw.to_json()}
        return {
            "rung": self.key,
            "title": self.title,
            "attack": self.attack,
            "protocol": self.protocol,
            **self.own.to_json(),
            "common": self.common.to_json(),
            "cpu_seconds": self.cpu_seconds,
            "model_images": self.model_images,
            "fooled_by": dict(self.fooled_by),
            "flat": self.zero_gradient,
            **draws,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LadderRung:
        """The rung that `to_json` gave; DataError for what is no share or number, SpecError for a protocol."""
        if values["protocol"] not in PROTOCOLS:
            raise unknown("protocol of a rung", str(values["protocol"]), PROTOCOLS)
        return cls(
            key=str(values["rung"]),
            title=str(values["title"]),
            attack=str(values["attack"]),
            protocol=values["protocol"],
            own=_share(values),
            common=_share(values["common"]),
            cpu_seconds=_number(values["cpu_seconds"], "cost"),
            model_images=int(_number(values["model_images"], "cost")),
            fooled_by={str(name): int(count) for name, count in values["fooled_by"].items()},
            zero_gradient=int(_number(values.get("flat", 0), "flat")),
            every_draw=_share(values["every_draw"]) if values.get("every_draw") is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class LadderDifference:
    """The worst case minus the bare network on the same images, with its 95 % interval and McNemar's p-value."""

    difference: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class LadderSection:
    """What a page shows of a ladder beside its rows.

    ``verdict`` says whether ``defense`` helps ``model`` within ``threat``, ``sentences`` why. ``difference`` is None
    where no adaptive rung was run, and where the model wraps no classifier; ``absent`` says why a rung is missing;
    ``notes`` are remarks on the defense.
    """

    model: str
    defense: str
    threat: str
    verdict: str
    sentences: Sequence[str]
    difference: LadderDifference | None
    images_per_prediction: int
    rungs: Sequence[LadderRung]
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    examples: Sequence[PicturedExample] = ()

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return {
            **vars(self),
            "sentences": list(self.sentences),
            "difference": None if self.difference is None else self.difference.to_json(),
            "rungs": [rung.to_json() for rung in self.rungs],
            "absent": dict(self.absent),
            "notes": list(self.notes),
            "examples": [example.to_json() for example in self.examples],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LadderSection:
        """The section that `to_json` gave; DataError or SpecError for what is malformed."""
        try:
            if values["verdict"] not in LADDER_VERDICTS:
                raise unknown("verdict of a ladder", str(values["verdict"]), LADDER_VERDICTS)
            difference = values.get("difference")
            return cls(
                **{key: str(values[key]) for key in ("model", "defense", "threat", "verdict")},
                sentences=[str(text) for text in values["sentences"]],
                difference=None if difference is None else LadderDifference(**difference),
                images_per_prediction=int(values.get("images_per_prediction", 1)),
                rungs=[LadderRung.from_json(rung) for rung in values["rungs"]],
                absent={str(key): str(reason) for key, reason in values["absent"].items()},
                notes=[str(text) for text in values["notes"]],
                examples=[PicturedExample.from_json(example) for example in values.get("examples", [])],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"a ladder of the results is not whole ({error!r}); {_HOW}") from error


def _share(values: Mapping[str, Any]) -> Share:
    shares = {name: _number(values[name], name) for name in ("accuracy", "low", "high")}
    if not all(0 <= value <= 1 for value in shares.values()):
        raise DataError(f"a rung of the ladder has {shares}; these must be shares in [0,1]")
    return Share(**shares, n=int(_number(values["n"], "n")))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise DataError(f"{what} in a ladder of the results is {value!r}; it must be a number of 0 or more")
    return float(value)
