"""ResNet-20 for CIFAR-10 (He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2).

It stands here as a user's own file: `lean.py` attacks the public checkpoint of it. That takes images normalised by
ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS = "resnet20-cifar10.th"
"""The name of the checkpoint's file."""


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters: every second pixel, and channels of zeros on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, images: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        shortcut = F.pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(changed + shortcut)


class ResNet20(nn.Module):
    """Three stages of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        return self.linear(features.mean((2, 3)))


def resnet20() -> ResNet20:
    """The network with fresh weights."""
    return ResNet20()
