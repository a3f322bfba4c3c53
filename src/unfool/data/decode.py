# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One encoded image to uint8 RGB pixels, and everything that can be wrong with it."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unfool.core.borders.reading import MOST_BYTES, read_bytes
from unfool.core.errors import DataError
from unfool.data.sources import Encoded

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded; formats that call other programs or hold vector graphics are not among them."""

MOST_PIXELS = 64_000_000
"""An image of more pixels than this is refused before it is decoded, as a possible decompression bomb."""

_BYTES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Modes whose images take one gigabyte at most; of others, half as many pixels are decoded."""

_STRIP = 1024
_LARGE = 8_000_000
_ONE_LARGE = Lock()
"""Images of more pixels than _LARGE are decoded one at a time, however many threads there are."""

SMALLEST_SIDE = 2
"""An image with a side below this cannot be a photograph: it counts as corrupt."""


@dataclass(frozen=True)
class Framing:
    """How images are brought to ``size`` × ``size`` pixels; None keeps them as they are.

    The shorter side is scaled to ``size / crop`` and the centre cut out; a ``crop`` of 0 squeezes the whole image.
    """

    size: int | None = None
    crop: float = 1.0


SEVERAL_FRAMES = "several frames"
"""The mode of an animation or of a file of several pages, of which the first is taken."""


class CorruptImageError(Exception):
    """An image that cannot be read; the store counts it and leaves it out."""


def decode(encoded: Encoded, framing: Framing | int | None = None) -> tuple[np.ndarray, str]:
    """Give uint8 pixels (3, H, W) and the mode that the image had, such as "RGB", "L" or "CMYK".

    With a size (``framing``, or the size alone) H = W = size, scaled bilinearly with antialiasing; an image that has
    that size keeps its pixels unless a share is cut. Orientation tags are obeyed. CMYK and greyscale become RGB,
    transparency is dropped, greys of 16 bits and floats in [0,1] are scaled to bytes. Raises CorruptImageError for
    what cannot be read, DataError for a decompression bomb.
    """
    framing = framing if isinstance(framing, Framing) else Framing(framing)
    try:
        return _pixels(_opened(encoded), framing)
    except (CorruptImageError, DataError):
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bodies
        raise CorruptImageError(str(error)) from error


def decode_file(
    path: Path, shape: tuple[int, ...], crop: float = 1.0, *, name: str = "", most: int = MOST_BYTES
) -> np.ndarray:
    """An image file as uint8 pixels of a ``shape`` (3, H, W), to whose square it is scaled; ``name`` is for messages.

    Raises DataError for a file that is missing, longer than ``most`` bytes, no image, damaged, a decompression bomb,
    or of another shape where that is no square.
    """
    name = name or str(path)
    try:
        encoded = read_bytes(path, "give an image file", most=most)
        pixels, _ = decode(encoded, Framing(shape[1] if shape[1] == shape[2] else None, crop))
    except CorruptImageError as error:
        raise DataError(f"{name} is no image that can be read ({error}); give a PNG or JPEG file") from error
    if pixels.shape != shape:
        raise DataError(f"{name} has shape {pixels.shape} and the run takes {shape}; scale it to that")
    return pixels


def _opened(encoded: Encoded) -> Image.Image:
    """The image, its shape allowed, its pixels not decoded yet; raises as `decode` does."""
    if encoded is None:
        raise CorruptImageError("no bytes")
    try:
        if isinstance(encoded, np.ndarray):
            image = Image.fromarray(bytes_of_numbers(encoded))
        else:
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(_bomb("far too many", MOST_PIXELS)) from error
    except UnidentifiedImageError as error:
        raise CorruptImageError(f"not one of {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged headers
        raise CorruptImageError(str(error)) from error
    width, height = image.size
    most = MOST_PIXELS if image.mode in _BYTES else MOST_PIXELS // 2
    if width * height > most:
        raise DataError(_bomb(f"{width}×{height}", most))
    if min(width, height) < SMALLEST_SIDE:
        raise CorruptImageError(f"{width}×{height} pixels")
    return image


def _pixels(image: Image.Image, framing: Framing) -> tuple[np.ndarray, str]:
    """uint8 (3, H, W) of an opened image, and its mode or `SEVERAL_FRAMES`.

    No name holds on to an earlier form of the image: of a large one each form takes a quarter of a gigabyte.
    """
    mode = image.mode
    frames = image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "is_animated", False)
    with _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
        image = _framed(_in_rgb(image, mode), framing)
        pixels = np.empty((3, image.height, image.width), dtype=np.uint8)
        # In strips, since Pillow copies what it gives to NumPy.
        for top in range(0, image.height, _STRIP):
            bottom = min(top + _STRIP, image.height)
            strip = image if image.height <= _STRIP else image.crop((0, top, image.width, bottom))
            pixels[:, top:bottom] = np.asarray(strip, dtype=np.uint8).transpose(2, 0, 1)
        return pixels, SEVERAL_FRAMES if frames else mode


