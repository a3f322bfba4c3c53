"""The claims of a study as forest plots: alike claims share one, a row each, beside the bound of their rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher

from unfool.evaluation.results.claims import FAILS, HOLDS, ClaimResult, tally
from unfool.report.plots.scale import Scale, Tick, nice_scale, plain

_ALIKE = 0.45
"""Share of their words that two claims of one family have in common, at least."""
_GAP = "…"


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """One claim of a family: ``name`` is what sets it apart, places are in percent of the plot (None: no interval)."""

    claim: ClaimResult
    name: str
    at: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None

    @property
    def look(self) -> str:
        """The verdict as a class of the page."""
        return self.claim.verdict.replace(" ", "-")

    @property
    def words(self) -> str:
        """The figure with its interval, without the unit that the axis names."""
        numbers = self.claim.numbers
        if numbers is None:
            return ""
        write = _points if numbers.points else plain
        return f"{write(numbers.mean)} [{write(numbers.low)}, {write(numbers.high)}]"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Claims that differ in a few words: ``title`` is what they share. ``decided`` hold or fail, ``others`` do not.

    ``unit`` is what the axis counts.
    """

    title: str
    decided: tuple[ClaimRow, ...]
    others: tuple[ClaimRow, ...]
    ticks: tuple[Tick, ...]
    unit: str

    @property
    def others_words(self) -> str:
        """What is said of the others: how many have each verdict, or the verdict of all."""
        counts = [(verdict, count) for verdict, count in self.tally if verdict not in (HOLDS, FAILS)]
        return counts[0][0] if len(counts) == 1 else ", ".join(f"{count} {verdict}" for verdict, count in counts)

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many claims have each verdict."""
        return tally(row.claim for row in (*self.decided, *self.others))


def families(claims: Sequence[ClaimResult]) -> list[Family]:
    """All claims, alike ones together, in the order of their first; those that resemble no other one come last."""
    groups: list[_Group] = []
    for claim in claims:
        if not any(group.admits(claim) for group in groups):
            groups.append(_Group(claim))
    single = [group.members[0] for group in groups if len(group.members) == 1]
    listed = [_family(group) for group in groups if len(group.members) > 1]
    for unit in dict.fromkeys(_unit(claim) for claim in single):
        members = [claim for claim in single if _unit(claim) == unit]
        listed.append(_rows(members, "Single claims" if listed else "Claims", [claim.text for claim in members]))
    return listed


class _Group:
    """Claims of one unit, and the words that all of them have, in their order."""

    def __init__(self, claim: ClaimResult):
        self.members = [claim]
        self.shared = claim.text.split()

    def admits(self, claim: ClaimResult) -> bool:
        """Take a claim in if it shares enough of its words with all that are here."""
        words = claim.text.split()
        if _unit(claim) != _unit(self.members[0]) or len(self.shared) < _ALIKE * len(words):
            return False
        blocks = SequenceMatcher(None, self.shared, words, autojunk=False).get_matching_blocks()
        shared = [word for block in blocks for word in _kept(self.shared, words, block)]
        longest = max(len(words), *(len(member.text.split()) for member in self.members))
        if len(shared) < _ALIKE * longest:
            return False
        self.members.append(claim)
        self.shared = shared
        return True


def _kept(shared: Sequence[str], words: Sequence[str], block: Match) -> Sequence[str]:
    """The words of a block: a single short one amid others says nothing by itself."""
    inside = 0 < block.a < len(shared) - block.size and 0 < block.b < len(words) - block.size
    alone = block.size == 1 and inside and len(shared[block.a]) < 5
    return [] if alone else shared[block.a : block.a + block.size]


def _unit(claim: ClaimResult) -> str:
    if claim.numbers is None:
        return ""
    return "points" if claim.numbers.points else "value"


def _family(group: _Group) -> Family:
    texts = [claim.text.split() for claim in group.members]
    names = [_apart(group.shared, words) for words in texts]
    alike = len(set(names)) < len(names) or not all(names)
    if alike:
        names = [claim.text for claim in group.members]
    return _rows(group.members, _closed(" ".join(_with_gaps(group.shared, texts))), names)


def _with_gaps(shared: Sequence[str], texts: Sequence[Sequence[str]]) -> list[str]:
    """The shared words, with a mark where any text has others between them."""
    places = [_places(shared, words) for words in texts]
    titled: list[str] = []
    for number, word in enumerate(shared):
        if any(at[number] - (at[number - 1] if number else -1) > 1 for at in places):
            titled.append(_GAP)
        titled.append(word)
    if any(at and at[-1] < len(words) - 1 for at, words in zip(places, texts, strict=True)):
        titled.append(_GAP)
    return titled


def _places(shared: Sequence[str], words: Sequence[str]) -> list[int]:
    """Where the shared words stand in a text, each behind the one before, as far behind as those after it allow."""
    places, end = [], len(words)
    for word in reversed(shared):
        end = max(place for place in range(end) if words[place] == word)
        places.append(end)
    return places[::-1]


def _apart(shared: Sequence[str], words: Sequence[str]) -> str:
    """The words of a text that are not shared, its parts apart."""
    taken = set(_places(shared, words))
    parts: list[list[str]] = [[]]
    for number, word in enumerate(words):
        if number in taken:
            parts.append([])
        else:
            parts[-1].append(word)
    return " · ".join(filter(None, (_closed(" ".join(part)).strip(" ,:") for part in parts)))


def _closed(text: str) -> str:
    """A part of a sentence with both brackets of every pair, or none."""
    kept, depth = "", 0
    for character in text:
        depth += (character == "(") - (character == ")")
        kept += "," if depth < 0 else character
        depth = max(depth, 0)
    kept = kept.strip(" ,:") + ")" * depth
    return kept[1:-1] if kept.startswith("(") and kept.endswith(")") and kept.count("(") == 1 else kept


def _rows(members: Sequence[ClaimResult], title: str, names: Sequence[str]) -> Family:
    estimates = [claim.numbers for claim in members if claim.numbers is not None]
    scale = Scale(low=0.0, high=1.0)
    if estimates:
        ends = [value for each in estimates for value in (each.low, each.high, each.bound) if value is not None]
        points = estimates[0].points
        scale = nice_scale([*ends, 0.0] if points else ends, _points if points else plain)
    rows = [_row(claim, name, scale) for claim, name in zip(members, names, strict=True)]
    return Family(
        title=title,
        decided=tuple(row for row in rows if row.claim.verdict in (HOLDS, FAILS)),
        others=tuple(row for row in rows if row.claim.verdict not in (HOLDS, FAILS)),
        ticks=scale.ticks if estimates else (),
        unit="points" if estimates and estimates[0].points else "",
    )


def _row(claim: ClaimResult, name: str, scale: Scale) -> ClaimRow:
    numbers = claim.numbers
    if numbers is None:
        return ClaimRow(claim=claim, name=name)
    return ClaimRow(
        claim=claim,
        name=name,
        at=scale.place(numbers.mean),
        low=scale.place(numbers.low),
        high=scale.place(numbers.high),
        bound=None if numbers.bound is None else scale.place(numbers.bound),
    )


def _points(value: float) -> str:
    return f"{100 * value:+.3g}" if abs(value) > 1e-9 else "0"
