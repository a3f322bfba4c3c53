# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Which parts of a model have no usable gradient: quantisers, thresholds, top-k, sparsifiers, detached pieces.

The pass is cut into pieces at the inputs and outputs of the model's leaves. When the images move a little, what a piece
gives must change as its gradients at both ends say on average. It does where the piece is continuous, however bent; it
does not where it jumps, or where its gradient is missing or another function's.

Legend: B images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.models.modes import frozen_eval, random_layers
from unfool.models.surrogates.cut_pass import Point, cut_pass, sources_of
from unfool.models.surrogates.places import Place
from unfool.models.surrogates.straight_through import Bridge, StraightThrough

DRAWS = 4
"""Random directions in which a piece's change is compared."""
OFF, OFF_FAR = 0.5, 0.85
"""Mismatch of a change and of what the gradients say, relative to the larger, above which a piece is masked: of honest
layers it is below 0.15 for short moves. The second is for the last move, of the size of a perturbation, along which
few units bend differently, and behind masked pieces, whose jumps are larger moves than those of the images."""
AGREES = 0.5
"""Correlation of changes and of what the gradients say, from which on a gradient leads through a masked piece."""
FIT = 0.1
"""Share of a value's variance that its sources must explain for a gradient to be led past the piece."""
ALIKE = 0.25
"""Slopes this close to 1 are 1."""
SAME = 0.01
"""Slopes of channels this close to that of all, relative to it, are that one."""
LATEST = 12
"""Earlier points of the same shape that are compared, where no gradient says what a piece begins with."""
FEWEST_VALUES = 8
"""Values of a channel that a slope of its own needs."""
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A piece of a model whose gradient is of no use.

    Args:
        place: Where it ends.
        words: The module and its class, as messages name it.
        mismatch: How far changes are off from what the gradient says, relative to the larger; 1 for no gradient.
        layer: Whether it is one layer with a gradient, if a wrong one; a bridge then leads past that layer alone.
        bridge: The gradient that takes its place; None where nothing before it looks like it.
    """

    place: Place
    words: str
    mismatch: float
    layer: bool
    bridge: Bridge | None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The masked pieces of a model, and whether its gradients have to be ``uncut`` (`uncut_gradients`) too.

    ``model_images`` counts the images that passed through the model.
    """

    masked: tuple[Masked, ...] = ()
    uncut: bool = False
    model_images: int = 0

    @property
    def can_help(self) -> bool:
        """Whether a straight-through gradient leads past any of them."""
        return self.uncut or any(piece.bridge is not None for piece in self.masked)

    def surrogate(self, model: nn.Module) -> StraightThrough:
        """The model with gradients that lead past what masks them."""
        bridges = [piece.bridge for piece in self.masked if piece.bridge is not None]
        return StraightThrough(model, bridges, self.uncut)

    @property
    def words(self) -> str:
        """The masked pieces, the first few by name."""
        names = list(dict.fromkeys(piece.words for piece in self.masked))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """A piece's change beside what its gradients say: the worst mismatch of the ``near`` moves, that of the last
    (``far``), the ``agreement`` under the last, that from each image to another where a bridge has to beat it
    (``apart``), and the numbers of the points that the piece begins with."""

    near: float
    far: float
    agreement: float
    apart: float
    sources: set[int]


def probe(model: nn.Module, images: Tensor, moved: Sequence[Tensor]) -> Probe:
    """Look for pieces of a model without a usable gradient.

    Args:
        model: The model; it is left as it was.
        images: A few images (B, C, H, W) in [0,1].
        moved: The same images, moved a little, in several ways; the last by as much as a perturbation may.

    Returns:
        What is masked; nothing for a model whose passes cannot be cut and compared: one that takes gradients itself, or
        that is random beyond torch's global random state.
    """
    with torch.inference_mode(False), frozen_eval(model), random_layers(Streams(0).named("probe")):
        passes = (2 + len(moved)) * len(images)
        plain = _Probing.of(model, images, moved, uncut=False)
        if plain is None or not plain.masked:
            return Probe(model_images=passes)
        if plain.reaches and all(piece.layer for piece in plain.masked):
            return Probe(masked=plain.masked, model_images=passes)
        uncut = _Probing.of(model, images, moved, uncut=True)
        if uncut is None or not uncut.replaces(plain):
            return Probe(masked=plain.masked, model_images=2 * passes)
        left = {piece.place for piece in uncut.masked}
        passed = [replace(piece, bridge=None) for piece in plain.masked if piece.place not in left]
        return Probe(masked=(*passed, *uncut.masked), uncut=True, model_images=2 * passes)


