"""What every registered corruption owes its caller; a new one is tested here as soon as it is registered."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted

NAMES = tuple(CORRUPTIONS)
PUBLISHED = (
    "gaussian-noise shot-noise impulse-noise defocus-blur glass-blur motion-blur zoom-blur snow frost fog brightness "
    "contrast elastic-transform pixelate jpeg-compression"
)


def make_images(count=4, shape=(3, 16, 16), seed=0):
    """Images of whole bytes, some of them black or white in places."""
    unit = Streams(seed).named("images").uniform(torch.arange(count), shape, -0.2, 1.2).clamp(0.0, 1.0)
    return (unit * 255).round() / 255


def test_the_fifteen_are_there():
    assert set(PUBLISHED.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(
    severity=st.sampled_from(SEVERITIES),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 45),
    width=st.integers(8, 45),
    extreme=st.sampled_from([None, 0.0, 1.0]),
)
def test_any_image_stays_an_image(name, severity, channels, height, width, extreme):
    images = make_images(2, (channels, height, width))
    if extreme is not None:
        images[0] = extreme
    kept = images.clone()
    found = corrupted(images, torch.tensor([4, 9]), name, severity, Streams(0))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 1.0
    assert torch.equal(images, kept)


@pytest.mark.parametrize("side", [64, 224, 256])
@pytest.mark.parametrize("name", NAMES)
def test_large_images_are_changed_too(name, side):
    images = make_images(1, (3, side, side + 3))
    for severity in (1, 5):
        found = corrupted(images, torch.tensor([0]), name, severity, Streams(0))
        assert float((found - images).abs().mean()) > 1e-3
        assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", NAMES)
def test_splitting_and_permuting_a_batch_change_nothing(name, severity):
    images = make_images(6)
    ids = torch.tensor([5, 9, 2, 7, 0, 11])
    whole = corrupted(images, ids, name, severity, Streams(1))
    for rows in (torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4]), torch.tensor([1, 2])):
        part = corrupted(images[rows], ids[rows], name, severity, Streams(1))
        # Matrix products sum in another order for another batch size, hence the tolerance; a lost draw moves far more.
        assert torch.allclose(part, whole[rows], atol=2e-6)


RANDOM = set(NAMES) - {"defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg-compression"}


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_seed_and_the_id_and_leave_the_global_state_alone(name):
    images = make_images(1).repeat(3, 1, 1, 1)
    ids = torch.tensor([3, 4, 3])
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = corrupted(images, ids, name, 5, Streams(0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.equal(first, corrupted(images, ids, name, 5, Streams(0)))
    assert torch.equal(first[0], first[2])
    other = corrupted(images, ids, name, 5, Streams(1))
    assert torch.equal(first, other) == (name not in RANDOM)
    assert torch.equal(first[0], first[1]) == (name not in RANDOM)


@pytest.mark.parametrize(
    ("name", "severity", "words"),
    [
        ("gausian-noise", 1, "did you mean 'gaussian-noise'"),
        ("jpeg", 1, "unknown corruption 'jpeg'.*allowed: brightness, contrast"),
        ("fog", 0, "unknown severity '0'; allowed: 1, 2, 3, 4, 5"),
        ("fog", 6, "unknown severity '6'"),
        ("fog", True, "unknown severity 'True'"),
        ("fog", 2.0, "unknown severity '2.0'"),
    ],
)
def test_unknown_names_and_severities_are_refused(name, severity, words):
    with pytest.raises(SpecError, match=words):
        corrupted(make_images(), torch.arange(4), name, severity, Streams(0))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (make_images() * 255, "divide by 255"),
        (make_images().double(), "images.float()"),
        (make_images(4, (4, 16, 16)), "1 .grey. or 3"),
        (make_images(4, (3, 16, 7)), "at least 8 pixels"),
        (make_images(3), "one id per image"),
    ],
    ids=["0 to 255", "float64", "four channels", "too small", "another count"],
)
def test_bad_images_are_refused(images, words):
    with pytest.raises(ImagesError, match=words):
        corrupted(images, torch.arange(4), "fog", 1, Streams(0))
