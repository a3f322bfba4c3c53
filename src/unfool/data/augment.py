"""Batched, differentiable augmentation with independent draws per image.

One sampling of the pixel grid does crop, resize and flip; one affine map of the colours does brightness, contrast,
saturation, hue and grey (``colour.py``); one pair of grouped convolutions blurs (``blur.py``). There is no loop over
images, and every draw is a pure function of the streams and the image's id.

Legend: B images, C channels, H×W pixels; K numbers drawn per image.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from unfool.core.batch import Batch
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.blur import blurred
from unfool.data.colour import ColourJitter, recoloured

SIMCLR_STRENGTHS = ColourJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
CROP_TRIES = 10
"""Boxes drawn per image until one fits, as in the Inception crop; then the largest box of an allowed shape."""

# columns of the one draw per image, fixed so that a changed parameter never shifts another's draws
_FLIP, _LEFT, _TOP, _JITTER, _GREY, _BLUR, _SIGMA, _COLOURS = 0, 1, 2, 3, 4, 5, 6, slice(8, 12)
_AREA, _SHAPE = slice(12, 12 + CROP_TRIES), slice(12 + CROP_TRIES, 12 + 2 * CROP_TRIES)
_DRAWS = 12 + 2 * CROP_TRIES


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A recipe of random changes; every one is off by default.

    ``crop_scale``: the range of the area share of a random box, resized to the whole image, with a log-uniform aspect
    ratio in ``crop_ratio`` (Szegedy et al. 2015). ``padding``: the greatest shift of a padded crop, as a share of the
    side. ``flip``, ``jitter``, ``grey``, ``blur``: probabilities per image. ``strengths``: how far the jitter goes.
    ``blur_kernel``: kernel size as a share of the side, made odd; ``blur_sigma``: range of the deviation in pixels.

    It departs from the per-image pipelines of SimCLR code (Chen et al. 2020) in this:

    * the colour changes have a fixed order (brightness, contrast, saturation, hue) and are clamped to [0,1] once, after
      all of them; torchvision draws an order and clamps after each. Hue turns in the YIQ plane instead of HSV;
    * a box has real-valued corners and is sampled bilinearly, and pixels just outside it count at its edge;
    * a box that never fits becomes the largest centred box of the nearest allowed shape.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: float = 0.0
    flip: float = 0.0
    jitter: float = 0.0
    strengths: ColourJitter = SIMCLR_STRENGTHS
    grey: float = 0.0
    blur: float = 0.0
    blur_kernel: float = 0.1
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self):
        for name in ("flip", "jitter", "grey", "blur"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SpecError(f"probability {name}={getattr(self, name)} is not allowed; give 0 to 1")
        if self.crop_scale is not None and not 0.0 < self.crop_scale[0] <= self.crop_scale[1] <= 1.0:
            raise SpecError(
                f"crop_scale {self.crop_scale} is not allowed; give 0 < low <= high <= 1 (shares of the area)"
            )
        if not 0.0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise SpecError(f"crop_ratio {self.crop_ratio} is not allowed; give 0 < low <= high (width / height)")
        if not 0.0 <= self.padding <= 1.0 or (self.padding and self.crop_scale):
            raise SpecError(
                f"padding {self.padding} is not allowed; give 0 to 1 (share of the side), and not with crop_scale"
            )
        if not 0.0 < self.blur_sigma[0] <= self.blur_sigma[1] < math.inf or not 0.0 < self.blur_kernel <= 1.0:
            raise SpecError(
                f"blur_kernel {self.blur_kernel}, blur_sigma {self.blur_sigma} are not allowed; give positive"
            )

    def weakened(self, strength: float) -> Augmentation:
        """The same recipe at a share ``strength`` of its strength: 1 is the recipe itself, 0 leaves flips and padding,
        and of images that are longer than the crop's ratios allow the largest box that they allow.

        DynACL (Luo et al., "Rethinking the Effect of Data Augmentation in Adversarial Contrastive Learning", ICLR
        2023), as its code has it: the least area of a crop goes to 1 - s·(1 - low), the jitter's probability and
        factors and the probability of grey are multiplied by s, flips stay. Its recipe has no blur and no padding;
        here blur's probability goes as grey's and padding stays as flips do. Raises SpecError outside 0 to 1.
        """
        if not 0.0 <= strength <= 1.0:
            raise SpecError(f"strength {strength} of an augmentation is not allowed; give 0 to 1")
        if strength == 1.0:
            return self
        low, high = (1.0 - strength * (1.0 - area) for area in self.crop_scale or (1.0, 1.0))
        return replace(
            self,
            crop_scale=None if self.crop_scale is None else (low, high),
            jitter=strength * self.jitter,
            strengths=ColourJitter(**{name: strength * value for name, value in asdict(self.strengths).items()}),
            grey=strength * self.grey,
            blur=strength * self.blur,
        )

    def __call__(self, images: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Change images (B, C, H, W) in [0,1], differentiably; the result has their shape and lies in [0,1].

        Image k's changes depend on ``ids[k]`` and ``streams`` alone. Raises ImagesError where colours are changed and C
        is not 3.
        """
        draws = streams.named("augment").uniform(ids, (_DRAWS,)).to(images.dtype)
        images = self._resampled(images, draws)
        if self.jitter or self.grey:
            images = recoloured(
                images,
                self.strengths,
                draws[:, _COLOURS],
                jittered=draws[:, _JITTER] < self.jitter,
                greyed=draws[:, _GREY] < self.grey,
            )
        if self.blur:
            low, high = self.blur_sigma
            sigma = low + (high - low) * draws[:, _SIGMA]
            images = blurred(images, sigma, draws[:, _BLUR] < self.blur, self.blur_kernel)
        return images

    def _resampled(self, images: Tensor, draws: Tensor) -> Tensor:
        if self.crop_scale is None and not self.padding and not self.flip:
            return images
        height, width = images.shape[2:]
        mirror = torch.where(draws[:, _FLIP] < self.flip, -1.0, 1.0).to(images.dtype)
        if self.crop_scale is not None:
            box_height, box_width, top, left = self._boxes(height, width, draws)
        else:
            box_height = torch.full_like(mirror, height)
            box_width = torch.full_like(mirror, width)
            top = _shift(draws[:, _TOP], round(self.padding * height))
            left = _shift(draws[:, _LEFT], round(self.padding * width))
        # where each output pixel's centre lies in the input, in [-1, 1]; a box needs one row and one column
        grid = images.new_empty(len(images), height, width, 2)
        grid[..., 0] = _centres(width, left, box_width, mirror)[:, None, :]
        grid[..., 1] = _centres(height, top, box_height, torch.ones_like(mirror))[:, :, None]
        # whole-pixel shifts and flips hit pixel centres, so "nearest" copies pixels bit by bit
        mode, outside = ("nearest", "zeros") if self.crop_scale is None else ("bilinear", "border")
        return functional.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=False)

    def _boxes(self, height: int, width: int, draws: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(height, width, top, left) of each image's box, in pixels, (B,) each."""
        low, high = self.crop_scale or (1.0, 1.0)
        area = height * width * (low + (high - low) * draws[:, _AREA])
        log_low, log_high = math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1])
        ratio = torch.exp(log_low + (log_high - log_low) * draws[:, _SHAPE])
        widths, heights = torch.sqrt(area * ratio), torch.sqrt(area / ratio)
        fits = (widths <= width) & (heights <= height)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        any_fits = fits.any(dim=1)
        whole = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
        box_width = torch.where(any_fits, widths.gather(1, first)[:, 0], min(width, height * whole))
        box_height = torch.where(any_fits, heights.gather(1, first)[:, 0], min(height, width / whole))
        top = torch.where(any_fits, draws[:, _TOP], 0.5) * (height - box_height)
        left = torch.where(any_fits, draws[:, _LEFT], 0.5) * (width - box_width)
        return box_height, box_width, top, left


