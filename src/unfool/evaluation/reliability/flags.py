"""The rules by which a count of images becomes a flag of the reliability report."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unfool.evaluation.results.reliability import NOT_CHECKED, Flag

SHARE = 0.01
"""Share of the images up to which one attack may miss what another finds: the limit that the field works with."""
FEWEST = 2
"""Images below which there is no flag: of 64 images one is more than 1 %, and may lie on the edge by chance."""
CHANCE = 0.01
"""Error rate of the test whether more steps or restarts gain more than `SHARE`: honest networks give up to 1 % to them,
and at 64 images this asks for four."""


def marked(name: str, mask: Tensor, ids: Tensor, text: str) -> Flag:
    """A flag about the images in a mask (B,); ``text`` may use {count}, {total} and {share}."""
    count, total = int(mask.sum()), len(mask)
    sentence = text.format(count=count, total=total, share=f"{count / total:.0%}")
    return Flag(name=name, text=sentence, share=count / total, images=ids[mask].tolist())


def not_checked(names: Sequence[str], reason: str) -> Flag:
    """The flag that says which checks could not be computed, and why."""
    return Flag(name=NOT_CHECKED, text=f"not checked: {', '.join(names)}; {reason}")


def too_many(count: int, total: int) -> bool:
    """Whether so many of the images are more than one attack may miss."""
    return count >= FEWEST and count > SHARE * total


def more_than_chance(count: int, total: int) -> bool:
    """Whether so many of the images speak against a share of at most `SHARE` (exact binomial test)."""
    from scipy.stats import binomtest  # takes long to import

    return bool(binomtest(count, total, SHARE, alternative="greater").pvalue < CHANCE)