def _in_rgb(image: Image.Image, mode: str) -> Image.Image:
    """Upright, and in RGB."""
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if mode.startswith("I;16") or mode == "I":  # convert() would clip 16-bit greys to 255 instead of scaling them
        image = Image.fromarray(_bytes_of_greys(np.asarray(image), deep=mode == "I"))
    if mode == "F":
        image = Image.fromarray(_bytes_of_floats(np.asarray(image)))
    return image if image.mode == "RGB" else image.convert("RGB")


def _bomb(pixels: str, most: int) -> str:
    return (
        f"an image declares {pixels} pixels, more than the {most:,} that are decoded (a decompression bomb?); "
        "remove it from the set or scale it down"
    )


def bytes_of_numbers(pixels: np.ndarray) -> np.ndarray:
    """Whole numbers (H, W), (H, W, C) or (C, H, W) as bytes (H, W) or (H, W, C)."""
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind not in "iu" or not pixels.size or pixels.min() < 0 or pixels.max() > 255:
        raise CorruptImageError(f"{pixels.dtype} numbers of shape {pixels.shape}; they must be pixels from 0 to 255")
    return np.ascontiguousarray(pixels.astype(np.uint8))


def _bytes_of_greys(pixels: np.ndarray, *, deep: bool) -> np.ndarray:
    """Greys of 16 bits as bytes; those of 32 bits hold 8 or 16, as their highest value shows."""
    low, high = int(pixels.min()), int(pixels.max())
    if deep and not (low >= 0 and high < 1 << 16):
        raise CorruptImageError(f"greys in [{low}, {high}]; they must lie in [0, 255] or [0, 65535]")
    return (pixels.astype(np.uint32) >> (0 if deep and high < 256 else 8)).astype(np.uint8)


def _bytes_of_floats(pixels: np.ndarray) -> np.ndarray:
    """Floats in [0,1], or already on the scale of bytes, as bytes; anything else cannot be told from a wrong scale."""
    low, high = float(np.min(pixels)), float(np.max(pixels))
    if not (low >= 0.0 and high <= 255.0):  # NaN fails too
        raise CorruptImageError(f"float pixels in [{low:.4g}, {high:.4g}]; they must lie in [0, 1] or [0, 255]")
    return np.round(pixels * (255.0 if high <= 1.0 else 1.0)).astype(np.uint8)


def _centre(shape: tuple[int, int], side: int, size: int) -> tuple[float, float, float, float]:
    """What the centre cut shows of an image, so long that scaled as a whole it would not fit into memory."""
    scale = side / min(shape)
    left, top = (max(0.0, (length - size / scale) / 2) for length in shape)
    return left, top, shape[0] - left, shape[1] - top


def _framed(image: Image.Image, framing: Framing) -> Image.Image:
    size = framing.size
    if size is None or (framing.crop in (0.0, 1.0) and image.size == (size, size)):
        return image
    if framing.crop == 0.0:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    width, height = image.size
    side = round(size / framing.crop)
    if side * side * max(width, height) > MOST_PIXELS * min(width, height):
        return image.resize((size, size), Image.Resampling.BILINEAR, box=_centre(image.size, side, size))
    if width < height:
        image = image.resize((side, max(side, round(height * side / width))), Image.Resampling.BILINEAR)
    else:
        image = image.resize((max(side, round(width * side / height)), side), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
