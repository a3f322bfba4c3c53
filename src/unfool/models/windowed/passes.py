# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Passes of images that differ from known ones in a window: first layers compute only what the window changes.

A random search redraws a few pixels at a time. A convolution is linear: what it makes of a changed image is what it
made of the known one, plus what it makes of the difference, which is zero but in the window. The next one sees a
difference in what that reaches, until everything is reached.

Legend: n known images, m changed ones, C channels, H×W positions, T places of the window along an axis; along each axis
w positions of a link's inputs that change, r outputs of its convolution and v of its own that these reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.models.windowed.chains import Chain, Link

MOST_REACHED = 0.6
"""Share of a layer's inputs that change above which it computes all of its outputs."""

FEWEST_SAVED, COPY, COPY_BF16 = 500_000, 50, 200
"""Multiplications of an image that must be saved, as below finding what is reached costs more, and those in whose time
a value is copied: in bf16 they are faster, copies are not."""

MOST_PLACES, MOST_VALUES = 1 << 21, 1 << 24
"""Entries of a table of places, and known features of all images, above which no passes are saved."""

SAME, SAME_BF16 = 1e-3, 5e-2
"""Difference of logits, relative to the largest, up to which both kinds of pass compute the same."""

NOTHING = -(1 << 48)
"""In a table of places: a row of zeros."""


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
        """The same behind a link with so many outputs a side."""
        kernel, stride = link.kernel + (link.pool - 1) * link.stride, link.stride * link.pool
        width = min(side, (self.width + kernel - 2) // stride + 1)
        before = self.starts + link.padding - kernel + stride
        return _Axis((before // stride).clamp(0, side - width), width)

    def times(self, pool: int) -> _Axis:
        """The positions that are pooled to these."""
        return _Axis(self.starts * pool, self.width * pool)

    def within(self, starts: Tensor, width: int) -> Tensor:
        """For each of its positions the number (T, width) that it has among ``width`` from ``starts`` (T,) on, or
        `NOTHING`."""
        numbers = self.positions - starts[:, None]
        return torch.where((numbers >= 0) & (numbers < width), numbers, NOTHING)


def _together(down: Tensor, right: Tensor, width: int) -> Tensor:
    """Positions in rows of ``width``, (T·T, i·i), of those along both axes, (T, i) each."""
    return (down[:, None, :, None] * width + right[None, :, None, :]).flatten(2).flatten(0, 1)


class _Features:
    """Known features (n, C, H, W) as (n·H·W, C) rows, and for each place of the window which it changes, (T·T, i·i)."""

    def __init__(self, known: Tensor, down: _Axis, right: _Axis):
        self.size = known.shape[2] * known.shape[3]
        self.rows = known.permute(0, 2, 3, 1).reshape(-1, known.shape[1]).clone()
        self.changed = _together(down.positions, right.positions, known.shape[3])
        self.index = self.changed[:0]
        self.values = self.rows[:0, None]

    def select(self, slots: Tensor, places: Tensor) -> Tensor:
        """Those (m·i·i, C) of the images ``slots`` (m,) that change at these places (m,)."""
        self.index = self.changed.index_select(0, places) + (slots * self.size)[:, None]
        return self.rows.index_select(0, self.index.flatten())

    def keep(self, which: Tensor) -> None:
        """Make some of the new ``values`` (m, i·i, C) known, where the last ones were selected."""
        self.rows.index_copy_(0, self.index[which].flatten(), self.values[which].flatten(0, 1))


class _Part:
    """A link that computes what windows change.

    ``layout`` says for each place of the window which row of the differences, or of zeros, goes where: (T·T, i·i) of a
    strided convolution's inputs, else (T·T, r·r) of the outputs.

    Args:
        link: The link.
        known: Its known inputs (n, C, H, W).
        convolved: What its convolution makes of them.
        axes: Which of the inputs a window changes.
        last: Give all outputs.
        changes: How many changed images a pass has at most.
    """

    def __init__(
        self, link: Link, known: Tensor, convolved: Tensor, axes: tuple[_Axis, _Axis], last: bool, changes: int
    ):
        self.link, self.inputs = link, _Features(known, *axes)
        sides = [link.outputs(side) for side in known.shape[2:]]
        reached = [axis.reached(link, side) for axis, side in zip(axes, sides, strict=True)]
        if last:
            reached = [_Axis(torch.zeros_like(axis.starts), side) for axis, side in zip(axes, sides, strict=True)]
        self.reached = reached[0], reached[1]
        regions = [axis.times(link.pool) for axis in reached]
        self.convolved = _Features(convolved, *regions)
        self.sides = regions[0].width, regions[1].width
        if link.stride == 1:
            widths = [axis.width + link.kernel - 1 for axis in axes]
            firsts = [axis.starts + link.padding - link.kernel + 1 for axis in axes]
            laid_out = regions
        else:
            widths, firsts = [axis.width for axis in axes], [axis.starts for axis in axes]
            laid_out = [
                _Axis(axis.starts * link.stride - link.padding, (axis.width - 1) * link.stride + link.kernel)
                for axis in regions
            ]
        rows = [axis.within(first, width) for axis, first, width in zip(laid_out, firsts, widths, strict=True)]
        self.layout = _together(rows[0], rows[1], widths[1])
        self.laid_out = laid_out[0].width, laid_out[1].width
        self.changed = axes[0].width, axes[1].width
        # The first image of each pass has no difference: its rows are zeros.
        self.differences = known.new_zeros(changes + 1, self.changed[0] * self.changed[1], known.shape[1])
        self.firsts = torch.arange(1, changes + 1, device=known.device)[:, None] * (widths[0] * widths[1])

    def __call__(self, values: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        """The outputs (m, C, v, v) for the images ``slots`` (m,) with inputs ``values`` (m, C, w, w)."""
        count, link, inputs, convolved = len(slots), self.link, self.inputs, self.convolved
        inputs.values = values.permute(0, 2, 3, 1).reshape(count, -1, values.shape[1])
        differences = self.differences[: count + 1]
        torch.sub(inputs.values, inputs.select(slots, places).view_as(inputs.values), out=differences[1:])
        index = self.layout.index_select(0, places).add_(self.firsts[:count]).clamp_(min=0).flatten()
        if link.stride == 1:
            gained = _rows(link.convolved(_images(differences, self.changed), link.kernel - 1)).index_select(0, index)
        else:
            laid_out = differences.flatten(0, 1).index_select(0, index).view(count, -1, differences.shape[2])
            gained = _rows(link.convolved(_images(laid_out, self.laid_out), 0))
        convolved.values = convolved.select(slots, places).add_(gained).view(count, -1, gained.shape[1])
        return link.completed(_images(convolved.values, self.sides))

    def keep(self, which: Tensor) -> None:
        """Make some of the last pass's features known."""
        self.inputs.keep(which)
        self.convolved.keep(which)


def _images(rows: Tensor, sides: tuple[int, int]) -> Tensor:
    """Rows (m, h·w, C) as images (m, C, h, w)."""
    return rows.view(len(rows), *sides, -1).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    """Images (m, C, h, w) as rows (m·h·w, C)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


class WindowedPasses:
    """Logits of known images (n, C, H, W) with one window of each redrawn.

    Args:
        chain: The network.
        links: How many links compute only what a window changes, at least one.
        images: The known images.
        side: The side of a window.
        changes: How many changed images a pass has at most.
    """

    def __init__(self, chain: Chain, links: int, images: Tensor, side: int, changes: int):
        self.chain = chain
        self.later = chain.cut(links)
        places = [torch.arange(length - side + 1, device=images.device) for length in images.shape[2:]]
        self.across = len(places[1])
        axes = _Axis(places[0], side), _Axis(places[1], side)
        self.parts: list[_Part] = []
        known = chain.prepare(images)
        for number, link in enumerate(chain.links[:links], 1):
            convolved = link.convolved(known, link.padding, link.convolution.bias)
            # Differences are added up: in bf16 their roundings would be too.
            convolved = convolved.float() if convolved.dtype.itemsize < torch.float32.itemsize else convolved
            part = _Part(link, known, convolved, axes, number == links, changes)
            self.parts.append(part)
            known, axes = link.completed(convolved), part.reached
        self.logits = self.later(known)
        """Those of the known images, (n, K)."""

    def __call__(self, windows: Tensor, slots: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """The logits (m, K) of the images ``slots`` (m,) with ``windows`` (m, C, s, s) at ``top`` and ``left`` (m,)."""
        places, values = top * self.across + left, self.chain.prepare(windows)
        for part in self.parts:
            values = part(values, slots, places)
        return self.later(values)

    def keep(self, which: Tensor) -> None:
        """Make some of the last pass's images (k,), ascending and of different slots, known ones."""
        for part in self.parts:
            part.keep(which)


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
    """How many links should compute what a window changes alone, so that most is saved; 0 where little is."""
    (height, wide), channels, width = images.shape[2:], images.shape[1], side
    places = (height - side + 1) * (wide - side + 1)
    known, copied, saved, links, most = channels * height * wide, 0, 0, 0, FEWEST_SAVED - 1
    copy = COPY_BF16 if any(link.dtype == torch.bfloat16 for link in chain.links) else COPY
    for number, link in enumerate(chain.links, 1):
        changed, whole = width * width, height * wide
        if changed > MOST_REACHED * whole:
            break
        convolved = link.convolutions(height) * link.convolutions(wide)
        height, wide = link.outputs(height), link.outputs(wide)
        if min(height, wide) < 1:
            break
        outputs, copied = link.convolution.out_channels, copied + 2 * channels * changed
        width = (width + link.kernel + (link.pool - 1) * link.stride - 2) // (link.stride * link.pool) + 1
        reached = min(width, height) * min(width, wide) * link.pool**2
        known += outputs * (convolved + height * wide)
        laid_out = ((min(width, max(height, wide)) * link.pool - 1) * link.stride + link.kernel) ** 2
        entries = max(changed, convolved, laid_out if link.stride > 1 else 0)
        if places * entries > MOST_PLACES or known * len(images) > MOST_VALUES:
            break
        # With a stride the last link would compute all of its outputs; else zeros around a change cost next to nothing.
        multiplications = link.convolution.weight.numel()
        gain = saved + (0 if link.stride > 1 else max(0, convolved - changed) * multiplications)
        if (gain := gain - copy * (copied + 2 * outputs * convolved)) > most:
            links, most = number, gain
        saved += (convolved - (reached if link.stride > 1 else min(changed, convolved))) * multiplications
        copied, channels = copied + 2 * outputs * reached, outputs
    return links
