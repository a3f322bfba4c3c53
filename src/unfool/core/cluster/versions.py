"""What two machines must have in common before one works for the other: the code of unfool, Python and PyTorch."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unfool.core.errors import WorkerError


@dataclass(frozen=True)
class Versions:
    """Versions of unfool, of its code (a digest), of Python and of PyTorch, as messages name them."""

    unfool: str
    code: str
    python: str
    torch: str

    def __str__(self) -> str:
        return f"unfool {self.unfool} (code {self.code}), Python {self.python}, torch {self.torch}"


@cache
def versions_here() -> Versions:
    """Those of this process. Which computing library a build of PyTorch is for makes no difference."""
    python, torch = ".".join(map(str, sys.version_info[:2])), _version_of("torch").partition("+")[0]
    return Versions(_version_of("unfool"), _code_digest(Path(__file__).parents[2]), python, torch)


def check_versions(node: str, theirs: Versions) -> None:
    """WorkerError, with both named, if a node's differ from those of this process."""
    own = versions_here()
    different = [item.name for item in fields(Versions) if getattr(own, item.name) != getattr(theirs, item.name)]
    if different:
        raise WorkerError(
            f"{node} differs from this machine in {' and '.join(different)}: there {theirs}, here {own}; install the "
            "same on both"
        )


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _code_digest(folder: Path) -> str:
    """Twelve hex digits of all Python files of a package."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
