# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Classifiers of transformers, timm and torchvision by name, with the normalisation and the size that go with them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from unfool.core.borders.reading import is_folder
from unfool.core.errors import SpecError, UnfoolError
from unfool.core.spec import nearest


@dataclass(frozen=True, kw_only=True)
class Source:
    """A classifier from elsewhere: the model itself, and how its images are prepared where that is known."""

    model: Any
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | None = None


_SECONDS = 5.0
"""How long the hub may take to answer before it counts as unreachable."""


def _library(name: str, prefix: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # A library that does not fit the installed torch may fail in any way.
        said = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise SpecError(f"{prefix}: needs {name}, which cannot be imported ({said}); {_how(name, error)}") from error


def _fetched(prefix: str, name: str, load: Callable[[], Source]) -> Source:
    """What ``load`` gives; whatever a library raises meanwhile is a SpecError, and what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except UnfoolError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".;")[:240]
        raise SpecError(
            f"{prefix}:{name} cannot be had: {said}; give another one, or its weights with --weights FILE if these are "
            "missing"
        ) from error


def _unknown(library: str, name: str, names: Sequence[str]) -> SpecError:
    near = nearest(name, names)
    hint = f"did you mean {near!r}? " if near is not None else ""
    return SpecError(f"{library} has no classifier {name[:80]!r}; {hint}its list_models() names all {len(names):,}")


def _how(name: str, error: Exception) -> str:
    """How a library is installed beside the torch that is there."""
    release, _, build = torch.__version__.partition("+")
    number = re.fullmatch(r"2\.(\d+)\.\d+", release)
    if name.startswith("torchvision") or "torchvision" in str(error):
        # torchvision 0.N goes with torch 2.(N - 15), of the same build.
        version = f"==0.{int(number[1]) + 15}.*" if number is not None else ""
        index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
        return f"pip install --no-deps 'torchvision{version}'{index}, which goes with torch {torch.__version__}"
    return f"pip install {name}, in a version that fits the installed torch"


def from_transformers(name: str, random: bool = False) -> Source:
    """``hf:FOLDER`` or ``hf:OWNER/NAME``: an image classifier of transformers, no code of its repository being run.

    What lies in the cache is used where the hub cannot be reached. ``random``: do not read its weights, since others
    are given. Raises SpecError.
    """
    library = _library("transformers", "hf")
    folder = Path(name).expanduser()
    where = str(folder) if is_folder(folder) else name
    if not is_folder(folder) and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise SpecError(f"hf:{name} is neither a folder nor OWNER/NAME; give the folder that save_pretrained wrote")
    away = None if is_folder(folder) else _unreachable(name)

    def load() -> Source:
        library.utils.logging.disable_progress_bar()
        auto, local = library.AutoModelForImageClassification, {"local_files_only": away is not None}
        try:
            config = library.AutoConfig.from_pretrained(where, **local)
        except OSError as error:
            if away is None:
                raise
            raise SpecError(
                f"hf:{name} cannot be had: {away}, and it is not in the cache; give hf:FOLDER with what "
                "save_pretrained wrote"
            ) from error
        model = auto.from_config(config) if random else auto.from_pretrained(where, trust_remote_code=False, **local)
        return _prepared_by_processor(model.eval(), where, local)

    return _fetched("hf", name, load)


def _unreachable(name: str) -> str | None:
    """Why the hub does not give a model now; None where it does."""
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    if hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        hub.HfApi().model_info(name, timeout=_SECONDS)
    except errors.GatedRepoError:
        return "it is gated (accept its terms on its page and log in with `hf auth login`)"
    except errors.RepositoryNotFoundError:
        return "the hub has no public model of that name"
    except Exception as error:  # Whatever the HTTP client of the day raises without a network.
        return f"the hub cannot be reached ({type(error).__name__})"
    return None


def _prepared_by_processor(model: Any, where: str, local: Mapping[str, bool]) -> Source:
    """A model with mean, standard deviation and size of its image processor; without one, with its own size."""
    own = getattr(model.config, "image_size", None)
    size = own if isinstance(own, int) else (own[0] if isinstance(own, (list, tuple)) and own else None)
    base = importlib.import_module("transformers.image_processing_base")
    try:
        processor: Mapping[str, Any] = base.ImageProcessingMixin.get_image_processor_dict(where, **local)[0]
    except OSError:
        return Source(model=model, size=size)
    stated = processor.get("crop_size") if processor.get("do_center_crop") else None
    stated = stated or processor.get("size")
    if isinstance(stated, Mapping):
        stated = next((stated[key] for key in ("height", "shortest_edge", "width") if key in stated), None)
    normalised = processor.get("do_normalize", True) and "image_mean" in processor
    # Images come in [0,1]; a processor that leaves them in 0–255 normalises there.
    factor = 1.0 if processor.get("do_rescale", True) else 255.0
    return Source(
        model=model,
        mean=[value / factor for value in processor["image_mean"]] if normalised else None,
        std=[value / factor for value in processor["image_std"]] if normalised else None,
        size=stated if isinstance(stated, int) else size,
    )


def from_timm(name: str, random: bool = False) -> Source:
    """``timm:NAME``: a network of timm with its pretrained weights, prepared as its ``pretrained_cfg`` says."""
    library = _library("timm", "timm")

    def load() -> Source:
        model: nn.Module = library.create_model(name, pretrained=not random).eval()
        known: Any = getattr(model, "pretrained_cfg", None) or {}
        size = known.get("input_size")
        return Source(model=model, mean=known.get("mean"), std=known.get("std"), size=size[-1] if size else None)

    if not library.is_model(name) and ":" not in name:
        raise _unknown("timm", name, library.list_models())
    return _fetched("timm", name, load)


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

    if name.lower() not in (names := models.list_models(module=models)):
        raise _unknown("torchvision", name, names)
    return _fetched("torchvision", name, load)


def from_zoo(name: str, random: bool = False) -> Source:
    """``zoo:NAME``: a network that comes with the package, which normalises inside itself."""
    from unfool.models import zoo  # here, because networks are built of what this module's callers import

    return Source(model=zoo.load(name))


HUBS = {"zoo": from_zoo, "hf": from_transformers, "timm": from_timm, "torchvision": from_torchvision}
"""Where classifiers come from by prefix: a name, and whether its weights are given elsewhere."""
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
