"""Inpainting in PyTorch-GAN's form: white masks, pictures of the region, least squares, against NumPy."""

import numpy as np
import pytest
import torch

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.evaluation.pretext.inpainting import inpainted
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task

FORM = {"form": "region", "width": 12, "discriminator": 4}
COUNT = 3


def make_batch(side=32):
    ids = torch.arange(COUNT) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (3, side, side)), ids=ids)


def make_bound(**values):
    heads = {"labels": {"kind": "linear", "outputs": 4}}
    trunk = TrunkSpec(name="gan-encoder", width=0.125)
    network = Network.build(trunk, heads, classifier="labels", normalisation="symmetric")
    task = make_task("inpainting", {**FORM, **values})
    task.bind(network, "inpainting", {}, Streams(0))
    return task.eval(), network.eval()


def test_masked_pixels_are_white_and_the_picture_is_the_region_s():
    task, network = make_bound()
    views = task.views(make_batch(), Streams(4))
    white = (views.images == 1).all(1)
    assert white.flatten(1).sum(1).tolist() == [16 * 16] * COUNT
    assert torch.equal(white.flatten(1).nonzero()[:, 1], views.targets.places.flatten())
    outputs = network.features(views.images, views.stage)
    assert torch.equal(task.fillings(outputs, views), task.head(outputs))
    assert task.fillings(outputs, views).shape == views.targets.pixels.shape == (COUNT, 3, 16, 16)


@pytest.mark.parametrize("masks", [1, 2])
def test_losses_are_l2_of_the_tanh_and_the_patches_least_squares(masks):
    task, network = make_bound(masks=masks, lambda_rec=0.7, lambda_adv=0.2)
    task.learning = True
    views = task.views(make_batch(), Streams(4))
    with torch.no_grad():
        outputs = network.features(views.images, views.stage)
        shown, losses = task.head(outputs), task.losses(outputs, views)
        fake, real = (task.head.discriminator(x).double().numpy() for x in (shown, views.targets.pixels))
        own = task.turn_losses("discriminator")
    tanh, there = (2 * x.double().numpy() - 1 for x in (shown, views.targets.pixels))
    expected, judged = np.zeros(COUNT), np.zeros(COUNT)
    for view in range(masks * COUNT):
        adversarial = np.mean((fake[view] - 1) ** 2)
        expected[view % COUNT] += (0.7 * np.mean((tanh[view] - there[view]) ** 2) + 0.2 * adversarial) / masks
        judged[view % COUNT] += 0.5 * (np.mean((real[view] - 1) ** 2) + np.mean(fake[view] ** 2)) / masks
    assert fake.shape == (masks * COUNT, 1, 2, 2)
    assert np.allclose(losses.numpy(), expected, atol=1e-5)
    assert np.allclose(own.numpy(), judged, atol=1e-5)


def test_a_head_tells_its_form_and_a_reversal_goes_down_its_loss():
    _, network = make_bound()
    defense = make_defense("reverse:task=inpainting,steps=5", network, {})
    assert (defense.task.settings.form, defense.task.settings.width, defense.task.settings.place) == (
        "region",
        12,
        "centre",
    )
    losses = defense.purify(make_batch().images).losses
    assert (losses[-1] < losses[0]).all()


def test_fillings_are_compared_with_the_mean_visible_colour_and_not_with_white():
    task, network = make_bound(discriminator=0, lambda_adv=0)
    images = make_batch().images
    colours = inpainted(network, task, images).colours
    visible = (images.sum((2, 3)) - images[:, :, 8:24, 8:24].sum((2, 3))) / (32 * 32 - 16 * 16)
    torch.testing.assert_close(colours, visible[:, :, None, None].expand_as(colours))


def test_regions_too_small_for_the_discriminator_are_refused():
    task, _ = make_bound(region=0.25)
    with pytest.raises(ImagesError, match="is 8, and 9 to 31 are allowed"):
        task.views(make_batch(), None)
