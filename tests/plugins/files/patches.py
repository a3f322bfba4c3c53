"""A trunk with a setting of its own: non-overlapping patches, then two layers at each of them."""

from torch import nn

from unfool.core.config import configured
from unfool.models.trunks import TRUNKS, Trunk


@TRUNKS.add("patches")
class Patches(Trunk):
    """Stages patches, mixed and last; ``side`` is a patch's side in pixels."""

    @configured
    class Settings:
        """The patches' side, and the features of each."""

        side: int = 4
        features: int = 16

    def __init__(self, spec):
        side, features = spec.settings.side, spec.settings.features
        parts = {
            "patches": nn.Sequential(nn.Conv2d(spec.channels, features, side, stride=side), nn.GELU()),
            "mixed": nn.Sequential(nn.Conv2d(features, features, 1), nn.GELU()),
            "last": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        }
        super().__init__(spec, parts, dict.fromkeys(parts, features), smallest=side)
