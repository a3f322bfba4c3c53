"""A model out of the user's own Python file, named ``path/to/file.py:build``.

The file is the user's code and runs as such; what goes wrong in it is reported in one line that names file and line.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from unfool.core.borders.reading import is_file
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.user_code import content_digest, folder_on_path, import_file, run_user_code

FORM = "write path/to/file.py:NAME, NAME being a function without required arguments that returns an nn.Module"

_IMAGES = frozenset({"x", "images", "image", "batch", "inputs", "input", "imgs", "img", "samples", "data", "pixels"})
"""What the argument of a function of images is called; any other may be a setting of a builder."""


def load_object(text: str) -> Any:
    """What ``path/to/file.py:NAME`` names: a model, what a callable without required arguments gives, or a function.

    A function of one argument is taken for a black box, images → scores, and given as it is.

    The file is imported under a name made of its content, so that `identity` tells two versions of it apart and knows
    the same file in another folder; its folder is on ``sys.path`` meanwhile, no bytecode is written, and what it
    prints goes to stderr. Raises SpecError for a file or name that is not there, for a function of several arguments,
    and for whatever the file itself raises.
    """
    file, colon, name = text.rpartition(":")
    path = Path(file)
    if not colon or not file or not name.isidentifier():
        elsewhere = f"; or timm:{text}, torchvision:{text}, hf:OWNER/NAME" if text.replace("_", "").isalnum() else ""
        raise SpecError(f"model {text!r} is not understood; {FORM}{elsewhere}")
    if not is_file(path):
        raise SpecError(f"there is no file {path} to take {name!r} from; {FORM}")
    with folder_on_path(path.resolve().parent):
        model = _name(path, run_user_code(path, lambda: _imported(path)), name)
        if isinstance(model, nn.Module) or not _builds(text, model):
            return model
        return run_user_code(path, model)


def load_module(text: str) -> nn.Module:
    """As `load_object`; raises SpecError for what is no module."""
    model = load_object(text)
    if not isinstance(model, nn.Module):
        raise SpecError(f"model {text!r} gave a {type(model).__name__}, not an nn.Module; {FORM}")
    return model


def _imported(path: Path) -> ModuleType:
    if path.suffix != ".py":
        raise SpecError(f"{path} is no Python file; {FORM}")
    return import_file(path, f"unfool_model_{content_digest(path)}")


def _name(path: Path, module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if callable(value) or isinstance(value, nn.Module)]
        raise unknown(f"name in {path}", name, [key for key in own if not key.startswith("_")])
    return getattr(module, name)


def _builds(text: str, value: Any) -> bool:
    """Whether a value is called to get the model; SpecError for one that needs several arguments."""
    if not callable(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return True
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if len(required) == 1 and required[0].lower() in _IMAGES:
        return False
    if required:
        raise SpecError(f"model {text!r} needs arguments ({', '.join(required)}); {FORM}")
    return True
