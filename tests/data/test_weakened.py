"""Augmentation at a share of its strength: the schedule of DynACL, its endpoints, and what is shared."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfool.core.batch import Batch
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS, Augmentation, augmented
from unfool.data.colour import ColourJitter

STREAMS = Streams(7).named("test")


def make_images(count=8, side=16):
    return Streams(1).uniform(torch.arange(count), (3, side, side))


@given(strength=st.floats(0, 1))
def test_the_recipe_is_scaled_as_in_the_code_of_dynacl(strength):
    """Its recipe: crop area from 1 - 0.9 s, jitter 0.8 s of (0.4, 0.4, 0.4, 0.1) s, grey 0.2 s, flip 0.5."""
    strengths = ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    recipe = Augmentation(crop_scale=(0.1, 1.0), flip=0.5, jitter=0.8, strengths=strengths, grey=0.2)
    found = recipe.weakened(strength)
    assert found.crop_scale == pytest.approx((1 - 0.9 * strength, 1.0))
    assert (found.flip, found.jitter, found.grey) == pytest.approx((0.5, 0.8 * strength, 0.2 * strength))
    told = found.strengths
    assert (told.brightness, told.contrast, told.saturation) == pytest.approx((0.4 * strength,) * 3)
    assert told.hue == pytest.approx(0.1 * strength)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_full_strength_is_the_recipe_itself(name):
    assert AUGMENTATIONS[name].weakened(1.0) == AUGMENTATIONS[name]
    assert AUGMENTATIONS[name].weakened(0.5).weakened(1.0) == AUGMENTATIONS[name].weakened(0.5)


@pytest.mark.parametrize("name", ["simclr", "mao2021"])
@pytest.mark.parametrize("side", [16, 17])
def test_no_strength_leaves_flips_alone(name, side):
    images = make_images(side=side)
    views = AUGMENTATIONS[name].weakened(0.0)(images, torch.arange(len(images)), STREAMS)
    flipped = (views - images).abs().amax((1, 2, 3)) > (views - images.flip(3)).abs().amax((1, 2, 3))
    expected = torch.where(flipped[:, None, None, None], images.flip(3), images)
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)
    assert 0 < int(flipped.sum()) < len(images)


def test_a_padded_crop_and_its_flips_stay():
    assert AUGMENTATIONS["crop-flip"].weakened(0.2).padding == AUGMENTATIONS["crop-flip"].padding
    images, ids = make_images(), torch.arange(8)
    found = AUGMENTATIONS["crop-flip"].weakened(0.2)(images, ids, STREAMS)
    assert torch.equal(found, AUGMENTATIONS["crop-flip"](images, ids, STREAMS))


def test_blur_becomes_rarer_with_grey():
    weak = AUGMENTATIONS["simclr"].weakened(0.25)
    assert (weak.blur, weak.grey) == (0.25, 0.05)
    assert (weak.blur_kernel, weak.blur_sigma) == (0.1, (0.1, 2.0))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength):
    with pytest.raises(SpecError, match="give 0 to 1"):
        AUGMENTATIONS["simclr"].weakened(strength)


def test_views_are_shared_by_those_who_ask_for_the_same_strength():
    batch = Batch(images=make_images(), ids=torch.arange(8))
    full = augmented(batch, "simclr", 2, STREAMS)
    weak = augmented(batch, "simclr", 2, STREAMS, 0.5)
    assert augmented(batch, "simclr", 2, STREAMS, 1.0) is full
    assert augmented(batch, "simclr", 2, STREAMS, 0.5) is weak
    assert not torch.equal(full, weak)
    alone = AUGMENTATIONS["simclr"].weakened(0.5)(batch.images, batch.ids, STREAMS.named("view").at(1))
    assert torch.equal(weak[8:], alone)
