# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Trunks: the shared body of a network, run up to a named stage.

Legend: B images, C channels, H×W pixels, D features.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unfool.core.config import NoSettings, build, parse_settings
from unfool.core.errors import ImagesError, SpecError
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.models.initial import initialise
from unfool.models.trunks.settings import SettingValue, read_texts


@dataclass(frozen=True, init=False, repr=False)
class TrunkSpec:
    """Which trunk to build: its name, the channels of its images, and settings of its own.

    A setting left out takes the trunk's default. Two equal specs build equal trunks.

    Args:
        name: One of `TRUNKS`, such as "resnet18", "wide-resnet" or "convnet".
        channels: Channels of the images.
        **settings: Fields of the trunk's ``Settings``, such as ``stem``, ``width`` (a multiplier of all widths),
            ``widths`` or ``depth``.

    Raises:
        SpecError: for an unknown name, a setting that the trunk lacks, or a value that is not allowed.

    Example:
        >>> spec = TrunkSpec(name="wide-resnet", depth=28, width=10)
        >>> spec.settings.width
        10.0
        >>> TrunkSpec.from_text("wide-resnet:depth=28,width=10") == spec
        True
    """

    name: str
    channels: int
    settings: Any
    """The trunk's ``Settings``, filled and checked."""

    def __init__(self, /, *, name: str = "resnet18", channels: int = 3, **settings: SettingValue):
        if not isinstance(name, str):
            raise SpecError(f"trunk name {reprlib.repr(name)} is not a word; allowed: {', '.join(TRUNKS)}")
        kind = TRUNKS[name[:80]]
        if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= 1024:
            raise SpecError(
                f"trunk channels {reprlib.repr(channels)} are not allowed; give a whole number from 1 to 1024"
            )
        known = [field.name for field in fields(kind.Settings)]
        for key in settings:
            if key not in known:
                raise unknown(f"setting of trunk {name!r}", str(key)[:80], ["name", "channels", *known])
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "settings", build(kind.Settings, settings, f"trunk {name!r}"))

    def __repr__(self) -> str:
        words = [f"{key}={value!r}" for key, value in [("name", self.name), ("channels", self.channels), *self._own()]]
        return f"TrunkSpec({', '.join(words)})"

    def _own(self) -> list[tuple[str, SettingValue]]:
        return [(field.name, getattr(self.settings, field.name)) for field in fields(self.settings)]

    def to_dict(self) -> dict[str, SettingValue]:
        """Name, channels and all settings, as JSON takes them."""
        own = {key: list(value) if isinstance(value, tuple) else value for key, value in self._own()}
        return {"name": self.name, "channels": self.channels, **own}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrunkSpec:
        """Read what `to_dict` wrote, or a user's mapping; SpecError for unknown keys, with the nearest name."""
        if not isinstance(values, Mapping):
            raise SpecError(f"a trunk is described by a mapping, not by a {type(values).__name__}; give its name")
        return cls(**{str(key): value for key, value in values.items()})

    @classmethod
    def from_text(cls, text: str) -> TrunkSpec:
        """Read ``name`` or ``name:key=value,key=value``; several widths are written ``24-64-128``."""
        name, settings = parse_settings(text)
        return cls.from_dict({**read_texts(settings), "name": name})


def trunk_spec(trunk: TrunkSpec | str | Mapping[str, Any]) -> TrunkSpec:
    """A trunk described by a spec, by text or by a mapping, as a spec; raises SpecError."""
    if isinstance(trunk, TrunkSpec):
        return trunk
    return TrunkSpec.from_text(trunk) if isinstance(trunk, str) else TrunkSpec.from_dict(trunk)


class Trunk(nn.Module):
    """Base of all trunks: ``parts`` run in order, one per stage; the last one pools to (B, D) and is named "last".

    ``stages`` names them, ``channels`` gives the channels after each, ``smallest`` is the least side in pixels. A
    subclass declares ``Settings`` (a ``configured`` dataclass) if it has any, and reads them from ``spec.settings``.
    """

    Settings: ClassVar[type] = NoSettings
    probe_sizes: ClassVar[Mapping[str, int]] = {}
    """Side h = w to which a published linear probe averages a stage; it then reads channels · side² numbers."""
    memory_format: torch.memory_format = torch.channels_last
    """The order in memory of the weights, and of the images that the trunk is given."""

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


TRUNKS: Registry[type[Trunk]] = Registry("trunk", "unfool.models.trunks", "unfool.trunks", subclass_of=Trunk)


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
