# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One encoded image to uint8 RGB pixels, and everything that can be wrong with it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unfool.core.errors import DataError
from unfool.data.sources import Encoded

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded; formats that call other programs or hold vector graphics are not among them."""

MOST_PIXELS = 64_000_000
"""An image of more pixels than this is refused before it is decoded, as a possible decompression bomb."""

SMALLEST_SIDE = 2
"""An image with a side below this cannot be a photograph: it counts as corrupt."""


class CorruptImageError(Exception):
    """An image that cannot be read; the store counts it and leaves it out."""


def decode(encoded: Encoded, size: int | None) -> tuple[np.ndarray, str]:
    """Give uint8 pixels (3, H, W) and the mode that the image had, such as "RGB", "L" or "CMYK".

    With a ``size`` the shorter side is scaled to it (bilinear, antialiased) and the centre is cut out, so H = W =
    size; an image that has that size keeps its pixels. Orientation tags are obeyed. CMYK and greyscale become RGB,
    transparency is dropped. Raises CorruptImageError for what cannot be read, DataError for a decompression bomb.
    """
    if encoded is None:
        raise CorruptImageError("no bytes")
    try:
        if isinstance(encoded, np.ndarray):
            image = Image.fromarray(encoded)
        else:
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(_bomb("far too many")) from error
    except UnidentifiedImageError as error:
        raise CorruptImageError(f"not one of {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged headers
        raise CorruptImageError(str(error)) from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(_bomb(f"{width}×{height}"))
    if min(width, height) < SMALLEST_SIDE:
        raise CorruptImageError(f"{width}×{height} pixels")
    mode = image.mode
    try:
        if "exif" in image.info:
            image = ImageOps.exif_transpose(image)
        if mode.startswith("I;16") or mode == "I":  # convert() would clip 16-bit greys to 255 instead of scaling them
            image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        if image.mode != "RGB":
            image = image.convert("RGB")
        if size is not None and image.size != (size, size):
            image = _resized(image, size)
        pixels = np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
    except Exception as error:  # as above, in damaged bodies
        raise CorruptImageError(str(error)) from error
    return pixels, mode


def _bomb(pixels: str) -> str:
    return (
        f"an image declares {pixels} pixels, more than the {MOST_PIXELS:,} that are decoded (a decompression bomb?); "
        "remove it from the set or scale it down"
    )


def _resized(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if width < height:
        image = image.resize((size, max(size, round(height * size / width))), Image.Resampling.BILINEAR)
    else:
        image = image.resize((max(size, round(width * size / height)), size), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
