"""The gallery: a clean image, its adversarial one, and their difference magnified around grey."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unfool.core.batch import check_images
from unfool.core.errors import DataError, ImagesError
from unfool.core.spec import unknown
from unfool.data.table import Table
from unfool.evaluation import AdversarialSet
from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.evaluation.results.check import PROTOCOLS
from unfool.evaluation.results.run_details import AttackPicture

_SIDE = 192
_LARGEST = 1024
_AT_ONCE = 250
"""Images that a network sees together while fooled ones are looked for."""
_HOW = "give the JSON file that unfool evaluate or a study wrote"


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One fooled (or not fooled) image: tensors (C, H, W) in [0,1] with one or three channels, shares in [0,1].

    ``label`` is the true class; a prediction is right when it equals the label. ``protocol`` (``white-box``,
    ``adaptive`` or ``transfer``) puts the tables' tag on the item.
    """

    clean: Tensor
    adversarial: Tensor
    label: str
    clean_prediction: str
    clean_probability: float
    adversarial_prediction: str
    adversarial_probability: float
    model: str
    caption: str = ""
    protocol: str = ""

    def __post_init__(self) -> None:
        for image in (self.clean, self.adversarial):
            check_images(image[None] if isinstance(image, Tensor) else image)
        if self.clean.shape != self.adversarial.shape or self.clean.shape[0] not in (1, 3):
            shapes = f"{tuple(self.clean.shape)} and {tuple(self.adversarial.shape)}"
            raise ImagesError(f"gallery images have shapes {shapes}; give two of equal shape with 1 or 3 channels")
        if self.protocol and self.protocol not in PROTOCOLS:
            raise unknown("protocol of a gallery item", self.protocol, PROTOCOLS)


def fooled_images(
    examples: AdversarialSet, clean: Table, attacked: nn.Module, seen_by: Mapping[str, nn.Module], count: int
) -> list[GalleryItem]:
    """The first images that the attacked network gets right clean and wrong attacked, as each network sees them.

    ``clean`` holds the images that the set was crafted from, in its order; ``seen_by`` are networks by name, among them
    the attacked one.
    """
    names = clean.classes[examples.column]
    origin = next((name for name, network in seen_by.items() if network is attacked), "another network")
    items: list[GalleryItem] = []
    for row in _fooled_rows(examples, clean, attacked, count):
        images, adversarial = clean.batch(torch.tensor([row])).images, examples.read(torch.tensor([row]))
        caption = f"{clean.name}, test image {int(examples.ids[row])}; {examples.attack} at {examples.threat}"
        for name, network in seen_by.items():
            before, after = (_top(probabilities(network, image)[0], names) for image in (images, adversarial))
            items.append(
                GalleryItem(
                    clean=images[0],
                    adversarial=adversarial[0],
                    label=names[int(examples.labels[row])],
                    clean_prediction=before[0],
                    clean_probability=before[1],
                    adversarial_prediction=after[0],
                    adversarial_probability=after[1],
                    model=name,
                    caption=caption if network is attacked else f"{caption}, crafted on {origin}",
                    protocol="white-box" if network is attacked else "transfer",
                )
            )
    return items


def _fooled_rows(examples: AdversarialSet, clean: Table, attacked: nn.Module, count: int) -> list[int]:
    """The first rows that a network gets right clean and wrong attacked."""
    rows: list[int] = []
    for batch_rows in torch.arange(len(examples)).split(_AT_ONCE):
        labels = examples.labels[batch_rows]
        right = probabilities(attacked, clean.batch(batch_rows).images).argmax(1) == labels
        fooled = probabilities(attacked, examples.read(batch_rows)).argmax(1) != labels
        rows += batch_rows[right & fooled].tolist()
        if len(rows) >= count:
            break
    return rows[:count]


@torch.no_grad()
def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities (N, K) of images (N, C, H, W), on the CPU."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).softmax(1).cpu() for part in images.split(250)])


def _top(probabilities: Tensor, names: Sequence[str]) -> tuple[str, float]:
    share, index = probabilities.max(0)
    return names[int(index)], min(1.0, float(share))


def image_uri(image: Tensor) -> tuple[str, int, int]:
    """A (C, H, W) image in [0,1] as a PNG ``data:`` URI, enlarged by whole nearest-neighbour steps, with its size."""
    pixels = (image.detach().float().cpu() * 255.0).round().clamp(0, 255).to(torch.uint8)
    scale = max(1, -(-_SIDE // max(pixels.shape[1:])))
    large = pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(large[:, :, 0] if large.shape[2] == 1 else large).save(file, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return uri, large.shape[1], large.shape[0]


@dataclass(frozen=True, kw_only=True)
class CardPicture:
    """A clean or adversarial picture of a card: ``image`` is (URI, width, height), ``answer`` what came of it."""

    kind: str
    image: tuple[str, int, int]
    answer: str
    probability: float | None
    right: bool


@dataclass(frozen=True, kw_only=True)
class Card:
    """An image of the gallery as the page shows it, with its difference magnified ``factor`` times."""

    label: str
    protocol: str
    caption: str
    pictures: list[CardPicture]
    difference: tuple[str, int, int]
    factor: int


def item_card(item: GalleryItem) -> Card:
    """A gallery item with its difference."""
    difference, factor = magnified_difference(item.clean, item.adversarial)
    seen = [
        ("clean", item.clean, item.clean_prediction, item.clean_probability),
        ("adversarial", item.adversarial, item.adversarial_prediction, item.adversarial_probability),
    ]
    pictures = [
        CardPicture(kind=kind, image=image_uri(image), answer=name, probability=share, right=name == item.label)
        for kind, image, name, share in seen
    ]
    return Card(
        label=item.label,
        protocol=item.protocol,
        caption=" · ".join(filter(None, (item.model, item.caption))),
        pictures=pictures,
        difference=image_uri(difference),
        factor=factor,
    )


def stored_card(picture: AttackPicture) -> Card:
    """A picture of a results file with its difference; DataError where it holds no PNG or two of different sizes."""
    clean, adversarial = decoded(picture.clean), decoded(picture.adversarial)
    if clean.shape != adversarial.shape:
        raise DataError("a picture of the results has two sizes, clean and attacked; evaluate again")
    difference, factor = magnified_difference(clean, adversarial)
    outcome = "fooled" if picture.fooled else "not fooled"
    pictures = [
        CardPicture(kind="clean", image=image_uri(clean), answer="", probability=None, right=True),
        CardPicture(
            kind="adversarial", image=image_uri(adversarial), answer=outcome, probability=None, right=not picture.fooled
        ),
    ]
    return Card(
        label=picture.label,
        protocol="",
        caption=picture.attack,
        pictures=pictures,
        difference=image_uri(difference),
        factor=factor,
    )


def decoded(png: bytes) -> Tensor:
    """The image of a PNG file, (C, H, W) in [0,1]; DataError for anything else, which no page shall carry on."""
    try:
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        if max(image.size) > _LARGEST:
            raise DataError(f"a picture of the results has {image.size[0]}×{image.size[1]} pixels; {_HOW}")
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    except (ValueError, OSError, SyntaxError) as error:
        raise DataError(f"a picture of the results is no PNG ({error}); {_HOW}") from error
    return pixels.permute(2, 0, 1).float() / 255
