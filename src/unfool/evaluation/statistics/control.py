"""A study's own control beside its source's: where the two are far apart, nothing can be said of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import SpecError
from unfool.evaluation.results.published import word_of
from unfool.evaluation.results.rows import Row


@dataclass(frozen=True)
class Control:
    """A row by its words, and the accuracy that the source reports for it (a share; default: the row's own figure of
    the source).

    A claim that rests on it is judged where the two are at most ``within`` apart, the mean over training seeds
    counting; else it is not reproduced. Where the source has no figure, every claim is judged.
    """

    words: Mapping[str, Any]
    source: float | None = None
    within: float = 0.05

    def not_reproduced(self, rows: Sequence[Row]) -> str:
        """Why a claim cannot be judged by these rows; empty where it can. Raises SpecError for no such row."""
        chosen = [row for row in rows if all(word_of(row, key) == value for key, value in self.words.items())]
        if not chosen:
            raise SpecError(f"no row has {dict(self.words)}; name a control that was measured")
        ours = sum(row.accuracy for row in chosen) / len(chosen)
        theirs = chosen[0].source_value if self.source is None else self.source
        if theirs is None or abs(ours - theirs) <= self.within:
            return ""
        name = ", ".join(str(value) for value in self.words.values() if value is not None)
        return (
            f"Nothing can be said of the source: the control ({name}) has {100 * ours:.1f} % here and "
            f"{100 * theirs:.1f} % there, more than {100 * self.within:g} points apart."
        )
