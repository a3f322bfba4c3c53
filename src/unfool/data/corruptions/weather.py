"""Snow, frost, fog and brightness.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.streams import Streams
from unfool.data.colour import LUMA
from unfool.data.corruptions.base import Strength, corruption
from unfool.data.corruptions.filters import motion_blurred, zoomed
from unfool.data.corruptions.textures import ice, plasma


def _grey(images: Tensor) -> Tensor:
    """The luma (B, 1, H, W) of RGB or grey images."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)


@corruption(
    "snow",
    mean=Strength(small=(0.1, 0.1, 0.15, 0.25, 0.3), large=(0.1, 0.2, 0.55, 0.55, 0.55)),
    deviation=Strength(small=(0.2, 0.2, 0.3, 0.3, 0.3), large=(0.3, 0.3, 0.3, 0.3, 0.3)),
    zoom=Strength(small=(1, 1, 1.75, 2.25, 1.25), large=(3, 2, 4, 4.5, 2.5), length=True),
    threshold=Strength(small=(0.6, 0.5, 0.55, 0.6, 0.65), large=(0.5, 0.5, 0.9, 0.85, 0.85)),
    radius=Strength(small=(8, 10, 10, 12, 14), large=(10, 12, 12, 12, 12), length=True),
    sigma=Strength(small=(3, 4, 4, 6, 12), large=(4, 4, 8, 8, 12), length=True),
    keep=Strength(small=(0.95, 0.9, 0.9, 0.85, 0.8), large=(0.8, 0.7, 0.7, 0.65, 0.55)),
)
def snow(
    images: Tensor,
    ids: Tensor,
    streams: Streams,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """Whiten the image and add flakes twice, the second time turned by 180 degrees.

    Flakes are normal noise (``mean``, ``deviation``), enlarged ``zoom`` times, cut below ``threshold`` and smeared
    downwards. ``keep`` is the share of the image that is not whitened.
    """
    flakes = mean + deviation * streams.named("flakes").normal(ids, (1, *images.shape[2:]))
    flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp_(0.0, 1.0)
    flakes = motion_blurred(flakes, streams.named("angle").uniform(ids, (), -135, -45), radius, sigma)
    white = torch.maximum(images, 1.5 * _grey(images) + 0.5)
    return keep * images + (1 - keep) * white + flakes + flakes.flip(2, 3)


@corruption(
    "frost",
    keep=Strength(small=(1, 1, 0.9, 0.85, 0.75), large=(1, 0.8, 0.7, 0.65, 0.6)),
    cover=Strength(small=(0.2, 0.3, 0.4, 0.4, 0.45), large=(0.4, 0.6, 0.7, 0.7, 0.75)),
)
def frost(images: Tensor, ids: Tensor, streams: Streams, keep: float, cover: float) -> Tensor:
    """``keep`` times the image plus ``cover`` times a picture of ice.

    Departure: the published code takes the ice from five photographs; here it is drawn, for every image anew.
    """
    height, width = images.shape[2:]
    picture = ice(ids, streams, height, width)
    return keep * images + cover * (picture if images.shape[1] == 3 else _grey(picture))


@corruption(
    "fog",
    thickness=Strength(small=(0.2, 0.5, 0.75, 1, 1.5), large=(1.5, 2, 2.5, 2.5, 3)),
    decay=Strength(small=(3, 3, 2.5, 2, 1.75), large=(2, 2, 1.7, 1.5, 1.4)),
)
def fog(images: Tensor, ids: Tensor, streams: Streams, thickness: float, decay: float) -> Tensor:
    """Add a plasma fractal and dim the sum, so that the image's highest value stays possible."""
    highest = images.amax((1, 2, 3), keepdim=True)
    height, width = images.shape[2:]
    bank = plasma(ids, streams, height, width, decay)[:, None]
    return (images + thickness * bank) * highest / (highest + thickness)


@corruption("brightness", gain=Strength(small=(0.05, 0.1, 0.15, 0.2, 0.3), large=(0.1, 0.2, 0.3, 0.4, 0.5)))
def brightness(images: Tensor, ids: Tensor, streams: Streams, gain: float) -> Tensor:
    """Add ``gain`` to the value of HSV, at most up to 1; hue and saturation stay, so RGB is scaled as a whole."""
    value = images.amax(1, keepdim=True)
    brighter = (value + gain).clamp(max=1.0)
    return torch.where(value > 0, images * (brighter / value), brighter)
