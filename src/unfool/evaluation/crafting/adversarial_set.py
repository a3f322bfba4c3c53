"""Stored adversarial sets: images with their labels, distances, and the identity of the system they were crafted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfool.core.batch import check_images
from unfool.core.errors import DataError, UnfoolError
from unfool.core.threat import ThreatModel
from unfool.evaluation.checksum import seal
from unfool.evaluation.crafting.stored_names import STORED_NAMES, from_stored, to_stored
from unfool.models.weights import load_tensors, save_tensors

SCHEMA_VERSION = 2
"""Since 2 a set says which part of the attack fooled each image."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialSet:
    """``images`` (N, C, H, W) float32 in [0,1], ``labels``, ``ids`` (N,) int64, ``distances`` (N,), and their origin.

    ``fooled_by_part`` (N,) says which of the attack's ``parts`` fooled each image, -1 if none did.
    ``crafted_on`` is the identity of the attacked system; judged on any other, the result is transfer.
    ``zero_gradient`` marks images that were not fooled because that system gave no gradient, ``cpu_seconds`` and
    ``model_images`` say what crafting cost;
    ``settings`` are the attack's own (steps, step size, restarts). Raises DataError for parts that do not fit together.
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)

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
        if int(self.fooled_by_part.max()) >= len(self.parts) or int(self.fooled_by_part.min()) < -1:
            raise DataError(f"an adversarial set names parts beyond its {len(self.parts)}; craft it again")

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.images.shape[1:])
        fooled = int((self.fooled_by_part >= 0).sum())
        attack = f"{self.attack} at {self.threat} on {self.data} {self.split}"
        return f"AdversarialSet({len(self)} images of {shape}, {attack}, {fooled} fooled)"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def wins(self) -> dict[str, int]:
        """How many images each part of the attack fooled."""
        return {name: int((self.fooled_by_part == number).sum()) for number, name in enumerate(self.parts)}


_TENSORS = ("images", "labels", "ids", "distances", "zero_gradient", "fooled_by_part")


def save_set(examples: AdversarialSet, path: str | Path) -> None:
    """Write a set as safetensors with its sealed manifest in the header, whole or not at all."""
    tensors = to_stored({name: getattr(examples, name) for name in _TENSORS})
    manifest = {name: value for name, value in examples.__dict__.items() if name not in _TENSORS}
    manifest["settings"] = dict(examples.settings)
    save_tensors(path, tensors, {"adversarial_set": SCHEMA_VERSION, **manifest, "seal": seal(manifest, tensors)})


def load_set(path: str | Path) -> AdversarialSet:
    """Read a set; WeightsError for a malformed file, DataError for one that is no set, was edited or is newer.

    A missing file is a DataError as well.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} is not a file; give an adversarial set that unfool attack wrote")
    tensors, manifest = load_tensors(path)
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
    if manifest.pop("seal", None) != seal(manifest, tensors):
        raise DataError(f"{path} was changed after it was written: its seal does not fit; craft it again")
    if version == 1:
        tensors["by"] = torch.full_like(tensors["ids"], -1)
    try:
        return AdversarialSet(**from_stored(tensors), **manifest)
    except (TypeError, AttributeError, UnfoolError) as error:
        raise DataError(f"{path} is no whole adversarial set ({error}); craft it again") from error
