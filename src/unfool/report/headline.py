"""The sentence that a page begins with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unfool.evaluation.records import OWN
from unfool.evaluation.results.claims import FAILS, HOLDS, NOT_REPRODUCED, OUT_OF_REACH, UNDECIDED, tally
from unfool.evaluation.results.rows import CURVE
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Table, TableRow, attack_title

_VERBS = {
    HOLDS: ("holds", "hold"),
    FAILS: ("fails", "fail"),
    UNDECIDED: ("is undecided", "are undecided"),
    NOT_REPRODUCED: ("is not reproduced", "are not reproduced"),
    OUT_OF_REACH: ("is out of reach", "are out of reach"),
}
_MOST_LETTERS = 720
"""Of a summary above the results; what is longer is folded."""

_SENTENCE_END = re.compile(r"[.!?] (?=[A-Z])")

_GAP = 0.05
"""Shares between borrowed and own examples from which on a page begins with them."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A page's first sentence, what stands below it in smaller letters, and ``more``, folded; each may be empty."""

    text: str
    below: str = ""
    more: str = ""


def headline(result: StudyResult, tables: Sequence[Table]) -> Headline:
    """What the results come down to: a ladder's verdict, an evaluation's worst case, a study's widest gap or tally."""
    if not result.study and result.ladders:
        section = result.ladders[0]
        return Headline(text=section.sentences[min(1, len(section.sentences) - 1)] if section.sentences else "")
    if not result.study:
        return Headline(text=_evaluation(result) or result.summary)
    lesson, (begins, more) = _borrowed_against_own(tables), _opening(result.summary)
    if more and not lesson:
        return Headline(text=_tally(result), below=begins, more=more)
    return Headline(text=lesson or begins or _tally(result), below=begins if lesson else "", more=more)


def _opening(summary: str) -> tuple[str, str]:
    """A summary's first sentences, as many as leave the results in sight, and the others."""
    if len(summary) <= _MOST_LETTERS:
        return summary, ""
    ends = [match.end() for match in _SENTENCE_END.finditer(summary)]
    end = max((end for end in ends if end <= _MOST_LETTERS), default=ends[0] if ends else len(summary))
    return summary[:end].rstrip(), summary[end:].lstrip()


def _evaluation(result: StudyResult) -> str:
    """The clean accuracy, and the lowest under an attack on the system itself."""
    rows = [row for row in result.rows if CURVE not in row.settings]
    clean = next((row for row in rows if row.protocol == "clean"), None)
    attacked = [row for row in rows if row.protocol in OWN]
    same = [row for row in attacked if row.threat == attacked[-1].threat]
    worst = min(reversed(same), key=lambda row: row.accuracy, default=None)
    words = [] if clean is None else [f"{_share(clean.accuracy)} of {clean.n:,} clean images are right"]
    if worst is not None:
        words.append(f"{_share(worst.accuracy)} of {worst.n:,} under {attack_title(worst.attack)} at {worst.threat}")
    text = ", ".join(words)
    return (
        f"{text}: not to be believed, for the reasons below." if text and result.doubts else f"{text}." if text else ""
    )


def _borrowed_against_own(tables: Sequence[Table]) -> str:
    """The system that one attack leaves the most of on borrowed examples, beside what the same attack leaves when it
    is crafted on the system itself; empty where nothing differs much."""
    pairs: list[tuple[float, str]] = []
    for table in tables:
        for borrowed in table.rows:
            for own in table.rows:
                if borrowed.protocol == "transfer" and own.protocol == "white-box" and _same(borrowed, own):
                    pairs += _gaps(table, borrowed, own)
    gap, sentence = max(pairs, key=lambda pair: pair[0], default=(0.0, ""))
    return sentence if gap >= _GAP else ""


def _same(first: TableRow, second: TableRow) -> bool:
    return first.group == second.group and first.threat == second.threat


def _gaps(table: Table, borrowed: TableRow, own: TableRow) -> list[tuple[float, str]]:
    shared = [attack for attack in borrowed.cells if attack in own.cells and attack != "none"]
    return [
        (borrowed.cells[each].accuracy - own.cells[each].accuracy, _sentence(table, borrowed, own.cells[each]))
        for each in shared
    ]


def _sentence(table: Table, borrowed: TableRow, own: Cell) -> str:
    theirs = borrowed.cells[own.attack]
    network = f"The same network ({borrowed.label}, {table.data})"
    return (
        f"{network} keeps {_share(theirs.accuracy)} on {attack_title(own.attack)} examples borrowed from "
        f"{borrowed.crafted_by}, and {_share(own.accuracy)} when it is attacked itself."
    )


def _tally(result: StudyResult) -> str:
    words = [f"{count} {_VERBS[verdict][count > 1]}" for verdict, count in tally(result.claims)]
    return f"Of {len(result.claims)} claims {', '.join(words)}." if words else ""


def _share(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}\N{NO-BREAK SPACE}%"
