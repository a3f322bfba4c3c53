# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Passes of images that differ from known ones in a window: first layers compute only what the window reaches.

A random search redraws a few pixels at a time. Of a convolution's outputs these reach only those whose kernel lies over
them, of the next one's those around these, until everything is reached. All others are as they were in a pass of the
known image.

Legend: n known images, m changed ones, C channels, H×W positions, s×s pixels of a window, w×w positions that it
reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.models.windowed.chains import Chain, Link

MOST_REACHED = 0.6
"""Share of a layer's outputs above which it computes all of them."""

FEWEST_SAVED, COPY = 500_000, 200
"""Multiplications of an image that must be saved, as below finding what is reached costs more, and those in whose time
a value that is not reached is copied."""

MOST_PLACES, MOST_VALUES = 1 << 21, 1 << 24
"""Entries of a table of places, and known features of all images, above which no passes are saved."""

SAME, SAME_BF16 = 1e-3, 5e-2
"""Difference of logits, relative to the largest, up to which both kinds of pass compute the same."""


@dataclass(frozen=True)
class _Axis:
    """Along one axis, for each of T places of the window: the first position that it reaches, (T,), and how many."""

    starts: Tensor
    width: int

    @property
    def positions(self) -> Tensor:
        """All that it reaches, (T, width)."""
        return self.starts[:, None] + torch.arange(self.width, device=self.starts.device)

    def reached(self, link: Link, side: int) -> _Axis:
        """The same behind a link with so many outputs."""
        width = min(side, (self.width + link.kernel - 2) // link.stride + 1)
        before = self.starts + link.padding - link.kernel + link.stride
        return _Axis((before // link.stride).clamp(0, side - width), width)


def _together(down: Tensor, right: Tensor, width: int) -> Tensor:
    """Positions in rows of ``width``, (T·T, i·i), of those along both axes, (T, i) each."""
    return (down[:, None, :, None] * width + right[None, :, None, :]).flatten(2).flatten(0, 1)


class _Features:
    """What goes into a link: of all known images, as (H·W, C) rows, and after these of what windows changed.

    ``inputs`` (T·T, i·i) says for each place of the window where the values lie that the link is computed from, in the
    image's rows or, where ``own``, in those of the change; ``reached`` (T·T, w·w) where a change belongs.
    """

    def __init__(self, known: Tensor, down: _Axis, right: _Axis, ends: tuple[_Axis, _Axis], changes: int):
        count, channels, height, width = known.shape
        self.size, self.changed, self.count = height * width, down.width * right.width, count
        self.rows = known.new_empty(count * self.size + changes * self.changed, channels)
        self.firsts = torch.arange(changes, device=known.device) * self.changed + count * self.size
        self.rows[: count * self.size].view(count, height, width, channels).copy_(known.permute(0, 2, 3, 1))
        self.sides = ends[0].width, ends[1].width
        y, x = (end.positions for end in ends)
        inner_y, inner_x = y - down.starts[:, None], x - right.starts[:, None]
        own_y, own_x = (inner_y >= 0) & (inner_y < down.width), (inner_x >= 0) & (inner_x < right.width)
        self.own = (own_y[:, None, :, None] & own_x[None, :, None, :]).flatten(2).flatten(0, 1)
        inner = _together(inner_y, inner_x, right.width)
        self.inputs = torch.where(self.own, inner, _together(y, x, width))
        y, x = down.positions, right.positions
        self.reached = _together(y, x, width)

    def changed_rows(self, count: int) -> Tensor:
        """The rows of so many changes, (count·w·w, C)."""
        start = self.count * self.size
        return self.rows[start : start + count * self.changed]

    def gather(self, changes: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        """The inputs (m, C, i, i) of the link, with changes (m, C, w, w) of the known images ``slots`` (m,)."""
        count = len(slots)
        own = self.changed_rows(count).view(count, *changes.shape[2:], -1)
        own.copy_(changes.permute(0, 2, 3, 1))
        index = self.inputs.index_select(0, places)
        own_places = self.own.index_select(0, places)
        index += torch.where(own_places, self.firsts[:count, None], (slots * self.size)[:, None])
        return self.rows.index_select(0, index.flatten()).view(count, *self.sides, -1).permute(0, 3, 1, 2)

    def keep(self, which: Tensor, slots: Tensor, places: Tensor) -> None:
        """Make some changes (k,) of the last pass the known features of the images ``slots`` (k,)."""
        changes = self.rows[self.count * self.size :].view(-1, self.changed, self.rows.shape[1])[which]
        index = self.reached.index_select(0, places) + (slots * self.size)[:, None]
        self.rows.index_copy_(0, index.flatten(), changes.flatten(0, 1))


class WindowedPasses:
    """Logits of known images (n, C, H, W) with one window of each redrawn.

    Args:
        chain: The network.
        links: How many links compute only what a window reaches.
        images: The known images.
        side: The side of a window.
        changes: How many changed images a pass has at most.
    """

    def __init__(self, chain: Chain, links: int, images: Tensor, side: int, changes: int):
        self.chain, self.links = chain, chain.links[:links]
        self.later = chain.cut(links)
        places = [torch.arange(length - side + 1, device=images.device) for length in images.shape[2:]]
        self.across = len(places[1])
        axes = [_Axis(starts, side) for starts in places]
        self.features: list[_Features] = []
        values = chain.prepare(images)
        for link in self.links:
            padded = F.pad(values, [link.padding] * 4)
            values = link(padded)
            ends = [axis.reached(link, length) for axis, length in zip(axes, values.shape[2:], strict=True)]
            seen = [_Axis(end.starts * link.stride, (end.width - 1) * link.stride + link.kernel) for end in ends]
            inside = [_Axis(axis.starts + link.padding, axis.width) for axis in axes]
            self.features.append(_Features(padded, inside[0], inside[1], (seen[0], seen[1]), changes))
            axes = ends
        whole = [
            _Axis(torch.zeros_like(axis.starts), length) for axis, length in zip(axes, values.shape[2:], strict=True)
        ]
        self.features.append(_Features(values, axes[0], axes[1], (whole[0], whole[1]), changes))
        self.logits = self.later(values)
        """Those of the known images, (n, K)."""
        self.places = self.slots = places[0][:0]

    def __call__(self, windows: Tensor, slots: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """The logits (m, K) of the images ``slots`` (m,) with ``windows`` (m, C, s, s) at ``top`` and ``left`` (m,)."""
        self.places, self.slots = top * self.across + left, slots
        values = self.chain.prepare(windows)
        for features, link in zip(self.features, self.links, strict=False):
            values = link(features.gather(values, slots, self.places))
        return self.later(self.features[-1].gather(values, slots, self.places))

    def keep(self, which: Tensor) -> None:
        """Make some of the last pass's images (k,), ascending and of different slots, known ones."""
        for features in self.features:
            features.keep(which, self.slots[which], self.places[which])


def windowed_passes(
    chain: Chain, model: Callable[[Tensor], Tensor], images: Tensor, side: int, changes: int
) -> WindowedPasses | None:
    """Passes of images with a window of ``side`` redrawn; None where they save little, or ``model`` says otherwise."""
    links = _links_that_pay(chain, images, side)
    if not links:
        return None
    passes = WindowedPasses(chain, links, images, side, changes)
    logits = model(images).to(passes.logits.dtype)
    lowered = any(link.dtype == torch.bfloat16 for link in chain.links)
    close = (passes.logits - logits).abs().max() <= (SAME_BF16 if lowered else SAME) * logits.abs().max()
    return passes if bool(close) else None


def _links_that_pay(chain: Chain, images: Tensor, side: int) -> int:
    """How many links should compute what a window reaches alone, so that most is saved; 0 where little is."""
    sides, channels, width = images.shape[2:], images.shape[1], side
    places = (sides[0] - side + 1) * (sides[1] - side + 1)
    known, copied, saved, links, most = 0, 0, 0, 0, FEWEST_SAVED - 1
    for number, link in enumerate(chain.links, 1):
        known += channels * sides[0] * sides[1]
        sides = torch.Size(link.outputs(length) for length in sides)
        width = (width + link.kernel - 2) // link.stride + 1
        reached = min(width, sides[0]) * min(width, sides[1])
        seen = ((width - 1) * link.stride + link.kernel) ** 2
        whole = sides[0] * sides[1]
        if min(sides) < 1 or reached > MOST_REACHED * whole or places * max(seen, whole) > MOST_PLACES:
            break
        copied, channels = copied + channels * seen, link.convolution.out_channels
        saved += link.multiplications(whole - reached)
        if (known + channels * whole) * len(images) > MOST_VALUES:
            break
        if (gain := saved - COPY * (copied + channels * whole)) > most:
            links, most = number, gain
    return links
