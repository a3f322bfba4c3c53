"""The folder of a study, and the pieces in it: each is made once and found again.

So a study that was stopped goes on where it stopped, and asking for a finished one costs nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from rich.console import Console

from unfool.core.borders.json_text import read_object
from unfool.core.files import JsonObject, write_json
from unfool.core.parallel.reporting import report_or_show
from unfool.core.progress import Progress, silent
from unfool.data.catalog import open_table
from unfool.data.table import Table
from unfool.evaluation import Records

Value = TypeVar("Value")


class Piece(Protocol):
    """A trained network, an adversarial set, a measurement: made once in a workspace and found again by its path.

    ``path`` is its name, words joined by slashes, and unique within a study. Those that are ``in_memory``, such as
    networks, are read once by each process.
    """

    in_memory: ClassVar[bool] = False

    @property
    @abstractmethod
    def path(self) -> str: ...

    @abstractmethod
    def make(self, work: Workspace) -> Any:
        """Make it, or read what is there."""
        ...

    def needs(self) -> Sequence[Piece]:
        """Pieces that must be there before this one is made."""
        return ()

    def cost(self, work: Workspace) -> float:
        """About how many images go through a network to make it; the longest pieces are begun first."""
        return 0.0

    def exists(self, work: Workspace) -> bool | None:
        """Whether its files are there; None for a piece without files, which is made by each that needs it."""
        return None


_AGAIN = "delete it, it is made again"
"""What to do about a file that cannot be read."""


class Workspace:
    """A study's folder ``out``, the data that its pieces are made of, and the device that makes them."""

    def __init__(self, out: Path, data_dir: Path | None, device: str, console: Console):
        self.out, self.data_dir, self.device, self.console = out, data_dir, device, console
        self._kept: dict[str, Any] = {}
        self.sets: set[str] = set()  # names of all image sets that were opened

    def table(self, data: str, split: str, size: int = 0) -> Table:
        """A split of a data set, opened once; ``size`` in pixels a side, 0 for the set's own."""
        self.sets.add(data)
        open_it = lambda: open_table(data, split, data_dir=self.data_dir, size=size or None)  # noqa: E731
        return self.once(f"table {data} {split} {size}", open_it)

    def get(self, piece: Piece) -> Any:
        """What the piece gives, made if it is not there; pieces that say ``in_memory`` are kept there."""
        return self.once(piece.path, lambda: piece.make(self)) if piece.in_memory else piece.make(self)

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """A value that is made once for each workspace."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def file(self, kind: str, path: str) -> Path:
        """Where a piece's JSON lies: below ``records``, ``audits``, ``ladders``, …"""
        return self.out / kind / f"{path}.json"

    def records(self, path: str, make: Callable[[], Records], fits: Callable[[Records], bool]) -> Records:
        """Records of that path if they ``fit`` what is measured now; else they are made and saved."""
        file = self.file("records", path)
        if file.is_file() and fits(records := Records.load(file)):
            return records
        make().save(file)
        return Records.load(file)

    def holds(self, kind: str, path: str, keys: Sequence[str] = ()) -> bool:
        """Whether JSON of that kind and path is kept and has these ``keys``; that of an earlier version may not."""
        file = self.file(kind, path)
        return file.is_file() and (not keys or set(keys) <= set(read_object(file, _AGAIN)))

    def json(self, kind: str, path: str, make: Callable[[], JsonObject], keys: Sequence[str] = ()) -> JsonObject:
        """What is kept as JSON under that kind and path, made if it is not there with these ``keys``."""
        file = self.file(kind, path)
        if not self.holds(kind, path, keys):
            write_json(file, make())
        return read_object(file, _AGAIN)

    def bar(self, title: str, *, quiet: bool = False) -> AbstractContextManager[Progress]:
        """A progress bar with the time left; where nobody watches, a line when it is over. ``quiet`` shows nothing."""
        return nullcontext(silent) if quiet else report_or_show(title, self.console)
