"""Weather and digital corruptions against literal NumPy, SciPy and Pillow versions, one image at a time."""

import colorsys
import io
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from photographs import IDS, PHOTOGRAPHS, STREAMS, corrupt, draws, literal_motion, photographs, pillow, tensor
from PIL import Image

from unfool.core.streams import Streams
from unfool.data.corruptions import CORRUPTIONS, SEVERITIES
from unfool.data.corruptions.digital import _affine, _boxes, warped
from unfool.data.corruptions.filters import zoomed
from unfool.data.corruptions.textures import _needles, ice, plasma

BYTE = 1 / 255


def literal_plasma(size, decay, noise):
    """Diamond-square on a torus, point by point, with the noise in [-1, 1] of each step given."""
    field = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half = step // 2
        for row in range(0, size, step):
            for column in range(0, size, step):
                corners = [field[(row + a) % size, (column + b) % size] for a in (0, step) for b in (0, step)]
                luck = noise[step][0, row // step, column // step]
                field[row + half, column + half] = sum(corners) / 4 + wibble * wibble * luck
        known = field.copy()
        for row in range(0, size, step):
            for column in range(0, size, step):
                for place, (r, c) in ((1, (row, column + half)), (2, (row + half, column))):
                    around = [
                        known[(r + a) % size, (c + b) % size] for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
                    ]
                    field[r, c] = sum(around) / 4 + wibble * wibble * noise[step][place, row // step, column // step]
        step, wibble = half, wibble / decay
    field -= field.min()
    return field / field.max()


@pytest.mark.parametrize("decay", [3, 1.75])
def test_plasma_is_diamond_square(decay):
    found = plasma(torch.tensor([7]), STREAMS, 16, 11, decay)
    noise = {
        step: STREAMS.at(step).uniform(torch.tensor([7]), (3, 16 // step, 16 // step), -1, 1)[0].double().numpy()
        for step in (16, 8, 4, 2)
    }
    np.testing.assert_allclose(found[0].numpy(), literal_plasma(16, decay, noise)[:, :11], atol=1e-5)


@pytest.mark.parametrize(("severity", "thickness", "decay"), [(1, 0.2, 3), (5, 1.5, 1.75)])
def test_fog_keeps_each_images_highest_value_possible(severity, thickness, decay):
    bank = plasma(IDS, draws("fog"), 32, 32, decay).numpy()
    found = corrupt("fog", severity).numpy()
    for image, layer, foggy in zip(PHOTOGRAPHS.numpy(), bank, found, strict=True):
        np.testing.assert_allclose(
            foggy, (image + thickness * layer) * image.max() / (image.max() + thickness), atol=1e-5
        )


def test_snow_is_the_published_recipe():
    mean, deviation, zoom, threshold, radius, sigma, keep = 0.15, 0.3, 1.75, 0.55, 10, 4, 0.9
    image, own = PHOTOGRAPHS[5].double().numpy(), IDS[5:6]
    flakes = mean + deviation * draws("snow").named("flakes").normal(own, (1, 32, 32))
    flakes = zoomed(flakes, zoom)[0, 0].double().numpy()
    flakes[flakes < threshold] = 0
    angle = float(draws("snow").named("angle").uniform(own, (), -135, -45))
    flakes = literal_motion(np.clip(flakes, 0, 1), angle, radius, sigma)
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    found = keep * image + (1 - keep) * np.maximum(image, grey * 1.5 + 0.5)
    expected = np.clip(found + flakes + np.rot90(flakes, k=2), 0, 1)
    np.testing.assert_allclose(corrupt("snow", 3)[5].numpy(), expected, atol=1e-5)


def test_frost_mixes_the_image_with_ice_of_its_own():
    pictures = ice(IDS, draws("frost"), 32, 32)
    torch.testing.assert_close(corrupt("frost", 1), (PHOTOGRAPHS + 0.2 * pictures).clamp(0, 1))
    torch.testing.assert_close(corrupt("frost", 5), (0.75 * PHOTOGRAPHS + 0.45 * pictures).clamp(0, 1))
    assert 0.0 <= float(pictures.min()) <= float(pictures.max()) <= 1.0
    red, _, blue = pictures.mean((0, 2, 3)).tolist()
    assert 0.3 < red < blue < 0.8
    assert 0.08 < float(pictures[:, 1].flatten(1).std(1).mean()) < 0.3
    similarity = np.corrcoef(pictures[:, 1].flatten(1).numpy())[np.triu_indices(len(IDS), 1)]
    assert abs(similarity.mean()) < 0.1


@pytest.mark.parametrize(("severity", "gain"), [(1, 0.05), (4, 0.2), (5, 0.3)])
def test_brightness_is_the_value_of_hsv(severity, gain):
    image = PHOTOGRAPHS[3].clone()
    image[:, 0, :3] = 0.0  # black has no hue to keep
    found = corrupt("brightness", severity, image[None])[0]
    for pixel, brighter in zip(image.flatten(1).T.tolist(), found.flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert brighter == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + gain, 1)), abs=1e-5)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.75), (5, 0.15)])
