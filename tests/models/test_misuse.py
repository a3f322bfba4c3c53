"""A classifier used wrongly computes what the right one would in that use, and the right one stays as it was."""

import copy

import torch

from unfool.evaluation import classify, identity
from unfool.models.fast import fast_copy
from unfool.models.misuse import MISUSES, NORMALISED, TRAIN_MODE, misused
from unfool.models.network import NORMALISATIONS, Network
from unfool.models.trunks import trunk_spec


def make_network():
    heads = {"labels": {"kind": "linear", "outputs": 4}}
    network = Network.build(
        trunk_spec("preact-resnet18:width=0.0625"), heads, normalisation="none", classifier="labels"
    )
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.2)
    return network.eval()


def test_the_wrong_uses_are_what_they_say():
    network, images = make_network(), torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = identity(network)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS["cifar10"])
    with torch.no_grad():
        # Normalised images of a network without normalisation of its own, which takes any range.
        expected = {NORMALISED: network((images - mean) / std), TRAIN_MODE: copy.deepcopy(network).train()(images)}
        for how in MISUSES:
            wrong = misused(network, how).eval()
            assert torch.allclose(wrong(images), expected[how], atol=1e-5)
            assert torch.allclose(fast_copy(wrong)(images), expected[how], atol=1e-4)
            assert not torch.allclose(wrong(images), network(images), atol=1e-3)
            assert identity(wrong) != before
    assert identity(network) == before


def test_in_train_mode_the_batches_belong_to_the_classifier():
    wrong = misused(make_network(), TRAIN_MODE)
    images, labels = torch.rand(130, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(130) % 4
    small, large = (classify(wrong, (images, labels), batch_size=size) for size in (7, 1000))
    assert small.losses == large.losses
    assert wrong.own_batch_size == 128


def test_in_train_mode_a_single_image_is_no_error():
    wrong, image = misused(make_network(), TRAIN_MODE), torch.rand(1, 3, 8, 8)
    assert torch.isfinite(wrong(image)).all()  # of 1×1 pixels in its last stage, which a batch norm refuses
