# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a foreign model gives, as logits (B, K): a tensor, one part of an object, one logit, a map of one pixel.

Legend: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfool.core.batch import tensor_of_array
from unfool.core.errors import ImagesError, SpecError

_RULE = "give a model that maps images (B, C, H, W) to logits (B, classes), or name the output with --output PATH"

ONE_LOGIT = "one logit as two classes"
"""The last words about such an output."""

SAME = 1e-4
"""Difference of two passes' logits, relative to the largest, up to which rounding explains it."""


def same_logits(ours: Tensor, wanted: Tensor) -> bool:
    """Whether a pass gave the logits (B, K) that are ``wanted``, but for rounding; NaN is the same as nothing."""
    return ours.shape == wanted.shape and float((ours - wanted).abs().max()) <= SAME * float(wanted.abs().max())


def read_logits(output: Any, count: int, name: str, path: str | None = None) -> tuple[Tensor, str]:
    """The logits (B, K) in a model's output for ``count`` images, and in words which part of it they are.

    Without a ``path`` they are the tensor itself, ``.logits``, ``["logits"]`` or the first of a tuple. Raises
    ImagesError for an output that holds no logits, SpecError for a path that is not there.
    """
    if path is not None:
        part, words = _at(output, path, name), f"output {path}"
    else:
        part, words = _usual(output)
    if isinstance(part, np.ndarray) and part.dtype.kind == "f":
        part = tensor_of_array(part, f"model {name} gave", ImagesError, _RULE)
    if not isinstance(part, Tensor) or not part.is_floating_point():
        kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
        if isinstance(part, Mapping):
            kind = f"{kind} of {', '.join(map(str, list(part)[:6]))}"
        raise ImagesError(f"model {name} gave {kind}, not floating logits; {_RULE}")
    shape = tuple(part.shape)
    if part.ndim == 4 and shape[2:] == (1, 1):
        part, words = part[:, :, 0, 0], words or "map of one pixel"
    if (part.ndim == 1 and len(part) == count) or (part.ndim == 2 and part.shape[1] == 1):
        # Log-odds z against 0: the softmax of both is the sigmoid of z.
        part = part.reshape(-1, 1)
        part, words = torch.cat([torch.zeros_like(part), part], 1), f"{words or 'output'}, {ONE_LOGIT}"
    if part.ndim != 2 or len(part) != count:
        raise ImagesError(f"model {name} gave outputs of shape {shape} for {count} images; {_RULE}")
    return part, words


def _usual(output: Any) -> tuple[Any, str]:
    logits = getattr(output, "logits", None)
    if isinstance(logits, (Tensor, np.ndarray)):
        return logits, "output .logits"
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"], "output ['logits']"
    if isinstance(output, Mapping):
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        if len(tensors) == 1:
            return output[tensors[0]], f"output [{tensors[0]!r}]"
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0], f"first of {len(output)} outputs"
    return output, ""


def _at(output: Any, path: str, name: str) -> Any:
    """The part of an output that a dotted path of attributes, keys and numbers leads to."""
    for word in path.split("."):
        if isinstance(output, Mapping) and word in output:
            output = output[word]
        elif isinstance(output, Sequence) and word.lstrip("-").isdigit() and -len(output) <= int(word) < len(output):
            output = output[int(word)]
        elif not word.startswith("_") and hasattr(output, word):
            output = getattr(output, word)
        else:
            keys = list(output) if isinstance(output, Mapping) else list(getattr(output, "__dict__", {}))
            known = f"; it has {', '.join(map(str, keys[:8]))}" if keys else ""
            raise SpecError(
                f"model {name} gives a {type(output).__name__} without {word[:40]!r} (--output {path}){known}"
            )
    return output


def set_logits(logits: Tensor, sets: Tensor) -> Tensor:
    """Logits of label sets (B, S+1) from those of labels (B, K): the last stands for any other set.

    ``sets`` (S, K) are 1 for a label that belongs to a set and 0 for one that does not. A set's logit is above 0 just
    where all its labels are above 0 and all others below; the last logit is 0.
    """
    missing = logits.shape[1] - sets.shape[1]
    if missing < 0:
        raise ImagesError(
            f"label sets name label {sets.shape[1] - 1}, but the model gives {logits.shape[1]} outputs, counted from 0"
        )
    sets = torch.nn.functional.pad(sets, (0, missing))
    signed = logits[:, None, :] * (2 * sets.to(logits) - 1)[None]
    return torch.cat([signed.amin(2), logits.new_zeros(len(logits), 1)], 1)
