# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Images and labels out of tensors, arrays, data sets and loaders, without loss and with one-line refusals.

Legend: N images of C channels and H×W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from unfool.core.batch import tensor_of_array
from unfool.core.errors import DataError, ImagesError, UnfoolWarning
from unfool.core.user_code import run_user_code
from unfool.data.decode import Framing
from unfool.data.pixels import image_tensor
from unfool.data.readers.labels import class_numbers
from unfool.data.sources import IMAGE_NAMES, LABEL_NAMES, Columns

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
FORMS = "a Table, a pair (images, labels), a torch or Hugging Face data set of images and labels, or a DataLoader"


@dataclass(frozen=True)
class Contents:
    """Images (N, C, H, W), uint8 or float32 in [0,1], and label columns (N,) int64 with their class names."""

    images: Tensor
    columns: dict[str, Tensor]
    classes: dict[str, list[str]]


def contents_of_tensors(
    images: Any, labels: Any, classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None
) -> Contents:
    """Check a user's tensors or arrays; ``labels`` is (N,), a mapping of columns to (N,), or None."""
    if isinstance(images, (list, tuple)) and len(images) and isinstance(images[0], (Tensor, np.ndarray, Image.Image)):
        images = _stacked([_pixels(image, row) for row, image in enumerate(images)])
    pixels = image_tensor(images)
    if labels is None:
        named: Mapping[str, Any] = {}
    else:
        named = labels if isinstance(labels, Mapping) else {"label": labels}
    if classes is None:
        known: Mapping[str, Sequence[str]] = {}
    else:
        known = classes if isinstance(classes, Mapping) else {"label": classes}
    if extra := [name for name in known if name not in named]:
        raise DataError(f"class names are given for {extra[0]!r}, which is no label column; give its labels too")
    labelled = {str(name): _labels(values, len(pixels), str(name), known.get(name)) for name, values in named.items()}
    columns = {name: numbers for name, (numbers, _) in labelled.items()}
    return Contents(pixels, columns, {name: classes for name, (_, classes) in labelled.items()})


def contents_of_dataset(dataset: Any, chosen: Columns = Columns()) -> Contents:  # noqa: B008 - frozen
    """Read a torch or Hugging Face data set of images and labels, or a DataLoader; raises DataError, ImagesError.

    ``chosen`` columns are those of a Hugging Face data set; the others have none to choose from.
    """
    if type(dataset).__module__.split(".")[0] == "datasets":
        return _of_hugging_face(dataset, chosen)
    if chosen != Columns():
        raise DataError(f"a {type(dataset).__name__} has no named columns; drop image and labels")
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return contents_of_tensors(*dataset.tensors)
    classes = getattr(dataset, "classes", None)
    if isinstance(dataset, DataLoader):
        samplers = (dataset.sampler, getattr(dataset.batch_sampler, "sampler", None))
        if any(isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False) for sampler in samplers):
            raise DataError("the DataLoader shuffles, so its images have no fixed order; give its dataset instead")
        classes = getattr(dataset.dataset, "classes", None)
        images, labels = _joined_items(dataset) if dataset.batch_size is None else _joined_batches(dataset)
        _tell_dropped(dataset, len(images))
    else:
        images, labels = _joined_items(dataset)
    names = None if classes is None else [str(name) for name in classes]
    return contents_of_tensors(images, labels, names)


def _labels(labels: Any, count: int, column: str, names: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """Labels as (N,) int64 from 0, and one name a class; DataError for labels of another form."""
    numbers, known = class_numbers(labels, column, names)
    if numbers.shape != (count,):
        hint = "; use labels.argmax(1) for one-hot labels" if numbers.ndim == 2 and len(numbers) == count else ""
        raise DataError(
            f"labels of column {column!r} have shape {tuple(numbers.shape)} for {count} images; give one class number "
            f"per image{hint}"
        )
    if count and int(numbers.min()) < 0:
        row = int(numbers.argmin())
        raw = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels, dtype=object).ravel()[row]
        if raw is None or raw == "" or raw != raw:
            raise DataError(f"column {column!r} has no label in row {row}; drop that row, or give it one")
        raise DataError(f"column {column!r} has label {int(numbers.min())}; number the classes from 0")
    if len(known) <= numbers.max(initial=-1):
        raise DataError(
            f"column {column!r} has label {int(numbers.max())} but {len(known)} class names; give one a class"
        )
    return torch.from_numpy(numbers), known


def _of_hugging_face(dataset: Any, chosen: Columns) -> Contents:
    from unfool.data.readers.decode_rows import resident_pixels  # here, since they import `datasets` and pyarrow
    from unfool.data.readers.hub import rows_of

    if isinstance(dataset, Mapping):
        raise DataError(f"a DatasetDict has several splits ({', '.join(map(str, dataset))}); give one of them")
    if not hasattr(dataset, "select_columns") or not hasattr(dataset, "__len__"):
        raise DataError(f"a {type(dataset).__name__} of `datasets` cannot be read row by row; give a datasets.Dataset")
    rows = rows_of(dataset, "the data set", chosen)
    if dataset.format.get("type") == "custom":
        warnings.warn("the transform of the data set is not applied; its images are read as stored", UnfoolWarning, 4)
    pixels, kept = resident_pixels(rows, Framing())
    columns = {name: torch.from_numpy(values[kept]) for name, values in rows.columns.items()}
    return Contents(pixels, columns, rows.classes)


