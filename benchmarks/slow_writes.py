"""Writes that can be stopped in the middle: what `benchmarks/kills.py` puts under the program that it kills.

`install` replaces the calls by which files come about and go away. Each has moments: before it, half done, and after
it. At a chosen moment the process says so and waits for its end. Of each file that comes into its place it says so too.
`Counting` counts the images that go through layers; no hook on a module does, since that would be part of the model.
"""

from __future__ import annotations

import builtins
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import unfool.models.weights
import unfool.training.metrics

Report = Callable[[str, str], None]
"""Called with a kind ("at", "placed") and what happened."""


class Moments:
    """Counts the moments of writes; waits for the end of the process at the ``chosen`` one (from 1 on; 0: at none)."""

    def __init__(self, chosen: int, report: Report):
        self.chosen = chosen
        self.report = report
        self.count = 0

    def __call__(self, what: str, path: object) -> None:
        self.count += 1
        if self.count == self.chosen:
            self.report("at", f"{what} {_shown(path)}")
            while True:
                signal.pause()


def _shown(path: object) -> str:
    """The last part of a path, without what differs from process to process."""
    return "an open file" if isinstance(path, int) else Path(os.fsdecode(path)).name  # type: ignore[arg-type]


class Counting(TorchFunctionMode):
    """Inside, the images that go through convolutions and linear layers are told to ``count``."""

    def __init__(self, count: Callable[[int], None]):
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, F.linear):
            self.count(len(args[0]))
        return func(*args, **(kwargs or {}))


def install(chosen: int, report: Report) -> Moments:
    """Put the moments under this process."""
    moment = Moments(chosen, report)
    for name in ("fsync", "mkdir", "unlink", "remove", "rmdir"):
        setattr(os, name, _around(getattr(os, name), moment, name))
    os.replace = _replacing(os.replace, moment, report)
    shutil.rmtree = _removing(shutil.rmtree, moment)
    Path.write_text = _halved_text(Path.write_text, moment)  # type: ignore[method-assign]
    unfool.models.weights.save_file = _halved_tensors(unfool.models.weights.save_file, moment)
    unfool.training.metrics.open = _halved_lines(moment)  # type: ignore[attr-defined]
    return moment


def _around(call: Callable[..., Any], moment: Moments, name: str) -> Callable[..., Any]:
    def changed(path: Any, *rest: Any, **named: Any) -> Any:
        moment(f"before {name} of", path)
        value = call(path, *rest, **named)
        moment(f"after {name} of", path)
        return value

    return changed


def _replacing(call: Callable[..., Any], moment: Moments, report: Report) -> Callable[..., Any]:
    def replace(source: Any, target: Any, **named: Any) -> None:
        moment("before the rename to", target)
        call(source, target, **named)
        report("placed", _shown(target))
        moment("after the rename to", target)

    return replace


def _removing(call: Callable[..., Any], moment: Moments) -> Callable[..., Any]:
    """Files of a folder go one after the other, its description first: the order is the file system's."""

    def rmtree(path: Any, *rest: Any, **named: Any) -> None:
        inside = sorted(Path(path).rglob("*"), key=lambda each: (each.suffix != ".json", each.name))
        for each in inside if Path(path).is_dir() else ():
            if each.is_file():
                moment("in the removal of", path)
                each.unlink(missing_ok=True)
        call(path, *rest, **named)

    return rmtree


def _halved_text(call: Callable[..., Any], moment: Moments) -> Callable[..., Any]:
    def write_text(self: Path, text: str, *rest: Any, **named: Any) -> Any:
        call(self, text[: len(text) // 2], *rest, **named)
        moment("half of the text of", self)
        return call(self, text, *rest, **named)

    return write_text


def _halved_tensors(call: Callable[..., Any], moment: Moments) -> Callable[..., Any]:
    def save_file(tensors: Any, path: Any, *rest: Any) -> None:
        call(tensors, path, *rest)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
        moment("half of the tensors of", path)
        Path(path).write_bytes(content)

    return save_file


def _halved_lines(moment: Moments) -> Callable[..., Any]:
    """`open` for the log of training, whose lines are appended."""

    def opened(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = builtins.open(path, mode, *rest, **named)  # noqa: SIM115 - the caller closes it
        if mode != "a":
            return file
        write = file.write

        def half(line: str) -> int:
            write(line[: len(line) // 2])
            file.flush()
            moment("half of a line of", path)
            return write(line[len(line) // 2 :])

        file.write = half  # type: ignore[method-assign]
        return file

    return opened
