"""Defenses that only look robust, each around an undefended network; and the network, small and quickly trained."""

import torch
import torch.nn.functional as F
from torch import nn

from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

SIDE = 16


def small_digits(split):
    """The digits at half their size, which costs a quarter."""
    table = open_table("digits", split)
    pixels = F.avg_pool2d(table.images.float(), 32 // SIDE).round().to(torch.uint8)
    return Table(
        DecodedPixels(pixels), table.ids, table.columns, table.classes, label_column="label", name="digits", split=split
    )


def convnet(seed=0):
    """A narrow network with fresh weights."""
    spec = TrunkSpec(name="convnet", stem="strided", widths=(8, 16, 24))
    heads = {"labels": {"kind": "linear", "outputs": 10}}
    return Network.build(spec, heads, classifier="labels", streams=Streams(seed))


def perceptron():
    """A network of another kind, that normalises nothing and comes from no room of this house."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 48), nn.Tanh(), nn.Linear(48, 10))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            rows = torch.arange(len(parameter))
            parameter.copy_(Streams(index).normal(rows, tuple(parameter.shape[1:])) * 0.03)
    return model


def fit(model, table, epochs, rate, attack=None):
    """Train for seconds, on adversarial examples if there is an attack; gives the model in eval mode."""
    batch = table.batch()
    steps = -(-len(table) // 50)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    model.train()
    for epoch in range(epochs):
        draws = Streams(epoch)
        for rows in draws.permutation(torch.tensor([0]), len(table))[0].split(50):
            images, labels = batch.images[rows], batch.labels("label")[rows]
            if attack is not None:
                images = attack(model, images, labels, ids=batch.ids[rows], streams=draws).images
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class Planted(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.eval()


class Quantiser(Planted):
    """Few levels of grey: the gradient of rounding is zero."""

    def forward(self, images):
        return self.network((images * 5).round() / 5)


class Sharpened(Planted):
    """Logits times 1000: the softmax is saturated."""

    def forward(self, images):
        return self.network(images) * 1000


class DropoutLeftOn(Planted):
    def forward(self, images):
        return self.network(F.dropout(images, 0.2, training=True))


class RandomResizing(Planted):
    """Shrunk to a random size and put back at a random place."""

    def forward(self, images):
        side = int(torch.randint(SIDE - 2, SIDE + 1, ()))
        left, top = (int(torch.randint(0, SIDE - side + 1, ())) for _ in range(2))
        small = F.interpolate(images, size=side, mode="bilinear", align_corners=False)
        return self.network(F.pad(small, (left, SIDE - side - left, top, SIDE - side - top)))


class Staircase(Planted):
    """Stairs that rise with the image, each of which slopes down: the gradient points the wrong way everywhere."""

    def forward(self, images):
        along = images * 40
        return self.network(images - 2 / 40 * (along - along.detach().floor() - 0.5))


class BatchDependent(Planted):
    """Brightness is set to that of the digits, measured over the batch."""

    def forward(self, images):
        return self.network(images - images.mean() + 0.3)


class Probabilities(Planted):
    def forward(self, images):
        return self.network(images).softmax(1)


class Dynamic(Planted):
    """Moves the image to where the network is surer, by ``ask`` for the gradient, before it classifies."""

    def __init__(self, network, ask):
        super().__init__(network)
        self.ask = ask

    def forward(self, images):
        with torch.enable_grad():
            moving = images.detach().clone().requires_grad_()
            gradient = self.ask(lambda points: self.network(points).amax(1).sum(), moving)
        return self.network(images + 0.01 * gradient.sign())


def by_grad(score, moving):
    return torch.autograd.grad(score(moving), moving)[0]


def by_backward(score, moving):
    score(moving).backward()
    return moving.grad


def by_autograd_backward(score, moving):
    torch.autograd.backward(score(moving))
    return moving.grad


def by_functional(score, moving):
    return torch.func.grad(score)(moving.detach())


class TwoBasins(nn.Module):
    """Two logits that one pixel decides: above 0.57 it is another class, but below 0.55 the slope leads away."""

    def forward(self, images):
        pixel = images[:, 0, 0, 0]
        score = torch.where(pixel > 0.55, pixel - 0.57, 0.35 - pixel)
        return torch.stack([-score, score], 1) * 10
