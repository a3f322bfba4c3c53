"""Classifiers of other libraries that tests try: small, and strange in one way each."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from unfool import EvaluationSettings
from unfool.core.errors import UnfoolWarning
from unfool.models.look import check_classifier

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 4
BARE = EvaluationSettings(threat="linf:8/255", reliability=False)


def body(outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, outputs)).eval()


@dataclass
class Output:
    loss: object
    logits: torch.Tensor


class Gives(nn.Module):
    def __init__(self, act, outputs=4):
        super().__init__()
        self.body, self.act = body(outputs), act

    def forward(self, images):
        return self.act(self.body(images))


def looked(model, images=IMAGES, **options):
    """The model after the look, and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_classifier(model, images, **options)
    return [str(one.message) for one in told if one.category is UnfoolWarning]


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body, self.wrap = body(), wrap

    def forward(self, images):
        return self.wrap(self.body, images)


def detached(inner, images):
    return inner(images).detach()
