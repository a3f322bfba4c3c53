"""Small networks and tables for evaluations."""

import torch
from torch import nn

from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import Defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

HEADS = {"labels": {"kind": "linear", "outputs": 4}, "other": {"kind": "linear", "outputs": 4}}


def make_network(seed=0, *, widths=(4, 8, 8), normalisation="cifar10", classifier="labels", heads=HEADS):
    spec = TrunkSpec(name="convnet", widths=widths)
    built = Network.build(spec, heads, classifier=classifier, normalisation=normalisation, streams=Streams(seed))
    return built.eval()


def make_table(count=20, *, side=16, split="test", classes=4):
    ids = torch.arange(count) * 3 + 1
    streams = Streams(5).named("table")
    columns = {"label": streams.integers(ids, classes), "parity": streams.named("parity").integers(ids, 2)}
    names = {"label": [str(label) for label in range(classes)], "parity": ["even", "odd"]}
    pixels = streams.named("pixels").integers(ids, 256, (3, side, side)).to(torch.uint8)
    return Table(DecodedPixels(pixels), ids, columns, names, label_column="label", name="made-up", split=split)


def table_of(network, count):
    """Images with the network's own classes as labels: all correct until attacked."""
    table = make_table(count)
    with torch.no_grad():
        table.columns["label"] = network(table.batch().images).argmax(1)
    return table


class Defended(nn.Module):
    """A stand-in for a defense: a wrapper with settings that no parameter shows."""

    def __init__(self, network, steps=3, strength=0.0):
        super().__init__()
        self.network = network
        self.steps = steps
        self._strength = strength

    def forward(self, images):
        return self.network((images + self._strength * self.steps).clamp(0, 1))


class Gives(nn.Module):
    """A model that gives whatever it was told to."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, images):
        return self.give(images)


class Changed(Defense):
    """A defense that changes each image by a function before ``inside`` classifies it."""

    images_per_prediction = 1

    def __init__(self, inside, change):
        super().__init__()
        self.inside = inside
        self.change = change

    @property
    def classifier(self):
        return self.inside

    def purified_images(self, images, ids=None, streams=None, differentiable=False):
        return self.change(images)
