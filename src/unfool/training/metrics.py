"""The training log ``metrics.csv``: a line every few steps, with nothing in it that differs between two equal runs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from unfool.core.errors import OutputError
from unfool.core.files import write_text


class Metrics:
    """Appends lines to a CSV file; on resumption, lines after the checkpoint's count are cut off again."""

    def __init__(self, path: Path, columns: Sequence[str], lines: int):
        self.path = path
        self.columns = list(columns)
        self.lines = lines
        existing = self._existing(lines) if lines else []
        write_text(path, "".join([self._line(self.columns), *existing]))

    def _existing(self, count: int) -> list[str]:
        """The first lines of a log that is there; OutputError if it has fewer."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)[1 : count + 1]
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError(f"cannot read {self.path}: {error}; delete the run folder to start again") from error
        if len(lines) < count:
            raise OutputError(
                f"{self.path} has {len(lines)} lines, the checkpoint {count}; delete the run folder to start again"
            )
        return lines

    @staticmethod
    def _line(values: Sequence[object]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()

    def add(self, row: Mapping[str, float | int]) -> None:
        """Append one line; columns that the row lacks stay empty. OutputError if the file cannot be written."""
        line = self._line([repr(row[name]) if name in row else "" for name in self.columns])
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise self._failed(error) from error
        self.lines += 1

    def rows(self) -> list[dict[str, float]]:
        """The lines that the log holds, without their empty columns; OutputError if they cannot be read."""
        return read_metrics(self.path)

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint that counts them must not outlive them."""
        try:
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path}: {error.strerror}; free some space or choose a writable folder, then resume"
        )


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a log without their empty columns; OutputError if they cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise OutputError(f"cannot read {path}: {error}; delete the run folder to start again") from error


def last_step(path: Path) -> int:
    """The step that the last line of a log counts; 0 for a log without lines. OutputError if it cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"cannot read {path}: {error}; delete the run folder to start again") from error
    return steps[-1] if steps else 0
