# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false, reportUnnecessaryIsInstance=false
"""What an evaluation leaves behind: one record per image, from which every figure is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

from unfool.core.borders.checksum import checksum
from unfool.core.borders.json_text import read_object
from unfool.core.borders.shapes import check_types
from unfool.core.errors import DataError
from unfool.core.files import JsonObject, write_json
from unfool.evaluation.crafting.stored_names import follows_gradients_by_name
from unfool.evaluation.intervals import wilson
from unfool.evaluation.results.rows import Cost, Row, protocol_between

SCHEMA_VERSION = 2
"""Since 2 records say whether their attack follows gradients."""
CLEAN, WHITE_BOX, TRANSFER = "clean", "white-box", "transfer"
UNVERIFIED, SCORE_BASED = "unverified", "score-based"
OWN = (WHITE_BOX, UNVERIFIED, SCORE_BASED)
"""Protocols of attacks on the evaluated system itself."""
NO_ATTACK = "none"
REMARK = "remark"
"""Key of an attack's settings that holds a sentence on what it left out or added, for its row."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Records:
    """The outcome of one evaluation, image by image, from which the accuracy and its interval come.

    The protocol follows from the identities and cannot be set: examples that were crafted on another system are
    transfer.

    Args:
        attack: Name of the attack, ``none`` for clean images.
        threat: Threat model, as text.
        data: Name of the data set.
        split: Its split.
        seed: Seed of the attack's draws.
        ids: Ids of the images in their table.
        correct: Whether each image is classified correctly.
        losses: Cross-entropy of each image.
        distances: Distance of each image from the clean one, in the threat model's norm.
        crafted_on: Identity of the attacked system; None for clean images.
        judged_on: Identity of the evaluated system; None for clean images.
        cpu_seconds: CPU seconds of crafting and evaluation.
        model_images: Images that went through the system or its copy.
        settings: Settings of the attack.
        zero_gradient: How many images were not fooled because the system gave a zero gradient: their robustness means
            nothing.
        labels: Class number of each image; empty in records of early versions.
        fooled_by: How many images each part of the attack fooled.
        follows_gradients: Whether the attack follows gradients; None for an ensemble of both kinds.

    Raises:
        DataError: Parts that contradict each other, or figures that are not finite.

    Example:
        >>> from unfool import classify
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> records = classify(model, (torch.full((4, 3, 4, 4), 0.5), [0, 0, 1, 0]))
        >>> records.accuracy, records.protocol, records.correct
        (0.75, 'clean', [True, True, False, True])
    """

    attack: str
    threat: str
    data: str
    split: str
    seed: int
    ids: list[int]
    correct: list[bool]
    losses: list[float]
    distances: list[float]
    crafted_on: str | None
    judged_on: str | None
    cpu_seconds: float
    model_images: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    zero_gradient: int = 0
    labels: list[int] = field(default_factory=list)
    fooled_by: Mapping[str, int] = field(default_factory=dict)
    follows_gradients: bool | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.correct), len(self.losses), len(self.distances)}
        lengths |= {len(self.labels)} if self.labels else set()
        if len(lengths) != 1 or not self.ids:
            raise DataError(f"records of {sorted(lengths)} images do not fit together; give one record per image")
        if not all(isinstance(value, bool) for value in self.correct):
            raise DataError("records are correct or not; give true or false for every image")
        if not all(math.isfinite(value) for value in (*self.losses, *self.distances)):
            raise DataError("records hold losses or distances that are not finite; evaluate again")
        hashes = (self.crafted_on, self.judged_on)
        clean = self.attack == NO_ATTACK
        if not all(value is None if clean else isinstance(value, str) and value for value in hashes):
            raise DataError(
                f"records under {self.attack!r} name the systems {hashes}; give none for clean ones, both for others"
            )

    def __repr__(self) -> str:
        low, high = self.interval()
        attack = "clean" if self.attack == NO_ATTACK else f"{self.attack} at {self.threat}"
        return (
            f"Records({attack} on {self.data} {self.split}: {100 * self.accuracy:.1f} % [{100 * low:.1f}, "
            f"{100 * high:.1f}] of {self.count} images, {self.protocol})"
        )

    @property
    def protocol(self) -> str:
        """clean, white-box, transfer; unverified where equal identities prove nothing, score-based on a black box."""
        if self.crafted_on is None or self.judged_on is None:
            return CLEAN
        return protocol_between(self.crafted_on, self.judged_on)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.ids)

    @property
    def accuracy(self) -> float:
        """Share of images still classified correctly."""
        return sum(self.correct) / self.count

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the accuracy."""
        return wilson(sum(self.correct), self.count, confidence)

    def row(
        self,
        model: str,
        *,
        seed: int | None = None,
        settings: Mapping[str, Any] | None = None,
        source_value: float | None = None,
        defense: str = "none",
    ) -> Row:
        """One row of a results file; ``seed`` is the training seed (default: the attack's).

        ``settings`` hold what else tells rows apart; the attack's own settings stay in the records.
        """
        low, high = self.interval()
        return Row(
            model=model,
            seed=self.seed if seed is None else seed,
            data=self.data,
            split=self.split,
            attack=self.attack,
            threat=self.threat,
            protocol=self.protocol,
            defense=defense,
            settings=dict(settings or {}),
            accuracy=round(self.accuracy, 6),
            low=round(low, 6),
            high=round(high, 6),
            loss=round(sum(self.losses) / self.count, 6),
            n=self.count,
            crafted_on=self.crafted_on,
            judged_on=self.judged_on,
            source_value=source_value,
            remark=self.settings.get(REMARK),
            cost=Cost(cpu_seconds=round(self.cpu_seconds, 2), model_images=self.model_images),
        )

    def to_frame(self) -> DataFrame:
        """The records as a pandas table, one line an image."""
        from pandas import DataFrame

        columns = {"id": self.ids, "label": self.labels or [None] * self.count, "correct": self.correct}
        return DataFrame({**columns, "loss": self.losses, "distance": self.distances})

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"

    def save(self, path: str | Path) -> None:
        """Write the records as JSON with a checksum, whole or not at all."""
        values = {**self.__dict__, "settings": dict(self.settings), "fooled_by": dict(self.fooled_by)}
        write_json(path, {"schema_version": SCHEMA_VERSION, **values, "checksum": checksum(values)})

    @classmethod
    def load(cls, path: str | Path) -> Records:
        """Read records; DataError if the file is missing, malformed, edited or of a newer schema."""
        try:
            values: dict[str, Any] = read_object(path, "give the JSON that an evaluation wrote")
            version = values.pop("schema_version")
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{path} has schema version {version}; this unfool reads up to {SCHEMA_VERSION}: update unfool"
                )
            if values.pop("checksum" if version > 1 else "seal") != checksum(values):
                raise ValueError("its checksum does not fit: it was changed after it was written")
            values = values if version > 1 else _of_first_version(values)
            kind: type[Records] = cls
            if "right" in values:
                from unfool.evaluation.reliability.over_draws import RecordsOverDraws  # it imports this module

                kind = RecordsOverDraws
            check_types(kind, values, path, "evaluate again")
            return kind(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} does not hold records of an evaluation ({error}); evaluate again") from error


def shared_kind(follows_gradients: Iterable[bool | None]) -> bool | None:
    """Whether several parts or attacks follow gradients; None if only some of them do, or nothing is known."""
    kinds = set(follows_gradients)
    return kinds.pop() if len(kinds) == 1 else None


def _of_first_version(values: dict[str, Any]) -> JsonObject:
    """The values of a file of version 1, under today's names."""
    attack = str(values["attack"])
    follows = None if attack == NO_ATTACK else follows_gradients_by_name(attack)
    zero_gradient = values.pop("flat", 0)
    return {**values, "zero_gradient": zero_gradient, "follows_gradients": follows}
