"""The table of all defenses, and how one is built from what a user wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from unfool.core.config import build, parse_settings
from unfool.core.errors import SpecError
from unfool.core.registry import Registry
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses.base import Defense

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class DefenseRequest:
    """What a registered defense is built from.

    Args:
        name: The name it was asked for by.
        network: The classifier that it stands before.
        values: Its settings as written, by name.
        classes: The number of classes of each label column of the network's data.
        images: Images to calibrate on, whose labels are not read; None if there are none.
        streams: The seed of its draws.

    Example:
        >>> import torch
        >>> from unfool.defenses import DefenseRequest
        >>> DefenseRequest(name="rounded", network=torch.nn.Flatten(), values={"levels": "15"}).values["levels"]
        '15'
    """

    name: str
    network: nn.Module
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    classes: Mapping[str, int] = field(default_factory=dict[str, int])
    images: Table | None = None
    streams: Streams = field(default_factory=lambda: Streams(0))

    def settings(self, cls: type[Settings]) -> Settings:
        """The values as a `configured` dataclass; SpecError names what it refuses."""
        return build(cls, self.values, f"defense {self.name!r}")


Factory = Callable[[DefenseRequest], Defense]
DEFENSES: Registry[Factory] = Registry("defense", "unfool.defenses", functions=True)


def make_defense(
    text: str,
    network: nn.Module,
    classes: Mapping[str, int] | None = None,
    *,
    data: Table | None = None,
    streams: Streams | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Defense:
    """Build a defense from ``reverse:task=contrast,steps=10,eps=16/255`` or ``gate:rate=0.05,steps=10``.

    A reversal is the one that `defenses.Reverse` builds from the same settings as keywords. A gate's images are cut in
    two, for the bank and for the threshold.

    Args:
        text: A name of `DEFENSES`, and settings; those of a task stand among those of the defense.
        network: The classifier, with a head for the pretext task.
        classes: The number of classes of each label column, for tasks whose head depends on them.
        data: Images to calibrate on, such as a bank of negatives or a gate's threshold. Give images cut from train
            that no head was trained on; their labels are not read.
        streams: What is drawn for it follows from these; default: those of seed 0 that `defenses.Reverse` draws from.
        settings: Settings that the text does not set.

    Returns:
        The defense, as a module from images (B, C, H, W) in [0,1] to logits.

    Raises:
        SpecError: With the nearest name for anything unknown; for a head that the network lacks, for one of another
            task or that was trained with other settings, and for a task with labels.
        DataError: For too few images.

    Example:
        >>> from unfool import Network, TrunkSpec, make_defense
        >>> heads = {"labels": {"kind": "linear", "outputs": 4}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> make_defense("reverse:task=rotation,steps=5,eps=8/255", network)
        Reverse(Network, Rotation, linf:8/255, steps=5)
    """
    name, written = parse_settings(text)
    defense = DEFENSES[name](
        DefenseRequest(
            name=name,
            network=network,
            values={**(settings or {}), **written},
            classes=classes or {},
            images=data,
            streams=streams or Streams(0).named("defense"),
        )
    )
    if not isinstance(defense, Defense):  # pyright: ignore[reportUnnecessaryIsInstance] - plugins need not be typed
        raise SpecError(f"defense {name!r} was built as a {type(defense).__name__}; return a Defense from its function")
    return defense
