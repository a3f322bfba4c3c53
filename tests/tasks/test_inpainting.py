"""Inpainting: masks against NumPy, losses from the paper, who moves the discriminator, and a life in a reversal."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.inpainting import filled

TRUNK = TrunkSpec(name="convnet", widths=(4, 6, 8))
COUNT = 5


def make_batch(side=16, count=COUNT, channels=3):
    ids = torch.arange(count) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (channels, side, side)), ids=ids)


def make_bound(trunk=TRUNK, **values):
    task, network = make_task("inpainting", values), Network.build(trunk, {}, normalisation="none")
    task.bind(network, "inpainting", {}, Streams(0))
    return task.eval(), network.eval()


def outputs_of(network, views):
    return network.features(views.images, views.stage)


def losses_of(task, network, batch, streams):
    views = task.views(batch, streams)
    return task.losses(outputs_of(network, views), views)


def corners(views, side=16):
    first = views.targets.places[:, 0, 0]
    return torch.stack([first // side, first % side], 1)


@settings(max_examples=25, deadline=None)
@given(side=st.integers(9, 20), region=st.floats(0.1, 0.9), masks=st.integers(1, 3), seed=st.integers(0, 9))
def test_each_view_hides_one_square_behind_the_mean_colour_of_what_is_visible(side, region, masks, seed):
    task, _ = make_bound(region=region, masks=masks, discriminator=0, lambda_adv=0)
    batch = make_batch(side, 2)
    views = task.views(batch, Streams(seed))
    wide = max(1, round(region * side))
    assert views.count == masks
    assert views.targets.pixels.shape == (2 * masks, 3, wide, wide)
    for view, corner in enumerate(corners(views, side).numpy()):
        top, left = corner
        assert 0 <= top <= side - wide
        assert 0 <= left <= side - wide
        image = batch.images[view % 2].double().numpy()
        hidden = np.zeros((side, side), bool)
        hidden[top : top + wide, left : left + wide] = True
        assert np.allclose(views.targets.pixels[view], image[:, hidden].reshape(3, wide, wide))
        expected = image.copy()
        for channel in range(3):
            expected[channel, hidden] = image[channel, ~hidden].mean()
        assert np.allclose(views.images[view], expected, atol=1e-5)


@pytest.mark.parametrize(("side", "corner"), [(16, 4), (17, 4), (32, 8)])
def test_the_canonical_region_is_in_the_centre_and_the_only_one(side, corner):
    task, _ = make_bound(masks=3, augmentation="simclr")
    views = task.views(make_batch(side), None)
    assert views.count == 1
    assert corners(views, side).tolist() == [[corner, corner]] * COUNT
    central, _ = make_bound(place="centre")
    assert torch.equal(central.views(make_batch(side), Streams(4)).images, views.images)


def test_every_place_is_drawn_about_equally_often_and_by_each_view_for_itself():
    task, _ = make_bound(region=0.8, masks=2, discriminator=0, lambda_adv=0)
    found = corners(task.views(make_batch(10, 3000), Streams(4)), 10)
    counts = torch.bincount(found[:, 0] * 3 + found[:, 1], minlength=9)
    assert len(counts) == 9
    # 6000 draws: 667 expected, with a deviation of 24.
    assert 540 < int(counts.min()) <= int(counts.max()) < 790
    first, second = found.chunk(2)
    assert 0.05 < float((first == second).all(1).float().mean()) < 0.18


def test_the_augmentation_comes_before_the_mask():
    task, _ = make_bound(augmentation="crop-flip", masks=2)
    views = task.views(make_batch(), Streams(4))
    images = augmented(make_batch(), "crop-flip", 2, Streams(4))
    back = filled(views.images, views.targets.pixels, views.targets.places)
    assert torch.equal(back, images)


@pytest.mark.parametrize("masks", [1, 2])
def test_the_loss_is_the_papers_with_a_saturation_free_generator(masks):
    task, network = make_bound(masks=masks, lambda_rec=0.7, lambda_adv=0.2, side=16)
    network.double()
    batch = make_batch()
    batch = batch.with_images(batch.images.double())
    views = task.views(batch, Streams(4))
    with torch.no_grad():
        picture = task.head(outputs_of(network, views))
        found = task.losses(outputs_of(network, views), views)
    expected = np.zeros(COUNT)
    for view, (top, left) in enumerate(corners(views).tolist()):
        filling = picture[view, :, top : top + 8, left : left + 8]
        there = batch.images[view % COUNT, :, top : top + 8, left : left + 8]
        verdict = torch.sigmoid(task.head.discriminator(filling[None])).item()
        l2 = np.mean((filling.numpy() - there.numpy()) ** 2)
        expected[view % COUNT] += (0.7 * l2 - 0.2 * np.log(verdict)) / masks
    assert np.allclose(found.numpy(), expected, atol=1e-12)


def test_the_discriminator_learns_regions_from_the_fillings_that_the_generator_learnt_from():
    task, network = make_bound(masks=2)
    task.train()
    task.learning = True
    views = task.views(make_batch(), Streams(4))
    outputs = outputs_of(network, views).detach()
    task.losses(outputs, views)
    with torch.no_grad():
        # In train mode the decoder normalises by its batch: the same fillings again.
        fillings = task.fillings(outputs, views)
    losses = task.turn_losses("discriminator")
    real, fake = (torch.sigmoid(task.head.discriminator(x)[:, 0]).double() for x in (views.targets.pixels, fillings))
    expected = (-real.log() - (1 - fake).log()).view(2, COUNT).mean(0)
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=0)
    with pytest.raises(SpecError, match="compute losses that are learnt from first"):
        task.turn_losses("discriminator")


def test_each_loss_moves_its_own_side_alone():
    task, network = make_bound(lambda_adv=1.0)
    network.train(), task.train()
    task.learning = True
    losses_of(task, network, make_batch(), Streams(4)).sum().backward()
    own = {id(parameter) for parameter in task.optimizers["discriminator"].parameters}
    assert own == {id(parameter) for parameter in task.head.discriminator.parameters()}
    assert all((parameter.grad is None) is (id(parameter) in own) for parameter in network.parameters())
    network.zero_grad()
    task.turn_losses("discriminator").sum().backward()
    assert all((parameter.grad is not None) is (id(parameter) in own) for parameter in network.parameters())


def test_crafting_leaves_nothing_for_the_discriminator():
    task, network = make_bound()
    losses_of(task, network, make_batch(), Streams(4))
    with pytest.raises(SpecError, match="learnt from first"):
        task.turn_losses("discriminator")


def test_without_a_weight_the_verdict_plays_no_part():
    alone, network = make_bound(discriminator=0, lambda_adv=0)
    beside, other = make_bound(lambda_adv=0)
    assert alone.optimizers == {}
    assert set(beside.optimizers) == {"discriminator"}
    found = losses_of(beside, other, make_batch(), Streams(4))
    assert torch.equal(losses_of(alone, network, make_batch(), Streams(4)), found)


def test_pictures_of_another_side_are_resized():
    task, network = make_bound(side=8)
    views = task.views(make_batch(), None)
    picture = task.head(outputs_of(network, views))
    expected = torch.nn.functional.interpolate(picture, (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(task.fillings(outputs_of(network, views), views), expected[:, :, 4:12, 4:12])


@pytest.mark.parametrize("trunk", ["context-encoder", "resnet18", "preact-resnet18", "wide-resnet", "vgg16"])
def test_it_reads_the_last_spatial_stage_of_any_trunk(trunk):
    spec = TrunkSpec(name=trunk, width=0.0625, **({"depth": 10} if trunk == "wide-resnet" else {}))
    task, network = make_bound(spec)
    views = task.views(make_batch(32, 2), None)
    assert views.stage == network.trunk.stages[-2]
    assert task.fillings(outputs_of(network, views), views).shape == (2, 3, 16, 16)


def test_images_of_one_channel_are_filled_in_one():
    task, network = make_bound(TrunkSpec(name="convnet", widths=(4, 6, 8), channels=1))
    views = task.views(make_batch(channels=1), None)
    assert task.fillings(outputs_of(network, views), views).shape == (COUNT, 1, 8, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"place": "centre", "masks": 2}, "give place=random, or masks=1"),
        ({"discriminator": 0}, "lambda_adv=0.001"),
        ({"lambda_rec": 0, "lambda_adv": 0}, "nothing to learn"),
        ({"region": 1.0}, "region=1.0"),
        ({"stage": "last"}, "unknown spatial stage of the trunk 'last'"),
        ({"stage": "blok2"}, "did you mean 'block2'"),
        ({"side": 20}, "give one of 8, 16"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(SpecError, match=message):
        make_bound(**values)


def test_images_that_cannot_be_masked_are_refused():
    task, _ = make_bound()
    with pytest.raises(ImagesError, match="16×12"):
        task.views(make_batch().with_images(make_batch().images[..., :12]), None)
    with pytest.raises(ImagesError, match="is 7, and 8 to 13 are allowed"):
        task.views(make_batch(14), None)
    every, _ = make_bound(region=0.99)
    with pytest.raises(ImagesError, match="is 16, and 8 to 15 are allowed"):
        every.views(make_batch(), None)


def make_classifier(**values):
    heads = {"labels": {"kind": "linear", "outputs": 4}}
    network = Network.build(TRUNK, heads, classifier="labels", normalisation="none")
    make_task("inpainting", values).bind(network, "inpainting", {}, Streams(0))
    return network.eval()


def test_a_reversal_goes_down_the_loss_of_one_centred_region_and_head_tells_the_rest():
    network = make_classifier(stage="block2", width=12, side=16, discriminator=8)
    defense = make_defense("reverse:task=inpainting,steps=10,eps=16/255", network, {})
    task = defense.task
    assert (task.settings.place, task.settings.masks, task.settings.lambda_adv) == ("centre", 1, 0.001)
    assert (task.settings.stage, task.reads, task.settings.discriminator) == ("block2", "block2", 8)
    assert defense.images_per_prediction == 11
    batch = make_batch()
    shown = defense.purify(batch.images, batch.ids)
    assert float((shown.images - batch.images).abs().max()) <= 16 / 255 + 1e-6
    before, after = (losses_of(task, network, batch.with_images(x), None) for x in (batch.images, shown.images))
    assert (after < before).all()
    torch.testing.assert_close(shown.losses[-1], after, atol=1e-5, rtol=0)


def test_a_reversal_takes_several_random_masks():
    network = make_classifier(discriminator=0, lambda_adv=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        defense = make_defense("reverse:task=inpainting,steps=3,masks=4,place=random", network, {})
    assert defense.task.settings.lambda_adv == 0
    assert defense.images_per_prediction == 3 * 4 + 1
    assert defense.purify(make_batch().images).model_images == 4 * 4 * COUNT
    with pytest.raises(SpecError, match="give place=random"):
        make_defense("reverse:task=inpainting,masks=4", network, {})
