"""Checkpoints that tests write, and the small network that they hold."""

import warnings

import torch
from torch import nn

from unfool.core.errors import UnfoolWarning
from unfool.models.checkpoints.reader import read_state

STATE = {"weight": torch.arange(6.0).view(3, 2), "bias": torch.ones(3)}


def written(path, value, **options):
    torch.save(value, path, **options)
    return path


def read(path, *pieces):
    """The state, and nothing told but these pieces in this order."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        state = read_state(path)
    assert len(told) == len(pieces), [str(one.message) for one in told]
    assert all(
        piece in str(one.message) and one.category is UnfoolWarning for piece, one in zip(pieces, told, strict=True)
    )
    return state


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def network(scale=1.0):
    """A convolution, a batch norm and a linear layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 10)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


NET, MEAN = network(3.0).state_dict(), torch.ones(3)
ZEROS = {name: tensor * 0 for name, tensor in NET.items()}


def prefixed(prefix, state=NET):
    return {prefix + name: tensor for name, tensor in state.items()}