def test_contrast_draws_values_to_the_mean_of_their_channel(severity, factor):
    for image, found in zip(PHOTOGRAPHS.numpy(), corrupt("contrast", severity).numpy(), strict=True):
        means = image.mean(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(found, (image - means) * factor + means, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (25, 40), (70, 50)])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_is_pillows_box_filter_down_and_up(severity, shape):
    image = photographs(*shape)[0]
    share = CORRUPTIONS["pixelate"].parameters(severity, min(shape))["share"]
    small = pillow(image).resize((int(shape[1] * share), int(shape[0] * share)), Image.Resampling.BOX)
    expected = tensor(small.resize((shape[1], shape[0]), Image.Resampling.BOX))
    # Pillow rounds to bytes after each of the two sides
    assert float((corrupt("pixelate", severity, image[None])[0] - expected).abs().max()) < 1.01 * BYTE


@pytest.mark.parametrize("turn", [10.0, 25.0, 50.0])
def test_needles_lead_away_from_their_root_in_one_of_six_directions_and_fade(turn):
    roots = torch.zeros(6, 41, 41)
    roots[:, 20, 20] = torch.linspace(0.5, 1, 6)
    streams = Streams(3).named("needles")
    fields = _needles(roots, torch.arange(6), streams, torch.full((6,), turn), 1.0, 6.0)
    directions = set()
    for root, field in zip(roots[:, 20, 20].tolist(), fields.double().numpy(), strict=True):
        expected = {}
        for direction in range(6):
            angle, grown = math.radians(turn + 60 * direction), np.zeros((41, 41))
            for tap in range(18):
                place = 20 + round(tap * math.sin(angle)), 20 + round(tap * math.cos(angle))
                grown[place] = max(grown[place], root * math.exp(-0.5 * (tap / 6) ** 2))
            expected[direction] = float(np.abs(grown - field).max())
        directions.add(min(expected, key=lambda each: expected[each]))
        assert min(expected.values()) < 1e-6
    assert len(directions) > 1


def test_boxes_are_pillows_for_every_pair_of_sizes():
    for side in range(2, 25):
        line = Image.fromarray(np.eye(side, dtype=np.float32))
        for size in range(1, side + 1):
            small = line.resize((size, side), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)
            np.testing.assert_allclose(_boxes(side, size), np.asarray(small).T, atol=1e-6, err_msg=f"{side} {size}")


