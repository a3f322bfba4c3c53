"""A study's scale as flat paths and values, for tests that compare every field of it with a source's values."""

import dataclasses
from collections.abc import Mapping

from unfool.core.threat import ThreatModel


def flatten(scale, path=""):
    """``{"variants.0.stage.epochs": 100, …}``: every field of nested dataclasses, mappings, tuples and lists.

    A threat model is its text, and ``minutes`` of 0, which limit nothing, are left out. An empty mapping, tuple or list
    is a value of its own, so that no field can be missing from the result.
    """
    if isinstance(scale, ThreatModel):
        return {path: str(scale)}
    if dataclasses.is_dataclass(scale):
        parts = {field.name: getattr(scale, field.name) for field in dataclasses.fields(scale)}
        if parts.get("minutes") == 0:
            del parts["minutes"]
    elif isinstance(scale, Mapping):
        parts = {str(key): value for key, value in scale.items()}
    elif isinstance(scale, (tuple, list)):
        parts = {str(place): value for place, value in enumerate(scale)}
    else:
        return {path: scale}
    fields = {}
    for name, value in parts.items():
        fields |= flatten(value, f"{path}.{name}" if path else name)
    return fields or {path: scale}
