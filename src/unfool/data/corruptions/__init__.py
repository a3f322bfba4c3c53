"""The fifteen common corruptions of Hendrycks & Dietterich (ICLR 2019), at five severities, on any batch of images.

``corrupted(images, ids, "fog", 3, Streams(0))`` is the way in. Images of up to 32 px get the parameters of CIFAR-10-C,
images of 224 px those of ImageNet-C, sizes between them values between (``base.py``). What the published sets do once
and store as bytes is computed here on the fly in float32, so nothing is rounded to bytes, neither on the way nor at the
end, and ImageNet-C's final JPEG (quality 85) is left out. Other departures stand with the corruption they concern.
One file a family; a file here that registers a corruption is all a new one needs.
"""

from unfool.data.corruptions.base import CORRUPTIONS, SEVERITIES, Corruption, Strength, corrupted, corruption

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "Strength", "corrupted", "corruption"]