@pytest.mark.parametrize(("repeat_edge", "mode"), [(True, "reflect"), (False, "mirror")])
def test_warping_is_scipys(repeat_edge, mode):
    places = Streams(2).uniform(torch.arange(2), (2, 14, 20), -30, 40)
    found = warped(PHOTOGRAPHS[:2, :, :14, :20], places[:, 0], places[:, 1], repeat_edge=repeat_edge)
    for image, (x, y), moved in zip(
        PHOTOGRAPHS[:2, 1, :14, :20].double().numpy(), places.numpy(), found[:, 1], strict=True
    ):
        expected = scipy.ndimage.map_coordinates(image, [y, x], order=1, mode=mode)
        np.testing.assert_allclose(moved.numpy(), expected, atol=1e-4)


def test_the_affine_map_takes_moved_corners_back():
    columns, rows = _affine(IDS[:3], STREAMS, 20, 30, 2.5)
    shifts = STREAMS.uniform(IDS[:3], (3, 2), -1, 1).numpy() * 2.5
    for x, y, shift in zip(columns.numpy(), rows.numpy(), shifts, strict=True):
        for corner, (right, down) in enumerate([(6, 6), (6, -6), (-6, -6)]):
            before = np.array([15 + right, 10 + down])
            at = before + shift[corner]
            # both are linear in the place, so bilinear reading of the maps is exact
            found = [scipy.ndimage.map_coordinates(plane, at[::-1, None], order=1)[0] for plane in (x, y)]
            np.testing.assert_allclose(found, before, atol=1e-4)


def test_the_elastic_transform_is_an_affine_map_and_a_smooth_displacement():
    image, own = PHOTOGRAPHS[6, 1].double().numpy(), IDS[6:7]
    columns, rows = _affine(own, draws("elastic-transform").named("affine"), 32, 32, 0.05 * 32)
    image = scipy.ndimage.map_coordinates(image, [rows[0], columns[0]], order=1, mode="mirror")
    field = draws("elastic-transform").named("field").uniform(own, (2, 32, 32), -1, 1)[0].double().numpy()
    right, down = (0.1 * 32 * scipy.ndimage.gaussian_filter(plane, 0.04 * 32, truncate=3) for plane in field)
    rows, columns = np.mgrid[:32, :32]
    expected = scipy.ndimage.map_coordinates(image, [rows + down, columns + right], order=1, mode="reflect")
    np.testing.assert_allclose(corrupt("elastic-transform", 4)[6, 1].numpy(), expected, atol=1e-4)


def test_elastic_displacements_beyond_the_affine_map_grow_with_severity():
    line = torch.linspace(0.25, 0.75, 32)
    ramps = torch.stack([line.expand(32, 32), line[:, None].expand(32, 32), torch.zeros(32, 32)]).repeat(30, 1, 1, 1)
    plane = np.stack([*np.mgrid[8:24, 8:24].reshape(2, -1), np.ones(256)], axis=1)
    roughness = []
    for severity in SEVERITIES:
        read = corrupt("elastic-transform", severity, ramps)[:, :2, 8:24, 8:24].flatten(2).double().numpy()
        roughness.append(np.median([np.linalg.lstsq(plane, image.T, rcond=None)[1].sum() for image in read]))
    assert roughness == sorted(roughness)


@pytest.mark.parametrize("shape", [(32, 32), (25, 40), (70, 51), (9, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes_and_reads(shape, channels):
    images = photographs(*shape)[:30, :channels]
    for severity in SEVERITIES:
        quality = round(CORRUPTIONS["jpeg-compression"].parameters(severity, min(shape))["quality"])
        files = [io.BytesIO() for _ in images]
        for image, file in zip(images, files, strict=True):
            pillow(image).save(file, "JPEG", quality=quality)
        difference = (
            corrupt("jpeg-compression", severity, images) - torch.stack([tensor(Image.open(f)) for f in files])
        ).abs()
        # libjpeg computes in whole numbers, so a few coefficients are rounded the other way
        assert float(difference.mean()) < (0.1 if channels == 1 else 0.3) * BYTE
        assert float(difference.flatten(1).amax(1).median()) < 8 * BYTE