def _centres(side: int, start: Tensor, length: Tensor, direction: Tensor) -> Tensor:
    """Pixel centres of ``side`` pixels over [start, start + length] of a side, in [-1, 1] of it, (B, side)."""
    centres = (2 * torch.arange(side, device=start.device, dtype=start.dtype) + 1) / side - 1
    return (direction * length / side)[:, None] * centres + ((2 * start + length) / side - 1)[:, None]


def _shift(unit: Tensor, most: int) -> Tensor:
    """A whole number of pixels in -most … most from a uniform in [0,1)."""
    return torch.floor(unit * (2 * most + 1)) - most


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "crop-flip": Augmentation(padding=4 / 32, flip=0.5),
    "resized-crop": Augmentation(crop_scale=(0.5, 1.0), flip=0.5),
    "simclr": Augmentation(crop_scale=(0.08, 1.0), flip=0.5, jitter=0.8, grey=0.2, blur=1.0),
    "mao2021": Augmentation(crop_scale=(0.08, 1.0), flip=0.5, jitter=1.0, grey=0.2),
}
"""Augmentations by name. ``simclr`` has the values of the SimCLR code that system A builds on; it blurs every view.
``mao2021`` is the reverse attack's (Mao et al., ICCV 2021): it jitters every view and blurs none. ``resized-crop``
moves the 8×8 blocks of JPEG images about, which would tell a jigsaw where on their grid a tile was cut."""


def augmented(batch: Batch, name: str, count: int, streams: Streams | None, strength: float = 1.0) -> Tensor:
    """``count`` views of a batch, (count·B, C, H, W), view-major, made once per batch and shared by all who ask alike.

    Equal names, counts, streams and strengths (`Augmentation.weakened`) get the same tensor, so that tasks share a
    trunk pass; others get new views. Without streams the views are the images as they are. Raises SpecError for an
    unknown name.
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    augmentation = AUGMENTATIONS[name].weakened(strength)

    def make() -> Tensor:
        if streams is None or augmentation == Augmentation():
            return batch.images if count == 1 else batch.images.repeat(count, 1, 1, 1)
        views = [augmentation(batch.images, batch.ids, streams.named("view").at(view)) for view in range(count)]
        return views[0] if count == 1 else torch.cat(views)

    return batch.once(("augmented", name, count, None if streams is None else streams.key, strength), make)
