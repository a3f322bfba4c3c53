"""The model, labels and ids of a call, checked.

Legend: B images of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unfool.core.batch import as_images, tensor_of_array
from unfool.core.errors import ImagesError, SpecError

Images: TypeAlias = "Tensor | NDArray[np.floating[Any]]"
"""Images (B, C, H, W), floating point, in [0,1]."""
Labels: TypeAlias = "Tensor | NDArray[np.integer[Any]] | Sequence[int]"
"""Integer classes (B,), from 0."""


def check_model(model: object) -> None:
    """Refuse anything but a module; raises SpecError."""
    if isinstance(model, nn.Module):
        return
    known = isinstance(model, str) or callable(model) or callable(getattr(model, "predict", None))
    adapted = "; unfool.adapt(model) makes one of a function, an estimator or a model's name" if known else ""
    raise SpecError(f"model is a {type(model).__name__}; give a torch.nn.Module that maps images to logits{adapted}")


def readable_images(model: nn.Module, images: Images) -> Tensor:
    """A copy of images as `as_images` checks them, in float32 where the model is; of arrays on its device.

    A model that writes into its input is refused only once it has: the caller's images are kept from it.
    """
    if isinstance(images, np.ndarray):
        first = next(model.parameters(), torch.empty(0))
        images = tensor_of_array(images, "images are", ImagesError).to(first.device)
    images = as_images(images)
    weights = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), None)
    return images.to(torch.float32 if weights == torch.float32 else images.dtype, copy=True)


def as_labels(images: Tensor, labels: Labels) -> Tensor:
    """Labels as int64 (B,) where the images live; raises ImagesError for anything but one class per image."""
    remedy = "give one integer class per image"
    if isinstance(labels, np.ndarray):
        tensor = tensor_of_array(labels, "labels are", ImagesError, remedy)
    else:
        try:
            tensor = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ImagesError(f"labels cannot be read ({error}); {remedy}") from error
    if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        tensor = tensor.long()
    check_labels(images, tensor)
    return tensor.to(images.device)


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse anything but one int64 class per image; raises ImagesError."""
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ImagesError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; "
            f"give one int64 class per image, shape ({len(images)},)"
        )
    if len(labels) and int(labels.min()) < 0:
        raise ImagesError(f"label {int(labels.min())} is no class; count classes from 0")


def as_ids(images: Tensor, ids: Tensor | None) -> Tensor:
    """The ids (B,) of images, by default their positions; ImagesError unless there is one int64 number per image."""
    if ids is None:
        return torch.arange(len(images), device=images.device)
    if ids.shape != images.shape[:1] or ids.dtype != torch.int64:
        raise ImagesError(
            f"ids are {ids.dtype} of shape {tuple(ids.shape)}; give one int64 number per image, shape ({len(images)},)"
        )
    return ids
