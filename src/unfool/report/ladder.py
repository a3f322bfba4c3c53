"""The adaptive ladders of a results file as the page shows them: rungs, verdict, and images on their way back."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from unfool.core.errors import DataError
from unfool.core.spec import unknown
from unfool.evaluation.results.check import PROTOCOLS
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.gallery import image_uri

VERDICTS = {"helps": "holds", "fails": "fails", "undecided": "undecided"}
"""What a ladder can say, and the badge that shows it."""
_KINDS = ("clean", "attacked", "purified")
_LARGEST = 1024
_WIDTH, _HEIGHT, _MARGIN = 160.0, 36.0, 3.0
_HOW = "give the JSON file that unfool evaluate --adaptive or a study wrote"


@dataclass(frozen=True, kw_only=True)
class Share:
    """An accuracy with its interval on ``n`` images, shares in [0,1]."""

    accuracy: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung: ``own`` on its own images, ``common`` on those that all rungs have; ``winners`` says what fooled."""

    letter: str
    title: str
    attack: str
    protocol: str
    own: Share
    common: Share
    cpu_seconds: float
    model_images: int
    winners: str


@dataclass(frozen=True, kw_only=True)
class Triple:
    """One image clean, attacked and purified: each an image (URI, width, height) with its likeliest classes; the path
    of the pretext loss as points of a polyline and in words, both empty where there is none."""

    label: str
    told: str
    protocol: str
    pictures: list[dict[str, Any]]
    points: str
    path: str


@dataclass(frozen=True, kw_only=True)
class LadderSection:
    """One ladder of the page; ``badge`` is the claim's verdict that looks like this one's."""

    model: str
    defense: str
    threat: str
    verdict: str
    badge: str
    sentences: list[str]
    rungs: list[Rung]
    remarks: list[str]
    triples: list[Triple]


def ladders(result: StudyResult) -> list[LadderSection]:
    """The ladders of results; DataError for what is malformed."""
    try:
        return [_section(ladder) for ladder in result.ladders]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"a ladder of the results is not whole ({error!r}); {_HOW}") from error


def _section(found: Mapping[str, Any]) -> LadderSection:
    if found["verdict"] not in VERDICTS:
        raise unknown("verdict of a ladder", str(found["verdict"]), VERDICTS)
    remarks = [f"({letter}) was not run: {reason}." for letter, reason in found["absent"].items()]
    protocols = {rung["rung"]: rung["protocol"] for rung in found["rungs"]}
    return LadderSection(
        model=str(found["model"]),
        defense=str(found["defense"]),
        threat=str(found["threat"]),
        verdict=found["verdict"],
        badge=VERDICTS[found["verdict"]],
        sentences=[str(text) for text in found["sentences"]],
        rungs=[_rung(one) for one in found["rungs"]],
        remarks=[*remarks, *(str(text) for text in found["notes"])],
        triples=[_triple(one, protocols) for one in found.get("examples", [])],
    )


def _rung(found: Mapping[str, Any]) -> Rung:
    if found["protocol"] not in PROTOCOLS:
        raise unknown("protocol of a rung", str(found["protocol"]), PROTOCOLS)
    won = [f"{name} {count}" for name, count in found["fooled_by"].items() if count]
    return Rung(
        letter="" if found["rung"] == "worst" else str(found["rung"]),
        title=str(found["title"]),
        attack=str(found["attack"]),
        protocol=found["protocol"],
        own=_share(found),
        common=_share(found["common"]),
        cpu_seconds=_number(found["cpu_seconds"], "cost"),
        model_images=int(_number(found["model_images"], "cost")),
        winners="; ".join(won),
    )


def _share(found: Mapping[str, Any]) -> Share:
    shares = {name: _number(found[name], name) for name in ("accuracy", "low", "high")}
    if not all(0 <= value <= 1 for value in shares.values()):
        raise DataError(f"a rung of the ladder has {shares}; these must be shares in [0,1]")
    return Share(**shares, n=int(_number(found["n"], "n")))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise DataError(f"{what} in a ladder of the results is {value!r}; it must be a number of 0 or more")
    return float(value)


def _triple(found: Mapping[str, Any], protocols: Mapping[str, str]) -> Triple:
    path = [_number(value, "a pretext loss") for value in found["path"]]
    label = str(found["label"])
    pictures = {one["kind"]: one for one in found["pictures"]}
    if tuple(pictures) != _KINDS:
        raise DataError(
            f"an example of the ladder shows {', '.join(map(str, pictures))}, not {', '.join(_KINDS)}; {_HOW}"
        )
    return Triple(
        label=label,
        told=f"({found['rung']}) {found['attack']}",
        protocol=protocols.get(str(found["rung"]), "adaptive"),
        pictures=[
            {
                "kind": kind,
                "image": image_uri(_decoded(one["png"])),
                "right": bool(one["classes"]) and str(one["classes"][0]["name"]) == label,
                "classes": [
                    (str(each["name"]), _number(each["probability"], "a probability")) for each in one["classes"]
                ],
            }
            for kind, one in pictures.items()
        ],
        points=_polyline(path) if len(path) > 1 else "",
        path=f"{path[0]:.3g} → {path[-1]:.3g} in {len(path) - 1} steps" if len(path) > 1 else "",
    )


def _polyline(values: list[float]) -> str:
    """Points of a line through the values, from the left edge to the right one of a small plot, high values on top."""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    across, down = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    return " ".join(
        f"{_MARGIN + across * place / (len(values) - 1):.1f},{_MARGIN + down * (high - value) / spread:.1f}"
        for place, value in enumerate(values)
    )


def _decoded(text: str) -> torch.Tensor:
    """The image of a base64 PNG, (C, H, W) in [0,1]; DataError for anything else, which no page shall carry on."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",))
        if max(image.size) > _LARGEST:
            raise DataError(f"a picture of the ladder has {image.size[0]}×{image.size[1]} pixels; {_HOW}")
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        raise DataError(f"a picture of the ladder is no PNG ({error}); {_HOW}") from error
    return pixels.permute(2, 0, 1).float() / 255
