# pyright: reportUnnecessaryIsInstance=false, reportUnknownMemberType=false
"""Stored adversarial sets: one file, or a folder of shards where the images are large; sealed by a tree of checksums.

A folder holds ``set.safetensors``, a set without images that names each shard's checksum, and the shards
``shard-00000.safetensors`` and so on. A checksum in ``set.safetensors`` covers those of the shards, each of which
covers its file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from unfool.core.borders.checksum import checksum
from unfool.core.borders.reading import is_file, is_folder
from unfool.core.borders.shapes import check_types, of_known_form
from unfool.core.errors import DataError, OutputError, UnfoolError
from unfool.core.files import atomic_folder
from unfool.evaluation.crafting.adversarial_set import TENSORS, AdversarialSet
from unfool.evaluation.crafting.sharded_images import IMAGES, Shard, ShardedImages
from unfool.evaluation.crafting.stored_names import STORED_NAMES, follows_gradients_by_name, from_stored, to_stored
from unfool.models.weights import load_tensors, save_tensors

SCHEMA_VERSION = 4
"""Since 2 a set says which part of the attack fooled each image, since 3 which parts follow gradients; since 4 it may
lie in shards."""
ONE_FILE = 1 << 28
"""Above this many bytes of images, 256 MiB, they lie in shards, on disk and while they are in use."""
SHARD_BYTES = 1 << 27
"""The most bytes of images in a shard that is cut from images in memory; the batches of an attack are shards as they
are."""
_INDEX = "set.safetensors"
_SHARD = re.compile(r"shard-\d{5,}\.safetensors")
_CHECKSUMS, _COUNTS = "shard_checksums", "shard_counts"
_AGAIN = "craft it again"


def save_set(examples: AdversarialSet, path: str | Path) -> None:
    """Write an adversarial set with its provenance and checksums, whole or not at all.

    Images of up to 256 MiB make one safetensors file; more make a folder of that name, with shards. Shards that lie on
    the same disk already, such as the batches in the folder of `craft`, are linked and not copied.

    Args:
        examples: The set.
        path: The file or folder; a set that is there is replaced.

    Raises:
        OutputError: A place that cannot be written, or a folder that holds anything but a set.

    Example:
        >>> from unfool import craft, load_set, save_set
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> examples = craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1")
        >>> save_set(examples, "fgsm.safetensors")
        >>> load_set("fgsm.safetensors").crafted_on == examples.crafted_on
        True
    """
    path = Path(path)
    if is_folder(path) and not is_set_folder(path):
        raise OutputError(f"cannot write {path}: the folder holds more than an adversarial set; choose another")
    if image_bytes(examples.images.shape) > ONE_FILE:
        with atomic_folder(path) as folder:
            shards = [_placed(shard, folder, number) for number, shard in enumerate(_shards_of(examples, folder))]
            _write(examples, folder / _INDEX, shards)
        return
    if not is_folder(path):
        _write(examples, path)
        return
    with atomic_folder(path) as place:
        place.rmdir()  # One file takes the place of the folder, which may hold the very images.
        _write(examples, place)


def image_bytes(shape: Iterable[int]) -> int:
    """How many bytes float32 images of a shape (N, C, H, W) take."""
    return 4 * torch.Size(shape).numel()


def is_set_folder(path: str | Path) -> bool:
    """Whether a folder holds an adversarial set and nothing else, so that another may take its place."""
    return is_file(Path(path) / _INDEX) and all(
        entry.name == _INDEX or _SHARD.fullmatch(entry.name) for entry in Path(path).iterdir()
    )


def _shards_of(examples: AdversarialSet, folder: Path) -> Iterable[Shard]:
    """The shards that hold the images already, or else new ones in the folder, one by one."""
    images = examples.images
    if isinstance(images, ShardedImages):
        images.check()
        yield from images.shards
        return
    rows = max(1, SHARD_BYTES // max(1, image_bytes(images.shape[1:])))
    for number, part in enumerate(cast("tuple[Tensor, ...]", images.split(rows))):
        save_tensors(folder / _name(number), {IMAGES: part})
        yield Shard.of(folder / _name(number))


def _placed(shard: Shard, folder: Path, number: int) -> Shard:
    """The shard under its name in the folder, linked where the file system can, else copied."""
    path = folder / _name(number)
    if shard.path != path:
        try:
            os.link(os.path.realpath(shard.path), path)
        except OSError:
            shutil.copyfile(shard.path, path)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    return Shard(path=path, count=shard.count, checksum=shard.checksum)


def _name(number: int) -> str:
    return f"shard-{number:05}.safetensors"


def _write(examples: AdversarialSet, path: Path, shards: list[Shard] | None = None) -> None:
    """Write the one file of a set, or, without its images, the index of its shards."""
    own = {name: getattr(examples, name) for name in TENSORS if name != IMAGES}
    tensors = to_stored({IMAGES: examples.images[:], **own} if shards is None else own)
    if shards is not None:
        seals = b"".join(bytes.fromhex(shard.checksum) for shard in shards)
        tensors[_CHECKSUMS] = torch.frombuffer(bytearray(seals), dtype=torch.uint8).view(len(shards), -1)
        tensors[_COUNTS] = torch.tensor([shard.count for shard in shards])
    manifest: dict[str, Any] = {name: value for name, value in vars(examples).items() if name not in TENSORS}
    manifest["settings"] = dict(examples.settings)
    if shards is not None:
        manifest["image_shape"] = list(examples.images.shape[1:])
    save_tensors(
        path, tensors, {"adversarial_set": SCHEMA_VERSION, **manifest, "checksum": checksum(manifest, tensors)}
    )


def load_set(path: str | Path) -> AdversarialSet:
    """Read an adversarial set that `save_set` or ``unfool attack`` wrote; sets of earlier versions are read too.

    The shards of a large set are all checked, one after the other; its images stay in their files, and are read from
    there as they are asked for.

    Args:
        path: The file or folder.

    Returns:
        The set, on the CPU.

    Raises:
        WeightsError: A file that is not safetensors, or was changed after it was written.
        DataError: A missing file, one that is no adversarial set, or is of a newer version; a shard that is missing,
            of another set, in another's place, or too many.

    Example:
        >>> from unfool import craft, load_set, save_set
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> save_set(craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1"), "a.safetensors")
        >>> load_set("a.safetensors")
        AdversarialSet(2 images of 3×4×4, fgsm at linf:0.1 on tensors test, 2 fooled)
    """
    examples = open_set(path)
    if isinstance(examples.images, ShardedImages):
        examples.images.check()
    return examples


def open_set(path: str | Path) -> AdversarialSet:
    """As `load_set`, with each shard checked only when it is first read: for whoever reads some of them alone."""
    place = Path(path) / _INDEX if is_file(Path(path) / _INDEX) else Path(path)
    if not is_file(place):
        raise DataError(f"{path} is not a file or folder with an adversarial set; give one that unfool attack wrote")
    tensors, header = load_tensors(place)
    manifest: dict[str, Any] = dict(header)
    version = manifest.pop("adversarial_set", None)
    if isinstance(version, bool) or not isinstance(version, int):
        raise DataError(f"{path} is not an adversarial set; give a file that unfool attack wrote")
    if version > SCHEMA_VERSION:
        raise DataError(f"{path} has schema version {version}; this unfool reads up to {SCHEMA_VERSION}: update unfool")
    manifest.pop("schema_version", None)
    sharded = _COUNTS in tensors
    needed = [STORED_NAMES.get(name, name) for name in TENSORS if not (sharded and name == IMAGES)]
    needed += [_CHECKSUMS] * sharded
    missing = [name for name in needed if name not in tensors and (name, version) != ("by", 1)]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)} of an adversarial set; {_AGAIN}")
    if manifest.pop("checksum" if version > 2 else "seal", None) != checksum(manifest, tensors):
        raise DataError(f"{path} was changed after it was written: its checksum does not fit; {_AGAIN}")
    if version == 1:
        tensors["by"] = torch.full_like(tensors["ids"], -1)
    try:
        with of_known_form(path, _AGAIN):
            images = _sharded(place.parent, tensors, manifest) if sharded else tensors.pop(IMAGES)
            if version < 3:
                manifest["follows_gradients"] = [
                    follows_gradients_by_name(part) is not False for part in manifest.get("parts", [])
                ]
            check_types(AdversarialSet, manifest, path, _AGAIN)
            return AdversarialSet(images=images, **from_stored(tensors), **manifest)
    except UnfoolError as error:
        raise DataError(f"{path} is no whole adversarial set: {error}") from error


def _sharded(folder: Path, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> ShardedImages:
    """The images in the shards of a folder, as its index names them; what only an index holds is taken out of it."""
    checksums = cast("list[list[int]]", tensors.pop(_CHECKSUMS).tolist())
    counts = cast("list[int]", tensors.pop(_COUNTS).tolist())
    held: Any = manifest.pop("image_shape", None)
    shape: list[Any] = cast("list[Any]", held) if isinstance(held, list) else []
    sized = len(shape) == 3 and all(isinstance(size, int) and size > 0 for size in shape)
    if not (sized and len(checksums) == len(counts) and all(isinstance(count, int) for count in counts)):
        raise DataError(f"{folder / _INDEX} does not say how its shards make up a set; {_AGAIN}")
    shards = [
        Shard(path=folder / _name(number), count=count, checksum=bytes(seal).hex())
        for number, (seal, count) in enumerate(zip(checksums, counts, strict=True))
    ]
    named = {shard.path.name for shard in shards}
    for entry in sorted(folder.iterdir()):
        if _SHARD.fullmatch(entry.name) and entry.name not in named:
            raise DataError(f"{folder} holds {entry.name}, which its set does not name; remove it, or {_AGAIN}")
    missing = next((shard.path.name for shard in shards if not is_file(shard.path)), None)
    if missing is not None:
        raise DataError(f"{folder} lacks {missing}, which its set names; copy the whole folder, or {_AGAIN}")
    return ShardedImages(shards, tuple(shape))
