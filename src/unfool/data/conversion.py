# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Images and labels out of tensors, arrays, data sets and loaders, without loss and with one-line refusals.

Legend: N images of C channels and H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from unfool.core.errors import DataError, ImagesError
from unfool.data.pixels import image_tensor

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
    pixels = image_tensor(images)
    if labels is None:
        named: Mapping[str, Any] = {}
    else:
        named = labels if isinstance(labels, Mapping) else {"label": labels}
    columns = {str(name): _label_tensor(values, len(pixels), str(name)) for name, values in named.items()}
    if classes is None:
        known: Mapping[str, Sequence[str]] = {}
    else:
        known = classes if isinstance(classes, Mapping) else {"label": classes}
    if extra := [name for name in known if name not in columns]:
        raise DataError(f"class names are given for {extra[0]!r}, which is no label column; give its labels too")
    return Contents(pixels, columns, {name: _class_names(name, columns[name], known.get(name)) for name in columns})


def contents_of_dataset(dataset: Any) -> Contents:
    """Read a torch or Hugging Face data set of images and labels, or a DataLoader; raises DataError, ImagesError."""
    if type(dataset).__module__.split(".")[0] == "datasets":
        return _of_hugging_face(dataset)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return contents_of_tensors(*dataset.tensors)
    classes = getattr(dataset, "classes", None)
    if isinstance(dataset, DataLoader):
        if isinstance(dataset.sampler, RandomSampler):
            raise DataError("the DataLoader shuffles, so its images have no fixed order; give its dataset instead")
        classes = getattr(dataset.dataset, "classes", None)
        images, labels = _joined_batches(dataset)
    else:
        images, labels = _joined_items(dataset)
    names = None if classes is None else [str(name) for name in classes]
    return contents_of_tensors(images, labels, names)


def _class_names(column: str, labels: Tensor, names: Sequence[str] | None) -> list[str]:
    count = int(labels.max()) + 1 if len(labels) else 0
    if names is None:
        return [str(label) for label in range(count)]
    if len(names) < count:
        raise DataError(f"column {column!r} has label {count - 1} but {len(names)} class names; give one a class")
    return [str(name) for name in names]


def _label_tensor(labels: Any, count: int, column: str) -> Tensor:
    """Labels as (N,) int64; DataError for labels of another form."""
    try:
        tensor = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"labels of column {column!r} are a {type(labels).__name__}; give {count} numbers") from error
    if tensor.shape != (count,):
        hint = "; use labels.argmax(1) for one-hot labels" if tensor.ndim == 2 and len(tensor) == count else ""
        raise DataError(
            f"labels of column {column!r} have shape {tuple(tensor.shape)} for {count} images; give one class number "
            f"per image{hint}"
        )
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(f"labels of column {column!r} are {tensor.dtype}; give whole class numbers with labels.long()")
    tensor = tensor.to(torch.int64)
    if count and int(tensor.min()) < 0:
        raise DataError(f"column {column!r} has label {int(tensor.min())}; number the classes from 0")
    return tensor


def _of_hugging_face(dataset: Any) -> Contents:
    from unfool.data.readers.decode_rows import resident_pixels  # here, since they import `datasets` and pyarrow
    from unfool.data.readers.hub import rows_of

    if isinstance(dataset, Mapping):
        raise DataError(f"a DatasetDict has several splits ({', '.join(map(str, dataset))}); give one of them")
    if not hasattr(dataset, "select_columns") or not hasattr(dataset, "__len__"):
        raise DataError(f"a {type(dataset).__name__} of `datasets` cannot be read row by row; give a datasets.Dataset")
    rows = rows_of(dataset, "the data set")
    pixels, kept = resident_pixels(rows, None)
    columns = {name: torch.from_numpy(values[kept]) for name, values in rows.columns.items()}
    return Contents(pixels, columns, rows.classes)


def _joined_batches(loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise DataError(f"the DataLoader yields a {type(batch).__name__}; make it yield (images, labels)")
        images.append(torch.as_tensor(batch[0]).detach().cpu())
        labels.append(torch.as_tensor(batch[1]).detach().cpu())
    if not images:
        raise DataError("the DataLoader yields no batch; give one with images")
    return torch.cat(images), torch.cat(labels)


def _joined_items(dataset: Any) -> tuple[Tensor, Tensor]:
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise DataError(f"a {type(dataset).__name__} is no set of images; give {FORMS}")
    sized = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    images: list[Tensor] = []
    labels: list[int] = []
    for item in (dataset[row] for row in range(len(dataset))) if sized else dataset:
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise DataError(f"item {len(images)} of the data set is a {type(item).__name__}; give (image, label)")
        images.append(_pixels(item[0], len(images)))
        labels.append(_label(item[1], len(labels)))
        if images[-1].shape != images[0].shape or images[-1].dtype != images[0].dtype:
            raise DataError(
                f"image {len(images) - 1} is {images[-1].dtype} of shape {tuple(images[-1].shape)}, the first "
                f"{images[0].dtype} of {tuple(images[0].shape)}; resize them to one size in the data set's transform"
            )
    if not images:
        raise DataError("the data set is empty; give at least one image")
    return torch.stack(images), torch.tensor(labels)


def _pixels(image: Any, row: int) -> Tensor:
    """One image as (C, H, W); a PIL image or an array (H, W, C) of bytes is transposed."""
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
        if image.dtype == torch.uint8 and image.ndim == 2:
            return image[None]
        if image.dtype == torch.uint8 and image.ndim == 3 and image.shape[2] in (1, 3, 4):
            return image.permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3:
        form = f"of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ImagesError(f"image {row} of the data set is {form}; give a (C, H, W) tensor or a PIL image")
    return image.detach().cpu()


def _label(label: Any, row: int) -> int:
    if isinstance(label, (float, bool)) or (isinstance(label, Tensor) and label.is_floating_point()):
        raise DataError(f"label {row} of the data set is {label!r}; give a whole class number")
    try:
        return int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"label {row} of the data set is a {type(label).__name__}; give a class number") from error