def _joined_batches(loader: DataLoader[Any]) -> tuple[Tensor, Any]:
    images: list[Tensor] = []
    labels: list[Any] = []
    batches = iter(loader)
    while (batch := run_user_code("the DataLoader", lambda: next(batches, None))) is not None:
        pair = _pair(batch)
        if pair is None:
            raise DataError(f"the DataLoader yields a {type(batch).__name__}; make it yield (images, labels)")
        images.append(_batch_images(pair[0], len(labels)))
        _check_alike(images[-1][0], images[0][0], len(labels))
        labels.extend(_batch_labels(pair[1]))
    if not images:
        raise DataError("the DataLoader yields no batch; give one with images")
    return torch.cat(images), labels


def _batch_images(images: Any, row: int) -> Tensor:
    """The images of a loader's batch, the first of them image ``row``, as (B, C, H, W); other shapes are left to later
    checks."""
    if isinstance(images, (list, tuple)) and images:
        return _stacked([_pixels(image, row + number) for number, image in enumerate(images)])
    if isinstance(images, np.ndarray):
        images = tensor_of_array(images, f"image {row} is in")
    if not isinstance(images, Tensor) or not images.ndim or not len(images):
        form = f"of shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise DataError(f"the DataLoader yields images that are {form}; make it yield (B, C, H, W) and labels (B,)")
    return images.detach().cpu()


def _batch_labels(labels: Any) -> list[Any]:
    """The labels of a loader's batch, one an image."""
    plain = labels.detach().cpu().tolist() if isinstance(labels, Tensor) else labels
    if isinstance(plain, (list, tuple)) or (isinstance(plain, np.ndarray) and plain.ndim):
        return list(plain)
    form = "a single number" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
    raise DataError(
        f"the DataLoader yields labels that are {form}; make its collate_fn give one label per image, labels (B,)"
    )


def _joined_items(dataset: Any) -> tuple[Tensor, Any]:
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise DataError(f"a {type(dataset).__name__} is no set of images; give {FORMS}")
    sized = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    images: list[Tensor] = []
    labels: list[Any] = []
    items = iter(dataset[row] for row in range(len(dataset))) if sized else iter(dataset)
    end = object()
    while True:
        item = run_user_code(f"item {len(images)} of the data set", lambda: next(items, end))
        if item is end:
            break
        pair = _pair(item)
        if pair is None:
            raise DataError(f"item {len(images)} of the data set is a {type(item).__name__}; give (image, label)")
        images.append(_pixels(pair[0], len(images)))
        labels.append(_label(pair[1], len(labels)))
        _check_alike(images[-1], images[0], len(images) - 1)
    if not images:
        raise DataError("the data set is empty; give at least one image")
    return torch.stack(images), labels


def _pair(item: Any) -> tuple[Any, Any] | None:
    """Image and label of an item, or images and labels of a batch; of a mapping, what has their usual names."""
    if isinstance(item, Mapping):
        image = [value for name, value in item.items() if str(name).lower() in (*IMAGE_NAMES, "pixel_values")]
        label = [value for name, value in item.items() if str(name).lower() in LABEL_NAMES]
        return (image[0], label[0]) if len(image) == 1 and len(label) == 1 else None
    return (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) >= 2 else None


def _check_alike(image: Tensor, first: Tensor, row: int) -> None:
    if image.shape == first.shape and image.dtype == first.dtype:
        return
    channels = image.shape[1:] == first.shape[1:] and image.dtype == first.dtype
    remedy = "convert them to one number of channels" if channels else "resize them to one size"
    raise DataError(
        f"image {row} is {image.dtype} of shape {tuple(image.shape)}, the first {first.dtype} of "
        f"{tuple(first.shape)}; {remedy} in the data set's transform"
    )


def _stacked(images: Sequence[Tensor]) -> Tensor:
    for row, image in enumerate(images):
        _check_alike(image, images[0], row)
    return torch.stack(list(images))


def _tell_dropped(loader: DataLoader[Any], count: int) -> None:
    """Tell of the images that a loader leaves out to fill its last batch."""
    sampler: Any = loader.sampler
    every = len(sampler) if loader.drop_last and hasattr(sampler, "__len__") else count
    if every > count:
        words = f"the DataLoader drops the last {every - count} of {every} images; give it drop_last=False"
        warnings.warn(words, UnfoolWarning, stacklevel=4)


def _pixels(image: Any, row: int) -> Tensor:
    """One image as (C, H, W); a PIL image or an array (H, W, C) of bytes is transposed."""
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        image = tensor_of_array(image, f"image {row} is")
        if image.dtype == torch.uint8 and image.ndim == 2:
            return image[None]
        if image.dtype == torch.uint8 and image.ndim == 3 and image.shape[2] in (1, 3, 4):
            return image.permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3:
        form = f"of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ImagesError(f"image {row} is {form}; give a (C, H, W) tensor or a PIL image")
    return image.detach().cpu()


def _label(label: Any, row: int) -> Any:
    """A label as a plain number, boolean or text."""
    plain = (
        label.item() if (isinstance(label, Tensor) and label.numel() == 1) or isinstance(label, np.generic) else label
    )
    if not isinstance(plain, (bool, int, float, str)):
        hint = "; use argmax for one-hot labels" if isinstance(label, (Tensor, np.ndarray)) else ""
        raise DataError(f"label {row} of the data set is a {type(label).__name__}; give a class number or a text{hint}")
    return plain
