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
from unfool.data.decode import Framing
from unfool.data.pixels import image_tensor
from unfool.data.readers.labels import class_numbers
from unfool.data.sources import Columns

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
        if isinstance(dataset.sampler, RandomSampler):
            raise DataError("the DataLoader shuffles, so its images have no fixed order; give its dataset instead")
        classes = getattr(dataset.dataset, "classes", None)
        images, labels = _joined_batches(dataset)
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
    pixels, kept = resident_pixels(rows, Framing())
    columns = {name: torch.from_numpy(values[kept]) for name, values in rows.columns.items()}
    return Contents(pixels, columns, rows.classes)


def _joined_batches(loader: Iterable[Any]) -> tuple[Tensor, Any]:
    images: list[Tensor] = []
    labels: list[Any] = []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise DataError(f"the DataLoader yields a {type(batch).__name__}; make it yield (images, labels)")
        images.append(torch.as_tensor(batch[0]).detach().cpu())
        labels.extend(batch[1].detach().cpu().tolist() if isinstance(batch[1], Tensor) else batch[1])
    if not images:
        raise DataError("the DataLoader yields no batch; give one with images")
    return torch.cat(images), labels


def _joined_items(dataset: Any) -> tuple[Tensor, Any]:
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise DataError(f"a {type(dataset).__name__} is no set of images; give {FORMS}")
    sized = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    images: list[Tensor] = []
    labels: list[Any] = []
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
    return torch.stack(images), labels


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


def _label(label: Any, row: int) -> Any:
    """A label as a plain number, boolean or text."""
    plain = (
        label.item() if (isinstance(label, Tensor) and label.numel() == 1) or isinstance(label, np.generic) else label
    )
    if not isinstance(plain, (bool, int, float, str)):
        raise DataError(f"label {row} of the data set is a {type(label).__name__}; give a class number or a text")
    return plain
