"""What happened, in one short sentence of plain English."""

from __future__ import annotations

from unfool.playground.attack import AttackOutcome
from unfool.playground.reversal import GateWord, ReversalOutcome
from unfool.playground.systems import PlaygroundSystem, Seen

_VOWELS = "aeiou8"


def say(system: PlaygroundSystem, outcome: AttackOutcome, reversal: ReversalOutcome | None = None) -> str:
    """One sentence on an attack, and one more on a reversal.

    ``This image was a 7 (98 %); under 8/255 in linf the network sees a 3 (99 %). Reversed: 7 (61 %).``
    """
    attacked = _with_article(system, outcome.attacked)
    under = (
        f"on an example made for {outcome.crafted_on} ({outcome.budget})"
        if outcome.borrowed
        else f"under {outcome.budget}"
    )
    verb = "sees" if outcome.fooled else "still sees"
    text = f"{_before(system, outcome)}; {under} the network {verb} {attacked}."
    if reversal is not None:
        seen = reversal.reversed
        text += f" Reversed: {system.class_name(seen.top)} ({percent(seen.share)})."
    return text


def say_clean(system: PlaygroundSystem, seen: Seen, label: int | None) -> str:
    """One sentence on an image that was not attacked."""
    answer = _with_article(system, seen)
    if label is None or label == seen.top:
        return f"The network sees {answer}."
    return f"This image is {with_article(system.class_name(label))}, and the network sees {answer} before any attack."


def say_gate(word: GateWord) -> str:
    """The gate's word on the attacked image and on the clean one."""
    attacked, clean, threshold = f"{word.attacked:.2f}", f"{word.clean:.2f}", f"its threshold of {word.threshold:.2f}"
    if word.stops_attacked == word.stops_clean:
        verb, side = ("stops", "above") if word.stops_clean else ("lets", "below")
        rest = "" if word.stops_clean else " pass"
        return (
            f"The gate {verb} both images{rest}: the pretext losses of the attacked ({attacked}) and of the clean one "
            f"({clean}) lie {side} {threshold}."
        )
    if word.stops_attacked:
        loss = f"pretext loss {attacked}, above {threshold}"
        return f"The gate stops the attacked image ({loss}) and lets the clean one pass ({clean})."
    loss = f"pretext loss {attacked}, below {threshold}"
    return f"The gate lets the attacked image pass ({loss}) and stops the clean one ({clean})."


def percent(share: float) -> str:
    """A share in percent, without a false 100."""
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def with_article(name: str) -> str:
    """A class with its article: a 7, an 8, an apple."""
    return f"{'an' if name[:1].lower() in _VOWELS or name in ('11', '18') else 'a'} {name}"


def _before(system: PlaygroundSystem, outcome: AttackOutcome) -> str:
    clean = outcome.clean
    if outcome.known and clean.top != outcome.label:
        seen = _with_article(system, clean)
        return f"This image is {with_article(system.class_name(outcome.label))}, and the network saw {seen}"
    verb = "This image was" if outcome.known else "The network saw"
    return f"{verb} {_with_article(system, clean)}"


def _with_article(system: PlaygroundSystem, seen: Seen) -> str:
    return f"{with_article(system.class_name(seen.top))} ({percent(seen.share)})"
