"""Strips: short rows of pictures with words under each, such as one image masked, filled and as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unfool.core.batch import check_images
from unfool.core.errors import ImagesError
from unfool.report.pictures.gallery import image_uri


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page: a ``data:`` URI, what it shows in words, and its size in CSS pixels."""

    uri: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """Two or more pictures side by side, each (words, image (C, H, W) in [0,1] with one or three channels).

    Strips of one ``group`` stand together under it as their heading. Sizes and channels may differ within a strip.
    Raises ImagesError for fewer than two pictures and for an image of another shape or range.
    """

    group: str
    pictures: tuple[tuple[str, Tensor], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if len(self.pictures) < 2:
            raise ImagesError(f"a strip of {self.group!r} has {len(self.pictures)} picture(s); give two or more")
        for words, image in self.pictures:
            # before the other checks, which would name the shape of a batch
            if isinstance(image, Tensor) and (image.ndim != 3 or image.shape[0] not in (1, 3)):
                raise ImagesError(
                    f"picture {words!r} of a strip of {self.group!r} has shape {tuple(image.shape)}; "
                    "give (C, H, W) with 1 or 3 channels"
                )
            check_images(image[None] if isinstance(image, Tensor) else image)


def strip_groups(strips: Sequence[Strip]) -> dict[str, list[tuple[str, list[Picture]]]]:
    """Captions and pictures of the strips by group, the groups in the order of their first appearance."""
    groups: dict[str, list[tuple[str, list[Picture]]]] = {}
    for strip in strips:
        shown = [_picture(strip.group, words, image) for words, image in strip.pictures]
        groups.setdefault(strip.group, []).append((strip.caption, shown))
    return groups


def _picture(group: str, words: str, image: Tensor) -> Picture:
    uri, width, height = image_uri(image)
    return Picture(uri=uri, alt=f"{group}: {words}", caption=words, width=width, height=height)
