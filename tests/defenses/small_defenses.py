"""A network with a class head and a contrast head whose outputs differ from image to image, and images for it."""

import torch

from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

CLASSES = {"label": 4}
SIDE = 12
SMALL = {"bank": 24, "drawn": 16, "temperature": 0.5}
"""A bank that fits the small table, and a temperature at which random heads have a gradient."""


def standardise(layer, outputs):
    layer.weight.div_(outputs.std(0)[:, None])
    layer.bias.sub_(outputs.mean(0)).div_(outputs.std(0))


def make_network(dtype=torch.float32):
    """Fresh weights; every layer of the heads is shifted and scaled so that its outputs are centred and differ."""
    heads = {"labels": {"kind": "linear", "outputs": 4}, "contrast": {"kind": "mlp", "hidden": 8, "outputs": 5}}
    network = Network.build(
        TrunkSpec(name="convnet", widths=(4, 6, 8)), heads, classifier="labels", normalisation="none"
    ).eval()
    ids = torch.arange(64)
    images = AUGMENTATIONS["simclr"](make_table(64).batch().images, ids, Streams(1))
    with torch.no_grad():
        features = network.features(images)
        standardise(network.heads["labels"][0], network.heads["labels"](features))
        first, _, last = network.heads["contrast"]
        standardise(first, first(features))
        standardise(last, last(first(features).relu()))
    return network.to(dtype)


def make_table(count=64):
    """Images of a colour and a stripe each, with some noise; no labels."""
    ids = torch.arange(count)
    streams = Streams(3)
    base = streams.named("colour").uniform(ids, (3, 1, 1), 0.1, 0.9)
    stripe = (torch.arange(SIDE) % 4 < 2).float() * streams.named("stripe").uniform(ids, (1, 1, 1), -0.4, 0.4)
    noise = streams.named("noise").uniform(ids, (3, SIDE, SIDE), -0.2, 0.2)
    pixels = ((base + stripe + noise).clamp(0, 1) * 255).round().to(torch.uint8)
    return Table(DecodedPixels(pixels), ids, {}, {}, label_column=None, name="stripes", split="train")


def make_images(count=6, dtype=torch.float32):
    """Images beyond those that a small bank is made of."""
    return make_table(64 + count).batch(torch.arange(64, 64 + count)).images.to(dtype)


def make_reverse(text="", network=None, **settings):
    """``reverse:text`` on the small network, calibrated, without a warning."""
    network = make_network() if network is None else network
    return make_defense(f"reverse:{text}", network, CLASSES, data=make_table(), settings={**SMALL, **settings})
