"""Blurs against literal NumPy and SciPy versions, one image at a time."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import IDS, PHOTOGRAPHS, corrupt, draws, literal_motion

from unfool.core.streams import Streams
from unfool.data.corruptions import CORRUPTIONS, SEVERITIES
from unfool.data.corruptions.blurs import disc, scattered
from unfool.data.corruptions.filters import gaussian_blurred, motion_blurred, zoomed


@pytest.mark.parametrize("shape", [(9, 14), (20, 11)])
@pytest.mark.parametrize(("edges", "truncate"), [("nearest", 4), ("reflect", 3)])
@pytest.mark.parametrize("sigma", [0, 0.4, 1.5, 8])
def test_gaussian_blur_is_scipys(sigma, edges, truncate, shape):
    images = Streams(1).uniform(torch.arange(2), (3, *shape))
    found = gaussian_blurred(images, sigma, edges=edges, truncate=truncate)
    for image, blurred in zip(images.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        expected = scipy.ndimage.gaussian_filter(image, sigma, mode=edges, truncate=truncate)
        np.testing.assert_allclose(blurred, expected, atol=1e-5)


def literal_disc(radius, softness):
    """The published kernel on its fixed grid, with OpenCV's Gaussian written out."""
    line = np.arange(-12, 13)
    inside = np.array([[float(x * x + y * y <= radius * radius) for x in line] for y in line])
    inside /= inside.sum()
    taps = range(-1, 2) if radius <= 8 else range(-2, 3)
    blur = np.array([math.exp(-(tap**2) / (2 * softness**2)) for tap in taps])
    return scipy.ndimage.convolve(inside, np.outer(blur, blur) / blur.sum() ** 2, mode="constant")


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_blur_is_a_convolution_with_the_published_disc(severity):
    parameters = CORRUPTIONS["defocus-blur"].parameters(severity, 32)
    found = corrupt("defocus-blur", severity)
    kernel = literal_disc(**parameters)
    expected = scipy.ndimage.convolve(PHOTOGRAPHS[1, 2].double().numpy(), kernel, mode="mirror")
    np.testing.assert_allclose(found[1, 2].numpy(), expected, atol=1e-6)


def test_a_disc_between_published_sizes_has_the_area_of_its_circle():
    for radius in (0.7, 1.3, 2.6):
        fine = disc(radius, 0.01, 8)
        assert fine.sum() == pytest.approx(1)
        assert 1 / fine.max() == pytest.approx(max(1, math.pi * radius**2), rel=0.06)
    assert disc(0.7, 0.01, 1).max() == pytest.approx(1)


@settings(max_examples=25)
@given(height=st.integers(8, 12), width=st.integers(8, 12), reach=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_scattering_is_the_published_loop_with_its_exchange_of_views(height, width, reach, seed):
    images = Streams(seed).uniform(torch.arange(1), (3, height, width))
    down, right = Streams(seed).integers(torch.arange(2), 2 * reach, (1, height, width)) - reach
    found = scattered(images, down, right, reach)
    pixels = images[0].permute(1, 2, 0).numpy().copy()
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            other = row + int(down[0, row, column]), column + int(right[0, row, column])
            pixels[row, column], pixels[other] = pixels[other], pixels[row, column]
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize(("severity", "sigma", "passes"), [(1, 0.05, 1), (3, 0.4, 1), (5, 0.4, 2)])
def test_glass_blur_blurs_scatters_and_blurs(severity, sigma, passes):
    found = corrupt("glass-blur", severity)[4]
    pixels = scipy.ndimage.gaussian_filter(PHOTOGRAPHS[4].numpy(), (0, sigma, sigma), mode="nearest")
    for turn in range(passes):
        offsets = draws("glass-blur").at(turn).integers(IDS[4:5], 2, (2, 32, 32))[0] - 1
        moved = pixels.copy()
        for row in range(2, 32):
            for column in range(2, 32):
                # offsets of -1 and 0 reach only pixels whose turn is yet to come
                down, right = offsets[:, row, column].tolist()
                moved[:, row, column] = pixels[:, row + down, column + right]
        pixels = moved
    expected = scipy.ndimage.gaussian_filter(pixels, (0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_motion_blur_is_imagemagicks():
    images = PHOTOGRAPHS[:4, :, :12, :17]
    angles = torch.tensor([-44.0, 0.0, 31.0, -100.0])
    found = motion_blurred(images, angles, 6, 2)
    for image, blurred, angle in zip(images, found, angles.tolist(), strict=True):
        np.testing.assert_allclose(
            blurred[1].numpy(), literal_motion(image[1].double().numpy(), angle, 6, 2), atol=1e-5
        )


def test_motion_blur_takes_a_direction_for_each_image_of_at_most_45_degrees():
    angles = draws("motion-blur").uniform(IDS, (), -45, 45)
    assert float(angles.min()) < -30
    assert float(angles.max()) > 30
    for severity in (1, 5):
        values = CORRUPTIONS["motion-blur"].parameters(severity, 32)
        assert torch.allclose(
            corrupt("motion-blur", severity), motion_blurred(PHOTOGRAPHS, angles, **values), atol=1e-6
        )


@pytest.mark.parametrize("factor", [1, 1.03, 1.25, 1.75, 2.25])
@pytest.mark.parametrize("shape", [(32, 32), (32, 19), (8, 9)])
def test_zooming_is_scipys_on_the_middle(factor, shape):
    image = PHOTOGRAPHS[2, 0, : shape[0], : shape[1]].double().numpy()
    inner = [math.ceil(side / factor) for side in shape]
    top, left = ((side - size) // 2 for side, size in zip(shape, inner, strict=True))
    large = scipy.ndimage.zoom(image[top : top + inner[0], left : left + inner[1]], factor, order=1)
    top, left = ((size - side) // 2 for side, size in zip(shape, large.shape, strict=True))
    expected = large[top : top + shape[0], left : left + shape[1]]
    found = zoomed(torch.from_numpy(image)[None, None], factor)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "factors"), [(1, np.arange(1, 1.06, 0.01)), (5, np.arange(1, 1.26, 0.01))])
def test_zoom_blur_is_the_mean_over_the_published_zooms(severity, factors):
    layers = [PHOTOGRAPHS, *(zoomed(PHOTOGRAPHS, float(factor)) for factor in factors)]
    torch.testing.assert_close(corrupt("zoom-blur", severity), torch.stack(layers).mean(0), atol=1e-5, rtol=0)
