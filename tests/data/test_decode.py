"""One image: what is converted, what is corrupt, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from small_sets import encoded, pictures

from unfool.core.errors import DataError
from unfool.data import decode as module
from unfool.data.decode import CorruptImageError, Framing, bytes_of_numbers, decode


def png_header_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(99))]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_files_keep_every_pixel(format):
    pixels = pictures(1, 5, 7)[0]
    decoded, mode = decode(encoded(pixels, format), None)
    np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))
    assert mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(mode):
    decoded, told = decode(encoded(pictures(1)[0], mode=mode), None)
    assert decoded.shape == (3, 8, 8)
    assert told == mode


def test_greyscale_keeps_its_values_in_every_channel():
    grey = pictures(1)[0][:, :, 0]
    decoded, _ = decode(encoded(grey), None)
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3))


def test_sixteen_bit_greys_are_scaled_and_not_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 0x8000], [0xFFFF, 0x1234]], dtype=np.uint16)).save(buffer, format="PNG")
    assert decode(buffer.getvalue(), None)[0][0].tolist() == [[0, 0x80], [0xFF, 0x12]]


def test_cmyk_becomes_the_colour_it_means():
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    decoded, mode = decode(encoded(red, "TIFF", "CMYK"), None)
    assert mode == "CMYK"
    np.testing.assert_array_equal(decoded, red.transpose(2, 0, 1))


def test_orientation_tags_are_obeyed():
    pixels = pictures(1, 4, 6)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", exif=exif)
    np.testing.assert_array_equal(decode(buffer.getvalue(), None)[0], np.rot90(pixels, -1).transpose(2, 0, 1))


def test_the_shorter_side_is_scaled_and_the_centre_cut_out():
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40, 0] = 255  # the centre third is red
    decoded, _ = decode(encoded(pixels), 10)
    assert decoded.shape == (3, 10, 10)
    assert decoded[0, :, 1:-1].min() == 255
    assert decoded[1:].max() == 0
    assert decode(encoded(pixels.transpose(1, 0, 2)), 10)[0].shape == (3, 10, 10)


@pytest.mark.parametrize("side", [3, 8, 17])
def test_any_size_can_be_asked_of_any_shape(side):
    for shape in [(2, 9), (9, 2), (8, 8), (31, 30)]:
        assert decode(encoded(pictures(1, *shape)[0]), side)[0].shape == (3, side, side)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 5), (2, 5)), ((2, 5, 1), (2, 5)), ((1, 2, 5), (2, 5)), ((2, 5, 3), (2, 5, 3)), ((3, 2, 5), (2, 5, 3)),
        ((4, 2, 5), (2, 5, 4)), ((3, 3, 3), (3, 3, 3)),
    ],
)  # fmt: skip
def test_numbers_become_bytes_with_the_channels_last(shape, expected, dtype):
    numbers = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    pixels = bytes_of_numbers(numbers)
    assert (pixels.shape, pixels.dtype) == (expected, np.uint8)
    turned = numbers.transpose(1, 2, 0) if expected != shape and shape[2] != 1 else numbers
    assert pixels.ravel().tolist() == turned.ravel().tolist()


def test_what_cannot_be_read_is_corrupt():
    whole = encoded(pictures(1, 32, 32)[0])
    jpeg = encoded(pictures(1, 32, 32)[0], "JPEG")
    for damaged in (None, b"", b"no image at all", whole[: len(whole) // 2], whole[:20], jpeg[: len(jpeg) // 2]):
        with pytest.raises(CorruptImageError):
            decode(damaged, None)


def test_a_single_pixel_is_corrupt():
    with pytest.raises(CorruptImageError, match="1×1"):
        decode(encoded(pictures(1, 1, 1)[0]), 8)


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_an_error(side):
    with pytest.raises(DataError, match="bomb"):
        decode(png_header_of(side, side), None)


def test_only_raster_formats_are_opened():
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(CorruptImageError):
        decode(script, None)
    assert not set(module.FORMATS) & {"EPS", "PSD", "WMF", "ICNS"}


@pytest.mark.parametrize(("values", "expected"), [((0.0, 0.7), (0, 178)), ((3.0, 200.0), (3, 200))])
def test_float_images_are_scaled_to_bytes(values, expected):
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.float32).reshape(1, 2).repeat(2, 0)).save(buffer, "TIFF")
    pixels, mode = decode(buffer.getvalue(), None)
    assert (tuple(pixels[0, 0].tolist()), mode) == (expected, "F")


@pytest.mark.parametrize("value", [-0.5, 300.0, float("nan")])
def test_float_images_of_another_scale_are_corrupt(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.float32)).save(buffer, "TIFF")
    with pytest.raises(CorruptImageError, match="float pixels in"):
        decode(buffer.getvalue(), None)


def test_a_crop_keeps_a_share_of_the_shorter_side():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = 255
    picture[:8] = picture[-8:] = 128  # rows that a crop of 0.75 cuts off
    whole, cut, squeezed = (decode(encoded(picture), Framing(32, crop))[0] for crop in (1.0, 0.75, 0.0))
    assert whole.shape == cut.shape == squeezed.shape == (3, 32, 32)
    assert set(whole[0, 0]) == {128}
    assert 128 not in cut[0, 1:-1]
    assert (cut[0, 16, :15] == 0).all()
    assert (cut[0, 16, 17:] == 255).all()
    assert (squeezed[0, 16, 1:15] == 0).all()
    assert set(squeezed[0, 0]) == {128}


def scaled(pixels, length, axis, shown=None):
    """Pixels (H, W, C), the middle of one axis, ``shown`` pixels long, brought to ``length``: at each place a mean of
    those around it, whose weight falls linearly to 0 at a distance of one pixel of the smaller of the two grids."""
    total = pixels.shape[axis]
    step = (total if shown is None else shown) / length
    centres, places = total / 2 + (np.arange(length) + 0.5 - length / 2) * step, np.arange(total) + 0.5
    weights = np.maximum(0, 1 - np.abs(places - centres[:, None]) / max(step, 1))
    weights /= weights.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, pixels.astype(np.float64), (1, axis)), 0, axis)


SHAPES = pytest.mark.parametrize("shape", [(45, 70), (70, 45), (9, 16)], ids=str)


@SHAPES
@pytest.mark.parametrize("crop", [1.0, 0.7, 0.0])
def test_a_framed_picture_is_scaled_linearly_and_cut_from_the_middle(shape, crop):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    side = round(16 / crop) if crop else 16
    height, width = (round(side * length / min(shape)) for length in shape) if crop else (16, 16)
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = scaled(scaled(pixels, height, 0), width, 1)[top : top + 16, left : left + 16]
    framed = np.asarray(module._framed(Image.fromarray(pixels), Framing(16, crop)))
    assert np.abs(framed - expected).max() <= 1.01


@SHAPES
@pytest.mark.parametrize("crop", [1.0, 0.7])
def test_of_a_picture_that_would_not_fit_scaled_the_middle_alone_is_scaled(shape, crop, monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    framed = np.asarray(module._framed(Image.fromarray(pixels), Framing(16, crop)))
    shown = 16 * min(shape) / round(16 / crop)
    expected = scaled(scaled(pixels, 16, 0, shown), 16, 1, shown)
    assert np.abs(framed - expected).max() <= 1.01


@pytest.mark.parametrize(("value", "expected"), [(200, 200), (51200, 200), (1 << 16, None), (-1, None)])
def test_greys_of_32_bits_hold_8_or_16(value, expected):
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.int32)).save(buffer, "TIFF")
    if expected is not None:
        assert int(decode(buffer.getvalue(), None)[0].max()) == expected
    else:
        with pytest.raises(CorruptImageError, match="greys in"):
            decode(buffer.getvalue(), None)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_it_is_told(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    pixels, mode = decode(buffer.getvalue(), None)
    assert (int(pixels.min()), mode) == (255, module.SEVERAL_FRAMES)
