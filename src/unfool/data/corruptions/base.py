"""What a corruption is: a change of images, with parameters that follow from a severity and from the images' side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unfool.core.batch import check_images
from unfool.core.errors import ImagesError
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.streams import Streams

SEVERITIES = (1, 2, 3, 4, 5)
SMALL_SIDE, LARGE_SIDE = 32, 224
"""The sides, in pixels, for which parameters were published: CIFAR-10-C and ImageNet-C."""
SMALLEST_SIDE = 8

Change = TypeVar("Change", bound=Callable[..., Tensor])


@dataclass(frozen=True, kw_only=True)
class Strength:
    """One parameter of a corruption: its values for severities 1 to 5 in CIFAR-10-C and in ImageNet-C.

    ``length`` marks parameters in pixels, which go on growing with the image above 224 px.
    """

    small: tuple[float, ...]
    large: tuple[float, ...]
    length: bool = False

    def at(self, severity: int, side: int) -> float:
        """The value for images whose shorter side has ``side`` pixels.

        Between 32 and 224 px it lies between the published ones, in proportion on logarithmic scales (linear in the
        value where one of them is 0); at 64 px that comes close to the published parameters of Tiny ImageNet-C.
        """
        small, large = self.small[severity - 1], self.large[severity - 1]
        share = math.log(side / SMALL_SIDE) / math.log(LARGE_SIDE / SMALL_SIDE)
        share = min(max(share, 0.0), 1.0)
        value = small ** (1 - share) * large**share if small and large else small + (large - small) * share
        return value * max(1.0, side / LARGE_SIDE) if self.length else value


@dataclass(frozen=True)
class Corruption:
    """``change(images, ids, streams, **parameters)`` and the strengths that give its parameters by name.

    ``change`` takes images (B, C, H, W) float32 in [0,1] with C of 1 or 3, and may leave [0,1].
    """

    change: Callable[..., Tensor]
    strengths: Mapping[str, Strength]

    def parameters(self, severity: int, side: int) -> dict[str, float]:
        """The parameters for a severity and a side in pixels."""
        return {name: strength.at(severity, side) for name, strength in self.strengths.items()}


CORRUPTIONS: Registry[Corruption] = Registry(
    "corruption", "unfool.data.corruptions", "unfool.corruptions", instance_of=Corruption
)
"""Corruptions by name; the files of this package fill it."""


def corruption(name: str, **strengths: Strength) -> Callable[[Change], Change]:
    """Decorator that files a change of images as the corruption ``name``, one strength for each of its parameters."""

    def file(change: Change) -> Change:
        CORRUPTIONS.add(name)(Corruption(change, strengths))
        return change

    return file


def check_corruption(name: str, severity: int) -> None:
    """Raise SpecError, with what is allowed, for an unknown name or severity."""
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if type(severity) is not int or severity not in SEVERITIES:
        raise unknown("severity", str(severity), map(str, SEVERITIES))


@torch.no_grad()
def corrupted(images: Tensor, ids: Tensor, name: str, severity: int, streams: Streams) -> Tensor:
    """Corrupt images (B, C, H, W) float32 in [0,1]; the result has their shape and lies in [0,1].

    C is 1 or 3, H and W at least 8. What happens to image k depends on ``ids[k]`` and ``streams`` alone, and every
    severity uses the same draws, so that severities differ in strength only. Raises SpecError for an unknown name or
    severity, ImagesError for images that break the contract or do not fit the ids.
    """
    check_corruption(name, severity)
    check_images(images)
    if images.dtype != torch.float32:
        raise ImagesError(f"images are {images.dtype}; corruptions take float32; convert them with images.float()")
    if images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST_SIDE:
        raise ImagesError(
            f"images have shape {tuple(images.shape)}; corruptions take 1 (grey) or 3 (RGB) channels and sides of at "
            f"least {SMALLEST_SIDE} pixels"
        )
    if ids.shape != images.shape[:1]:
        raise ImagesError(f"{len(images)} images have ids of shape {tuple(ids.shape)}; give one id per image")
    corruption = CORRUPTIONS[name]
    parameters = corruption.parameters(severity, min(images.shape[2:]))
    return corruption.change(images, ids, streams.named("corruption").named(name), **parameters).clamp(0.0, 1.0)
