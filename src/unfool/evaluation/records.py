"""What an evaluation leaves behind: one record per image, from which every figure is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import write_json
from unfool.evaluation.checksum import seal
from unfool.evaluation.rows import Cost, Row
from unfool.evaluation.statistics.intervals import wilson

SCHEMA_VERSION = 1
CLEAN, WHITE_BOX, TRANSFER = "clean", "white-box", "transfer"
NO_ATTACK = "none"


@dataclass(frozen=True, kw_only=True, repr=False)
class Records:
    """Per image ``ids``, ``correct``, cross-entropy ``losses`` and ``distances`` (in the threat's norm); and whose.

    ``crafted_on`` and ``judged_on`` are identities, both None for clean images. The protocol is computed from them and
    cannot be set: records whose hashes differ are transfer, whatever their maker calls them. ``settings`` are the
    attack's. Raises DataError for parts that contradict each other.
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
    flat: int = 0
    """Images that stood because the attacked model gave no gradient at all: their robustness means nothing."""
    labels: list[int] = field(default_factory=list)
    """The class of each image, for results by class."""
    fooled_by: Mapping[str, int] = field(default_factory=dict)
    """How many images each part of an ensemble fooled, when it was crafted."""

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
        attack = self.attack if self.attack == NO_ATTACK else f"{self.attack} at {self.threat}"
        return (
            f"Records({attack} on {self.data} {self.split}: {100 * self.accuracy:.1f} % [{100 * low:.1f}, "
            f"{100 * high:.1f}] of {self.count} images, {self.protocol})"
        )

    @property
    def protocol(self) -> str:
        """clean, white-box or transfer."""
        if self.crafted_on is None:
            return CLEAN
        return WHITE_BOX if self.crafted_on == self.judged_on else TRANSFER

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
            cost=Cost(cpu_seconds=round(self.cpu_seconds, 2), model_images=self.model_images),
        )

    def save(self, path: str | Path) -> None:
        """Write the records as sealed JSON, whole or not at all."""
        values = {**self.__dict__, "settings": dict(self.settings), "fooled_by": dict(self.fooled_by)}
        write_json(path, {"schema_version": SCHEMA_VERSION, **values, "seal": seal(values)})

    @classmethod
    def load(cls, path: str | Path) -> Records:
        """Read records; DataError if the file is missing, malformed, edited or of a newer schema."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            version = values.pop("schema_version")
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{path} has schema version {version}; this unfool reads up to {SCHEMA_VERSION}: update unfool"
                )
            if values.pop("seal") != seal(values):
                raise ValueError("its seal does not fit: it was changed after it was written")
            return cls(**values)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; give the JSON that an evaluation wrote") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} does not hold records of an evaluation ({error}); evaluate again") from error
