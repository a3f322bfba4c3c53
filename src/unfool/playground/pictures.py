"""The pictures to play with: test images of a system, scikit-learn's two photographs, and what a user uploads."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from unfool.core.errors import DataError
from unfool.core.spec import unknown
from unfool.data.decode import decode_file
from unfool.playground.systems import PlaygroundSystem

MOST_UPLOADED = 8 << 20
"""Bytes of an image that is uploaded: 8 MiB."""
PHOTOS = ("china", "flower")
"""The photographs that come with scikit-learn."""
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image (C, H, W) in [0,1]: its key in the playground, what it is called, and its class where that is known."""

    key: str
    words: str
    image: Tensor
    label: int | None = None


def example_pictures(system: PlaygroundSystem, count: int = _SHOWN) -> list[Picture]:
    """Test images of a system, as many of each class as of any other, in the order of the classes."""
    table = system.examples
    if table is None:
        return []
    labels = table.labels(system.column)
    classes = labels.unique().tolist()
    rounds = -(-count // len(classes))
    rows = torch.cat([(labels == each).nonzero().flatten()[:rounds] for each in classes[:count]])[:count]
    batch = table.batch(rows)
    return [
        Picture(
            key=f"example-{int(row)}", words=system.class_name(int(labels[row])), image=image, label=int(labels[row])
        )
        for row, image in zip(rows, batch.images, strict=True)
    ]


def photo_pictures(system: PlaygroundSystem) -> list[Picture]:
    """scikit-learn's photographs in the size of a system's images; none for networks that see digits."""
    if system.shape[0] != 3 or system.sees_digits:
        return []
    library = find_spec("sklearn")
    folder = Path(str(library and library.origin)).with_name("datasets") / "images"
    paths = {name: folder / f"{name}.jpg" for name in PHOTOS}
    return [
        Picture(key=f"photo-{name}", words=f"photo: {name}", image=_image(path, system))
        for name, path in paths.items()
        if path.is_file()
    ]


def pictures_of(system: PlaygroundSystem) -> list[Picture]:
    """All pictures that the playground offers for a system."""
    return [*example_pictures(system), *photo_pictures(system)]


def picture_of(system: PlaygroundSystem, key: str) -> Picture:
    """The picture of a key; SpecError for an unknown one."""
    pictures = {picture.key: picture for picture in pictures_of(system)}
    if key not in pictures:
        raise unknown("picture", key, pictures)
    return pictures[key]


def uploaded_picture(system: PlaygroundSystem, path: str | Path, name: str = "") -> Picture:
    """An uploaded file in the size of a system's images; DataError where it is no image, or too large."""
    path = Path(path)
    if system.shape[0] != 3:
        raise DataError(f"{system.name} sees images of {system.shape[0]} channels; uploads have three")
    name = name or path.name
    return Picture(key="upload", words=name, image=_image(path, system, name))


def _image(path: Path, system: PlaygroundSystem, name: str = "") -> Tensor:
    pixels = decode_file(path, system.shape, system.crop, name=name, most=MOST_UPLOADED)
    return torch.from_numpy(pixels).float() / 255
