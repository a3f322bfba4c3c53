"""A model card as a value: what a network is for, how it was trained, and the figures that can be checked again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import read_bytes
from unfool.core.config import build, configured, to_plain
from unfool.core.errors import DataError, SpecError
from unfool.core.files import write_json

CARD = "card.json"
"""The name of a card in the folder of its network."""
RESULTS = {"clean": "clean.json", "attacked": "attacked.json"}
"""The evaluations beside a card, by the figure that was taken from them."""
SCHEMA_VERSION = 1
MOST_WEIGHTS = 1 << 30
"""Bytes of the largest weights file whose hash is taken: 1 GiB."""


@configured
class Words:
    """What nobody can measure: said by whoever publishes the network."""

    summary: str = Field(default="", description="What the network is, in a sentence.")
    intended_use: str = Field(default="", description="What it is good for.")
    limits: tuple[str, ...] = Field(default=(), description="What it is not good for, a sentence each.")
    licence: str = Field(default="mit", description="Licence of the weights, as the hub abbreviates it.")


@configured
class Figure:
    """An accuracy with its 95 % interval, and the command that measured it."""

    attack: str = Field(description="Attack as results name it; none: clean images.")
    threat: str | None = Field(default=None, description="Threat model of the attack.")
    split: str = Field(default="test", description="Split that the images are drawn from.")
    accuracy: float = Field(ge=0, le=1, description="Share of the images that are classified correctly.")
    low: float = Field(ge=0, le=1, description="Lower end of the interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the interval.")
    images: int = Field(ge=1, description="Images that were evaluated.")
    available: int | None = Field(default=None, description="Images of the whole split; None where nobody counted.")
    command: str = Field(default="", description="Command that measured it.")
    date: str = Field(default="", description="When, in UTC.")

    @property
    def words(self) -> str:
        """The accuracy and its interval in percent."""
        return f"{100 * self.accuracy:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@configured
class Training:
    """How the weights came about."""

    command: str = Field(description="Command that trains the network again.")
    recipe_sha256: str = Field(description="SHA-256 of config.yaml, the recipe.")
    images: str | None = Field(default=None, description="Fingerprint of the training images and labels.")
    cpu_seconds: float = Field(default=0.0, ge=0, description="CPU time of the training.")
    model_images: int = Field(default=0, ge=0, description="Images that went through the network, attacks included.")


@configured
class Card:
    """A network's card. Whoever has its folder can check every figure on it (`unfool verify`).

    Raises:
        SpecError: Unknown keys, or values that are not allowed.
    """

    name: str = Field(min_length=1, max_length=200, description="Name of the network.")
    words: Words = Field(default_factory=Words, description="What it is for, and what not.")
    data: str = Field(description="Data set, by its name in the catalog.")
    test_images: str | None = Field(default=None, description="Hash of the test images' pixels and labels.")
    trunk: str = Field(description="Trunk with its settings.")
    heads: tuple[str, ...] = Field(description="Heads; the first gives the logits.")
    parameters: int = Field(ge=1, description="Trained numbers.")
    weights_bytes: int = Field(ge=1, description="Bytes of the weights file.")
    weights_sha256: str = Field(description="SHA-256 of the weights file.")
    identity: str = Field(description="Identity of the network in results.")
    training: Training = Field(description="How the weights came about.")
    clean: Figure | None = Field(default=None, description="Accuracy on clean images.")
    attacked: Figure | None = Field(default=None, description="Accuracy under attack.")
    reliability: str = Field(default="", description="The reliability report's word on the accuracy under attack.")
    probes: tuple[tuple[float, ...], ...] = Field(default=(), description="Logits of generated images.")
    probe_side: int = Field(default=32, ge=1, le=1024, description="Pixels a side of the generated images.")
    date: str = Field(default="", description="When the card was written, in UTC.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions that the figures were measured with.")
    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of the card's format.")

    @field_validator("schema_version")
    @classmethod
    def _readable(cls, version: int, info: ValidationInfo) -> int:
        if not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(f"this unfool reads cards up to schema version {SCHEMA_VERSION}: update unfool")
        return version

    def save(self, path: str | Path) -> None:
        """Write the card as JSON, whole or not at all; raises OutputError."""
        write_json(path, to_plain(self))

    @classmethod
    def load(cls, path: str | Path) -> Card:
        """Read a card; DataError for one that is missing or malformed, SpecError for a newer one."""
        values = read_object(path, "give zoo:NAME, or the folder of a network that has a card (unfool push writes one)")
        version = values.get("schema_version")
        # First, since a newer card may well hold keys that this program does not know.
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise SpecError(f"{path} has schema version {version}; this unfool reads up to {SCHEMA_VERSION}: update it")
        try:
            return build(cls, values, str(path))
        except SpecError as error:
            raise DataError(f"{error}; write the card with unfool push") from error


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex; DataError for a file that cannot be read."""
    return hashlib.sha256(read_bytes(path, "give a file of a network's folder", most=MOST_WEIGHTS)).hexdigest()
