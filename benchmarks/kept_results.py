"""Results that a benchmark keeps, so that one of hours goes on where it was stopped.

What is kept is looked up only as long as all that it follows from is as it was: its request, and, in it, the code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import unfool
from unfool.core.files import write_json

PACKAGE = Path(unfool.__file__).parent


def code(*files: str | Path, package: Path = PACKAGE) -> str:
    """A hash of unfool's code, all of it, and of some files of the benchmark beside it."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    for path in map(Path, files):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def kept_or(path: Path, request: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What the file holds if it is of this very request (JSON values); otherwise it is made, and written there."""
    if path.is_file():
        stored = json.loads(path.read_text())
        if all(key in stored and stored[key] == value for key, value in request.items()):
            return stored
    stored = {**request, **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, stored)
    return stored
