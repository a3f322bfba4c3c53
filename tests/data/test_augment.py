"""Augmentation: against Pillow, SciPy and slow NumPy; per-image draws; gradients; invariance to how a batch is cut."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.ndimage import correlate1d

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS, Augmentation, augmented
from unfool.data.blur import blurred
from unfool.data.colour import ColourJitter, recoloured

STREAMS = Streams(7).named("test")
RANDOM = sorted(name for name in AUGMENTATIONS if name != "none")


def random_images(count: int, side: int = 32, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).to(dtype) / 255


def test_none_gives_the_images_as_they_are():
    images = random_images(3)
    assert torch.equal(AUGMENTATIONS["none"](images, torch.arange(3), STREAMS), images)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (2, 3, 17, 40), (1, 3, 96, 96)])
def test_views_keep_shape_and_range_and_change_the_images(name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(shape[0])
    views = AUGMENTATIONS[name](images, ids, STREAMS)
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert float(views.min()) >= 0.0
    assert float(views.max()) <= 1.0
    assert not torch.equal(views, images)


@pytest.mark.parametrize("name", RANDOM)
def test_splitting_and_permuting_a_batch_changes_no_view(name):
    images, ids = random_images(24), torch.arange(24) * 7
    whole = AUGMENTATIONS[name](images, ids, STREAMS)
    parts = [AUGMENTATIONS[name](images[rows], ids[rows], STREAMS) for rows in torch.arange(24).split(5)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(AUGMENTATIONS[name](images[order], ids[order], STREAMS), whole[order], atol=1e-6, rtol=0)
    strided = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(AUGMENTATIONS[name](strided, ids, STREAMS), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_is_drawn_for_itself_and_each_draw_anew(name):
    images = random_images(1).expand(64, -1, -1, -1)
    views = AUGMENTATIONS[name](images, torch.arange(64), STREAMS).flatten(1)
    assert len(torch.unique(views, dim=0)) > 48
    again = AUGMENTATIONS[name](images, torch.arange(64), STREAMS).flatten(1)
    assert torch.equal(again, views)
    redrawn = AUGMENTATIONS[name](images, torch.arange(64), STREAMS.at(1)).flatten(1)
    assert float((redrawn != views).any(dim=1).float().mean()) > 0.9
    alike = AUGMENTATIONS[name](images[:2], torch.tensor([5, 5]), STREAMS)
    assert torch.equal(alike[0], alike[1])


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    AUGMENTATIONS["simclr"](random_images(4), torch.arange(4), STREAMS)
    assert torch.equal(torch.get_rng_state(), state)


def test_crop_flip_copies_pixels_of_the_padded_image_and_reaches_every_shift():
    image = random_images(1)[0].numpy()
    count = 4000
    views = AUGMENTATIONS["crop-flip"](torch.from_numpy(image).expand(count, -1, -1, -1), torch.arange(count), STREAMS)
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    windows = {}
    for top in range(9):
        for left in range(9):
            window = padded[:, top : top + 32, left : left + 32]
            windows[np.ascontiguousarray(window).tobytes()] = (top, left, False)
            windows[np.ascontiguousarray(window[:, :, ::-1]).tobytes()] = (top, left, True)
    seen = [windows[view.tobytes()] for view in np.ascontiguousarray(views.numpy())]
    assert len(set(seen)) == 162
    assert abs(np.mean([flipped for _, _, flipped in seen]) - 0.5) < 0.04
    tops = np.bincount([top for top, _, _ in seen], minlength=9) / count
    assert np.abs(tops - 1 / 9).max() < 0.03


def test_the_padding_of_crop_flip_grows_with_the_image():
    count = 300
    ramp = (1 + torch.arange(64.0)).div(64).expand(count, 1, 64, 64)
    views = Augmentation(padding=4 / 32)(ramp, torch.arange(count), STREAMS)
    shifts = (views[:, 0, 32, 32] * 64 - 33).round()
    assert (int(shifts.min()), int(shifts.max())) == (-8, 8)


def boxes_of(count: int, **settings) -> torch.Tensor:
    """(left, top, width, height) in pixels of crops of 32×32, read off two ramps; none at the border."""
    x = (torch.arange(32.0) + 0.5).expand(32, 32)
    ramps = torch.stack([x, x.T, torch.zeros_like(x)]).expand(count, -1, -1, -1)
    views = Augmentation(**settings)(ramps, torch.arange(count), STREAMS)
    width = 32 / 20 * (views[:, 0, 16, 26] - views[:, 0, 16, 6])
    height = 32 / 20 * (views[:, 1, 26, 16] - views[:, 1, 6, 16])
    left = views[:, 0, 16, 6] - width.abs() * (6.5 / 32) * width.sign()
    top = views[:, 1, 6, 16] - height * (6.5 / 32)
    return torch.stack([left, top, width, height], dim=1)


def test_crops_have_the_areas_shapes_and_places_of_the_inception_crop():
    left, top, width, height = boxes_of(4000, crop_scale=(0.08, 1.0)).T
    area, ratio = width * height / 1024, width / height
    assert float(area.min()) > 0.079
    assert float(area.max()) < 1.001
    assert float(ratio.min()) > 0.749
    assert float(ratio.max()) < 1.334
    assert abs(float(ratio.log().mean())) < 0.02
    assert float(left.min()) > -0.01
    assert float((left + width).max()) < 32.01
    slack = top[height < 28] / (32 - height[height < 28])
    assert abs(float(slack.mean()) - 0.5) < 0.02
    assert float(slack.max()) > 0.98
    # torchvision's procedure, one image at a time
    expected = []
    random = np.random.default_rng(0)
    for _ in range(4000):
        for _ in range(10):
            size = 1024 * random.uniform(0.08, 1)
            shape = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            if np.sqrt(size * shape) <= 32 and np.sqrt(size / shape) <= 32:
                expected.append(size / 1024)
                break
    np.testing.assert_allclose(np.quantile(area, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), atol=0.04)


def test_boxes_that_never_fit_become_the_largest_centred_one():
    left, top, width, height = boxes_of(8, crop_scale=(1.0, 1.0), crop_ratio=(2.0, 2.0)).T
    torch.testing.assert_close(width, torch.full((8,), 32.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(height, torch.full((8,), 16.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(top, torch.full((8,), 8.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(left, torch.zeros(8), atol=1e-3, rtol=0)


def test_crops_are_sampled_as_pillow_resizes():
    image = random_images(1)
    ids = torch.arange(20)
    views = Augmentation(crop_scale=(0.2, 0.9))(image.expand(20, -1, -1, -1), ids, STREAMS)
    for view, (left, top, width, height) in zip(views, boxes_of(20, crop_scale=(0.2, 0.9)).tolist(), strict=True):
        channel = Image.fromarray(image[0, 1].numpy())
        box = (max(left, 0), max(top, 0), min(left + width, 32), min(top + height, 32))
        resized = np.asarray(channel.resize((32, 32), Image.Resampling.BILINEAR, box=box))
        # Pillow sees nothing outside the box, so the outermost pixels differ
        np.testing.assert_allclose(view[1, 4:-4, 4:-4], resized[4:-4, 4:-4], atol=2e-3)


def test_nothing_from_outside_the_image_leaks_into_a_crop():
    views = Augmentation(crop_scale=(0.08, 1.0), flip=0.5, blur=1.0)(
        torch.ones(200, 3, 16, 16), torch.arange(200), STREAMS
    )
    torch.testing.assert_close(views, torch.ones_like(views), atol=1e-5, rtol=0)


def test_crops_and_flips_mirror_half_of_the_images():
    assert abs(float((boxes_of(2000, crop_scale=(0.3, 1.0), flip=0.5)[:, 2] < 0).float().mean()) - 0.5) < 0.04
    assert not bool((boxes_of(200, crop_scale=(0.3, 1.0))[:, 2] < 0).any())


def coloured(images, draws=(0.5, 0.5, 0.5, 0.5), grey=False, **strengths):
    count = len(images)
    yes, no = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    draws = torch.tensor([draws], dtype=images.dtype).expand(count, -1)
    return recoloured(images, ColourJitter(**strengths), draws, jittered=yes, greyed=yes if grey else no)


def to_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("draw", [0.0, 0.1, 0.4, 0.7, 1.0])
@pytest.mark.parametrize(
    ("kind", "column", "enhancer"),
    [
        ("brightness", 0, ImageEnhance.Brightness),
        ("contrast", 1, ImageEnhance.Contrast),
        ("saturation", 2, ImageEnhance.Color),
    ],
)
def test_one_change_at_a_time_is_pillows(kind, column, enhancer, draw):
    images = random_images(3)
    draws = [0.5] * 4
    draws[column] = draw
    ours = coloured(images, draws, **{kind: 0.8})
    factor = 0.2 + 1.6 * draw
    for image, changed in zip(images, ours, strict=True):
        # Pillow rounds to bytes, and contrast's mean to a whole grey
        torch.testing.assert_close(changed, from_pil(enhancer(to_pil(image)).enhance(factor)), atol=2.6 / 255, rtol=0)


def test_grey_is_pillows():
    images = random_images(3)
    for image, changed in zip(images, coloured(images, grey=True), strict=True):
        expected = from_pil(to_pil(image).convert("L").convert("RGB"))
        torch.testing.assert_close(changed, expected, atol=0.51 / 255 + 1e-6, rtol=0)


def test_no_strength_changes_nothing():
    images = random_images(4)
    ids = torch.arange(4)
    still = Augmentation(jitter=1.0, strengths=ColourJitter())
    torch.testing.assert_close(still(images, ids, STREAMS), images, atol=1e-6, rtol=0)
    never = Augmentation(jitter=0.0, grey=0.0, blur=0.0)
    assert torch.equal(never(images, ids, STREAMS), images)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.4, 0.6), min_size=3, max_size=3), st.floats(0, 1))
def test_hue_turns_chroma_in_the_yiq_plane_and_keeps_luma(rgb, draw):
    pixel = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    turned = coloured(pixel, (0.5, 0.5, 0.5, draw), hue=0.2).flatten().numpy()
    angle = (2 * draw - 1) * 0.2 * 2 * np.pi
    y, i, q = colorsys.rgb_to_yiq(*rgb)
    expected = colorsys.yiq_to_rgb(y, i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle))
    # colorsys rounds the FCC's coefficients to two digits, luma's among them
    np.testing.assert_allclose(turned, np.clip(expected, 0, 1), atol=0.02)
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(weights @ turned, weights @ np.array(rgb), atol=1e-9)


def test_a_full_turn_of_hue_comes_back_and_a_half_turn_gives_the_complement():
    images = 0.4 + 0.2 * random_images(2, dtype=torch.float64)
    half = coloured(images, (0.5, 0.5, 0.5, 1.0), hue=0.5)
    torch.testing.assert_close(coloured(half, (0.5, 0.5, 0.5, 1.0), hue=0.5), images, atol=1e-9, rtol=0)
    luma = (images * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(half, 2 * luma - images, atol=1e-6, rtol=0)


def test_all_colour_changes_together_are_the_literal_sequence():
    images = 0.35 + 0.3 * random_images(3, side=6, dtype=torch.float64)
    draws = (0.6, 0.3, 0.7, 0.55)
    ours = coloured(images, draws, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1).numpy()
    weights = np.array([0.299, 0.587, 0.114])
    to_yiq = np.array([weights, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    brightness, contrast, saturation = (0.6 + 0.8 * draw for draw in draws[:3])
    angle = (2 * draws[3] - 1) * 0.1 * 2 * np.pi
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    for image, changed in zip(images.numpy(), ours, strict=True):
        pixels = image.transpose(1, 2, 0) * brightness
        pixels = contrast * pixels + (1 - contrast) * (pixels @ weights).mean()
        pixels = saturation * pixels + (1 - saturation) * (pixels @ weights)[..., None]
        pixels = pixels @ (np.linalg.inv(to_yiq) @ turn @ to_yiq).T
        np.testing.assert_allclose(changed, np.clip(pixels, 0, 1).transpose(2, 0, 1), atol=1e-9)


@pytest.mark.parametrize("kernel", [0.1, 0.3, 1.0])
def test_blur_is_scipys_with_a_deviation_per_image(kernel):
    images = random_images(4, side=20, dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.7, 2.0, 1.3], dtype=torch.float64)
    chosen = torch.tensor([True, True, True, False])
    ours = blurred(images, sigma, chosen, kernel).numpy()
    radius = max(1, int(kernel * 20) // 2)
    for image, deviation, change, blur in zip(images.numpy(), sigma.tolist(), chosen.tolist(), ours, strict=True):
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
        expected = image
        for axis in (1, 2):
            expected = correlate1d(expected, taps / taps.sum(), axis=axis, mode="mirror")
        np.testing.assert_allclose(blur, expected if change else image, atol=1e-9)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_blur_takes_the_smallest_images(side):
    images = random_images(2, side=side)
    assert blurred(images, torch.ones(2), torch.ones(2, dtype=torch.bool), 1.0).shape == images.shape


def test_probabilities_are_those_asked_for():
    images = random_images(1, side=4).expand(2000, -1, -1, -1)
    ids = torch.arange(2000)
    for name in ("jitter", "grey", "flip", "blur"):
        views = Augmentation(**{name: 0.3})(images, ids, STREAMS)
        changed = ((views - images).abs().amax((1, 2, 3)) > 1e-5).float().mean()
        assert abs(float(changed) - 0.3) < 0.04, name


@pytest.mark.parametrize("name", RANDOM)
def test_gradients_are_those_of_finite_differences(name):
    images = (0.4 + 0.2 * random_images(3, side=6, dtype=torch.float64)).requires_grad_()
    gentle = {
        "simclr": Augmentation(
            crop_scale=(0.3, 1.0),
            flip=0.5,
            jitter=1.0,
            strengths=ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
            grey=0.3,
            blur=1.0,
        )
    }
    augmentation = gentle.get(name, AUGMENTATIONS[name])
    assert torch.autograd.gradcheck(lambda x: augmentation(x, torch.arange(3), STREAMS), (images,))


@pytest.mark.parametrize("name", RANDOM)
def test_every_image_gets_a_gradient_of_its_own(name):
    images = random_images(8).requires_grad_()
    views = AUGMENTATIONS[name](images, torch.arange(8), STREAMS)
    (gradient,) = torch.autograd.grad(views[3].sum(), images)
    touched = gradient.abs().amax((1, 2, 3)) > 0
    assert touched.tolist() == [False, False, False, True, False, False, False, False]


def test_views_are_view_major_shared_and_redrawn_with_the_streams():
    batch = Batch(images=random_images(4), ids=torch.arange(4))
    views = augmented(batch, "simclr", 2, STREAMS)
    assert views.shape == (8, 3, 32, 32)
    assert augmented(batch, "simclr", 2, STREAMS) is views
    assert augmented(batch, "simclr", 2, Streams(7).named("test")) is views
    assert not torch.equal(augmented(batch, "simclr", 2, STREAMS.at(1)), views)
    assert not torch.equal(views[:4], views[4:])
    alone = augmented(batch.rows(torch.tensor([2])), "simclr", 2, STREAMS)
    torch.testing.assert_close(alone, views[[2, 6]], atol=1e-6, rtol=0)
    assert torch.equal(augmented(batch, "simclr", 1, STREAMS), views[:4])


def test_without_streams_the_views_are_the_images():
    batch = Batch(images=random_images(3), ids=torch.arange(3))
    assert torch.equal(augmented(batch, "simclr", 2, None), batch.images.repeat(2, 1, 1, 1))
    assert augmented(batch, "none", 1, STREAMS) is batch.images


@pytest.mark.parametrize(
    "settings",
    [
        {"flip": 1.5},
        {"grey": -0.1},
        {"blur": float("nan")},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.9, 0.1)},
        {"crop_ratio": (2.0, 1.0)},
        {"padding": 2.0},
        {"padding": 0.1, "crop_scale": (0.1, 1.0)},
        {"blur_sigma": (0.0, 1.0)},
        {"blur_kernel": 0.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(SpecError, match="not allowed"):
        Augmentation(**settings)


def test_bad_names_strengths_and_channels_are_refused():
    with pytest.raises(SpecError, match="did you mean 'simclr'"):
        augmented(Batch(images=random_images(1), ids=torch.arange(1)), "simcrl", 2, STREAMS)
    with pytest.raises(SpecError, match="colour jitter"):
        ColourJitter(hue=0.6)
    with pytest.raises(ImagesError, match="1 channels"):
        AUGMENTATIONS["simclr"](torch.rand(2, 1, 8, 8), torch.arange(2), STREAMS)
    assert AUGMENTATIONS["crop-flip"](torch.rand(2, 1, 8, 8), torch.arange(2), STREAMS).shape == (2, 1, 8, 8)


def test_recipes_are_values():
    assert hash(Augmentation(flip=0.5)) == hash(Augmentation(flip=0.5))
    with pytest.raises(AttributeError):
        AUGMENTATIONS["simclr"].flip = 0.0  # type: ignore[misc]
