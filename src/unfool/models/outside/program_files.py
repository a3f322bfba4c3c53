# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Files that hold a whole program, weights and computation: TorchScript and `torch.export`."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from unfool.core.borders.reading import is_file
from unfool.core.borders.zip_names import zip_names
from unfool.core.errors import SpecError
from unfool.core.user_code import run_user_code


def read_program(path: Path) -> nn.Module:
    """The module of a TorchScript file or of a ``torch.export`` program (.pt2); SpecError for any other file.

    A program is code, as a Python file is: it is read because the user names it as the model to run.
    """
    if not is_file(path):
        raise SpecError(f"there is no file {path} to take a model from; check the path")
    try:
        names = zip_names(path)
    except ValueError as fault:
        raise SpecError(f"{path} is {fault}; download or copy it again") from fault
    if names is None:
        raise SpecError(f"{path} is no program; give FILE.py:NAME, and this file as --weights if it holds weights")
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return run_user_code(path, lambda: torch.jit.load(str(path), map_location="cpu"))
    if any("archive_format" in name or name.endswith("serialized_exported_program.json") for name in names):
        with _weights_only():
            return run_user_code(path, lambda: torch.export.load(str(path)).module())
    raise SpecError(
        f"{path} holds weights without the code that they belong to; give --model FILE.py:NAME --weights {path}"
    )


@contextmanager
def _weights_only() -> Generator[None]:
    """Meanwhile `torch.load` unpickles nothing but tensors, whoever calls it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