class _Probing:
    """One probing of a model: its passes on the images and on what they are moved to, and what is ``masked`` there."""

    def __init__(self, model: nn.Module, images: Tensor, moved: Sequence[Tensor], *, uncut: bool):
        self.model = model
        self.points = cut_pass(model, images, uncut)
        self.others = [cut_pass(model, each, uncut) for each in moved]
        again = cut_pass(model, images, uncut)
        # Jumps are small beside the way from one image to another: there an uncut gradient shows what it is worth.
        self.apart = cut_pass(model, images.flip(0), uncut) if uncut else None
        passes = [again, *self.others, *([] if self.apart is None else [self.apart])]
        self.comparable = all(_same_way(self.points, other) for other in passes) and torch.equal(
            self.points[-1].value, again[-1].value
        )
        self.alive = {0}
        """Points to which a gradient leads from the images."""
        self.masked = self._masked()
        if not self.reaches:
            self.masked = self._masked(unchanged=True)

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, moved: Sequence[Tensor], *, uncut: bool) -> _Probing | None:
        """The probing of a model; None for one that does not bear to be cut."""
        try:
            return cls(model, images, moved, uncut=uncut)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # The model is the user's.
            return None

    @property
    def reaches(self) -> bool:
        """Whether a gradient leads from the images to the logits."""
        return len(self.points) - 1 in self.alive

    def replaces(self, plain: _Probing) -> bool:
        """Whether uncut gradients lead from the images to the same logits, past fewer pieces than the ``plain`` ones:
        a bridge follows what its ends look like, and an uncut gradient what lies between them."""
        same = torch.equal(self.points[-1].value, plain.points[-1].value)
        return same and self.reaches and (not plain.reaches or len(self.masked) < len(plain.masked))

    def _masked(self, *, unchanged: bool = False) -> tuple[Masked, ...]:
        """The masked pieces, in the order of the pass; with ``unchanged`` those too that have no gradient and gave the
        same for all moves, such as votes, where nothing else says why no gradient leads through."""
        pieces: list[Masked] = []
        self.alive = {0}
        for index in range(1, len(self.points) if self.comparable else 0):
            compared = self._compared(index)
            hangs = bool(compared.sources & self.alive)
            if compared.near <= (OFF_FAR if pieces else OFF) and compared.far <= OFF_FAR:
                bridge = self._bridge(index, set(), FIT) if unchanged and not hangs else None
                if bridge is not None:
                    pieces.append(self._piece(index, 1.0, bridge, layer=False))
                if hangs or bridge is not None:
                    self.alive.add(index)
                continue
            bridge = self._bridge(index, compared.sources, max(FIT, compared.apart**2 if hangs else 0.0))
            if bridge is None and hangs and compared.apart >= AGREES:
                self.alive.add(index)
                continue
            if bridge is not None or (hangs and compared.agreement >= AGREES):
                self.alive.add(index)
            # Of a piece that hangs on what has no gradient, nothing can be said.
            if bridge is not None or hangs or not compared.sources:
                mismatch = max(compared.near, compared.far)
                pieces.append(self._piece(index, mismatch, bridge, layer=bool(compared.sources)))
        return tuple(pieces)

    def _compared(self, index: int) -> _Comparison:
        """A piece's change under each move beside what its gradients at both ends say."""
        value = self.points[index].value
        mismatches, agreement = list[float](), 1.0
        cotangents = [torch.randn_like(value) for _ in range(DRAWS)]
        own = [sources_of(self.points, index, cotangent) for cotangent in cotangents]
        reached = {number for gradients in own for number in gradients}
        for other in self.others:
            seen, said = self._changes(index, other, cotangents, own)
            # Of all rows together: a piece may mix them.
            whole, predicted = seen.sum(1), said.sum(1)
            size = torch.maximum(whole.square(), predicted.square()).sum()
            compared = bool(size > TINY * value.detach().double().square().sum().cpu())
            mismatches.append(float((whole - predicted).square().sum() / size) ** 0.5 if compared else 0.0)
            agreement = float(torch.cosine_similarity(seen.flatten(), said.flatten(), 0)) if compared else 1.0
        *near, far = mismatches
        apart = 0.0
        if self.apart is not None:
            seen, said = self._changes(index, self.apart, cotangents, own)
            apart = max(0.0, float(torch.cosine_similarity(seen.flatten(), said.flatten(), 0)))
        return _Comparison(near=max(near, default=0.0), far=far, agreement=agreement, apart=apart, sources=reached)

    def _changes(
        self, index: int, other: list[Point], cotangents: list[Tensor], own: list[dict[int, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """How a piece changes on the way to another pass, and what its gradients say of it, each (DRAWS, rows)."""
        value = self.points[index].value
        change, rows = other[index].value.detach() - value.detach(), len(value)
        seen, said = (torch.zeros(DRAWS, rows, dtype=torch.float64) for _ in range(2))
        for draw, cotangent in enumerate(cotangents):
            seen[draw] = _by_row(cotangent, change, rows)
            for gradients in (own[draw], sources_of(other, index, cotangent)):
                for number, gradient in gradients.items():
                    moved = other[number].leaf.detach() - self.points[number].leaf.detach()
                    said[draw] += _by_row(gradient, moved, rows) / 2
        return seen, said

    def _bridge(self, index: int, sources: set[int], least: float) -> Bridge | None:
        """A gradient past a piece, from the points that it begins with, or else from the one that is most like it;
        None where they explain less than the share ``least`` of its variance."""
        value = self.points[index].value.detach()
        alike = [number for number in sorted(self.alive) if _alike(self.points[number].leaf, value)]
        chosen = [number for number in alike if number in sources]
        if not chosen:
            near = [number for number in alike if number == 0 or number in alike[-LATEST:]]
            chosen = sorted(near, key=lambda number: -_fit(value, [self.points[number].leaf.detach()])[1])[:1]
        if not chosen:
            return None
        leaves = [self.points[number].leaf.detach() for number in chosen]
        slopes, explained = _fit(value, leaves)
        if explained < least or max(slopes) <= 0:
            return None
        whole = all(abs(slope - 1) < ALIKE for slope in slopes)
        scales: list[float | tuple[float, ...]] = [1.0 if whole else slope for slope in slopes]
        if len(chosen) == 1 and value.ndim == 4 and leaves[0].shape == value.shape:
            by_channel = _slopes_by_channel(value, leaves[0], self._passes(index, chosen[0]), slopes[0])
            scales = scales if by_channel is None else [by_channel]
        pairs = [(self.points[number].place, scale) for number, scale in zip(chosen, scales, strict=True)]
        return Bridge(target=self.points[index].place, sources=tuple(pairs))

    def _passes(self, index: int, source: int) -> Tensor:
        """Where in a source its gradient passes the piece; everywhere if it passes nowhere."""
        gradient = sources_of(self.points, index, torch.ones_like(self.points[index].value)).get(source)
        passes = torch.ones_like(self.points[source].leaf, dtype=torch.bool) if gradient is None else gradient != 0
        return passes if passes.any() else ~passes

    def _piece(self, index: int, mismatch: float, bridge: Bridge | None, *, layer: bool) -> Masked:
        place = self.points[index].place
        part = self.model.get_submodule(place.module)
        name = f"{place.module} ({type(part).__name__})" if place.module else type(part).__name__
        before = place.side == "input" or not place.module
        words = f"what {'comes before' if place.module else 'gives the logits of'} {name}" if before else name
        return Masked(place=place, words=words, mismatch=mismatch, layer=layer and not before, bridge=bridge)


def _same_way(points: list[Point], others: list[Point]) -> bool:
    """Whether two passes go through the same places, with values of the same shapes."""
    return [(point.place, point.value.shape) for point in points] == [
        (point.place, point.value.shape) for point in others
    ]


def _by_row(weights: Tensor, values: Tensor, rows: int) -> Tensor:
    """The weighted sum of values for each of so many rows, (rows,); where there are others, their share of all."""
    products = (weights.double() * values.double()).flatten(1).sum(1).cpu()
    return products if len(products) == rows else (products.sum() / rows).expand(rows)


def _alike(source: Tensor, value: Tensor) -> bool:
    """Whether a source has a value's shape, but for views such as a flattened one."""
    return source.numel() == value.numel() and source.shape[:1] == value.shape[:1]


def _fit(value: Tensor, sources: Sequence[Tensor]) -> tuple[list[float], float]:
    """The slopes by which sources give a value, in least squares, and the share of its variance that they explain."""
    target = _centred(value, value.shape)
    columns = torch.stack([_centred(source, value.shape) for source in sources], 1)
    products = columns.T @ columns
    products += TINY * torch.eye(len(sources), dtype=products.dtype, device=products.device)
    slopes = torch.linalg.solve(products, columns.T @ target)
    whole = float(target.square().sum())
    left = float((target - columns @ slopes).square().sum())
    return slopes.tolist(), 1 - left / whole if whole > 0 else 0.0


def _slopes_by_channel(value: Tensor, source: Tensor, passes: Tensor, slope: float) -> tuple[float, ...] | None:
    """The slope by which a source gives a value (B, C, H, W) in each channel, in least squares over where its gradient
    ``passes``: a sparsifier behind a scale leaves the scale to see there. ``slope`` where that is too little to tell.
    None where that is as good for all, or 1 is.
    """
    weights, (inputs, target) = passes.double(), (each.double() for each in (source, value))
    counts = weights.sum((0, 2, 3), keepdim=True)

    def deviation(values: Tensor) -> Tensor:
        return weights * (values - (weights * values).sum((0, 2, 3), keepdim=True) / counts.clamp(min=1))

    moves, changes = deviation(inputs), deviation(target)
    spread, width = (each.square().sum((0, 2, 3)) for each in (moves, changes))
    products = (moves * changes).sum((0, 2, 3))
    explains = (width > TINY) & (products.square() >= FIT * spread * width)
    known = (counts.flatten() >= FEWEST_VALUES) & (spread > TINY) & explains
    slopes = torch.where(known, products / spread.clamp(min=TINY), slope)
    one_for_all = ((slopes - 1).abs() < ALIKE).all() or ((slopes - slope).abs() < SAME * abs(slope)).all()
    return None if one_for_all else tuple(slopes.tolist())


def _centred(value: Tensor, shape: torch.Size) -> Tensor:
    """Values in a shape, without the mean of their channel, in a row."""
    values = value.double().reshape(shape)
    if values.ndim == 4:
        values = values - values.mean((0, 2, 3), keepdim=True)
    return (values - values.mean()).flatten()
