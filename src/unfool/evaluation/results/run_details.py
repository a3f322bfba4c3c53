"""How results came about: the command, the day, and the machine's device; and a few pictures of an attack."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import JsonObject
from unfool.evaluation.results.details import HOW


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """The ``command`` that gave results, the ``date`` in UTC, and the ``device``; empty where nobody said."""

    command: str = ""
    date: str = ""
    device: str = ""

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunDetails:
        """The details that `to_json` gave."""
        return cls(**{key: str(values.get(key) or "") for key in ("command", "date", "device")})


@dataclass(frozen=True, kw_only=True)
class AttackPicture:
    """One image before and after an attack, as PNG files; ``label`` is the true class, ``fooled`` the outcome."""

    attack: str
    label: str
    fooled: bool
    clean: bytes
    adversarial: bytes

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, the files in base64."""
        files = {key: base64.b64encode(getattr(self, key)).decode("ascii") for key in ("clean", "adversarial")}
        return {"attack": self.attack, "label": self.label, "fooled": self.fooled, **files}

    @classmethod
    def from_json(cls, values: Any) -> AttackPicture:
        """The picture that `to_json` gave; DataError for what is none."""
        try:
            files = {key: base64.b64decode(values[key], validate=True) for key in ("clean", "adversarial")}
            attack, label = str(values["attack"]), str(values["label"])
            return cls(attack=attack, label=label, fooled=bool(values["fooled"]), **files)
        except (binascii.Error, ValueError, TypeError, KeyError) as error:
            raise DataError(f"a picture of the results is not whole ({error!r}); {HOW}") from error
