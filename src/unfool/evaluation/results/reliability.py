"""Whether accuracies can be believed, as results hold it: flags, the reliability report, the binarization test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import JsonObject
from unfool.core.spec import unknown
from unfool.evaluation.results.details import HOW, read_mapping
from unfool.evaluation.results.rows import Cost

NOT_CHECKED = "not-checked"
MODEL_CHECKS = (
    "chance",
    "train-mode",
    "randomised-output",
    "batch-dependence",
    "dynamic-inference",
    "probabilities",
    "few-classes",
    "missing-normalisation",
    "short-steps",
    "no-first-point",
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
    "wrong-gradients",
    "blocked-gradients",
)
"""What attacks on a few images reveal."""
NEEDLESS = "no image stands under attack, so checks by attacks were not needed"
"""Why checks were left out."""
FLAGS = (*MODEL_CHECKS, *ATTACK_CHECKS, NOT_CHECKED)


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

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, the share to six decimals."""
        share = None if self.share is None else round(self.share, 6)
        return {"name": self.name, "text": self.text, "share": share, "images": list(self.images)}


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Whether accuracies can be believed: ``flags`` are the reasons for doubt, ``checked`` the checks that were run.

    ``needless`` are checks by attacks that were left out, since an attack had left no image right: nothing can show
    that accuracy to be too high. ``images`` counts the correctly classified images that were looked at.
    ``missed_by_gradients`` lists, by attack, the images that an attack without gradients fooled and no gradient attack
    did.
    """

    flags: list[Flag]
    checked: list[str]
    missed_by_gradients: dict[str, list[int]]
    images: int
    cost: Cost
    needless: list[str] = field(default_factory=list[str])

    @property
    def no_doubt(self) -> str:
        """What a trustworthy report says, in a sentence without its full stop."""
        said = f"{len(self.checked)} checks on {self.images} images gave no reason for doubt"
        return f"{said}; {NEEDLESS}" if self.needless else said

    @property
    def trustworthy(self) -> bool:
        """Whether there is no flag."""
        return not self.flags

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return {
            "trustworthy": self.trustworthy,
            "flags": [flag.to_json() for flag in self.flags],
            "checked": list(self.checked),
            **({"needless": list(self.needless)} if self.needless else {}),
            "wins": {name: list(ids) for name, ids in self.missed_by_gradients.items()},
            "images": self.images,
            "cost": self.cost.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reliability:
        """The report that `to_json` gave, flags of other names left out; DataError for what is malformed."""
        checked, images = values.get("checked"), values.get("images")
        if not isinstance(checked, list) or not isinstance(images, int):
            raise DataError(f"reliability of the results does not say what was checked; {HOW}")
        flags = [flag for flag in values.get("flags") or [] if isinstance(flag, Mapping) and flag.get("name") in FLAGS]
        return cls(
            flags=[Flag(**{key: flag[key] for key in ("name", "text", "share", "images")}) for flag in flags],
            checked=[str(name) for name in checked],
            needless=[str(name) for name in values.get("needless") or []],
            missed_by_gradients=dict(read_mapping(values, "wins")),
            images=images,
            cost=Cost.from_json(read_mapping(values, "cost")),
        )


@dataclass(frozen=True, kw_only=True)
class BinarizationResult:
    """``success`` is the share of ``images`` whose known adversarial example the attack found, with its interval.

    ``low`` and ``high`` are the 95 % Wilson interval; ``random_success`` is the share of random search with at least as
    many passes; ``dropped`` images had no head that separates; ``text`` says it in a line.
    """

    success: float
    low: float
    high: float
    random_success: float
    images: int
    dropped: int
    passed: bool
    threshold: float
    text: str
    cost: Cost

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, shares to six decimals."""
        shares = {name: round(getattr(self, name), 6) for name in _SHARES}
        return {**vars(self), **shares, "cost": self.cost.to_json()}

    @classmethod
    def from_json(cls, values: Any) -> BinarizationResult:
        """The result that `to_json` gave; DataError for one without its text."""
        if not isinstance(values, Mapping) or not isinstance(values.get("text"), str):
            raise DataError(f"strength of the results says nothing; {HOW}")
        return cls(
            **{name: values.get(name, 0.0) for name in (*_SHARES, "threshold")},
            images=values.get("images", 0),
            dropped=values.get("dropped", 0),
            passed=bool(values.get("passed")),
            text=values["text"],
            cost=Cost.from_json(read_mapping(values, "cost")),
        )


_SHARES = ("success", "low", "high", "random_success")
