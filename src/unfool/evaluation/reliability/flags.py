"""What a reliability report raises: flags by name, and the rules by which a count of images becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unfool.core.spec import unknown

NOT_CHECKED = "not-checked"
MODEL_CHECKS = (
    "train-mode",
    "randomised-output",
    "batch-dependence",
    "dynamic-inference",
    "probabilities",
    "few-classes",
    "missing-normalisation",
    "short-steps",
)
"""What a model and the attacks' settings show by themselves."""
ATTACK_CHECKS = (
    "vanishing-gradients",
    "black-box-wins",
    "noise-wins",
    "transfer-wins",
    "stands-at-any-size",
    "more-steps-win",
    "more-restarts-win",
)
"""What attacks on a few images reveal."""
FLAGS = (*MODEL_CHECKS, *ATTACK_CHECKS, NOT_CHECKED)

SHARE = 0.01
"""Share of the images up to which one attack may miss what another finds: the limit that the field works with."""
FEWEST = 2
"""Images below which there is no flag: of 64 images one is more than 1 %, and may lie on the edge by chance."""
CHANCE = 0.01
"""Error rate of the test whether more steps or restarts gain more than `SHARE`: honest networks give up to 1 % to them,
and at 64 images this asks for four."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A reason for doubt: ``name`` (of `FLAGS`), one sentence (what was seen, what it means, what to do), the ``share``
    of the images that were looked at, and the ids of the ``images`` concerned. Raises SpecError for another name."""

    name: str
    text: str
    share: float | None = None
    images: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name not in FLAGS:
            raise unknown("flag", self.name, FLAGS)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON takes it, the share to six decimals."""
        share = None if self.share is None else round(self.share, 6)
        return {"name": self.name, "text": self.text, "share": share, "images": list(self.images)}


def marked(name: str, mask: Tensor, ids: Tensor, text: str) -> Flag:
    """A flag about the images in a mask (B,); ``text`` may use {count}, {total} and {share}."""
    count, total = int(mask.sum()), len(mask)
    told = text.format(count=count, total=total, share=f"{count / total:.0%}")
    return Flag(name=name, text=told, share=count / total, images=ids[mask].tolist())


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
