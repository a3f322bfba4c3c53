"""Photographs and small oracles for the tests of corruptions."""

import math

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from unfool.core.streams import Streams
from unfool.data.corruptions import corrupted

STREAMS = Streams(3)


def photographs(height=32, width=32):
    """Cuttings of two photographs, shrunk fourfold: (B, 3, height, width) in whole bytes."""
    found = []
    for picture in load_sample_images().images:
        image = Image.fromarray(picture)
        image = image.resize((image.width // 4, image.height // 4), Image.Resampling.BOX)
        pixels = np.asarray(image)
        found += [
            pixels[top : top + height, left : left + width]
            for top in range(0, pixels.shape[0] - height + 1, height)
            for left in range(0, pixels.shape[1] - width + 1, width)
        ]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


PHOTOGRAPHS = photographs()
IDS = torch.arange(len(PHOTOGRAPHS))


def corrupt(name, severity, images=PHOTOGRAPHS):
    return corrupted(images, torch.arange(len(images)), name, severity, STREAMS)


def draws(name):
    return STREAMS.named("corruption").named(name)


def pillow(image):
    """A tensor (C, H, W) in [0,1] as a picture."""
    pixels = np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels)


def tensor(picture):
    pixels = np.asarray(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1).float() / 255


def literal_motion(plane, angle, radius, sigma):
    """ImageMagick's motion blur, pixel by pixel."""
    height, width = plane.shape
    weights = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in range(2 * math.ceil(radius) + 1)]
    found = np.zeros_like(plane)
    for row in range(height):
        for column in range(width):
            for tap, weight in enumerate(weights):
                lower = row + math.ceil(tap * math.sin(math.radians(angle)) - 0.5)
                further = column + math.ceil(tap * math.cos(math.radians(angle)) - 0.5)
                found[row, column] += weight * plane[min(max(lower, 0), height - 1), min(max(further, 0), width - 1)]
    return found / sum(weights)
