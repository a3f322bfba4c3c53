"""Parameters, severities and noise of the corruptions."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from photographs import PHOTOGRAPHS, corrupt

from unfool.data.corruptions import CORRUPTIONS, SEVERITIES, Strength


def test_parameters_are_the_published_ones_at_their_sizes():
    for side in (8, 32):
        assert CORRUPTIONS["gaussian-noise"].parameters(3, side) == {"deviation": 0.08}
        assert CORRUPTIONS["motion-blur"].parameters(5, side) == {"radius": 9, "sigma": 2.5}
        assert CORRUPTIONS["jpeg-compression"].parameters(1, side) == {"quality": 80}
    assert CORRUPTIONS["gaussian-noise"].parameters(3, 224) == {"deviation": 0.18}
    assert CORRUPTIONS["motion-blur"].parameters(5, 224) == {"radius": 20, "sigma": 15}
    assert CORRUPTIONS["jpeg-compression"].parameters(1, 224) == {"quality": 25}


@given(severity=st.sampled_from(SEVERITIES), side=st.integers(33, 223))
def test_parameters_between_the_published_sizes_lie_between_and_above_them_lengths_grow(severity, side):
    for name in CORRUPTIONS:
        found = CORRUPTIONS[name]
        small, large = (found.parameters(severity, end) for end in (32, 224))
        between, huge = found.parameters(severity, side), found.parameters(severity, 448)
        for key, strength in found.strengths.items():
            low, high = sorted((small[key], large[key]))
            assert low * (1 - 1e-12) <= between[key] <= high * (1 + 1e-12)
            assert huge[key] == (2 * large[key] if strength.length else large[key])


def test_parameters_go_in_proportion_on_logarithmic_scales():
    middle = round(math.sqrt(32 * 224) * 1000) / 1000
    assert Strength(small=(1,), large=(100,)).at(1, middle) == pytest.approx(10, rel=1e-4)
    assert Strength(small=(0,), large=(2,)).at(1, middle) == pytest.approx(1, rel=1e-4)


# With the published parameters these three move the image less at some higher severity: stronger blur hides scattered
# pixels, a smaller affine map comes with rougher displacements (tested with the elastic transform), and a fainter image
# under more frost has nearly the same brightness.
OTHERWISE = {"glass-blur", "elastic-transform", "frost"}


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - OTHERWISE))
def test_distance_from_the_clean_image_grows_with_severity(name):
    distances = [float((corrupt(name, severity) - PHOTOGRAPHS).square().mean().sqrt()) for severity in SEVERITIES]
    assert distances[0] > 1e-3
    # severities 3 and 4 of motion blur differ in taps that weigh nothing
    assert all(high > low or (name == "motion-blur" and high > low - 1e-6) for low, high in pairwise(distances))


def test_a_second_pass_of_glass_blur_goes_further():
    one, two = (
        [float((corrupt("glass-blur", s) - PHOTOGRAPHS).abs().mean()) for s in each] for each in ((2, 3), (4, 5))
    )
    assert two[0] > 1.1 * one[0]
    assert two[1] > 1.1 * one[1]


@pytest.mark.parametrize("side", [32, 224])
def test_frost_leaves_less_of_the_image_at_each_severity(side):
    shares = [CORRUPTIONS["frost"].parameters(severity, side) for severity in SEVERITIES]
    assert all(low["keep"] / low["cover"] > high["keep"] / high["cover"] for low, high in pairwise(shares))


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (5, 0.10)])
def test_gaussian_noise_is_normal_with_the_published_deviation(severity, deviation):
    images = torch.full((20, 3, 32, 32), 0.5)
    noise = (corrupt("gaussian-noise", severity, images) - 0.5).flatten().numpy()
    assert scipy.stats.kstest(noise / deviation, "norm").pvalue > 1e-3
    channels = noise.reshape(20, 3, -1)
    assert abs(np.corrcoef(channels[:, 0].ravel(), channels[:, 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(("severity", "photons", "level"), [(1, 500, 200), (3, 100, 90), (5, 50, 9)])
def test_shot_noise_counts_photons_as_poisson_says(severity, photons, level):
    images = torch.full((30, 1, 20, 20), level / 255)
    noisy = corrupt("shot-noise", severity, images)
    counts = (noisy * photons).round().numpy().ravel()
    rate = photons * level / 255
    assert np.allclose(counts / photons, noisy.numpy().ravel(), atol=1e-6)
    edges = np.unique(scipy.stats.poisson.ppf(np.linspace(0.1, 0.9, 9), rate))
    expected = np.diff(np.concatenate([[0], scipy.stats.poisson.cdf(edges, rate), [1]])) * counts.size
    found = np.bincount(np.searchsorted(edges, counts), minlength=len(expected))
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_shot_noise_leaves_black_alone_and_takes_every_level():
    levels = (torch.arange(256).float() / 255).view(1, 1, 16, 16).repeat(200, 1, 1, 1)
    noisy = corrupt("shot-noise", 2, levels)
    assert float(noisy[:, 0, 0, 0].abs().max()) == 0.0
    dark = levels[0] < 0.7  # above that, clipping at 1 lowers the mean
    assert torch.allclose(noisy.mean(0)[dark], levels[0][dark], atol=0.02)
    assert torch.allclose(noisy.var(0)[dark], levels[0][dark] / 250, rtol=0.6, atol=1e-5)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (5, 0.07)])
def test_impulse_noise_sets_a_share_of_values_to_the_ends(severity, share):
    images = torch.full((30, 3, 32, 32), 0.3)
    noisy = corrupt("impulse-noise", severity, images)
    count = noisy.numel()
    for value in (0.0, 1.0):
        assert scipy.stats.binomtest(int((noisy == value).sum()), count, share / 2).pvalue > 1e-3
    assert set(noisy.unique().tolist()) == {0.0, 1.0, images[0, 0, 0, 0].item()}
