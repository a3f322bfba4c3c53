"""Networks and images small enough for a hundred attacks a second."""

import torch
from torch import nn

from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

CLASSES = 4


def make_network(seed=0, widths=(4, 6, 8), dtype=torch.float32):
    """Fresh weights, the head's shifted and scaled so that the four logits of random images are centred and differ."""
    network = Network.build(
        TrunkSpec(name="convnet", widths=widths),
        {"labels": {"kind": "linear", "outputs": CLASSES}},
        classifier="labels",
        normalisation="none",
        streams=Streams(seed),
    )
    with torch.no_grad():
        images = Streams(seed).uniform(torch.arange(64), (3, 12, 12))
        logits = network.eval()(images)
        layer = network.heads["labels"][0]
        layer.bias.sub_(logits.mean(0)).div_(logits.std(0))
        layer.weight.div_(logits.std(0)[:, None])
    return network.to(dtype)


def make_batch(network, count=24, seed=0, dtype=torch.float32):
    """Random images, ids that are not their positions, and the network's own classes as labels."""
    ids = torch.arange(count) * 3 + 7
    images = Streams(seed).named("images").uniform(ids, (3, 12, 12)).to(dtype)
    with torch.no_grad():
        labels = network(images).argmax(1)
    return images, labels, ids


def problem(objective, images, ids, streams=None, **rest):
    """A problem with the draws of seed 0."""
    return Problem(objective=objective, images=images, ids=ids, streams=streams or Streams(0), **rest)


def on_a_proxy(model, proxy, images, labels, loss, **rest):
    """A problem of all images whose search runs on a proxy of the model; ids are positions."""
    objective, other = (LabelLoss(each, labels, loss) for each in (model, proxy))
    return problem(objective, images, torch.arange(len(images)), proxy_objective=other, **rest)


class Linear(nn.Module):
    """Two logits, ±w·x: the gradient of the cross-entropy by the image is a positive multiple of -w for label 1."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(Streams(5).normal(torch.tensor([0]), (size,))[0] / size)

    def forward(self, images):
        score = (images.flatten(1) - 0.5) @ self.weight
        return torch.stack([-score, score], 1)


class Wavy(nn.Module):
    """Logits that rise and fall many times inside a small ball, so that a long step may lead down again."""

    def __init__(self, size, dtype=torch.float64):
        super().__init__()
        self.weight = nn.Parameter(Streams(6).normal(torch.arange(size), (CLASSES,)).to(dtype))

    def forward(self, images):
        return torch.sin(images.flatten(1) @ self.weight) * 2
