# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Classifiers of transformers, timm and torchvision by name, with the normalisation and the size that go with them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from unfool.core.errors import SpecError
from unfool.core.user_code import run_user_code


@dataclass(frozen=True, kw_only=True)
class Source:
    """A classifier from elsewhere: the model itself, and how its images are prepared where that is known."""

    model: Any
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | None = None


def _library(name: str, prefix: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # A library that does not fit the installed torch may fail in any way.
        said = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise SpecError(
            f"{prefix}: needs {name}, which cannot be imported ({said}); "
            f"pip install {name}, in a version that fits the installed torch"
        ) from error


def from_transformers(name: str, random: bool = False) -> Source:
    """``hf:FOLDER`` or ``hf:OWNER/NAME``: an image classifier of transformers, no code of its repository being run.

    ``random``: do not read its weights, since others are given. Raises SpecError.
    """
    library = _library("transformers", "hf")
    folder = Path(name).expanduser()
    where = str(folder) if folder.is_dir() else name
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise SpecError(f"hf:{name} is neither a folder nor OWNER/NAME; give the folder that save_pretrained wrote")

    def load() -> Source:
        auto = library.AutoModelForImageClassification
        if random:
            model = auto.from_config(library.AutoConfig.from_pretrained(where))
        else:
            model = auto.from_pretrained(where, trust_remote_code=False)
        return Source(model=model.eval(), **_of_processor(where, model.config))

    return run_user_code(f"hf:{name}", load)


def _of_processor(where: str, config: Any) -> dict[str, Any]:
    """Mean, standard deviation and size of the image processor; of a model without one, its own size."""
    own = getattr(config, "image_size", None)
    size = own if isinstance(own, int) else (own[0] if isinstance(own, (list, tuple)) and own else None)
    base = importlib.import_module("transformers.image_processing_base")
    try:
        processor: Mapping[str, Any] = base.ImageProcessingMixin.get_image_processor_dict(where)[0]
    except OSError:
        return {"size": size}
    stated = processor.get("crop_size") if processor.get("do_center_crop") else None
    stated = stated or processor.get("size")
    if isinstance(stated, Mapping):
        stated = next((stated[key] for key in ("height", "shortest_edge", "width") if key in stated), None)
    normalised = processor.get("do_normalize", True) and "image_mean" in processor
    # Images come in [0,1]; a processor that leaves them in 0–255 normalises there.
    factor = 1.0 if processor.get("do_rescale", True) else 255.0
    return {
        "mean": [value / factor for value in processor["image_mean"]] if normalised else None,
        "std": [value / factor for value in processor["image_std"]] if normalised else None,
        "size": stated if isinstance(stated, int) else size,
    }


def from_timm(name: str, random: bool = False) -> Source:
    """``timm:NAME``: a network of timm with its pretrained weights, prepared as its ``pretrained_cfg`` says."""
    library = _library("timm", "timm")

    def load() -> Source:
        model: nn.Module = library.create_model(name, pretrained=not random).eval()
        known: Any = getattr(model, "pretrained_cfg", None) or {}
        size = known.get("input_size")
        return Source(model=model, mean=known.get("mean"), std=known.get("std"), size=size[-1] if size else None)

    return run_user_code(f"timm:{name}", load)


def from_torchvision(name: str, random: bool = False) -> Source:
    """``torchvision:NAME``: a network of torchvision with its default weights, prepared as these say."""
    models = _library("torchvision.models", "torchvision")

    def load() -> Source:
        weights = models.get_model_weights(name).DEFAULT
        prepared: Any = weights.transforms()
        model: nn.Module = models.get_model(name, weights=None if random else weights).eval()
        crop = getattr(prepared, "crop_size", None)
        size = crop[0] if isinstance(crop, (list, tuple)) else crop
        return Source(model=model, mean=prepared.mean, std=prepared.std, size=size)

    return run_user_code(f"torchvision:{name}", load)


HUBS = {"hf": from_transformers, "timm": from_timm, "torchvision": from_torchvision}
"""Where classifiers come from by prefix: a name, and whether its weights are given elsewhere."""
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
