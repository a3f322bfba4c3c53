# pyright: reportUnnecessaryIsInstance=false
"""Stored adversarial sets: images with their labels, distances, and the identity of the system they were crafted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unfool.core.batch import check_images
from unfool.core.borders.checksum import checksum
from unfool.core.borders.reading import is_file
from unfool.core.borders.shapes import check_types, of_known_form
from unfool.core.errors import DataError, UnfoolError
from unfool.core.threat import ThreatModel
from unfool.evaluation.crafting.stored_names import STORED_NAMES, follows_gradients_by_name, from_stored, to_stored
from unfool.models.weights import load_tensors, save_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unfool.data.as_table import TableLike

SCHEMA_VERSION = 3
"""Since 2 a set says which part of the attack fooled each image, since 3 which parts follow gradients."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialSet:
    """Adversarial examples with the images' labels and ids, and the identity of the system they were crafted on.

    Args:
        images: (N, C, H, W) float32 in [0,1].
        labels: Class numbers (N,), int64.
        ids: Ids of the images in their table (N,), int64.
        distances: Distances from the clean images (N,), in the threat model's norm.
        zero_gradient: Images that were not fooled because the attacked system gave a zero gradient (N,), bool.
        fooled_by_part: Number of the attack's part that fooled each image (N,), int64; -1 if none did.
        attack: Name of the attack.
        threat: Threat model, as text.
        data: Name of the data set.
        split: Its split.
        column: Label column.
        seed: Seed of the attack's draws.
        crafted_on: Identity of the attacked system. On any other system the examples are transfer.
        cpu_seconds: CPU seconds that crafting took.
        model_images: Images that went through the system or its copy.
        settings: Settings of the attack: steps, step size, restarts.
        parts: Names of the attack's parts.
        follows_gradients: Whether each part follows gradients.

    Raises:
        DataError: Tensors and names that do not fit together.

    Example:
        >>> from unfool import craft
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> examples = craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1")
        >>> examples.successes_per_part, examples.follows_gradients
        ({'fgsm': 2}, [True])
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    distances: Tensor
    zero_gradient: Tensor
    fooled_by_part: Tensor
    attack: str
    threat: str
    data: str
    split: str
    column: str
    seed: int
    crafted_on: str
    cpu_seconds: float
    model_images: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parts: list[str] = field(default_factory=list[str])
    follows_gradients: list[bool] = field(default_factory=list[bool])

    def __post_init__(self) -> None:
        tensors = [getattr(self, name) for name in _TENSORS]
        if len({len(tensor) if tensor.ndim else -1 for tensor in tensors}) != 1:
            raise DataError("the tensors of an adversarial set have unequal lengths; craft it again")
        if any(tensor.ndim != 1 for tensor in tensors[1:]) or any(
            tensor.dtype != torch.int64 for tensor in (self.labels, self.ids, self.fooled_by_part)
        ):
            raise DataError("labels, ids and parts of an adversarial set must be int64 of shape (N,); craft it again")
        if not isinstance(self.crafted_on, str) or not self.crafted_on:
            raise DataError("an adversarial set does not say what it was crafted on; craft it again")
        ThreatModel.parse(self.threat)
        check_images(self.images)
        if self.images.dtype != torch.float32 or not self.distances.is_floating_point():
            raise DataError("images and distances of an adversarial set must be float32; craft it again")
        if int(self.fooled_by_part.max()) >= len(self.parts) or int(self.fooled_by_part.min()) < -1:
            raise DataError(f"an adversarial set names parts beyond its {len(self.parts)}; craft it again")
        if len(self.follows_gradients) != len(self.parts):
            raise DataError("an adversarial set must say of each part whether it follows gradients; craft it again")

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.images.shape[1:])
        fooled = int((self.fooled_by_part >= 0).sum())
        attack = f"{self.attack} at {self.threat} on {self.data} {self.split}"
        return f"AdversarialSet({len(self)} images of {shape}, {attack}, {fooled} fooled)"

    def __len__(self) -> int:
        return len(self.images)

    def show(self, data: TableLike, count: int = 6) -> Figure:
        """Draw some of the examples: the clean image, the adversarial one, and the difference, magnified.

        Args:
            data: The images that the set was crafted from: a table, or what `as_table` makes one of.
            count: How many images; those that were perturbed and fooled the system come first.

        Returns:
            A matplotlib figure; in a notebook it is shown.

        Raises:
            DataError: An image of the set is not among the data.
        """
        from unfool.evaluation.crafting.pictures import pictures_of  # imports this module for its types

        return pictures_of(self, data, count).draw(count)

    @property
    def successes_per_part(self) -> dict[str, int]:
        """How many images each part of the attack fooled."""
        return {name: int((self.fooled_by_part == number).sum()) for number, name in enumerate(self.parts)}


_TENSORS = ("images", "labels", "ids", "distances", "zero_gradient", "fooled_by_part")


def save_set(examples: AdversarialSet, path: str | Path) -> None:
    """Write an adversarial set as one safetensors file: tensors, provenance and a checksum; whole or not at all.

    Args:
        examples: The set.
        path: The file, which is replaced if it exists.

    Raises:
        OutputError: A place that cannot be written.

    Example:
        >>> from unfool import craft, load_set, save_set
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> examples = craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1")
        >>> save_set(examples, "fgsm.safetensors")
        >>> load_set("fgsm.safetensors").crafted_on == examples.crafted_on
        True
    """
    tensors = to_stored({name: getattr(examples, name) for name in _TENSORS})
    manifest = {name: value for name, value in examples.__dict__.items() if name not in _TENSORS}
    manifest["settings"] = dict(examples.settings)
    save_tensors(
        path, tensors, {"adversarial_set": SCHEMA_VERSION, **manifest, "checksum": checksum(manifest, tensors)}
    )


def load_set(path: str | Path) -> AdversarialSet:
    """Read an adversarial set that `save_set` or ``unfool attack`` wrote; sets of earlier versions are read too.

    Args:
        path: The file.

    Returns:
        The set, on the CPU.

    Raises:
        WeightsError: A file that is not safetensors, or was changed after it was written.
        DataError: A missing file, one that is no adversarial set, or is of a newer version.

    Example:
        >>> from unfool import craft, load_set, save_set
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> save_set(craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1"), "a.safetensors")
        >>> load_set("a.safetensors")
        AdversarialSet(2 images of 3×4×4, fgsm at linf:0.1 on tensors test, 2 fooled)
    """
    if not is_file(path):
        raise DataError(f"{path} is not a file; give an adversarial set that unfool attack wrote")
    tensors, header = load_tensors(path)
    manifest: dict[str, Any] = dict(header)
    version = manifest.pop("adversarial_set", None)
    if isinstance(version, bool) or not isinstance(version, int):
        raise DataError(f"{path} is not an adversarial set; give a file that unfool attack wrote")
    if version > SCHEMA_VERSION:
        raise DataError(f"{path} has schema version {version}; this unfool reads up to {SCHEMA_VERSION}: update unfool")
    manifest.pop("schema_version", None)
    stored = [STORED_NAMES.get(name, name) for name in _TENSORS]
    missing = [name for name in stored if name not in tensors and (name, version) != ("by", 1)]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)} of an adversarial set; craft it again")
    if manifest.pop("checksum" if version > 2 else "seal", None) != checksum(manifest, tensors):
        raise DataError(f"{path} was changed after it was written: its checksum does not fit; craft it again")
    if version == 1:
        tensors["by"] = torch.full_like(tensors["ids"], -1)
    try:
        with of_known_form(path, "craft it again"):
            if version < 3:
                manifest["follows_gradients"] = [
                    follows_gradients_by_name(part) is not False for part in manifest.get("parts", [])
                ]
            check_types(AdversarialSet, manifest, path, "craft it again")
            return AdversarialSet(**from_stored(tensors), **manifest)
    except UnfoolError as error:
        raise DataError(f"{path} is no whole adversarial set ({error}); craft it again") from error
