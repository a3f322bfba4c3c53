"""Trunks: the shared body of a network, run up to a named stage.

Legend: B images, C channels, H×W pixels, D features.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.models.initial import initialise

MAX_WIDTH = 1 << 14


@dataclass(frozen=True, kw_only=True)
class TrunkSpec:
    """Which trunk to build; a setting left at None takes the trunk's default, one it does not have is a SpecError.

    ``name`` is one of `TRUNKS`, ``channels`` those of the images, ``stem`` the trunk's entry, ``width`` a multiplier
    of the widths (all but convnet), ``widths`` the widths themselves (convnet), ``depth`` the number of layers as
    papers count them (wide-resnet) or of stages (context-encoder). Two equal specs build equal trunks.
    """

    name: str = "resnet18"
    channels: int = 3
    stem: str | None = None
    width: float | None = None
    widths: tuple[int, ...] | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        kind = TRUNKS[self.name]
        if isinstance(self.channels, bool) or not isinstance(self.channels, int) or not 1 <= self.channels <= 1024:
            raise SpecError(
                f"trunk channels {reprlib.repr(self.channels)} are not allowed; give a whole number from 1 to 1024"
            )
        for key in _SETTINGS:
            value = getattr(self, key)
            if value is None:
                object.__setattr__(self, key, kind.settings.get(key))
            elif key not in kind.settings:
                allowed = ", ".join(["channels", *kind.settings])
                raise SpecError(f"trunk {self.name!r} has no setting {key!r}; allowed: {allowed}")
        self._check(kind)

    def _check(self, kind: type[Trunk]) -> None:
        if self.stem is not None and self.stem not in kind.stems:
            raise unknown(f"stem of trunk {self.name!r}", str(self.stem)[:80], kind.stems)
        if self.width is not None:
            number = isinstance(self.width, (int, float)) and not isinstance(self.width, bool)
            if not number or not 1 / 64 <= self.width <= 32:
                raise SpecError(
                    f"trunk width {reprlib.repr(self.width)} is not allowed; give a multiplier from 1/64 to 32"
                )
            object.__setattr__(self, "width", float(self.width))
        if self.widths is not None:
            count = len(kind.settings["widths"])
            widths = tuple(self.widths) if isinstance(self.widths, (tuple, list)) else ()
            whole = all(isinstance(w, int) and not isinstance(w, bool) and 1 <= w <= MAX_WIDTH for w in widths)
            if len(widths) != count or not whole:
                rule = f"give {count} whole numbers from 1 to {MAX_WIDTH}"
                raise SpecError(f"widths {reprlib.repr(self.widths)} of trunk {self.name!r} are not allowed; {rule}")
            object.__setattr__(self, "widths", widths)
        if self.depth is not None and (not isinstance(self.depth, int) or self.depth not in kind.depths):
            first, second, third, *_, last = kind.depths
            rule = f"give one of {first}, {second}, {third} and so on up to {last}"
            raise SpecError(f"depth {reprlib.repr(self.depth)} of trunk {self.name!r} is not allowed; {rule}")

    def to_dict(self) -> dict[str, Any]:
        """The settings that this trunk has, as JSON takes them."""
        filled = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in filled.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrunkSpec:
        """Read what `to_dict` wrote, or a user's mapping; unknown keys are refused with the nearest name."""
        if not isinstance(settings, Mapping):
            raise SpecError(f"a trunk is described by a mapping, not by a {type(settings).__name__}; give its name")
        known = {item.name for item in fields(cls)}
        for key in settings:
            if key not in known:
                raise unknown("trunk setting", str(key)[:80], known)
        if not isinstance(settings.get("name", ""), str):
            raise SpecError(f"trunk name {reprlib.repr(settings['name'])} is not a word; allowed: {', '.join(TRUNKS)}")
        return cls(**{**settings, "name": settings.get("name", cls.name)[:80]})


_SETTINGS = ("stem", "width", "widths", "depth")


class Trunk(nn.Module):
    """Base of all trunks: ``parts`` run in order, one per stage; the last one pools to (B, D) and is named "last".

    ``stages`` names them, ``channels`` gives the channels after each, ``smallest`` is the least side in pixels.
    """

    settings: ClassVar[dict[str, Any]] = {}
    stems: ClassVar[tuple[str, ...]] = ()
    depths: ClassVar[range] = range(0)
    probe_sizes: ClassVar[Mapping[str, int]] = {}
    """Side h = w to which a published linear probe averages a stage; it then reads channels · side² numbers."""

    def __init__(self, spec: TrunkSpec, parts: dict[str, nn.Module], channels: dict[str, int], smallest: int = 1):
        super().__init__()
        self.spec = spec
        self.parts = nn.ModuleDict(parts)
        self.channels = channels
        self.stages = list(parts)
        self.smallest = smallest

    def forward(self, images: Tensor, stage: str = "last") -> Tensor:
        """Features of one stage, (B, channels, h, w), or (B, D) for "last"; later stages are not computed.

        Raises SpecError for a stage that the trunk lacks, ImagesError for images smaller than ``smallest``.
        """
        return self.collect(images, {stage})[stage]

    def collect(self, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        """Features of several stages in one pass, which ends at the last of them; raises as ``forward``."""
        for stage in stages:
            if stage not in self.channels:
                raise unknown(f"stage of trunk {self.spec.name!r}", stage, self.stages)
        if min(images.shape[-2:]) < self.smallest:
            size = "×".join(str(side) for side in images.shape[-2:])
            raise ImagesError(
                f"images are {size} pixels; trunk {self.spec.name!r} needs {self.smallest} or more a side"
            )
        features_by_stage: dict[str, Tensor] = {}
        features = images
        for name, part in self.parts.items():
            features = part(features)
            if name in stages:
                features_by_stage[name] = features
            if len(features_by_stage) == len(stages):
                break
        return features_by_stage


TRUNKS: Registry[type[Trunk]] = Registry("trunk", "unfool.models.trunks", "unfool.trunks")


def empty_trunk(spec: TrunkSpec) -> Trunk:
    """A trunk on the meta device: shapes and names, no memory and no random draw; loading weights fills it."""
    with torch.device("meta"):
        return TRUNKS[spec.name](spec)  # type: ignore[call-arg]


def build_trunk(spec: TrunkSpec, streams: Streams | None = None) -> Trunk:
    """A trunk with fresh weights drawn from ``streams`` (default: seed 0); the global random state is not touched."""
    return initialise(empty_trunk(spec), (streams or Streams(0)).named("trunk"))


def scaled(base: int, width: float) -> int:
    """A width times its multiplier, to the nearest whole channel and at least 1."""
    return max(1, math.floor(base * width + 0.5))
