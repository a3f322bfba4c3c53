"""Random textures of the weather: a plasma fractal for fog and ice for frost.

Legend: B images, H×W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unfool.core.streams import Streams

ICE_COLOUR = (0.84, 0.93, 1.0)
ICE_SIDE = 64
"""Needles are drawn on a shorter side of at most so many pixels and enlarged, so that they grow with the image."""
NEEDLES = {"stems": (0.02, 8.0), "branches": (0.4, 3.0)}
"""The share of pixels from which a needle grows, and its length: the sigma of half a Gaussian, in pixels."""
NEEDLE_MARGIN = 24
"""Pixels around the picture from which needles reach into it: three times the longest sigma."""


def plasma(ids: Tensor, streams: Streams, height: int, width: int, decay: float) -> Tensor:
    """Plasma fractals (B, H, W) in [0,1] by the diamond-square algorithm on a torus.

    The size is the next power of two of the longer side, cut to H×W. The noise of each step is ``decay``² times weaker
    than the last one's, as in the published code, which applies its ``wibble`` twice.
    """
    size = 1 << (max(height, width) - 1).bit_length()
    field = torch.zeros(len(ids), size, size, device=ids.device)
    step, reach = size, 1.0
    while step > 1:
        half, cells = step // 2, size // step
        noise = streams.at(step).uniform(ids, (3, cells, cells), -reach, reach)
        corners = field[:, ::step, ::step]
        beside, below = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
        centres = (beside + beside.roll(-1, 1)) / 4 + noise[:, 0]
        field[:, half::step, half::step] = centres
        field[:, ::step, half::step] = (beside + centres + centres.roll(1, 1)) / 4 + noise[:, 1]
        field[:, half::step, ::step] = (below + centres + centres.roll(1, 2)) / 4 + noise[:, 2]
        step, reach = half, reach / decay**2
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - low) / (high - low))[:, :height, :width]


def _needles(roots: Tensor, ids: Tensor, streams: Streams, turn: Tensor, share: float, sigma: float) -> Tensor:
    """Needles (B, H, W) that grow from a ``share`` of the ``roots`` (B, H, W), as bright as these, and fade.

    Each takes one of six directions 60 degrees apart, all turned by ``turn`` (B,) degrees. Where needles meet, the
    brightest is seen.
    """
    height, width = roots.shape[1:]
    chosen = (streams.uniform(ids, (height, width)) < share) & (roots > 0)
    image, row, column = chosen.nonzero(as_tuple=True)
    direction = streams.named("directions").integers(ids, 6, (height, width))[chosen]
    angle = torch.deg2rad(turn[image] + 60 * direction)[:, None]
    taps = torch.arange(math.ceil(3 * sigma), device=ids.device)
    rows = row[:, None] + torch.round(taps * torch.sin(angle)).long()
    columns = column[:, None] + torch.round(taps * torch.cos(angle)).long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = (image[:, None] * height + rows) * width + columns
    values = roots[chosen][:, None] * torch.exp(-0.5 * (taps / sigma) ** 2)
    return torch.zeros_like(roots).flatten().scatter_reduce_(0, places[inside], values[inside], "amax").view_as(roots)


def ice(ids: Tensor, streams: Streams, height: int, width: int) -> Tensor:
    """Pictures of ice (B, 3, H, W) in [0,1]: a patchy, bluish film, with needles that are bright where it is thick.

    Needles grow as ice crystals do, in directions 60 degrees apart: first stems, then branches from the stems.
    """
    shrink = min(1.0, ICE_SIDE / min(height, width))
    turn = streams.named("turn").uniform(ids, (), 0, 60)
    sides = [math.ceil(side * shrink) + 2 * NEEDLE_MARGIN for side in (height, width)]
    anywhere = torch.ones(len(ids), *sides, device=ids.device)
    stems = _needles(anywhere, ids, streams.named("stems"), turn, *NEEDLES["stems"])
    branches = _needles(stems, ids, streams.named("branches"), turn, *NEEDLES["branches"])
    crystals = torch.maximum(stems, branches)[:, None, NEEDLE_MARGIN:-NEEDLE_MARGIN, NEEDLE_MARGIN:-NEEDLE_MARGIN]
    crystals = functional.interpolate(crystals, size=(height, width), mode="bilinear")
    film = plasma(ids, streams.named("film"), height, width, 1.7)[:, None]
    colour = torch.tensor(ICE_COLOUR, device=ids.device)[:, None, None]
    return colour * (0.2 + 0.45 * film + crystals * film).clamp_(max=1.0)
